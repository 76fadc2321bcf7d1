package apitest

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func key(k string) header { return header{"Idempotency-Key": k} }

// replayed asserts that the second answer is the first one again.
func (w *world) replayed(first, again answer) {
	w.t.Helper()
	if again.StatusCode != first.StatusCode || !bytes.Equal(again.body, first.body) || again.Header.Get("Idempotency-Replayed") != "true" ||
		first.Header.Get("Idempotency-Replayed") != "" || again.Header.Get("Content-Type") != first.Header.Get("Content-Type") ||
		again.Header.Get("Factum-Position") != first.Header.Get("Factum-Position") {
		w.t.Errorf("%d %v %s\nand then %d %v %s", first.StatusCode, first.Header, first.body, again.StatusCode, again.Header, again.body)
	}
}

func TestARepetitionIsAnsweredAlikeByEveryServer(t *testing.T) {
	w := newWorld(t)
	other := w.second()
	mina, noor := w.person("Mina"), w.person("Noor")
	tenant, elsewhere := w.tenant(mina, "A"), w.tenant(mina, "B")
	w.grant(tenant, noor, "admin")
	base := "/api/tenants/" + tenant

	name := map[string]any{"name": "Hidden Mill"}
	made := w.want(w.call("POST", "/api/tenants", mina.token, name, key("k")), 201)
	w.replayed(made, other.call("POST", "/api/tenants", mina.token, name, key("k")))
	other.problem(other.call("POST", "/api/tenants", mina.token, map[string]any{"name": "Other"}, key("k")), 422, "IDEMPOTENCY_KEY_REUSED")
	other.problem(other.call("PUT", base, mina.token, map[string]any{"name": "Hidden Mill"}, key("k "+"x")), 400, "BAD_REQUEST")

	// The key is of one caller in one tenant.
	theirs := other.want(other.call("POST", "/api/tenants", noor.token, name, key("k")), 201)
	if theirs.text("data.id") == made.text("data.id") {
		t.Error("somebody was answered what another had asked for")
	}
	renamed := w.want(w.call("PUT", base, mina.token, map[string]any{"name": "A2"}, key("r")), 200)
	w.want(w.call("PUT", "/api/tenants/"+elsewhere, mina.token, map[string]any{"name": "B2"}, key("r")), 200)
	w.want(w.call("PUT", base, noor.token, map[string]any{"name": "A3"}, key("r")), 200)
	other.replayed(renamed, other.call("PUT", base, mina.token, map[string]any{"name": "A2"}, key("r")))
	if a := other.want(other.call("GET", base, mina.token, nil), 200); a.text("data.name") != "A3" {
		t.Errorf("a repetition was carried out: %s", a.body)
	}

	// What was refused has changed nothing and keeps no key.
	w.problem(w.call("PUT", base, mina.token, map[string]any{"name": " "}, key("refused")), 400, "BAD_REQUEST")
	w.want(w.call("PUT", base, mina.token, map[string]any{"name": "A4"}, key("refused")), 200)

	// The path is a part of the request.
	invited := map[string]any{"role": "viewer"}
	w.want(w.call("PUT", base+"/users/"+noor.id, mina.token, invited, key("role")), 200)
	w.problem(w.call("PUT", base+"/users/"+mina.id, mina.token, invited, key("role")), 422, "IDEMPOTENCY_KEY_REUSED")

	// A deletion that takes away the caller's access is answered again, to its caller.
	gone := w.want(w.call("DELETE", base, mina.token, nil, key("gone")), 200)
	other.eventually(404, func() answer { return other.call("GET", base, mina.token, nil) })
	other.replayed(gone, other.call("DELETE", base, mina.token, nil, key("gone")))
	other.problem(other.call("DELETE", base, noor.token, nil, key("gone")), 404, "NOT_FOUND")
	other.problem(other.call("DELETE", base, mina.token, nil, key("gone2")), 404, "NOT_FOUND")

	// A process that starts anew remembers, and nothing is stored in clear.
	third := w.second()
	third.replayed(made, third.call("POST", "/api/tenants", mina.token, name, key("k")))
	if stored := w.stored(); strings.Contains(stored, "Hidden Mill") || strings.Contains(stored, mina.id) {
		t.Errorf("answers or callers are stored in clear: %s", stored)
	}
}

