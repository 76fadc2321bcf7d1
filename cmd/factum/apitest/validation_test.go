package apitest

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// TestOneAnswerNamesEveryWrongField sends every route that takes something faults of different kinds at once: of the path, of headers, of the
// body's form (what is missing, unknown or of another type), and of what the fields say, which the commands know.
func TestOneAnswerNamesEveryWrongField(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	w.administers(mina)
	tenant := w.tenant(mina, "A")
	const (
		of        = "/api/tenants/{tenant_id}"
		users     = of + "/users"
		documents = of + "/documents"
		files     = "/api/files/{tenant_id}/files"
		unknown   = "11111111-1111-4111-8111-111111111111"
	)
	badTag, badKey, badPosition := header{"If-Match": "d3"}, header{"Idempotency-Key": "two words"}, header{"Factum-Min-Position": "-1"}
	tested := map[string]bool{}
	for _, c := range []struct {
		method, route string
		path          map[string]string // what stands for its parameters; tenant_id is the tenant's
		query, body   string
		header        header
		fields        []string
	}{
		{
			method: "POST", route: "/api/auth/register", body: `{"email":"plant","password":"statorstator","last_name":" ","is_admin":true}`, header: badKey,
			fields: []string{"first_name", "last_name", "email", "password", "is_admin", "Idempotency-Key"},
		},
		{
			method: "POST", route: "/api/auth/register", body: `{"first_name":1,"last_name":null,"email":["a"],"password":"a"}`,
			fields: []string{"first_name", "last_name", "email", "password"},
		},
		{method: "POST", route: "/api/auth/login", body: `{"email":"plant","remember":1}`, fields: []string{"email", "password", "remember"}},
		{
			method: "PUT", route: "/api/users/me", body: `{"first_name":" ","last_name":5,"email":"a@plant.example"}`, header: badTag,
			fields: []string{"first_name", "last_name", "email", "If-Match"},
		},
		{method: "PUT", route: "/api/users/me", body: `{"first_name":null}`, fields: []string{"first_name"}},
		{method: "PUT", route: "/api/users/me", body: `{"first_name":null,"last_name":" ","email":null}`, fields: []string{"first_name", "last_name", "email"}},
		{method: "PUT", route: "/api/users/me", body: `{"email":"a@plant.example"}`, fields: []string{"_schema", "email"}},
		{method: "POST", route: "/api/auth/password/change", body: `{"new_password":"statorstator","x":1}`, fields: []string{"current_password", "new_password", "x"}},
		{method: "POST", route: "/api/auth/password/forgot", body: `{"email":"plant","x":1}`, fields: []string{"email", "x"}},
		{method: "POST", route: "/api/auth/password/reset", body: `{"new_password":"statorstator"}`, fields: []string{"token", "new_password"}},
		{method: "POST", route: "/api/auth/verify-email", body: `{"x":1}`, fields: []string{"token", "x"}},
		{method: "GET", route: "/api/users/me/tenants", query: "is_active=maybe", header: badPosition, fields: []string{"is_active", "Factum-Min-Position"}},
		{method: "GET", route: "/api/tenants", query: "is_active=maybe", header: badPosition, fields: []string{"is_active", "Factum-Min-Position"}},
		{method: "POST", route: "/api/tenants", body: `{"name":" ","id":1}`, header: badKey, fields: []string{"name", "id", "Idempotency-Key"}},
		{
			method: "PUT", route: of, body: `{"name":" ","is_active":false,"require_if_match":"yes","x":1}`, header: badTag,
			fields: []string{"name", "is_active", "require_if_match", "x", "If-Match"},
		},
		{method: "PUT", route: of, body: `{"x":1}`, fields: []string{"_schema", "x"}},
		{method: "POST", route: of + "/api-keys", body: `{"name":" ","role":"root","expires_in_days":0,"x":1}`, fields: []string{"name", "role", "expires_in_days", "x"}},
		{method: "GET", route: users, query: "role=root&page=0", header: badPosition, fields: []string{"role", "page", "Factum-Min-Position"}},
		{method: "POST", route: users, body: `{"user_id":"mina","x":1}`, header: badTag, fields: []string{"user_id", "role", "x", "If-Match"}},
		{
			method: "PUT", route: users + "/{user_id}", path: map[string]string{"user_id": "mina"}, body: `{"role":"root"}`, header: badTag,
			fields: []string{"user_id", "role", "If-Match"},
		},
		{method: "DELETE", route: users + "/{user_id}", path: map[string]string{"user_id": "mina"}, header: badTag, fields: []string{"user_id", "If-Match"}},
		{method: "GET", route: of + "/invitations", query: "state=lost&per_page=101", fields: []string{"state", "per_page"}},
		{method: "POST", route: of + "/invitations", body: `{"email":"plant","role":"root","x":1}`, fields: []string{"email", "role", "x"}},
		{
			method: "POST", route: of + "/invitations/{invitation_id}/resend", path: map[string]string{"invitation_id": "1"}, header: badKey,
			fields: []string{"invitation_id", "Idempotency-Key"},
		},
		{method: "POST", route: "/api/invitations/accept", body: `{"x":1}`, header: badKey, fields: []string{"token", "x", "Idempotency-Key"}},
		{method: "POST", route: "/api/invitations/decline", body: `{"token":5,"x":1}`, fields: []string{"token", "x"}},
		{
			method: "GET", route: documents, query: "q=---&metadata=a&filename=%ff&mime_type=%00&cursor=x&user_id=mina&created_after=today&page=0&sort=size", header: badPosition,
			fields: []string{"q", "metadata", "filename", "mime_type", "cursor", "user_id", "created_after", "page", "sort", "Factum-Min-Position"},
		},
		{method: "GET", route: documents + "/{document_id}", path: map[string]string{"document_id": "1"}, header: badPosition, fields: []string{"document_id", "Factum-Min-Position"}},
		{method: "GET", route: documents + "/{document_id}/download-url", path: map[string]string{"document_id": "1"}, query: "expires_in=1", fields: []string{"document_id", "expires_in"}},
		{
			method: "PUT", route: documents + "/{document_id}", path: map[string]string{"document_id": "1"}, header: badTag,
			body:   `{"filename":"a/b","mime_type":"pdf","metadata":{"-":"x"},"x":1}`,
			fields: []string{"document_id", "filename", "mime_type", "metadata", "x", "If-Match"},
		},
		{
			method: "PUT", route: documents + "/{document_id}", path: map[string]string{"document_id": unknown}, body: `{"filename":" ","mime_type":7,"metadata":{"a":1,"-":"x"}}`,
			fields: []string{"filename", "mime_type", "metadata", "metadata.a"},
		},
		{method: "PUT", route: documents + "/{document_id}", path: map[string]string{"document_id": unknown}, body: `{"x":1}`, fields: []string{"_schema", "x"}},
		{
			method: "POST", route: documents + "/bulk/delete", body: `{"document_ids":["1","` + unknown + `","2"],"x":1}`, header: badKey,
			fields: []string{"document_ids[0]", "document_ids[2]", "x", "Idempotency-Key"},
		},
		{method: "POST", route: documents + "/bulk/metadata", body: `{"document_ids":["1"],"metadata":{"-":"x"},"x":1}`, fields: []string{"document_ids[0]", "metadata", "x"}},
		{method: "POST", route: documents + "/bulk/metadata", body: `{"document_ids":["1"],"metadata":{}}`, fields: []string{"document_ids[0]", "metadata"}},
		{method: "GET", route: files, query: "cursor=x&orphaned=maybe&timestamp=late&sort=name&per_page=0&created_before=1", fields: []string{"cursor", "orphaned", "timestamp", "sort", "per_page", "created_before"}},
		{method: "GET", route: files + "/{file_id}", path: map[string]string{"file_id": "1"}, header: badPosition, fields: []string{"file_id", "Factum-Min-Position"}},
		{method: "DELETE", route: files + "/{file_id}", path: map[string]string{"file_id": "1"}, header: badTag, fields: []string{"file_id", "If-Match"}},
		{method: "POST", route: files + "/bulk/delete", body: `{"file_ids":[1],"x":1}`, fields: []string{"file_ids[0]", "x"}},
		{method: "GET", route: of + "/audit", query: "order=random&page=x", header: badPosition, fields: []string{"order", "page", "Factum-Min-Position"}},
		{method: "GET", route: consumersPath, query: "projection=D&tenant=1", fields: []string{"projection", "tenant"}},
		{method: "POST", route: consumersPath + "/{projection}/pause", path: map[string]string{"projection": "D"}, body: `{"x":1}`, fields: []string{"projection", "tenant", "x"}},
		{method: "POST", route: consumersPath + "/{projection}/resume", path: map[string]string{"projection": "D"}, body: `{"tenant":1}`, fields: []string{"projection", "tenant"}},
		{
			method: "POST", route: consumersPath + "/{projection}/retry", path: map[string]string{"projection": "D"}, body: `{"stream":"file-` + strings.Repeat("x", 300) + `"}`,
			fields: []string{"projection", "tenant", "stream"},
		},
		{
			method: "POST", route: consumersPath + "/{projection}/skip", path: map[string]string{"projection": "documents"}, header: badKey,
			body:   `{"tenant":"1","stream":"file-` + strings.Repeat("x", 300) + `","reason":" ","x":1}`,
			fields: []string{"tenant", "stream", "event", "reason", "x", "Idempotency-Key"},
		},
		{method: "POST", route: "/api/platform/users/{user_id}/deactivate", path: map[string]string{"user_id": "mina"}, header: badKey, fields: []string{"user_id", "Idempotency-Key"}},
		{
			method: "GET", route: "/api/platform/users", query: "sort=name&email=%ff&is_active=maybe&cursor=x&page=0&created_after=1", header: badPosition,
			fields: []string{"sort", "email", "is_active", "cursor", "page", "created_after", "Factum-Min-Position"},
		},
		{
			method: "GET", route: "/api/platform/tenants", query: "sort=email&is_active=maybe&without_admin=maybe&cursor=x&per_page=0", header: badPosition,
			fields: []string{"sort", "is_active", "without_admin", "cursor", "per_page", "Factum-Min-Position"},
		},
		{
			method: "POST", route: "/api/platform/tenants/{tenant_id}/admins", path: map[string]string{"tenant_id": "1"}, body: `{"user_id":"mina","x":1}`, header: badKey,
			fields: []string{"tenant_id", "user_id", "x", "Idempotency-Key"},
		},
		{method: "POST", route: "/api/demo/kafka/produce", body: `{"topic":1,"key":2}`, fields: []string{"topic", "key", "message"}},
	} {
		tested[c.method+" "+c.route] = true
		t.Run(c.method+" "+c.route, func(t *testing.T) {
			inner := *w
			inner.t = t
			path := c.route
			for name, value := range c.path {
				path = strings.Replace(path, "{"+name+"}", value, 1)
			}
			path = strings.Replace(path, "{tenant_id}", tenant, 1)
			if c.query != "" {
				path += "?" + c.query
			}
			kind := ""
			if c.body != "" {
				kind = "application/json"
			}
			inner.names(inner.send(c.method, path, mina.token, kind, strings.NewReader(c.body), c.header), c.fields...)
		})
	}
	exempt := []string{
		"POST " + documents,           // takes a form, below
		"GET /api/demo/kafka/consume", // has one parameter
	}
	for path, item := range described(t).Paths.Map() {
		for method, op := range item.Operations() {
			query := slices.ContainsFunc(op.Parameters, func(p *openapi3.ParameterRef) bool { return p.Value.In == "query" })
			if route := method + " " + path; (op.RequestBody != nil || query) && !tested[route] && !slices.Contains(exempt, route) {
				t.Errorf("%s takes a body or a query and is not in the table", route)
			}
		}
	}
}

