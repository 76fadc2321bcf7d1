package apitest

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

var (
	documentFields = []string{"id", "filename", "mime_type", "file_id", "user_id", "created_at", "updated_at", "created_by", "metadata"}
	withFile       = append([]string{"file"}, documentFields...)
)

// named uploads a text under a name and returns the document's id.
func (w *world) named(tenant string, p person, name, content string) string {
	w.t.Helper()
	return w.want(w.upload(tenant, p, part{"file", name, "text/plain", content}), 201).text("data.id")
}

// names are the file names of a list, in order.
func names(a answer) []string {
	var out []string
	list, _ := a.at("data.documents").([]any)
	for _, d := range list {
		name, _ := d.(map[string]any)["filename"].(string)
		out = append(out, name)
	}
	return out
}

func TestR20ToR27Documents(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	tenant := w.tenant(mina, "A")
	base := "/api/tenants/" + tenant + "/documents"
	const unknown = "11111111-1111-4111-8111-111111111111"

	empty := w.envelope(w.call("GET", base, mina.token, nil), 200, true)
	w.fields(empty, "data", "documents", "pagination")
	w.fields(empty, "data.pagination", "page", "per_page", "total", "pages")
	if empty.at("data.pagination.pages") != 0.0 || empty.at("data.pagination.per_page") != 20.0 {
		t.Errorf("%s", empty.body)
	}
	up := w.envelope(w.upload(tenant, mina, part{"file", "pump.pdf", "application/pdf", "%PDF"}), 201, true)
	w.fields(up, "data", withFile...)
	w.fields(up, "data.file", "md5_hash", "s3_path", "file_size", "created_at")
	id := up.text("data.id")
	list := w.envelope(w.call("GET", base, mina.token, nil), 200, true)
	w.fields(list, "data.documents.0", documentFields...)
	one := w.envelope(w.call("GET", base+"/"+id, mina.token, nil), 200, true)
	w.fields(one, "data", withFile...)
	w.problem(w.call("GET", base+"/"+unknown, mina.token, nil), 404, "NOT_FOUND")

	link := w.envelope(w.call("GET", base+"/"+id+"/download-url?expires_in=600", mina.token, nil), 200, true)
	w.fields(link, "data", "download_url", "expires_in", "expires_at", "filename", "mime_type", "file_size")
	signed, err := url.Parse(link.text("data.download_url"))
	if err != nil || signed.Path != "/"+up.text("data.file.s3_path") || signed.Query().Get("life") != "10m0s" || signed.Query().Get("type") != "application/pdf" ||
		signed.Query().Get("disposition") != `attachment; filename="pump.pdf"; filename*=UTF-8''pump.pdf` || link.at("data.expires_in") != 600.0 ||
		link.at("data.file_size") != 4.0 || !micros.MatchString(link.text("data.expires_at")) {
		t.Errorf("%v %s", err, link.body)
	}
	if usual := w.want(w.call("GET", base+"/"+id+"/download-url", mina.token, nil), 200); usual.at("data.expires_in") != 3600.0 {
		t.Errorf("%s", usual.body)
	}
	for _, bad := range []string{"59", "86401", "x", "-1", "99999999999999999999"} {
		w.problem(w.call("GET", base+"/"+id+"/download-url?expires_in="+bad, mina.token, nil), 400, "BAD_REQUEST")
	}
	w.problem(w.call("GET", base+"/"+unknown+"/download-url", mina.token, nil), 404, "NOT_FOUND")

	changed := w.envelope(w.call("PUT", base+"/"+strings.ToUpper(id), mina.token, map[string]any{"filename": " Prüfung 4.txt ", "mime_type": "Text/Plain"}), 200, true)
	w.fields(changed, "data", documentFields...)
	if changed.text("data.filename") != "Prüfung 4.txt" || changed.text("data.mime_type") != "text/plain" || changed.text("data.updated_at") <= changed.text("data.created_at") ||
		changed.text("data.created_at") != up.text("data.created_at") || changed.Header.Get("Factum-Pending") != "" {
		t.Errorf("%s", changed.body)
	}
	read := w.want(w.call("GET", base+"/"+id, mina.token, nil), 200)
	for _, field := range []string{"filename", "mime_type", "updated_at", "user_id", "file_id"} {
		if read.text("data."+field) != changed.text("data."+field) {
			t.Errorf("%s: answered %s, read %s", field, changed.body, read.body)
		}
	}
	for name, wrong := range map[string]map[string]any{
		"nothing": {}, "null": {"filename": nil}, "blank": {"filename": "  "}, "a path": {"filename": "../x"}, "a backslash": {"filename": `a\b`},
		"CRLF": {"filename": "a\r\nSet-Cookie: x"}, "NUL": {"filename": "a\x00"}, "long": {"filename": strings.Repeat("x", 256)}, "no type": {"mime_type": "pdf"},
		"a parameter": {"mime_type": "text/plain; charset=utf-8"}, "another field": {"user_id": unknown}, "metadata as list": {"metadata": []string{"a"}},
		"a number": {"metadata": map[string]any{"a": 1}}, "an object": {"metadata": map[string]any{"a": map[string]any{}}}, "a bad key": {"metadata": map[string]any{"a b": "x"}},
		"a long value": {"metadata": map[string]any{"a": strings.Repeat("x", 1001)}}, "a control character": {"metadata": map[string]any{"a": "x\x00y"}},
	} {
		a := w.call("PUT", base+"/"+id, mina.token, wrong)
		if a.StatusCode != 400 {
			t.Errorf("%s:", name)
		}
		w.problem(a, 400, "BAD_REQUEST")
	}
	w.problem(w.send("PUT", base+"/"+id, mina.token, "text/plain", strings.NewReader("{}")), 415, "UNSUPPORTED_MEDIA_TYPE")
	w.problem(w.call("PUT", base+"/"+unknown, mina.token, map[string]any{"filename": "x"}), 404, "NOT_FOUND")
	after := w.want(w.call("GET", base+"/"+id, mina.token, nil), 200)
	if string(after.body) != string(read.body) {
		t.Errorf("a refused change left something: %s", after.body)
	}

	gone := w.envelope(w.call("DELETE", base+"/"+id, mina.token, nil), 200, true)
	w.fields(gone, "data", "deleted_document_id", "file_orphaned")
	if gone.at("data.file_orphaned") != true || gone.text("data.deleted_document_id") != id {
		t.Errorf("%s", gone.body)
	}
	for _, method := range []string{"GET", "DELETE"} {
		w.problem(w.call(method, base+"/"+id, mina.token, nil), 404, "NOT_FOUND")
	}
	w.problem(w.call("PUT", base+"/"+id, mina.token, map[string]any{"filename": "x"}), 404, "NOT_FOUND")
	w.fields(w.want(w.call("GET", base+"/health", "", nil), 200), "data", "status", "blueprint", "tenant_id")
}

