package apitest

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

var (
	fileBasic = []string{"id", "md5_hash", "s3_path", "file_size", "created_at"}
	fileFull  = append([]string{"sha256_hash", "file_metadata", "updated_at", "created_by", "document_count", "is_orphaned"}, fileBasic...)
)

func TestR28ToR30Files(t *testing.T) {
	w := newWorld(t)
	admin, user, stranger := w.person("Admin"), w.person("User"), w.person("Stranger")
	tenant := w.tenant(admin, "A")
	w.grant(tenant, user, "user")
	files, documents := "/api/files/"+tenant+"/files", "/api/tenants/"+tenant+"/documents"
	const unknown = "11111111-1111-4111-8111-111111111111"

	up := w.want(w.upload(tenant, admin, part{"file", "a.txt", "text/plain", "content"}), 201)
	twin := w.want(w.upload(tenant, user, part{"file", "b.txt", "text/plain", "content"}), 201)
	id, key := up.text("data.file_id"), up.text("data.file.s3_path")
	if twin.text("data.file_id") != id {
		t.Fatalf("equal contents are two files: %s %s", up.body, twin.body)
	}
	list := w.envelope(w.call("GET", files, user.token, nil), 200, true)
	w.fields(list, "data", "files", "pagination", "stats")
	w.fields(list, "data.files.0", fileBasic...)
	w.fields(list, "data.stats", "total_files", "total_storage_bytes", "total_storage_mb", "orphaned_files", "orphaned_storage_bytes")
	full := w.want(w.call("GET", files+"?include_stats=true", user.token, nil), 200)
	w.fields(full, "data.files.0", fileFull...)
	if full.at("data.files.0.document_count") != 2.0 || full.at("data.files.0.is_orphaned") != false || full.at("data.stats.total_storage_bytes") != 7.0 {
		t.Errorf("%s", full.body)
	}
	one := w.envelope(w.call("GET", files+"/"+id, user.token, nil), 200, true)
	w.fields(one, "data", append([]string{"documents"}, fileFull...)...)
	w.fields(one, "data.documents.0", "id", "filename", "mime_type", "created_at")

	w.problem(w.call("DELETE", files+"/"+id, admin.token, nil), 400, "BAD_REQUEST") // documents refer to it
	for _, d := range []string{up.text("data.id"), twin.text("data.id")} {
		w.want(w.call("DELETE", documents+"/"+d, admin.token, nil), 200)
	}
	w.problem(w.call("DELETE", files+"/"+id, user.token, nil), 403, "FORBIDDEN")
	w.problem(w.call("DELETE", files+"/"+id, stranger.token, nil), 404, "NOT_FOUND")
	w.problem(w.call("DELETE", files+"/"+unknown, admin.token, nil), 404, "NOT_FOUND")
	gone := w.envelope(w.call("DELETE", files+"/"+id, admin.token, nil, header{"Idempotency-Key": "gone"}), 200, true)
	w.fields(gone, "data", "file_id", "md5_hash", "freed_storage_bytes", "freed_storage_mb")
	if gone.text("data.md5_hash") != up.text("data.file.md5_hash") || gone.at("data.freed_storage_bytes") != 7.0 || gone.at("data.freed_storage_mb") != 0.0 {
		t.Errorf("%s", gone.body)
	}
	if _, err := os.Stat(w.objects.path(key)); !os.IsNotExist(err) {
		t.Error("the object of the deleted file is there:", err)
	}
	w.problem(w.call("GET", files+"/"+id, user.token, nil), 404, "NOT_FOUND")
	w.problem(w.call("DELETE", files+"/"+id, admin.token, nil), 404, "NOT_FOUND")

	// The content comes again, as another object; repeating the deletion does not touch it.
	back := w.want(w.upload(tenant, user, part{"file", "c.txt", "text/plain", "content"}), 201)
	if back.text("data.file_id") != id || back.text("data.file.s3_path") == key {
		t.Errorf("%s", back.body)
	}
	w.want(w.call("DELETE", files+"/"+id, admin.token, nil, header{"Idempotency-Key": "gone"}), 200)
	if down := w.want(w.call("GET", documents+"/"+back.text("data.id")+"/download", user.token, nil), 200); string(down.body) != "content" {
		t.Errorf("%q", down.body)
	}
	w.stamp(tenant, id)
	if a := w.want(w.call("GET", files+"?timestamp=success", user.token, nil), 200); a.at("data.pagination.total") != 1.0 {
		t.Errorf("%s", a.body)
	}
}