// stored is all that is remembered of requests, as text.
func (w *world) stored() string {
	w.t.Helper()
	rows, err := w.platform.Query(w.t.Context(), `select encode(id, 'escape') || encode(request, 'escape') || coalesce(encode(answer, 'escape'), '') || coalesce(header::text, '') from idempotency.requests`)
	if err != nil {
		w.t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(all) == 0 {
		w.t.Fatalf("%d requests, %v", len(all), err)
	}
	return strings.Join(all, "\n")
}

func TestARepetitionWaitsForTheFirst(t *testing.T) {
	w := newWorld(t)
	other := w.second()
	mina := w.person("Mina")
	tenant := w.tenant(mina, "A")
	path := "/api/tenants/" + tenant + "/documents"

	content := strings.Repeat("a", 3<<20) // more than what a server gathers before it looks
	kind, body := w.form(part{"file", "a.txt", "text/plain", content})
	whole := bytes.Clone(body.Bytes())
	half := &pausing{Reader: body, at: 2 << 20, reached: make(chan struct{}), goOn: make(chan struct{})}
	first := make(chan answer, 1)
	go func() { first <- w.send("POST", path, mina.token, kind, half, key("up")) }()
	<-half.reached
	w.begun() // the server has seen the header before it sees the rest
	running := other.send("POST", path, mina.token, kind, bytes.NewReader(whole), key("up"))
	other.problem(running, 409, "REQUEST_IN_PROGRESS")
	if running.Header.Get("Retry-After") != "1" {
		t.Error("Retry-After:", running.Header.Get("Retry-After"))
	}
	close(half.goOn)
	made := w.want(<-first, 201)
	// Another boundary is no other request; another content, name or field is.
	again := func(w *world, parts ...part) answer {
		kind, body := w.form(parts...)
		return w.send("POST", path, mina.token, kind, body, key("up"))
	}
	other.replayed(made, again(other, part{"file", "a.txt", "text/plain", content}))
	for _, parts := range [][]part{
		{{"file", "a.txt", "text/plain", content[1:]}},
		{{"file", "b.txt", "text/plain", content}},
		{{"file", "a.txt", "text/html", content}},
		{{"file", "a.txt", "text/plain", content}, {"filename", "", "", "c.txt"}},
	} {
		other.problem(again(other, parts...), 422, "IDEMPOTENCY_KEY_REUSED")
	}
	if list := w.want(w.call("GET", path, mina.token, nil), 200); list.at("data.pagination.total") != 1.0 {
		t.Errorf("%s", list.body)
	}
}

// begun returns when a request is remembered that is not answered yet.
func (w *world) begun() {
	w.t.Helper()
	w.until("no request has begun", `select exists (select from idempotency.requests where status is null)`)
}

// until asks the platform's database until it says true; failure says what is not so.
func (w *world) until(failure, query string) {
	w.t.Helper()
	deadline := time.After(accessEnds)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		var so bool
		if err := w.platform.QueryRow(w.t.Context(), query).Scan(&so); err != nil {
			w.t.Fatal(err)
		}
		if so {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("%s after %v", failure, accessEnds)
		}
	}
}

// pausing is a body that stops in its middle.
type pausing struct {
	io.Reader
	at            int
	paused        bool // it does so once
	reached, goOn chan struct{}
}

func (p *pausing) Read(b []byte) (int, error) {
	if p.at <= 0 && !p.paused {
		p.paused = true
		close(p.reached)
		<-p.goOn
	}
	n, err := p.Reader.Read(b[:min(len(b), 32<<10)])
	p.at -= n
	return n, err
}

// TestAnAnswerWithASecretIsNotKept shows what a repetition says where the first answer must be kept nowhere.
func TestAnAnswerWithASecretIsNotKept(t *testing.T) {
	w := newWorld(t)
	other := w.second()
	mina := w.person("Mina")
	tenant := w.tenant(mina, "A")

	keys := "/api/tenants/" + tenant + "/api-keys"
	press := map[string]any{"name": "press 4", "role": "viewer"}
	made := w.want(w.call("POST", keys, mina.token, press, key("k")), 201)
	other.problem(other.call("POST", keys, mina.token, press, key("k")), 409, "ANSWER_NOT_KEPT")
	if list := w.want(w.call("GET", keys, mina.token, nil), 200); len(list.at("data").([]any)) != 1 {
		t.Errorf("a repetition made another key: %s", list.body)
	}

	login := map[string]any{"email": mina.email, "password": password}
	session := w.want(w.call("POST", "/api/auth/login", "", login, key("l")), 200)
	other.problem(other.call("POST", "/api/auth/login", "", login, key("l")), 409, "answer_not_kept")
	other.want(other.call("POST", "/api/auth/login", "", login, key("l2")), 200)

	// A refresh that is repeated with its key is no theft: the session goes on.
	fresh := w.want(w.call("POST", "/api/auth/refresh", session.text("refresh_token"), nil, key("f")), 200)
	other.problem(other.call("POST", "/api/auth/refresh", session.text("refresh_token"), nil, key("f")), 409, "answer_not_kept")
	other.want(other.call("GET", "/api/users/me", fresh.text("access_token"), nil), 200)
	other.problem(other.call("POST", "/api/auth/refresh", session.text("refresh_token"), nil, key("f2")), 401, "token_revoked")

	stored := w.stored()
	for _, secret := range []string{made.text("data.key"), session.text("access_token"), session.text("refresh_token"), fresh.text("access_token"), password} {
		if secret == "" || strings.Contains(stored, secret) {
			t.Errorf("%q is stored in clear", secret)
		}
	}
	var kept int
	if err := w.platform.QueryRow(t.Context(), `select count(*) from idempotency.requests where answer is not null`).Scan(&kept); err != nil || kept != 0 {
		t.Errorf("%d answers with secrets are kept, %v", kept, err)
	}
}
