package apitest

import (
	"bytes"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/infra/httpapi"
)

// Some of these bodies are short to send and dear to read; others are understood in two ways.
func TestBodiesThatReadersUnderstandDifferentlyAreRefused(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, c := range []struct {
		name, path, body string
		status           int
		code, field      string
	}{
		{"a key twice", "/api/tenants", `{"name":"a","name":"b"}`, 400, "BAD_REQUEST", "name"},
		{"a key twice, once escaped", "/api/tenants", `{"name":"a","n\u0061me":"b"}`, 400, "BAD_REQUEST", "name"},
		{"a password twice", "/api/auth/login", `{"email":"a@plant.example","password":"x","password":"y"}`, 400, "validation_error", "password"},
		{"half a surrogate pair", "/api/tenants", `{"name":"\ud83d"}`, 400, "BAD_REQUEST", "_schema"},
		{"nested too deeply", "/api/tenants", `{"name":` + nested(65) + `}`, 400, "BAD_REQUEST", "_schema"},
		{"nested a hundred thousand times", "/api/tenants", `{"name":` + nested(100_000) + `}`, 400, "BAD_REQUEST", "_schema"},
		{"nested and never closed", "/api/auth/login", strings.Repeat(`{"a":`, 100_000), 400, "bad_request", "_schema"},
		{"half a million numbers", "/api/tenants", `{"name":[` + strings.Repeat("0,", 500_000) + `0]}`, 400, "BAD_REQUEST", "name"},
		{"a hundred thousand keys", "/api/auth/login", `{` + manyKeys(60_000) + `}`, 400, "validation_error", "_schema"},
		{"an endless key", "/api/tenants", `{"name":"a","` + strings.Repeat("k", 1_000_000) + `":1}`, 400, "BAD_REQUEST", strings.Repeat("k", 200) + "…"},
		{"a number beyond all types", "/api/tenants", `{"name":1e999999}`, 400, "BAD_REQUEST", "name"},
		{"a number of a million digits", "/api/tenants", `{"name":` + strings.Repeat("9", 1_000_000) + `}`, 400, "BAD_REQUEST", "name"},
		{"a text of a million characters", "/api/tenants", `{"name":"` + strings.Repeat("\u00e9", 500_000) + `"}`, 400, "BAD_REQUEST", "name"},
		{"a byte order mark", "/api/tenants", "\ufeff" + `{"name":"a"}`, 400, "BAD_REQUEST", "_schema"},
		{"another encoding", "/api/tenants", "{\x00\"\x00n\x00a\x00m\x00e\x00\"\x00:\x001\x00}\x00", 400, "BAD_REQUEST", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			inner := *w
			inner.t = t
			grown := peakHeap()
			a := inner.send("POST", c.path, mina.token, "application/json", strings.NewReader(c.body))
			if got := grown(); got > 200<<20 {
				t.Errorf("the heap grew by %d MiB", got>>20)
			}
			inner.problem(a, c.status, c.code)
			if len(a.body) > 32<<10 {
				t.Errorf("the refusal has %d bytes", len(a.body))
			}
			if details, _ := a.at("error.details").(map[string]any); c.field != "" && details[c.field] == nil {
				t.Errorf("%.300s does not name %q", a.body, c.field)
			}
		})
	}
	if list := w.want(w.call("GET", "/api/tenants", mina.token, nil), 200).at("data").([]any); len(list) != 0 {
		t.Errorf("a refused request left a tenant: %v", list)
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"k%d":0,`, i)
	}
	return b.String() + `"email":"a"`
}

// markup are texts that mean something to a database, a browser, a shell or a template, and nothing to us. None has a slash: they are
// names of files too.
var markup = []string{
	`'; DROP TABLE es.events; --`, `" OR ""="`, `Robert'); DELETE FROM documents_g1.documents; --`, `<script>alert(1)`, `"><img src=x onerror=alert(1)>`,
	`{{7*7}} ${jndi:ldap:x} #{1+1}`, "%s%n%d $1 $(id) `id` | ;", `&lt;b&gt; &#39;`, "Ünïcödé 田中 👩‍👩‍👧‍👦 שלום txt", `=HYPERLINK("x")`, `_%`,
}

