package apitest

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

const (
	registerPath, loginPath, tenantsPath = "/api/auth/register", "/api/auth/login", "/api/tenants"
	jsonType                             = "application/json"
)

func TestBadJSONIsRefusedInTheOneErrorForm(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	good := `"first_name":"A","last_name":"B","email":"a@plant.example","password":"stator coil 7"`
	for _, c := range []struct {
		name, path, kind, body string
		status                 int
		code, field            string // field of details; "" does not look
	}{
		{"no body", registerPath, jsonType, "", 400, "bad_request", ""},
		{"malformed", registerPath, jsonType, "{", 400, "bad_request", ""},
		{"two values", registerPath, jsonType, "{" + good + "}{}", 400, "bad_request", ""},
		{"invalid UTF-8", registerPath, jsonType, "{\"first_name\":\"\xff\"," + good[17:] + "}", 400, "bad_request", ""},
		{"an array", registerPath, jsonType, "[]", 400, "validation_error", "_schema"},
		{"null", registerPath, jsonType, "null", 400, "validation_error", ""},
		{"nothing in it", registerPath, jsonType, "{}", 400, "validation_error", "password"},
		{"unknown field", registerPath, jsonType, "{" + good + `,"is_admin":true}`, 400, "validation_error", "is_admin"},
		{"wrong case", registerPath, jsonType, "{" + strings.Replace(good, "email", "Email", 1) + "}", 400, "validation_error", "Email"},
		{"number for text", registerPath, jsonType, "{" + strings.Replace(good, `"A"`, "1", 1) + "}", 400, "validation_error", "first_name"},
		{"null for text", registerPath, jsonType, "{" + strings.Replace(good, `"A"`, "null", 1) + "}", 400, "validation_error", "first_name"},
		{"blank name", registerPath, jsonType, "{" + strings.Replace(good, `"A"`, `"  "`, 1) + "}", 400, "validation_error", "first_name"},
		{"null byte", registerPath, jsonType, "{" + strings.Replace(good, `"A"`, `"A\u0000"`, 1) + "}", 400, "validation_error", "first_name"},
		{"long name", registerPath, jsonType, "{" + strings.Replace(good, `"A"`, `"`+strings.Repeat("ä", 101)+`"`, 1) + "}", 400, "validation_error", "first_name"},
		{"no address", registerPath, jsonType, "{" + strings.Replace(good, "a@plant.example", "plant", 1) + "}", 400, "validation_error", "email"},
		{"short password", registerPath, jsonType, "{" + strings.Replace(good, "stator coil 7", "stator c 7", 1) + "}", 400, "validation_error", "password"},
		{"weak password", registerPath, jsonType, "{" + strings.Replace(good, "stator coil 7", "statorstator", 1) + "}", 400, "validation_error", "password"},
		{"common password", registerPath, jsonType, "{" + strings.Replace(good, "stator coil 7", "Telechargement", 1) + "}", 400, "validation_error", "password"},
		{"password that holds the address", registerPath, jsonType, "{" + strings.Replace(good, "stator coil 7", "a@plant.example", 1) + "}", 400, "validation_error", "password"},
		{"no content type", registerPath, "", "{" + good + "}", 415, "unsupported_media_type", ""},
		{"a form", registerPath, "application/x-www-form-urlencoded", "a=b", 415, "unsupported_media_type", ""},
		{"another charset", registerPath, "application/json; charset=utf-16", "{" + good + "}", 415, "unsupported_media_type", ""},
		{"oversize", registerPath, jsonType, `{"first_name":"` + strings.Repeat("x", 1<<20) + `"}`, 413, "payload_too_large", ""},
		{"no password", loginPath, jsonType, `{"email":"a@plant.example"}`, 400, "validation_error", "password"},
		{"wrong type", loginPath, jsonType, `{"email":{},"password":"x"}`, 400, "validation_error", "email"},
		{"malformed", tenantsPath, jsonType, "{", 400, "BAD_REQUEST", ""},
		{"no body", tenantsPath, jsonType, "", 400, "BAD_REQUEST", ""},
		{"no name", tenantsPath, jsonType, "{}", 400, "BAD_REQUEST", "name"},
		{"blank name", tenantsPath, jsonType, `{"name":" "}`, 400, "BAD_REQUEST", "name"},
		{"null byte", tenantsPath, jsonType, `{"name":"a\u0000b"}`, 400, "BAD_REQUEST", "name"},
		{"nothing to be seen", tenantsPath, jsonType, `{"name":"\u200b \u00a0"}`, 400, "BAD_REQUEST", "name"},
		{"another direction", tenantsPath, jsonType, `{"name":"a\u202eb"}`, 400, "BAD_REQUEST", "name"},
		{"long name", tenantsPath, jsonType, `{"name":"` + strings.Repeat("x", 256) + `"}`, 400, "BAD_REQUEST", "name"},
		{"unknown field", tenantsPath, jsonType, `{"name":"a","id":"b"}`, 400, "BAD_REQUEST", "id"},
		{"text", tenantsPath, "text/plain", `{"name":"a"}`, 415, "UNSUPPORTED_MEDIA_TYPE", ""},
		{"oversize", tenantsPath, jsonType, `{"name":"` + strings.Repeat("x", 2<<20) + `"}`, 413, "PAYLOAD_TOO_LARGE", ""},
	} {
		t.Run(c.path+" "+c.name, func(t *testing.T) {
			inner := *w
			inner.t = t
			a := inner.send("POST", c.path, mina.token, c.kind, strings.NewReader(c.body))
			inner.problem(a, c.status, c.code)
			details, _ := a.at("error.details").(map[string]any)
			if c.field != "" && details[c.field] == nil {
				t.Errorf("details %v do not name %q", details, c.field)
			}
			if bytes.Contains(a.body, []byte("stator")) {
				t.Errorf("the password comes back: %s", a.body)
			}
		})
	}
	if a := w.want(w.call("GET", "/api/tenants", mina.token, nil), 200); len(a.at("data").([]any)) != 0 {
		t.Errorf("a refused request left a tenant: %s", a.body)
	}
}

