package apitest

import (
	"strings"
	"testing"
	"time"

	"github.com/factum-platform/factum/infra/httpapi"
)

// ended is the access token of a session that was logged out of.
func (w *world) ended(name string) string {
	w.t.Helper()
	l := w.want(w.call("POST", "/api/auth/login", "", map[string]any{"email": strings.ToLower(name) + "@plant.example", "password": password}), 200)
	w.want(w.call("POST", "/api/auth/logout", l.text("access_token"), nil), 200)
	return l.text("access_token")
}

func (w *world) restore(tenant string, p person) {
	w.t.Helper()
	w.want(w.call("POST", "/api/tenants/"+tenant+"/restore", p.token, nil), 200)
}

// TestEveryRouteAsksForWhatThePolicySays calls every route as everybody: the answer must be the refusal, or anything but one.
func TestEveryRouteAsksForWhatThePolicySays(t *testing.T) {
	w := newWorld(t)
	admin, user, viewer, stranger := w.verified(w.person("Admin")), w.verified(w.person("User")), w.verified(w.person("Viewer")), w.verified(w.person("Stranger"))
	operator := w.verified(w.person("Operator"))
	w.administers(operator)
	tenant := w.tenant(admin, "A")
	w.tenant(stranger, "B")
	w.grant(tenant, user, "user")
	w.grant(tenant, viewer, "viewer")
	w.shift.Store(-int64(time.Hour))
	expired := w.want(w.call("POST", "/api/auth/login", "", map[string]any{"email": operator.email, "password": password}), 200).text("access_token")
	w.shift.Store(0)
	machine := w.want(w.call("POST", "/api/tenants/"+tenant+"/api-keys", admin.token, map[string]any{"name": "press 4", "role": "admin"}), 201).text("data.key")
	key := func(role string) (id, secret string) {
		a := w.want(w.call("POST", "/api/tenants/"+tenant+"/api-keys", admin.token, map[string]any{"name": role, "role": role}), 201)
		return a.text("data.id"), a.text("data.key")
	}
	_, reader := key("viewer")
	revokedID, revoked := key("admin")
	w.want(w.call("DELETE", "/api/tenants/"+tenant+"/api-keys/"+revokedID, admin.token, nil), 200)
	former := w.verified(w.person("Former"))
	w.grant(tenant, former, "admin")
	w.want(w.call("DELETE", "/api/tenants/"+tenant+"/users/"+former.id, admin.token, nil), 200)
	inactive := w.person("Inactive")
	w.grant(tenant, inactive, "admin")
	w.want(w.call("POST", "/api/platform/users/"+inactive.id+"/deactivate", operator.token, nil), 200)
	forged := admin.token[:len(admin.token)-8] + "AAAAAAAA"
	const unknown = "11111111-1111-4111-8111-111111111111"

	ended := w.ended("Admin")
	callers := []struct {
		name, token string
		role        string // in the tenant; "" is no member
		bad         bool   // the token does not hold
	}{
		{"no session", "", "", true},
		{"garbage", "garbage", "", true},
		{"forged signature", forged, "", true},
		{"refresh token", admin.refresh, "", true},
		{"expired session", expired, "", true},
		{"ended session", ended, "", true},
		{"account that is switched off", inactive.token, "", true},
		{"revoked API key", revoked, "", true},
		{"former admin", former.token, "", false},
		{"foreign tenant's admin", stranger.token, "", false},
		{"viewer", viewer.token, "viewer", false},
		{"machine that reads", reader, "viewer", false},
		{"user", user.token, "user", false},
		{"admin", admin.token, "admin", false},
		{"machine", machine, "admin", false},
		{"administrator of the platform", operator.token, "", false},
	}
	for _, rule := range httpapi.Policy {
		if rule.Path == "/metrics" || strings.HasPrefix(rule.Path, "/api/docs") || strings.HasPrefix(rule.Path, "/account") || rule.Path == "/api/auth/refresh" {
			continue // pages are for everybody, which infra/httpapi tests; TestR01ToR05Auth has the refresh, which takes another token
		}
		ends := strings.HasPrefix(rule.Path, "/api/auth/logout") // the session of everybody who may

		path := strings.NewReplacer("{tenant_id}", tenant, "{document_id}", unknown, "{file_id}", unknown, "{user_id}", unknown, "{session_id}", unknown, "{api_key_id}", unknown, "{invitation_id}", unknown, "{projection}", "documents").Replace(rule.Path)
		flat := strings.HasPrefix(rule.Path, "/api/auth/") // and so are its codes
		for _, c := range callers {
			if ends && !c.bad && c.token != machine && c.token != reader {
				continue
			}
			a := w.call(rule.Method, path, c.token, nil)
			inTenant := rule.Access >= httpapi.ViewerUp
			switch {
			case rule.Access == httpapi.Anyone:
				if a.StatusCode == 401 || a.StatusCode == 403 {
					t.Errorf("%s to %s %s: %d although anyone may", c.name, rule.Method, rule.Path, a.StatusCode)
				}
			case c.bad:
				code := "UNAUTHORIZED"
				if flat {
					code = map[string]string{"": "authorization_required", expired: "token_expired", ended: "token_revoked", inactive.token: "token_revoked", revoked: "token_revoked"}[c.token]
				}
				if code == "" {
					code = "invalid_token"
				}
				w.problem(a, 401, code)
				if a.Header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s: 401 without a challenge", path)
				}
			case (c.token == machine || c.token == reader) && (!inTenant || rule.Access == httpapi.AdminPerson):
				code := "FORBIDDEN"
				if flat {
					code = "forbidden"
				}
				w.problem(a, 403, code)
			case inTenant && c.role == "":
				w.problem(a, 404, "NOT_FOUND")
			case inTenant && rule.For(c.role) == httpapi.Nothing:
				w.problem(a, 403, "FORBIDDEN")
			case rule.Access == httpapi.PlatformAdmin && c.token != operator.token: // a tenant's admin too
				w.problem(a, 403, "FORBIDDEN")
			case a.StatusCode == 401 || a.StatusCode == 403 || a.StatusCode >= 500:
				t.Errorf("%s to %s %s: %d %s", c.name, rule.Method, rule.Path, a.StatusCode, a.body)
			}
		}
		w.restore(tenant, admin) // one of the routes deletes it
		if rule.Access >= httpapi.ViewerUp {
			elsewhere := strings.Replace(path, tenant, unknown, 1)
			absent, foreign := w.call(rule.Method, elsewhere, stranger.token, nil), w.call(rule.Method, path, stranger.token, nil)
			w.problem(absent, 404, "NOT_FOUND")
			if absent.text("detail") != foreign.text("detail") {
				t.Errorf("%s %s tells an unknown tenant from a foreign one", rule.Method, rule.Path)
			}
			w.problem(w.call(rule.Method, strings.Replace(path, tenant, "not-a-uuid", 1), admin.token, nil), 400, "BAD_REQUEST")
			w.problem(w.call(rule.Method, strings.Replace(path, tenant, "not-a-uuid", 1), "", nil), 401, "UNAUTHORIZED")
		}
		for _, id := range []string{"x", "..%2f..%2fetc", "%00", strings.Repeat("a", 3000), unknown + "0"} {
			if strings.Contains(path, unknown) {
				code := "BAD_REQUEST"
				if flat {
					code = "validation_error"
				}
				w.problem(w.call(rule.Method, strings.Replace(path, unknown, id, 1), admin.token, nil), 400, code)
			}
		}
	}
}

func TestAMemberReadsWhatAnotherWrote(t *testing.T) {
	w := newWorld(t)
	admin, viewer := w.person("Admin"), w.person("Viewer")
	tenant := w.tenant(admin, "A")
	w.grant(tenant, viewer, "viewer")
	up := w.want(w.upload(tenant, admin, part{"file", "a.txt", "", "a"}), 201)
	w.want(w.call("GET", "/api/tenants/"+tenant+"/documents/"+up.text("data.id")+"/download", viewer.token, nil), 200)
	w.problem(w.upload(tenant, viewer, part{"file", "b.txt", "", "b"}), 403, "FORBIDDEN")
	w.problem(w.call("DELETE", "/api/tenants/"+tenant+"/documents/"+up.text("data.id"), viewer.token, nil), 403, "FORBIDDEN")
}
