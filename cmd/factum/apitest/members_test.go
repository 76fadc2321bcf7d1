package apitest

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// fields asserts that the object at the path, or the whole answer, has exactly these fields, each of the type that [kinds] says.
func (w *world) fields(a answer, path string, want ...string) {
	w.t.Helper()
	object := a.json
	if path != "" {
		object, _ = a.at(path).(map[string]any)
	}
	for _, name := range want {
		value, ok := object[name]
		if !ok {
			w.t.Errorf("%s %s: %s has no %s: %s", a.Request.Method, a.Request.URL.Path, path, name, a.body)
			continue
		}
		kind, known := kinds[name]
		if !known {
			w.t.Errorf("kinds does not say what %s is", name)
			continue
		}
		if !kind(value) {
			w.t.Errorf("%s %s: %s.%s is %v", a.Request.Method, a.Request.URL.Path, path, name, value)
		}
	}
	if len(object) != len(want) {
		w.t.Errorf("%s %s: %s has %d fields, want %d (%s): %s", a.Request.Method, a.Request.URL.Path, path, len(object), len(want), strings.Join(want, " "), a.body)
	}
}

// envelope asserts a success's envelope; data says whether it holds something.
func (w *world) envelope(a answer, status int, data bool) answer {
	w.t.Helper()
	w.want(a, status)
	_, has := a.json["data"]
	if a.at("success") != true || a.text("message") == "" || has != data {
		w.t.Errorf("%s %s: %s is not the envelope", a.Request.Method, a.Request.URL.Path, a.body)
	}
	return a
}

var (
	tenantFields = []string{
		"id", "name", "database_name", "is_active", "auth_method", "sso_domain_whitelist", "sso_auto_provisioning", "sso_default_role", "tsa_enabled", "tsa_provider", "require_if_match",
		"created_at", "updated_at", "created_by",
	}
	userFields   = []string{"id", "first_name", "last_name", "email", "is_active", "created_at", "updated_at"}
	memberFields = append([]string{"role", "joined_at"}, userFields...)
)

func TestR12ToR16Tenants(t *testing.T) {
	w := newWorld(t)
	admin, user, stranger := w.person("Admin"), w.person("User"), w.person("Stranger")
	made := w.envelope(w.call("POST", "/api/tenants", admin.token, map[string]any{"name": " North Mill "}), 201, true)
	w.fields(made, "data", append([]string{"role"}, tenantFields...)...)
	tenant, base := made.text("data.id"), "/api/tenants/"+made.text("data.id")
	w.grant(tenant, user, "user")

	list := w.envelope(w.call("GET", "/api/tenants", admin.token, nil), 200, true)
	w.fields(list, "data.0", append([]string{"role", "joined_at"}, tenantFields...)...)
	one := w.envelope(w.call("GET", base, user.token, nil), 200, true)
	w.fields(one, "data", append([]string{"role", "members"}, tenantFields...)...)
	w.fields(one, "data.members.0", memberFields...)
	if one.text("data.role") != "user" || one.text("data.members.0.id") != admin.id || one.text("data.members.1.role") != "user" {
		t.Errorf("%s", one.body)
	}

	for _, wrong := range []map[string]any{{}, {"name": ""}, {"name": "  "}, {"name": nil}, {"name": strings.Repeat("x", 256)}, {"name": "a\x00"}, {"title": "x"}, {"is_active": false}, {"is_active": "yes"}} {
		w.problem(w.call("PUT", base, admin.token, wrong), 400, "BAD_REQUEST")
	}
	w.problem(w.send("PUT", base, admin.token, "application/json", strings.NewReader("")), 400, "BAD_REQUEST")
	w.problem(w.call("PUT", base, user.token, map[string]any{"name": "South Mill"}), 403, "FORBIDDEN")
	w.problem(w.call("PUT", base, stranger.token, map[string]any{"name": "South Mill"}), 404, "NOT_FOUND")
	renamed := w.envelope(w.call("PUT", base, admin.token, map[string]any{"name": " South Mill "}), 200, true)
	w.fields(renamed, "data", tenantFields...)
	if renamed.text("data.name") != "South Mill" || renamed.text("data.database_name") != made.text("data.database_name") || renamed.text("data.updated_at") <= made.text("data.updated_at") {
		t.Errorf("%s", renamed.body)
	}
	read := w.want(w.call("GET", base, user.token, nil), 200)
	for _, field := range []string{"name", "updated_at", "database_name"} {
		if read.text("data."+field) != renamed.text("data."+field) {
			t.Errorf("%s: answered %s, read %s", field, renamed.body, read.body)
		}
	}
	same := w.envelope(w.call("PUT", base, admin.token, map[string]any{"is_active": true}), 200, true)
	if same.text("data.name") != "South Mill" {
		t.Errorf("%s", same.body)
	}

	w.problem(w.call("DELETE", base, user.token, nil), 403, "FORBIDDEN")
	w.envelope(w.call("DELETE", base, admin.token, nil), 200, false)
	for _, p := range []person{admin, user} {
		w.problem(w.call("GET", base, p.token, nil), 404, "NOT_FOUND")
		if all := w.want(w.call("GET", "/api/tenants", p.token, nil), 200); len(all.at("data").([]any)) != 0 {
			t.Errorf("a deleted tenant is listed: %s", all.body)
		}
	}
	w.problem(w.call("DELETE", base, admin.token, nil), 404, "NOT_FOUND")
	w.problem(w.call("PUT", base, admin.token, map[string]any{"name": "x"}), 404, "NOT_FOUND")
	w.problem(w.call("POST", base+"/restore", user.token, nil), 403, "FORBIDDEN")
	w.problem(w.call("POST", base+"/restore", stranger.token, nil), 404, "NOT_FOUND")
	for range 2 { // a tenant that is there stays there
		w.envelope(w.call("POST", base+"/restore", admin.token, nil), 200, false)
	}
	if back := w.want(w.call("GET", base, user.token, nil), 200); back.text("data.name") != "South Mill" || back.text("data.members.1.id") != user.id {
		t.Errorf("%s", back.body)
	}
}