func TestCompressedBodiesAreRefusedAsSuch(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	tenant := w.tenant(mina, "A")
	upload := "/api/tenants/" + tenant + "/documents"
	kind, form := w.form(part{"file", "a.txt", "text/plain", "content"})
	for _, c := range []struct{ path, kind, body string }{{tenantsPath, jsonType, `{"name":"B"}`}, {upload, kind, form.String()}} {
		for _, coding := range []string{"gzip", "br", "identity, gzip", "nonsense"} {
			a := w.send("POST", c.path, mina.token, c.kind, strings.NewReader(c.body), header{"Content-Encoding": coding})
			w.problem(a, 415, "UNSUPPORTED_MEDIA_TYPE")
			if !strings.Contains(a.text("detail"), "Content-Encoding") {
				t.Errorf("%s: %s", coding, a.body)
			}
		}
		w.want(w.send("POST", c.path, mina.token, c.kind, strings.NewReader(c.body), header{"Content-Encoding": "identity"}), 201)
	}
	w.problem(w.send("POST", upload, "", kind, strings.NewReader(form.String()), header{"Content-Encoding": "gzip"}), 401, "UNAUTHORIZED")
}

// TestABodyThatIsDeclaredTooLargeIsNotWaitedFor sends the first byte of a body, which the server waits for before it knows the route.
func TestABodyThatIsDeclaredTooLargeIsNotWaitedFor(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	body, rest := io.Pipe()
	defer func() { _ = rest.Close() }()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+tenantsPath, io.MultiReader(strings.NewReader("{"), body))
	if err != nil {
		t.Fatal(err)
	}
	request.ContentLength = 1<<20 + 1
	request.Header.Set("Content-Type", jsonType)
	request.Header.Set("Authorization", "Bearer "+mina.token)
	began := time.Now()
	response, err := w.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d after %s", response.StatusCode, time.Since(began))
	}
}