func TestSQLAndHTMLComeBackAsTheyAre(t *testing.T) {
	w := newWorld(t)
	operator := w.person("Operator")
	w.administers(operator)
	var p person
	var tenant string
	for i, text := range markup {
		same := func(where string, a answer, paths ...string) {
			t.Helper()
			for _, path := range paths {
				if got := a.text(path); got != text {
					t.Errorf("%s of %s became %q; want %q", path, where, got, text)
				}
			}
		}
		if i < 3 { // accounts and tenants are slow to make; the others change these
			email := fmt.Sprintf("o'brien+%d@plant.example", i)
			secret := text + " stator 7 humming"
			made := w.want(w.call("POST", "/api/auth/register", "", map[string]any{"first_name": text, "last_name": text, "email": email, "password": secret}), 201)
			in := w.want(w.call("POST", "/api/auth/login", "", map[string]any{"email": email, "password": secret}, header{"User-Agent": plainText(text)}), 200)
			p = person{id: made.text("user.id"), email: email, token: in.text("access_token")}
			same("a registration", made, "user.first_name", "user.last_name")
			same("a log-in", in, "user.first_name", "user.last_name")
			sessions := w.want(w.call("GET", "/api/auth/sessions", p.token, nil), 200)
			if got := sessions.text("sessions.0.user_agent"); got != plainText(text) {
				t.Errorf("a session's user agent became %q; want %q", got, plainText(text))
			}
			created := w.want(w.call("POST", "/api/tenants", p.token, map[string]any{"name": text}), 201)
			tenant = created.text("data.id")
			same("a new tenant", created, "data.name")
		}
		same("a profile", w.want(w.call("PUT", "/api/users/me", p.token, map[string]any{"first_name": text, "last_name": text}), 200), "data.first_name", "data.last_name")
		same("a profile that is read", w.want(w.call("GET", "/api/users/me", p.token, nil), 200), "data.first_name", "data.last_name")

		base := "/api/tenants/" + tenant
		same("a tenant", w.want(w.call("PUT", base, p.token, map[string]any{"name": text}), 200), "data.name")
		same("a tenant that is read", w.want(w.call("GET", base, p.token, nil), 200), "data.name", "data.members.0.first_name")
		same("a list of tenants", w.want(w.call("GET", "/api/tenants", p.token, nil), 200), "data.0.name")
		same("a list of members", w.want(w.call("GET", base+"/users", p.token, nil), 200), "data.members.0.last_name")
		same("an API key", w.want(w.call("POST", base+"/api-keys", p.token, map[string]any{"name": text, "role": "user"}), 201), "data.name")
		same("a list of API keys", w.want(w.call("GET", base+"/api-keys", p.token, nil), 200), "data.0.name")

		up := w.want(w.upload(tenant, p, part{"filename", "", "", text}, part{"file", "", "", text}), 201)
		document := up.text("data.id")
		same("an upload", up, "data.filename")
		same("a document", w.want(w.call("PUT", base+"/documents/"+document, p.token, map[string]any{"filename": text, "metadata": map[string]any{"note": text}}), 200),
			"data.filename", "data.metadata.note")
		same("a document that is read", w.want(w.call("GET", base+"/documents/"+document, p.token, nil), 200), "data.filename", "data.metadata.note")
		same("a file's documents", w.want(w.call("GET", "/api/files/"+tenant+"/files/"+up.text("data.file_id"), p.token, nil), 200), "data.documents.0.filename")
		same("a URL", w.want(w.call("GET", base+"/documents/"+document+"/download-url", p.token, nil), 200), "data.filename")
		// As a filter it finds what is there, and not everything.
		if i < 3 {
			w.want(w.upload(tenant, p, part{"file", "other.txt", "", "other"}), 201)
		}
		for _, query := range []string{"filename=" + url.QueryEscape(text), "metadata=" + url.QueryEscape("note="+text)} {
			found := w.want(w.call("GET", base+"/documents?"+query, p.token, nil), 200)
			if same("a list by "+query, found, "data.documents.0.filename"); found.at("data.pagination.total") != 1.0 {
				t.Errorf("%s finds %v documents; want 1", query, found.at("data.pagination.total"))
			}
		}
		for _, query := range []string{"q=", "mime_type=", "cursor=", "sort=", "user_id=", "created_after=", "page=", "unknown="} {
			if a := w.call("GET", base+"/documents?"+query+url.QueryEscape(text), p.token, nil); a.StatusCode != 200 && a.StatusCode != 400 {
				t.Errorf("%s%s: %d", query, text, a.StatusCode)
			}
		}

		trail := w.want(w.call("GET", base+"/audit?order=newest", p.token, nil), 200)
		w.want(w.call("POST", consumersPath+"/documents/skip", operator.token, map[string]any{
			"tenant": tenant, "stream": trail.text("data.entries.0.stream"), "event": trail.text("data.entries.0.event_id"), "reason": text,
		}), 200)
		db, err := w.Pool(t.Context(), string(commands.LogOf(tenant)))
		if err != nil {
			t.Fatal(err)
		}
		var reason string
		if err := db.QueryRow(t.Context(), `select data->>'reason' from es.events where type = 'projection.event_skipped' order by pos desc limit 1`).Scan(&reason); err != nil || reason != text {
			t.Errorf("the reason of a skipped event became %q, %v; want %q", reason, err, text)
		}
	}
}