func TestATenantWhoseDatabaseIsGoneStaysDeleted(t *testing.T) {
	w := newWorld(t)
	admin := w.person("Admin")
	tenant := w.tenant(admin, "A")
	w.want(w.call("DELETE", "/api/tenants/"+tenant, admin.token, nil), 200)
	log := strings.ReplaceAll(tenant, "-", "")
	w.pools.Lock()
	pool := w.pools.of[log]
	delete(w.pools.of, log)
	w.pools.Unlock()
	t.Cleanup(pool.Close)
	w.problem(w.call("POST", "/api/tenants/"+tenant+"/restore", admin.token, nil), 409, "CONFLICT")
}

func TestR18AndR19Members(t *testing.T) {
	w := newWorld(t)
	admin, user, stranger := w.person("Admin"), w.person("User"), w.person("Stranger")
	tenant := w.tenant(admin, "A")
	users := "/api/tenants/" + tenant + "/users"
	const nobody = "11111111-1111-4111-8111-111111111111"

	for name, c := range map[string]struct {
		body   map[string]any
		status int
		code   string
	}{
		"nothing":        {map[string]any{}, 400, "BAD_REQUEST"},
		"no role":        {map[string]any{"user_id": user.id}, 400, "BAD_REQUEST"},
		"no user":        {map[string]any{"role": "user"}, 400, "BAD_REQUEST"},
		"another case":   {map[string]any{"user_id": user.id, "role": "User"}, 400, "BAD_REQUEST"},
		"unknown role":   {map[string]any{"user_id": user.id, "role": "owner"}, 400, "BAD_REQUEST"},
		"no UUID":        {map[string]any{"user_id": "mina", "role": "user"}, 400, "BAD_REQUEST"},
		"SQL":            {map[string]any{"user_id": "' or 1=1 --", "role": "user"}, 400, "BAD_REQUEST"},
		"one field more": {map[string]any{"user_id": user.id, "role": "user", "is_admin": true}, 400, "BAD_REQUEST"},
		"unknown user":   {map[string]any{"user_id": nobody, "role": "user"}, 404, "NOT_FOUND"},
		"a member":       {map[string]any{"user_id": admin.id, "role": "admin"}, 400, "BAD_REQUEST"},
	} {
		a := w.call("POST", users, admin.token, c.body)
		if a.StatusCode != c.status {
			t.Errorf("%s:", name)
		}
		w.problem(a, c.status, c.code)
	}
	w.problem(w.call("POST", users, stranger.token, map[string]any{"user_id": stranger.id, "role": "admin"}), 404, "NOT_FOUND")

	add := map[string]any{"user_id": strings.ToUpper(user.id), "role": "user"}
	key := header{"Idempotency-Key": "add-1"}
	added := w.envelope(w.call("POST", users, admin.token, add, key), 201, true)
	w.fields(added, "data", "user_id", "tenant_id", "role", "joined_at")
	if added.text("data.user_id") != user.id || added.text("data.tenant_id") != tenant || added.text("data.role") != "user" || !micros.MatchString(added.text("data.joined_at")) {
		t.Errorf("%s", added.body)
	}
	if again := w.want(w.call("POST", users, admin.token, add, key), 201); string(again.body) != string(added.body) {
		t.Errorf("%s and then %s", added.body, again.body)
	}
	w.problem(w.call("POST", users, admin.token, add), 400, "BAD_REQUEST")
	w.problem(w.call("POST", users, user.token, map[string]any{"user_id": stranger.id, "role": "user"}), 403, "FORBIDDEN")

	list := w.envelope(w.call("GET", users+"?per_page=1&page=2", user.token, nil), 200, true)
	w.fields(list, "data.members.0", memberFields...)
	if list.text("data.members.0.id") != user.id || list.at("data.pagination.total") != 2.0 || list.at("data.pagination.pages") != 2.0 || list.text("data.members.0.joined_at") != added.text("data.joined_at") {
		t.Errorf("%s", list.body)
	}
	if admins := w.want(w.call("GET", users+"?role=admin", user.token, nil), 200); admins.text("data.members.0.id") != admin.id || admins.at("data.pagination.total") != 1.0 {
		t.Errorf("%s", admins.body)
	}
	for _, bad := range []string{"?page=0", "?per_page=101", "?per_page=x", "?role=owner"} {
		w.problem(w.call("GET", users+bad, user.token, nil), 400, "BAD_REQUEST")
	}

	changed := w.envelope(w.call("PUT", users+"/"+user.id, admin.token, map[string]any{"role": "viewer"}), 200, true)
	w.fields(changed, "data", "user_id", "tenant_id", "role", "joined_at")
	if changed.text("data.role") != "viewer" || changed.text("data.joined_at") != added.text("data.joined_at") {
		t.Errorf("%s", changed.body)
	}
	for _, wrong := range []map[string]any{{}, {"role": "root"}, {"role": nil}} {
		w.problem(w.call("PUT", users+"/"+user.id, admin.token, wrong), 400, "BAD_REQUEST")
	}
	w.problem(w.call("PUT", users+"/"+nobody, admin.token, map[string]any{"role": "user"}), 404, "NOT_FOUND")
	w.problem(w.call("PUT", users+"/"+admin.id, admin.token, map[string]any{"role": "user"}), 400, "BAD_REQUEST")
	w.problem(w.call("DELETE", users+"/"+admin.id, admin.token, nil), 400, "BAD_REQUEST")
	w.problem(w.call("DELETE", users+"/"+nobody, admin.token, nil), 404, "NOT_FOUND")
	w.problem(w.call("DELETE", users+"/"+stranger.id, admin.token, nil), 404, "NOT_FOUND")

	w.want(w.call("PUT", users+"/"+user.id, admin.token, map[string]any{"role": "admin"}), 200)
	w.envelope(w.call("DELETE", users+"/"+admin.id, admin.token, nil), 200, false) // leaves
	w.problem(w.call("GET", users, admin.token, nil), 404, "NOT_FOUND")
	w.problem(w.call("DELETE", users+"/"+user.id, user.token, nil), 400, "BAD_REQUEST")
	back := w.want(w.call("POST", users, user.token, map[string]any{"user_id": admin.id, "role": "viewer"}), 201)
	if back.text("data.joined_at") <= added.text("data.joined_at") {
		t.Errorf("who returns has joined anew: %s", back.body)
	}
}