func TestBadUploadsAreRefusedAndLeaveNothing(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	tenant := w.tenant(mina, "A")
	path := "/api/tenants/" + tenant + "/documents"
	file := part{"file", "a.txt", "text/plain", "content"}
	before := w.settle(tenant)
	for name, parts := range map[string][]part{
		"no file":                {{"filename", "", "", "a.txt"}},
		"empty file":             {{"file", "a.txt", "", ""}},
		"file without a name":    {{"file", "", "", "content"}},
		"two files":              {file, file},
		"path in the name":       {file, {"filename", "", "", "../etc/passwd"}},
		"backslash in the name":  {{"filename", "", "", `a\b`}, file},
		"null byte in the name":  {file, {"filename", "", "", "a\x00b"}},
		"invalid UTF-8":          {file, {"filename", "", "", "a\xffb"}},
		"blank name":             {file, {"filename", "", "", "  "}},
		"long name":              {file, {"filename", "", "", strings.Repeat("x", 256)}},
		"huge field":             {{"filename", "", "", strings.Repeat("x", 1<<20)}, file},
		"dots":                   {file, {"filename", "", "", ".."}},
		"another direction":      {file, {"filename", "", "", "\u202etxt.exe"}},
		"nothing to be seen":     {file, {"filename", "", "", "\u200b"}},
		"bad media type":         {file, {"mime_type", "", "", "pdf"}},
		"media type with params": {file, {"mime_type", "", "", "text/plain; charset=utf-8"}},
	} {
		t.Run(name, func(t *testing.T) {
			inner := *w
			inner.t = t
			inner.problem(inner.upload(tenant, mina, parts...), 400, "BAD_REQUEST")
		})
	}
	kind, body := w.form(file)
	whole := body.String()
	delimiter, _, _ := strings.Cut(whole, "\r\n")
	for name, c := range map[string]struct {
		kind, body string
		status     int
		code       string
	}{
		"JSON":              {"application/json", "{}", 415, "UNSUPPORTED_MEDIA_TYPE"},
		"no type":           {"", whole, 415, "UNSUPPORTED_MEDIA_TYPE"},
		"no boundary":       {"multipart/form-data", whole, 400, "BAD_REQUEST"},
		"wrong boundary":    {"multipart/form-data; boundary=other", whole, 400, "BAD_REQUEST"},
		"empty":             {kind, "", 400, "BAD_REQUEST"},
		"cut in the file":   {kind, whole[:strings.Index(whole, "content")+3], 400, "BAD_REQUEST"},
		"cut at the end":    {kind, whole[:len(whole)-6], 400, "BAD_REQUEST"},
		"not a form at all": {kind, "hello", 400, "BAD_REQUEST"},
		"too many parts":    {kind, strings.Repeat(delimiter+"\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\ny\r\n", 20) + whole, 400, "BAD_REQUEST"},
	} {
		t.Run(name, func(t *testing.T) {
			inner := *w
			inner.t = t
			inner.problem(inner.send("POST", path, mina.token, c.kind, strings.NewReader(c.body)), c.status, c.code)
		})
	}
	if after := w.settle(tenant); after != before {
		t.Errorf("refused uploads left events: the log went from %s to %s", before, after)
	}
}

func TestTheNameOfAnUploadIsBareAndItsPartsComeInAnyOrder(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	tenant := w.tenant(mina, "A")
	for _, c := range []struct {
		name, kind string
		parts      []part
	}{
		{"passwd", "text/plain", []part{{"file", "../../etc/passwd", "text/plain", "1"}}},
		{"b.pdf", "application/octet-stream", []part{{"file", `C:\\a\\b.pdf`, "", "2"}}},
		{"Prüfung ✓.txt", "text/plain", []part{{"file", "Prüfung ✓.txt", "text/plain; charset=utf-8", "3"}}},
		{"behind.txt", "text/x-one", []part{{"file", "a", "", "4"}, {"filename", "", "", " behind.txt "}, {"mime_type", "", "", "Text/X-One"}}},
		{"before.txt", "text/x-two", []part{{"mime_type", "", "", "text/x-two"}, {"filename", "", "", "before.txt"}, {"file", "", "", "5"}, {"unknown", "", "", "x"}}},
	} {
		a := w.want(w.upload(tenant, mina, c.parts...), 201)
		if a.text("data.filename") != c.name || a.text("data.mime_type") != c.kind {
			t.Errorf("%s; want %q %q", a.body, c.name, c.kind)
		}
		d := w.want(w.call("GET", "/api/tenants/"+tenant+"/documents/"+a.text("data.id")+"/download", mina.token, nil), 200)
		if got := d.Header.Get("Content-Disposition"); strings.ContainsFunc(got, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
			t.Errorf("Content-Disposition %q holds other than printable ASCII", got)
		}
	}
	a := w.want(w.upload(tenant, mina, part{"file", "a", "", "6"}, part{"filename", "", "", `a"; filename="evil.exe`}), 201)
	d := w.want(w.call("GET", "/api/tenants/"+tenant+"/documents/"+a.text("data.id")+"/download", mina.token, nil), 200)
	if got := d.Header.Get("Content-Disposition"); strings.Count(got, `"`) != 2 {
		t.Errorf("Content-Disposition %q lets the name break out", got)
	}
}

// zeros is an endless content.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// big is a form with a file of n bytes, made as it is sent.
func big(n int64) (kind string, body io.Reader) {
	return "multipart/form-data; boundary=b", io.MultiReader(
		strings.NewReader("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"big.bin\"\r\n\r\n"), io.LimitReader(zeros{}, n), strings.NewReader("\r\n--b--\r\n"))
}