// plainText is what a header can hold of a text.
func plainText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return -1
		}
		return r
	}, s)
}

// TestNoFileNameAddsAHeader offers names in every way in which a client can give one.
func TestNoFileNameAddsAHeader(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	tenant := w.tenant(mina, "A")
	base := "/api/tenants/" + tenant + "/documents"
	good := w.want(w.upload(tenant, mina, part{"file", "a.txt", "", "a"}), 201).text("data.id")
	for _, name := range []string{
		"a\r\nX-Injected: yes", "a\nX-Injected: yes", "a\rX-Injected: yes", "a\x00b", "a\x7fb", "a\u0085b", "..", ".", "", " ", "../../etc/passwd", `..\windows`, "/etc/passwd", `C:\a`, "a/b", strings.Repeat("x", 256), "a\xffb",
	} {
		w.problem(w.upload(tenant, mina, part{"filename", "", "", name}, part{"file", "", "", "x"}), 400, "BAD_REQUEST")
		if strings.ToValidUTF8(name, "") == name { // JSON cannot say the others
			w.problem(w.call("PUT", base+"/"+good, mina.token, map[string]any{"filename": name}), 400, "BAD_REQUEST")
		}
	}
	// A name in the part's own header is made bare instead, as browsers expect. What is left must be a name.
	for _, c := range []struct{ disposition, want string }{
		{`filename="../../etc/passwd"`, "passwd"},
		{`filename="..\\..\\win.ini"`, "win.ini"},
		{`filename="a` + "\t" + `b.txt"`, "ab.txt"},
		{`filename*=UTF-8''a%0d%0aX-Injected%3A%20yes`, "aX-Injected: yes"},
		{`filename*=UTF-8''..%2f..%2fpasswd`, "passwd"},
		{`filename="a%0d%0ab"`, "a%0d%0ab"},
		{`filename=".."`, ""},
		{`filename="a/"`, ""},
		{`filename*=UTF-8''%00`, ""},
		{`filename*=UTF-8''%ff`, ""},
		{`filename="` + strings.Repeat("x", 256) + `"`, ""},
	} {
		body := "--b\r\nContent-Disposition: form-data; name=\"file\"; " + c.disposition + "\r\n\r\nx\r\n--b--\r\n"
		a := w.send("POST", base, mina.token, "multipart/form-data; boundary=b", strings.NewReader(body))
		if c.want == "" {
			w.problem(a, 400, "BAD_REQUEST")
			continue
		}
		if w.want(a, 201); a.text("data.filename") != c.want {
			t.Errorf("%s became %q; want %q", c.disposition, a.text("data.filename"), c.want)
		}
		down := w.want(w.call("GET", base+"/"+a.text("data.id")+"/download", mina.token, nil), 200)
		disposition := down.Header.Get("Content-Disposition")
		if down.Header.Get("X-Injected") != "" || strings.ContainsAny(disposition, "\r\n") || strings.Count(disposition, `"`) != 2 || len(down.Header.Values("Content-Disposition")) != 1 {
			t.Errorf("%s: the answer's header is %v", c.disposition, down.Header)
		}
		if signed := w.want(w.call("GET", base+"/"+a.text("data.id")+"/download-url", mina.token, nil), 200).text("data.download_url"); strings.Contains(signed, "X-Injected: yes") {
			t.Errorf("%s: the URL is %s", c.disposition, signed)
		}
	}
	for name, value := range map[string]string{"X-Request-Id": "a b", "Traceparent": "x", "X-Forwarded-For": "<script>"} {
		a := w.want(w.call("GET", "/health", "", nil, header{name: value}), 200)
		for answered, values := range a.Header {
			if slices.Contains(values, value) {
				t.Errorf("%s: %q comes back in %s", name, value, answered)
			}
		}
	}
}

