package apitest

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
)

var tagForm = regexp.MustCompile(`^"[a-z][0-9a-f.hm]+(\.gzip)?"$`)

// tag is the entity tag of a success.
func (w *world) tag(a answer) string {
	w.t.Helper()
	tag := a.Header.Get("Etag")
	if a.StatusCode < 200 || a.StatusCode > 299 || !tagForm.MatchString(tag) {
		w.t.Errorf("%s %s: %d with the entity tag %q", a.Request.Method, a.Request.URL.Path, a.StatusCode, tag)
	}
	return tag
}

func ifMatch(tag string) header { return header{"If-Match": tag} }

// unchanged asks again for what has the tag.
func (w *world) unchanged(path, token, tag string) {
	w.t.Helper()
	for _, known := range []string{tag, `"x1", W/` + tag, "*"} {
		a := w.want(w.call("GET", path, token, nil, header{"If-None-Match": known}), 304)
		if len(a.body) != 0 || a.Header.Get("Etag") != tag {
			w.t.Errorf("304 with %v %s", a.Header, a.body)
		}
	}
	w.want(w.call("GET", path, token, nil, header{"If-None-Match": `"x1"`}), 200)
	w.want(w.call("GET", path, token, nil, header{"If-None-Match": "nonsense"}), 200)
}

func TestEntityTagsAreVersionsOfStreams(t *testing.T) {
	w := newWorld(t)
	mina, noor := w.person("Mina"), w.person("Noor")
	tenant := w.tenant(mina, "A")
	base := "/api/tenants/" + tenant
	up := w.want(w.upload(tenant, mina, part{"file", "a.txt", "text/plain", "a"}), 201)
	document, file := base+"/documents/"+up.text("data.id"), "/api/files/"+tenant+"/files/"+up.text("data.file_id")

	n := 0
	next := func() string { n++; return fmt.Sprint("n", n) }
	for name, c := range map[string]struct {
		path   string
		change func(tag header) answer
	}{
		"document": {document, func(tag header) answer {
			return w.call("PUT", document, mina.token, map[string]any{"metadata": map[string]any{"k": next()}}, tag)
		}},
		"tenant": {base, func(tag header) answer {
			return w.call("PUT", base, mina.token, map[string]any{"name": next()}, tag)
		}},
		"profile": {"/api/users/me", func(tag header) answer {
			return w.call("PUT", "/api/users/me", mina.token, map[string]any{"last_name": next()}, tag)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			before := w.tag(w.want(w.call("GET", c.path, mina.token, nil), 200))
			w.unchanged(c.path, mina.token, before)
			for _, wrong := range []string{`"x1"`, "W/" + before, `"d99", "t99", "u99"`, `""`} {
				w.problem(c.change(ifMatch(wrong)), 412, "PRECONDITION_FAILED")
			}
			w.problem(w.call("PUT", c.path, mina.token, map[string]any{"name": "x"}, ifMatch("d1")), 400, "BAD_REQUEST")
			changed := w.tag(w.want(c.change(ifMatch(`"x7", `+before)), 200))
			w.problem(c.change(ifMatch(before)), 412, "PRECONDITION_FAILED")
			after := w.want(w.call("GET", c.path, mina.token, nil, header{"If-None-Match": before}), 200)
			if name != "tenant" && after.Header.Get("Etag") != changed {
				t.Errorf("%s after a command that answered %s", after.Header.Get("Etag"), changed)
			}
			w.want(c.change(ifMatch(changed)), 200) // the answer of a command will do
		})
	}

	t.Run("what was made just now", func(t *testing.T) {
		up := w.want(w.upload(tenant, mina, part{"file", "b.txt", "text/plain", "b"}, part{"metadata", "", "", `{"k":"v"}`}), 201)
		path := base + "/documents/" + up.text("data.id")
		w.unchanged(path, mina.token, w.tag(up))
		w.want(w.call("PUT", path, mina.token, map[string]any{"filename": "c.txt"}, ifMatch(w.tag(up))), 200)
		w.problem(w.call("DELETE", path, mina.token, nil, ifMatch(w.tag(up))), 412, "PRECONDITION_FAILED")
		made := w.want(w.call("POST", "/api/tenants", mina.token, map[string]any{"name": "B"}), 201)
		path = "/api/tenants/" + made.text("data.id")
		w.want(w.call("PUT", path, mina.token, map[string]any{"name": "C"}, ifMatch(w.tag(made))), 200)
		w.problem(w.call("DELETE", path, mina.token, nil, ifMatch(w.tag(made))), 412, "PRECONDITION_FAILED")
	})

	t.Run("members", func(t *testing.T) {
		before := w.tag(w.want(w.call("GET", base, mina.token, nil), 200))
		added := w.want(w.call("POST", base+"/users", mina.token, map[string]any{"user_id": noor.id, "role": "viewer"}, ifMatch(before)), 201)
		w.problem(w.call("PUT", base+"/users/"+noor.id, mina.token, map[string]any{"role": "user"}, ifMatch(before)), 412, "PRECONDITION_FAILED")
		w.want(w.call("PUT", base+"/users/"+noor.id, mina.token, map[string]any{"role": "user"}, ifMatch(w.tag(added))), 200)
		now := w.want(w.call("GET", base, mina.token, nil, header{"If-None-Match": before}), 200) // a role is a part of it
		w.want(w.call("PUT", base, mina.token, map[string]any{"name": "B"}, ifMatch(before)), 200)
		// A member's name is no event of the tenant, and the tenant's answer is another all the same.
		w.want(w.call("PUT", "/api/users/me", noor.token, map[string]any{"first_name": "Nour"}), 200)
		w.want(w.call("GET", base, mina.token, nil, header{"If-None-Match": w.tag(now)}), 200)
		w.problem(w.call("DELETE", base+"/users/"+noor.id, mina.token, nil, ifMatch(before)), 412, "PRECONDITION_FAILED")
		w.want(w.call("DELETE", base+"/users/"+noor.id, mina.token, nil, ifMatch(w.tag(now))), 200)
	})

	t.Run("file", func(t *testing.T) {
		before := w.tag(w.want(w.call("GET", file, mina.token, nil), 200))
		w.unchanged(file, mina.token, before)
		w.problem(w.call("DELETE", document, mina.token, nil, ifMatch(`"d1"`)), 412, "PRECONDITION_FAILED")
		w.want(w.call("DELETE", document, mina.token, nil, ifMatch("*")), 200)
		w.problem(w.call("DELETE", file, mina.token, nil, ifMatch(before)), 412, "PRECONDITION_FAILED")
		now := w.tag(w.want(w.call("GET", file, mina.token, nil, header{"If-None-Match": before}), 200))
		w.want(w.call("DELETE", file, mina.token, nil, ifMatch(now)), 200)
	})

	t.Run("deletion and return of a tenant", func(t *testing.T) {
		tag := w.tag(w.want(w.call("GET", base, mina.token, nil), 200))
		w.want(w.call("DELETE", base, mina.token, nil, ifMatch(tag)), 200)
		w.problem(w.call("POST", base+"/restore", mina.token, nil, ifMatch(tag)), 412, "PRECONDITION_FAILED")
		w.want(w.call("POST", base+"/restore", mina.token, nil), 200)
	})
}