// names asserts a refusal for the fields and for no others, with something to read for each.
func (w *world) names(a answer, fields ...string) {
	w.t.Helper()
	code := "BAD_REQUEST"
	if strings.HasPrefix(a.Request.URL.Path, "/api/auth/") {
		code = "validation_error"
	}
	w.problem(a, 400, code)
	details, _ := a.at("error.details").(map[string]any)
	got := slices.Sorted(maps.Keys(details))
	slices.Sort(fields)
	if !slices.Equal(got, fields) {
		w.t.Errorf("%s names %q; want %q", a.body, got, fields)
	}
	for field, messages := range details {
		if list, _ := messages.([]any); len(list) == 0 || slices.Contains(list, any("")) {
			w.t.Errorf("%s says nothing of %s", a.body, field)
		}
	}
}

func TestAFormIsRefusedForAllThatIsWrongWithIt(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	tenant := w.tenant(mina, "A")
	file, empty := part{"file", "a.txt", "text/plain", "content"}, part{"file", "a.txt", "text/plain", ""}
	name, mime, metadata := part{"filename", "", "", "a/b"}, part{"mime_type", "", "", "pdf"}, part{"metadata", "", "", `{"-":"x"}`}
	for _, c := range []struct {
		name   string
		parts  []part
		fields []string
	}{
		{"all before the file", []part{name, mime, metadata, file}, []string{"filename", "mime_type", "metadata"}},
		{"all behind the file", []part{file, name, mime, metadata}, []string{"filename", "mime_type", "metadata"}},
		{"no file", []part{name, mime, {"metadata", "", "", `[]`}}, []string{"file", "filename", "mime_type", "metadata"}},
		{"nothing but what is unknown", []part{{"x", "", "", "y"}}, []string{"file"}},
		{"an empty file", []part{empty, name, {"metadata", "", "", `{`}}, []string{"file", "filename", "metadata"}},
		{"two files", []part{file, name, file, mime}, []string{"file", "filename", "mime_type"}},
		{
			"too long fields",
			[]part{{"filename", "", "", strings.Repeat("x", 40<<10)}, file, {"metadata", "", "", strings.Repeat("x", 40<<10)}, mime},
			[]string{"filename", "metadata", "mime_type"},
		},
		{"metadata that give a key twice", []part{file, mime, {"metadata", "", "", `{"a":"1","a":"2"}`}}, []string{"metadata", "mime_type"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inner := *w
			inner.t = t
			inner.names(inner.upload(tenant, mina, c.parts...), c.fields...)
		})
	}
	// A form is not read when a header is wrong already: it may have 100 MiB.
	kind, body := w.form(name, file)
	w.names(w.send("POST", "/api/tenants/"+tenant+"/documents", mina.token, kind, body, header{"Idempotency-Key": "two words"}), "Idempotency-Key")
}