// TestIdsOfOtherTenantsLookLikeNone compares, for every route, what is answered to the ids of another tenant and to ids that nobody has.
func TestIdsOfOtherTenantsLookLikeNone(t *testing.T) {
	w := newWorld(t)
	mina, other := w.verified(w.person("Mina")), w.person("Other")
	tenant, foreign := w.tenant(mina, "A"), w.tenant(other, "B")
	up := w.want(w.upload(foreign, other, part{"file", "a.txt", "", "a"}), 201)
	w.stamp(foreign, up.text("data.file_id"))
	key := w.want(w.call("POST", "/api/tenants/"+foreign+"/api-keys", other.token, map[string]any{"name": "a", "role": "user"}), 201)
	sessions := w.want(w.call("GET", "/api/auth/sessions", other.token, nil), 200)
	invited := w.want(w.call("POST", "/api/tenants/"+foreign+"/invitations", other.token, map[string]any{"email": "noor@plant.example", "role": "user"}), 201)
	const unknown = "11111111-1111-4111-8111-111111111111"
	theirs := map[string]string{
		"tenant_id": foreign, "document_id": up.text("data.id"), "file_id": up.text("data.file_id"), "user_id": other.id, "api_key_id": key.text("data.id"),
		"session_id": sessions.text("sessions.0.id"), "invitation_id": invited.text("data.id"),
	}
	bodies := map[string]any{
		"PUT /api/tenants/{tenant_id}/documents/{document_id}": map[string]any{"filename": "x.txt"},
		"PUT /api/tenants/{tenant_id}/users/{user_id}":         map[string]any{"role": "user"},
	}
	before := w.settle(foreign)
	compared := 0
	for _, rule := range httpapi.Policy {
		for name, id := range theirs {
			if !strings.Contains(rule.Path, "{"+name+"}") || rule.Access == httpapi.Anyone || rule.Access == httpapi.PlatformAdmin { // those see all
				continue
			}
			ask := func(id string) (answer, []byte) {
				path := strings.Replace(rule.Path, "{"+name+"}", id, 1)
				for other, known := range map[string]string{"tenant_id": tenant, "projection": "documents"} {
					path = strings.Replace(path, "{"+other+"}", known, 1)
				}
				for open := strings.Index(path, "{"); open >= 0; open = strings.Index(path, "{") {
					path = path[:open] + unknown + path[open+strings.Index(path[open:], "}")+1:]
				}
				a := w.call(rule.Method, path, mina.token, bodies[rule.Method+" "+rule.Path])
				return a, bytes.ReplaceAll(a.body, []byte(id), []byte("ID"))
			}
			absent, absentBody := ask("22222222-2222-4222-8222-222222222222")
			found, foundBody := ask(id)
			compared++
			if absent.StatusCode != 404 || found.StatusCode != 404 || !bytes.Equal(absentBody, foundBody) {
				t.Errorf("%s %s tells the %s of another tenant from none: %d %s and %d %s", rule.Method, rule.Path, name, found.StatusCode, foundBody, absent.StatusCode, absentBody)
			}
			for header := range found.Header {
				if absent.Header.Get(header) == "" {
					t.Errorf("%s %s: only the %s of another tenant is answered with the header %s", rule.Method, rule.Path, name, header)
				}
			}
		}
	}
	if compared < 40 {
		t.Errorf("only %d answers were compared", compared)
	}
	// In bulk, each id is answered as if it were alone.
	for _, c := range []struct{ path, field, id string }{
		{"/api/tenants/" + tenant + "/documents/bulk/delete", "document_ids", up.text("data.id")},
		{"/api/files/" + tenant + "/files/bulk/delete", "file_ids", up.text("data.file_id")},
	} {
		a := w.want(w.call("POST", c.path, mina.token, map[string]any{c.field: []string{c.id, unknown}}), 200)
		if a.at("data.results.0.status") != 404.0 || a.at("data.results.1.status") != 404.0 || a.text("data.results.0.error.message") != a.text("data.results.1.error.message") {
			t.Errorf("%s", a.body)
		}
	}
	if after := w.settle(foreign); after != before {
		t.Errorf("the other tenant's log went from %s to %s", before, after)
	}
	w.want(w.call("GET", "/api/users/me", other.token, nil), 200)
}

// TestABodyThatEndsEarlyIsABadRequest announces more than it sends, and says that nothing follows.
func TestABodyThatEndsEarlyIsABadRequest(t *testing.T) {
	w := newWorld(t)
	l := &line{addr: w.url[len("http://"):]}
	defer l.close()
	op := &operation{path: "/api/auth/login"}
	began := time.Now()
	a, err := l.send(&request{op: op, method: "POST", fields: []field{{"Content-Type", "application/json"}}, body: []byte(`{"email":"a`), missing: 100})
	if err != nil || a.status != 400 {
		t.Errorf("%d %v", a.status, err)
	}
	if err := conforms("POST", "/api/auth/login", a.status, a.header, a.body); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}