// TestOfTwoWhoChangeTheSameVersionOneIsRefused races on two servers: the version is checked by the append and not by what was read.
func TestOfTwoWhoChangeTheSameVersionOneIsRefused(t *testing.T) {
	w := newWorld(t)
	servers := []*world{w, w.second()}
	mina := w.person("Mina")
	tenant := w.tenant(mina, "A")
	path := "/api/tenants/" + tenant
	for round := range 10 {
		tag := w.tag(w.want(w.call("GET", path, mina.token, nil), 200))
		var statuses [8]int
		var group sync.WaitGroup
		for i := range statuses {
			group.Go(func() {
				statuses[i] = servers[i%2].call("PUT", path, mina.token, map[string]any{"name": fmt.Sprint(round, " ", i)}, ifMatch(tag)).StatusCode
			})
		}
		group.Wait()
		count := map[int]int{}
		for _, s := range statuses {
			count[s]++
		}
		if count[200] != 1 || count[412] != 7 {
			t.Fatalf("round %d: %v", round, statuses)
		}
	}
}

// TestIfMatchMayComeInSeveralLines sends what clients and proxies may do with any list (RFC 9110 §5.3).
func TestIfMatchMayComeInSeveralLines(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	tag := w.tag(w.want(w.call("GET", "/api/users/me", mina.token, nil), 200))
	for _, c := range []struct {
		method, name string
		status       int
	}{{"GET", "If-None-Match", 304}, {"PUT", "If-Match", 200}, {"PUT", "If-Match", 412}} { // the last is stale
		req, err := http.NewRequestWithContext(t.Context(), c.method, w.url+"/api/users/me", strings.NewReader(`{"first_name": "Noor"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Authorization": {"Bearer " + mina.token}, "Content-Type": {"application/json"}, c.name: {`"u99"`, tag}}
		resp, err := w.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.status {
			t.Errorf("%s with two lines of %s: %d; want %d", c.method, c.name, resp.StatusCode, c.status)
		}
	}
}

func TestATenantMayDemandIfMatch(t *testing.T) {
	w := newWorld(t)
	mina, noor := w.person("Mina"), w.person("Noor")
	tenant := w.tenant(mina, "A")
	w.grant(tenant, noor, "user")
	base := "/api/tenants/" + tenant
	on := w.want(w.call("PUT", base, mina.token, map[string]any{"require_if_match": true}), 200)
	if on.at("data.require_if_match") != true || on.text("data.name") != "A" {
		t.Errorf("%s", on.body)
	}
	up := w.want(w.upload(tenant, noor, part{"file", "a.txt", "", "a"}), 201) // makes something
	document := base + "/documents/" + up.text("data.id")
	name := map[string]any{"filename": "b.txt"}
	for _, path := range []string{document, base, base + "/users/" + noor.id} {
		w.problem(w.call("DELETE", path, mina.token, nil), 428, "PRECONDITION_REQUIRED")
	}
	w.problem(w.call("PUT", document, noor.token, name), 428, "PRECONDITION_REQUIRED")
	w.problem(w.call("PUT", base, mina.token, map[string]any{"require_if_match": false}), 428, "PRECONDITION_REQUIRED")
	w.want(w.call("PUT", document, noor.token, name, ifMatch(w.tag(w.want(w.call("GET", document, noor.token, nil), 200)))), 200)
	w.want(w.call("PUT", "/api/users/me", noor.token, map[string]any{"first_name": "Nour"}), 200) // is of no tenant

	shown := w.want(w.call("GET", base, mina.token, nil), 200)
	if shown.at("data.require_if_match") != true {
		t.Errorf("%s", shown.body)
	}
	w.want(w.call("PUT", base, mina.token, map[string]any{"require_if_match": false}, ifMatch(w.tag(shown))), 200)
	w.want(w.call("DELETE", document, noor.token, nil), 200)

	var facts int
	if err := w.platform.QueryRow(t.Context(), `select count(*) from es.events where kind = 'tenant' and type = 'tenant.preconditions_set'`).Scan(&facts); err != nil || facts != 2 {
		t.Errorf("the log holds %d changes of the demand, %v; want 2", facts, err)
	}
}