// TestWhatComesBeforeTheFields has faults that are told alone, and why is in docs/errors.md.
func TestWhatComesBeforeTheFields(t *testing.T) {
	w := newWorld(t)
	mina, other := w.person("Mina"), w.person("Other")
	tenant := w.tenant(mina, "A")
	path := "/api/tenants/" + tenant
	const bad = `{"name":" ","x":1}`
	w.problem(w.send("PUT", path, "", jsonType, strings.NewReader(bad)), 401, "UNAUTHORIZED")
	w.problem(w.send("PUT", path, other.token, jsonType, strings.NewReader(bad)), 404, "NOT_FOUND")
	w.problem(w.send("PUT", path, mina.token, "text/plain", strings.NewReader(bad)), 415, "UNSUPPORTED_MEDIA_TYPE")
	w.names(w.send("PUT", "/api/tenants/1", mina.token, jsonType, strings.NewReader(bad)), "tenant_id")
	// A body that is no object, or that has a key twice, means nothing for certain; what is outside of it does.
	tag := header{"If-Match": "d3"}
	w.names(w.send("PUT", path, mina.token, jsonType, strings.NewReader(`[]`), tag), "_schema", "If-Match")
	w.names(w.send("PUT", path, mina.token, jsonType, strings.NewReader(`{"name":" "`), tag), "_schema", "If-Match")
	w.names(w.send("PUT", path, mina.token, jsonType, strings.NewReader(`{"name":" ","x":1,"name":"","x":2}`), tag), "name", "x", "If-Match")
	w.names(w.send("PUT", path, mina.token, jsonType, strings.NewReader(``), tag), "If-Match")
	// The words that have to do with a person are known to the command alone.
	w.names(w.call("POST", "/api/auth/password/change", mina.token, map[string]any{"current_password": password, "new_password": "mina.okoro@plant.example"}), "new_password")
}