// TestTwoAdminsCannotLeaveAtOnce lets all admins of a tenant demote and remove each other at the same time, over two servers: one is left.
func TestTwoAdminsCannotLeaveAtOnce(t *testing.T) {
	w := newWorld(t)
	servers := []*world{w, w.second()}
	first := w.person("First")
	for round := range 3 {
		tenant := w.tenant(first, fmt.Sprint("T", round))
		people := []person{first}
		for i := range 3 {
			p := w.person(fmt.Sprintf("p%d%d", round, i))
			w.grant(tenant, p, "admin")
			people = append(people, p)
		}
		var wg sync.WaitGroup
		statuses := make(chan int, 4*len(people))
		for i, p := range people {
			for j, server := range servers {
				wg.Go(func() {
					target := "/api/tenants/" + tenant + "/users/" + people[(i+j)%len(people)].id
					var a answer
					if i%2 == 0 {
						a = server.call("DELETE", target, p.token, nil)
					} else {
						a = server.call("PUT", target, p.token, map[string]any{"role": "viewer"})
					}
					statuses <- a.StatusCode
				})
			}
		}
		wg.Wait()
		close(statuses)
		for status := range statuses {
			switch status {
			case http.StatusOK, http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound:
			default:
				t.Errorf("status %d", status)
			}
		}
		admins := 0
		for _, p := range people {
			a := w.call("GET", "/api/tenants/"+tenant, p.token, nil)
			if a.StatusCode == http.StatusOK && a.text("data.role") == "admin" {
				admins++
			}
		}
		if admins == 0 {
			t.Fatal("the tenant has no admin")
		}
	}
}