func TestMetadataAreMergedAndFound(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	tenant := w.tenant(mina, "A")
	base := "/api/tenants/" + tenant + "/documents"
	pump, valve := w.named(tenant, mina, "Pump-Report_2024.pdf", "1"), w.named(tenant, mina, "Ventil 7 (Süd).txt", "2")
	put := func(id string, metadata map[string]any) answer {
		t.Helper()
		return w.want(w.call("PUT", base+"/"+id, mina.token, map[string]any{"metadata": metadata}), 200)
	}
	put(pump, map[string]any{"plant": "North Mill", "line": "4", "note": "'; drop table documents; --", "address": "Engstraße"})
	a := put(pump, map[string]any{"line": nil, "shift": "<script>alert(1)</script>"})
	want := map[string]any{"plant": "North Mill", "note": "'; drop table documents; --", "address": "Engstraße", "shift": "<script>alert(1)</script>"}
	if got, _ := a.at("data.metadata").(map[string]any); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	put(valve, map[string]any{"plant": "South"})
	if same := put(valve, map[string]any{"plant": "South"}); same.Header.Get("Factum-Position") != w.settle(tenant) {
		t.Errorf("what was so already was written again: %s", same.Header.Get("Factum-Position"))
	}
	for query, want := range map[string]string{
		"q=pump": "Pump-Report_2024.pdf", "q=PUMP+2024": "Pump-Report_2024.pdf", "q=rep": "Pump-Report_2024.pdf", "q=eport": "", "q=north": "Pump-Report_2024.pdf",
		"q=mill+report": "Pump-Report_2024.pdf", "q=s%C3%BCd": "Ventil 7 (Süd).txt", "q=S%C3%9CD": "Ventil 7 (Süd).txt", "q=ENGSTRASSE": "Pump-Report_2024.pdf", "q=engstra%C3%9Fe": "Pump-Report_2024.pdf",
		"q=south+ventil": "Ventil 7 (Süd).txt", "q=pump+south": "", "q=4": "", "q=7": "Ventil 7 (Süd).txt",
		"q=" + url.QueryEscape("'; drop table documents; --"): "Pump-Report_2024.pdf", "q=" + url.QueryEscape("script|!x & <-> a:*b"): "",
		"filename=UMP-": "Pump-Report_2024.pdf", "filename=%25": "", "filename=2024_": "", "filename=t_2": "Pump-Report_2024.pdf",
		"metadata=plant%3DSouth": "Ventil 7 (Süd).txt", "metadata=plant%3Dsouth": "", "metadata=plant%3DNorth+Mill&metadata=note%3Dx": "",
		"metadata=plant%3DNorth+Mill&metadata=shift%3D" + url.QueryEscape("<script>alert(1)</script>"): "Pump-Report_2024.pdf",
		"mime_type=text/plain&q=pump": "Pump-Report_2024.pdf", "mime_type=TEXT/*&q=pump": "Pump-Report_2024.pdf", "mime_type=image/*": "", "mime_type=te_t/*": "",
		"user_id=" + mina.id + "&q=ventil": "Ventil 7 (Süd).txt", "user_id=" + tenant: "", "created_before=2001-01-01T00:00:00Z": "", "created_after=2001-01-01T00:00:00Z&q=pump": "Pump-Report_2024.pdf",
	} {
		a := w.want(w.call("GET", base+"?"+query, mina.token, nil), 200)
		if got := strings.Join(names(a), " "); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	for _, bad := range []string{
		"q=-", "q=%00", "q=%ff", "q=" + strings.Repeat("x", 501), "filename=%00", "filename=%ff", "metadata=plant", "metadata=%00%3Dx", "mime_type=%ff", "user_id=me", "created_after=yesterday",
		"sort=user_id", "sort=filename%3B", "page=0", "per_page=0", "per_page=101", "page=x", "cursor=x", "cursor=e30",
	} {
		w.problem(w.call("GET", base+"?"+bad, mina.token, nil), 400, "BAD_REQUEST")
	}
}

// TestCursorsSkipAndRepeatNothing goes through a list in every order, also while documents come and go.
func TestCursorsSkipAndRepeatNothing(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	tenant := w.tenant(mina, "A")
	base := "/api/tenants/" + tenant + "/documents"
	var all []string
	for i := range 11 {
		name := fmt.Sprintf("doc %c", 'k'-i)
		if i%4 == 0 {
			name = "same"
		}
		w.named(tenant, mina, name, fmt.Sprint(i))
		all = append(all, name)
	}
	for _, sort := range []string{"created_at", "-created_at", "updated_at", "-updated_at", "filename", "-filename", "mime_type", "-mime_type"} {
		whole := names(w.want(w.call("GET", base+"?per_page=100&sort="+sort, mina.token, nil), 200))
		var got, byPage []string
		next := ""
		for n := 1; n <= 4; n++ {
			a := w.want(w.call("GET", base+"?per_page=3&sort="+sort+"&cursor="+next, mina.token, nil), 200)
			got = append(got, names(a)...)
			if a.at("data.pagination.page") != float64(n) || a.at("data.pagination.total") != 11.0 || a.at("data.pagination.pages") != 4.0 {
				t.Errorf("%s: %s", sort, a.body)
			}
			if next = a.text("data.pagination.next_cursor"); (next == "") != (n == 4) {
				t.Fatalf("%s: part %d has the cursor %q", sort, n, next)
			}
			byPage = append(byPage, names(w.want(w.call("GET", fmt.Sprintf("%s?per_page=3&sort=%s&page=%d", base, sort, n), mina.token, nil), 200))...)
		}
		if !slices.Equal(got, whole) || !slices.Equal(byPage, whole) || len(whole) != 11 {
			t.Errorf("%s: by cursor %v, by page %v, at once %v", sort, got, byPage, whole)
		}
	}
	if newest := names(w.want(w.call("GET", base+"?per_page=100", mina.token, nil), 200)); newest[0] != all[10] || newest[10] != all[0] {
		t.Errorf("%v is not newest first", newest)
	}

	first := w.want(w.call("GET", base+"?per_page=3", mina.token, nil), 200)
	next := first.text("data.pagination.next_cursor")
	w.named(tenant, mina, "came later", "x")
	w.want(w.call("DELETE", base+"/"+first.text("data.documents.2.id"), mina.token, nil), 200) // the very one that the cursor stands at
	second := w.want(w.call("GET", base+"?per_page=3&cursor="+next, mina.token, nil), 200)
	if got, want := names(second), []string{all[7], all[6], all[5]}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, bad := range []string{next + "&sort=filename", next[:len(next)-2], "!" + next, next + "&q=doc", next + "&user_id=" + mina.id, next + "&created_after=2001-01-01T00:00:00Z"} {
		w.problem(w.call("GET", base+"?cursor="+bad, mina.token, nil), 400, "BAD_REQUEST")
	}
	elsewhere := w.tenant(mina, "B")
	for _, other := range []string{"/api/tenants/" + elsewhere + "/documents", "/api/files/" + tenant + "/files"} { // what follows there is no part of this list
		w.problem(w.call("GET", other+"?cursor="+next, mina.token, nil), 400, "BAD_REQUEST")
	}
	filtered := base + "?per_page=1&q=doc&metadata=a%3D&metadata=b%3D"
	for i := range 2 {
		id := w.named(tenant, mina, fmt.Sprint("doc with metadata ", i), fmt.Sprint("metadata ", i))
		w.want(w.call("PUT", base+"/"+id, mina.token, map[string]any{"metadata": map[string]any{"a": "", "b": ""}}), 200)
	}
	next = w.want(w.call("GET", filtered, mina.token, nil), 200).text("data.pagination.next_cursor")
	if rest := w.want(w.call("GET", filtered+"&page=7&cursor="+next, mina.token, nil), 200); !slices.Equal(names(rest), []string{"doc with metadata 0"}) || rest.at("data.pagination.page") != 2.0 {
		t.Errorf("%s", rest.body)
	}
}

func TestAUserChangesWhatItUploaded(t *testing.T) {
	w := newWorld(t)
	admin, user, viewer, stranger := w.person("Admin"), w.person("User"), w.person("Viewer"), w.person("Stranger")
	tenant := w.tenant(admin, "A")
	w.grant(tenant, user, "user")
	w.grant(tenant, viewer, "user")
	base := "/api/tenants/" + tenant + "/documents"
	mine, theirs, once := w.named(tenant, user, "mine", "1"), w.named(tenant, admin, "theirs", "2"), w.named(tenant, viewer, "once", "3")
	w.want(w.call("PUT", "/api/tenants/"+tenant+"/users/"+viewer.id, admin.token, map[string]any{"role": "viewer"}), 200)

	rename := map[string]any{"filename": "renamed"}
	w.problem(w.call("PUT", base+"/"+theirs, user.token, rename), 403, "FORBIDDEN")
	w.problem(w.call("DELETE", base+"/"+theirs, user.token, nil), 403, "FORBIDDEN")
	w.problem(w.call("PUT", base+"/"+once, viewer.token, rename), 403, "FORBIDDEN")
	w.problem(w.call("DELETE", base+"/"+once, viewer.token, nil), 403, "FORBIDDEN")
	w.problem(w.call("PUT", base+"/"+mine, stranger.token, rename), 404, "NOT_FOUND")
	w.want(w.call("PUT", base+"/"+mine, user.token, rename), 200)
	w.want(w.call("PUT", base+"/"+once, admin.token, rename), 200)

	note := map[string]any{"document_ids": []string{mine, theirs, once}, "metadata": map[string]any{"a": "b"}}
	noted := w.envelope(w.call("POST", base+"/bulk/metadata", user.token, note), 200, true)
	w.fields(noted, "data", "results", "succeeded", "failed")
	if noted.at("data.succeeded") != 1.0 || noted.at("data.failed") != 2.0 || noted.at("data.results.0.success") != true || noted.text("data.results.1.error.code") != "FORBIDDEN" ||
		noted.at("data.results.1.status") != 403.0 {
		t.Errorf("%s", noted.body)
	}
	w.fields(noted, "data.results.0", "id", "success", "status")
	w.fields(noted, "data.results.1", "id", "success", "status", "error")
	w.problem(w.call("POST", base+"/bulk/metadata", viewer.token, note), 403, "FORBIDDEN")
	w.problem(w.call("POST", base+"/bulk/delete", viewer.token, map[string]any{"document_ids": []string{once}}), 403, "FORBIDDEN")
	w.problem(w.call("POST", base+"/bulk/delete", stranger.token, map[string]any{"document_ids": []string{mine}}), 404, "NOT_FOUND")
	gone := w.want(w.call("POST", base+"/bulk/delete", user.token, map[string]any{"document_ids": []string{mine, theirs}}), 200)
	if gone.at("data.results.0.success") != true || gone.text("data.results.1.error.code") != "FORBIDDEN" {
		t.Errorf("%s", gone.body)
	}
	if left := names(w.want(w.call("GET", base+"?sort=filename", user.token, nil), 200)); !slices.Equal(left, []string{"renamed", "theirs"}) {
		t.Errorf("%v", left)
	}
	w.want(w.call("DELETE", base+"/"+theirs, admin.token, nil), 200)
}

func TestBulkAnswersForEachItem(t *testing.T) {
	w := newWorld(t)
	admin, other := w.person("Admin"), w.person("Other")
	tenant, elsewhere := w.tenant(admin, "A"), w.tenant(other, "B")
	base := "/api/tenants/" + tenant + "/documents"
	foreign := w.named(elsewhere, other, "foreign", "f")
	const unknown = "dddddddd-dddd-dddd-dddd-dddddddddddd" // of a version that does not exist (RFC 9562 §4.2)
	var ids []string
	for i := range 30 {
		ids = append(ids, w.named(tenant, admin, fmt.Sprint("d", i), fmt.Sprint(i)))
	}
	asked := append([]string{unknown, foreign, strings.ToUpper(ids[0])}, ids...)
	key := header{"Idempotency-Key": "bulk-1"}
	body := map[string]any{"document_ids": asked, "metadata": map[string]any{"plant": "north"}}
	a := w.want(w.call("POST", base+"/bulk/metadata", admin.token, body, key), 200)
	if a.at("data.succeeded") != 30.0 || a.at("data.failed") != 2.0 || a.text("data.results.0.error.code") != "NOT_FOUND" || a.text("data.results.1.error.code") != "NOT_FOUND" ||
		a.text("data.results.2.id") != ids[0] || len(a.at("data.results").([]any)) != 32 || a.Header.Get("Factum-Position") != w.settle(tenant) {
		t.Errorf("%v %s", a.Header, a.body)
	}
	if again := w.want(w.call("POST", base+"/bulk/metadata", admin.token, body, key), 200); string(again.body) != string(a.body) || again.Header.Get("Factum-Position") != a.Header.Get("Factum-Position") {
		t.Errorf("%s\nand then %s", a.body, again.body)
	}
	if found := w.want(w.call("GET", base+"?q=north", admin.token, nil), 200); found.at("data.pagination.total") != 30.0 {
		t.Errorf("%s", found.body)
	}
	full := map[string]any{}
	for i := range 50 {
		full[fmt.Sprint("k", i)] = "x"
	}
	over := w.want(w.call("POST", base+"/bulk/metadata", admin.token, map[string]any{"document_ids": ids[:2], "metadata": full}), 200)
	if over.at("data.failed") != 2.0 || over.text("data.results.0.error.code") != "BAD_REQUEST" {
		t.Errorf("%s", over.body)
	}
	gone := w.want(w.call("POST", base+"/bulk/delete", admin.token, map[string]any{"document_ids": asked}), 200)
	if gone.at("data.succeeded") != 30.0 || gone.at("data.failed") != 2.0 {
		t.Errorf("%s", gone.body)
	}
	if left := w.want(w.call("GET", base, admin.token, nil), 200); left.at("data.pagination.total") != 0.0 {
		t.Errorf("%s", left.body)
	}
	if a := w.want(w.call("GET", "/api/tenants/"+elsewhere+"/documents", other.token, nil), 200); a.at("data.pagination.total") != 1.0 {
		t.Errorf("another tenant's document: %s", a.body)
	}
	many := make([]string, 1001)
	for i := range many {
		many[i] = unknown
	}
	for name, wrong := range map[string]map[string]any{
		"nothing": {}, "none": {"document_ids": []string{}}, "null": {"document_ids": nil}, "too many": {"document_ids": many}, "no UUID": {"document_ids": []string{"x"}},
		"text": {"document_ids": unknown}, "another field": {"document_ids": []string{unknown}, "force": true},
	} {
		for _, path := range []string{base + "/bulk/delete", base + "/bulk/metadata"} {
			if path == base+"/bulk/metadata" && name != "nothing" {
				wrong["metadata"] = map[string]any{"a": "b"}
			} else {
				delete(wrong, "metadata")
			}
			b := w.call("POST", path, admin.token, wrong)
			if b.StatusCode != 400 {
				t.Errorf("%s:", name)
			}
			w.problem(b, 400, "BAD_REQUEST")
		}
	}
	for _, wrong := range []any{nil, map[string]any{}, map[string]any{"a b": "x"}, map[string]any{"a": 1}} {
		w.problem(w.call("POST", base+"/bulk/metadata", admin.token, map[string]any{"document_ids": ids[:1], "metadata": wrong}), 400, "BAD_REQUEST")
	}
}