func TestOrphansAreListedAndDeleted(t *testing.T) {
	w := newWorld(t)
	admin, user := w.person("Admin"), w.person("User")
	tenant := w.tenant(admin, "A")
	w.grant(tenant, user, "user")
	files, documents := "/api/files/"+tenant+"/files", "/api/tenants/"+tenant+"/documents"
	var orphans []string
	kept := ""
	for i := range 5 {
		up := w.want(w.upload(tenant, admin, part{"file", "a.txt", "text/plain", strings.Repeat("x", 10-i)}), 201)
		if i == 4 {
			kept = up.text("data.file_id")
			continue
		}
		orphans = append(orphans, up.text("data.file_id"))
		w.want(w.call("DELETE", documents+"/"+up.text("data.id"), admin.token, nil), 200)
	}
	ids := func(a answer) []string {
		var out []string
		for i := range a.at("data.files").([]any) {
			out = append(out, a.text(fmt.Sprintf("data.files.%d.id", i)))
		}
		return out
	}
	list := w.want(w.call("GET", files+"?orphaned=true&sort=-file_size&include_stats=true", user.token, nil), 200)
	if got := ids(list); !slices.Equal(got, orphans) || list.at("data.stats.orphaned_files") != 4.0 || list.at("data.stats.orphaned_storage_bytes") != 34.0 ||
		list.at("data.stats.total_files") != 5.0 || list.at("data.files.0.is_orphaned") != true {
		t.Errorf("%v, want %v: %s", got, orphans, list.body)
	}
	if a := w.want(w.call("GET", files+"?orphaned=false", user.token, nil), 200); !slices.Equal(ids(a), []string{kept}) || a.at("data.pagination.total") != 1.0 {
		t.Errorf("%s", a.body)
	}
	for _, sort := range []string{"created_at", "-created_at", "file_size", "-file_size"} {
		whole := ids(w.want(w.call("GET", files+"?sort="+sort, user.token, nil), 200))
		var got []string
		next := ""
		for range 3 {
			a := w.want(w.call("GET", files+"?per_page=2&sort="+sort+"&cursor="+next, user.token, nil), 200)
			got = append(got, ids(a)...)
			next = a.text("data.pagination.next_cursor")
		}
		if !slices.Equal(got, whole) || len(got) != 5 || next != "" {
			t.Errorf("%s: %v, want %v", sort, got, whole)
		}
	}
	for _, bad := range []string{"orphaned=yes", "sort=id", "timestamp=done", "cursor=x", "page=0", "created_after=x"} {
		w.problem(w.call("GET", files+"?"+bad, user.token, nil), 400, "BAD_REQUEST")
	}

	body := map[string]any{"file_ids": append([]string{kept}, orphans...)}
	w.problem(w.call("POST", files+"/bulk/delete", user.token, body), 403, "FORBIDDEN")
	a := w.envelope(w.call("POST", files+"/bulk/delete", admin.token, body), 200, true)
	if a.at("data.succeeded") != 4.0 || a.at("data.failed") != 1.0 || a.text("data.results.0.error.code") != "BAD_REQUEST" {
		t.Errorf("%s", a.body)
	}
	if left := w.want(w.call("GET", files, user.token, nil), 200); !slices.Equal(ids(left), []string{kept}) || left.at("data.stats.orphaned_files") != 0.0 {
		t.Errorf("%s", left.body)
	}
	objects, err := os.ReadDir(string(w.objects))
	if err != nil || len(objects) != 1 {
		t.Errorf("%d objects are left, %v", len(objects), err)
	}
	for _, wrong := range []map[string]any{{}, {"file_ids": []string{}}, {"file_ids": []string{"x"}}, {"ids": []string{kept}}} {
		w.problem(w.call("POST", files+"/bulk/delete", admin.token, wrong), 400, "BAD_REQUEST")
	}
}
