package apitest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/factum-platform/factum/commands/rest"
	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/httpapi"
	"github.com/factum-platform/factum/readapi"
)

// accessEnds is how soon after its end a membership must be refused by every API process.
const accessEnds = 5 * time.Second

// second starts another API process on the same databases: it shares no memory with the first but what tests hold, hears of no moves of
// read models, and keeps sessions of its own. It differs from the first by what changes say.
func (w *world) second(changes ...func(*httpapi.Config)) *world {
	w.t.Helper()
	accounts, err := auth.New(w.t.Context(), auth.Config{Pool: w.platform, Secrets: w.keys, HashMemory: hashMemory})
	if err != nil {
		w.t.Fatal(err)
	}
	other := *w
	other.client = &http.Client{Transport: &http.Transport{}}
	c := httpapi.Config{
		Logger: slog.New(slog.NewTextHandler(logWriter{w.t}, &slog.HandlerOptions{Level: slog.LevelError})),
		Auth:   accounts, Platform: w.platform, TenantPool: w.Pool, Version: "test", Answers: w.answers(),
	}
	for _, change := range changes {
		change(&c)
	}
	other.server = httpapi.New(c)
	rest.Register(other.server.API(), rest.Deps{Commands: w.commands, Server: other.server})
	readapi.Register(other.server.API(), readapi.Deps{Server: other.server, Accounts: accounts, Objects: w.contents})
	var lc net.ListenConfig
	ln, err := lc.Listen(w.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	other.url = "http://" + ln.Addr().String()
	done := make(chan error, 1)
	go func() { done <- other.server.Listen(ln) }()
	w.t.Cleanup(func() {
		other.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		defer cancel()
		if err := errors.Join(other.server.Shutdown(ctx), <-done); err != nil {
			w.t.Error(err)
		}
	})
	return &other
}

// eventually asks until the answer has the status, for as long as access may outlive its end.
func (w *world) eventually(status int, ask func() answer) {
	w.t.Helper()
	deadline := time.After(accessEnds)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		a := ask()
		if a.StatusCode == status {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("%s %s: still %d after %v, want %d", a.Request.Method, a.Request.URL.Path, a.StatusCode, accessEnds, status)
		}
	}
}

func TestAccessEndsOnEveryServer(t *testing.T) {
	w := newWorld(t)
	other := w.second()
	admin, user := w.person("Admin"), w.person("User")
	tenant := w.tenant(admin, "A")
	base := "/api/tenants/" + tenant
	ask := func(w *world, p person) func() answer {
		return func() answer { return w.call("GET", base+"/documents", p.token, nil) }
	}
	put := func(w *world) func() answer {
		return func() answer { return w.upload(tenant, user, part{"file", "a.txt", "", "a"}) }
	}
	w.want(w.call("POST", base+"/users", admin.token, map[string]any{"user_id": user.id, "role": "user"}), 201)
	for _, server := range []*world{w, other} {
		server.want(ask(server, user)(), 200)
		server.want(put(server)(), 201)
	}
	w.want(w.call("PUT", base+"/users/"+user.id, admin.token, map[string]any{"role": "viewer"}), 200)
	for _, server := range []*world{w, other} {
		server.eventually(403, put(server))
		server.want(ask(server, user)(), 200)
	}
	w.want(w.call("DELETE", base+"/users/"+user.id, admin.token, nil), 200)
	for _, server := range []*world{w, other} {
		server.eventually(404, ask(server, user))
		server.problem(put(server)(), 404, "NOT_FOUND")
	}
	w.want(w.call("DELETE", base, admin.token, nil), 200)
	for _, server := range []*world{w, other} {
		server.eventually(404, ask(server, admin))
	}
	other.want(other.call("POST", base+"/restore", admin.token, nil), 200)
	for _, server := range []*world{w, other} {
		server.eventually(200, ask(server, admin))
	}
}

// TestQueriesNoticeWhatEnds: a query that was just answered is refused as soon as what let it in has ended; at once by the process in which it
// ended, and by others in time.
func TestQueriesNoticeWhatEnds(t *testing.T) {
	w := newWorld(t)
	other := w.second()
	admin, platform := w.person("Admin"), w.person("Platform")
	w.administers(platform)
	tenant := w.tenant(admin, "A")
	base := "/api/tenants/" + tenant
	for name, c := range map[string]struct {
		end    func(p person)
		status int
	}{
		"the session":  {func(p person) { w.want(w.call("POST", "/api/auth/logout", p.token, nil), 200) }, 401},
		"all sessions": {func(p person) { w.want(w.call("POST", "/api/auth/logout-all", p.token, nil), 200) }, 401},
		"one from the list": {func(p person) {
			panel := w.login(p, password)
			list := w.want(w.call("GET", "/api/auth/sessions", p.token, nil), 200)
			current := list.text("sessions.0.id")
			if list.at("sessions.0.current") != true {
				current = list.text("sessions.1.id")
			}
			w.want(w.call("DELETE", "/api/auth/sessions/"+current, panel.token, nil), 200)
		}, 401},
		"the password": {func(p person) {
			panel := w.login(p, password)
			w.want(w.call("POST", "/api/auth/password/change", panel.token, map[string]any{"current_password": password, "new_password": "another stator coil 4711"}), 200)
		}, 401},
		"the account": {func(p person) {
			w.want(w.call("POST", "/api/platform/users/"+p.id+"/deactivate", platform.token, nil), 200)
		}, 401},
		"the membership": {func(p person) { w.want(w.call("DELETE", base+"/users/"+p.id, admin.token, nil), 200) }, 404},
	} {
		t.Run(name, func(t *testing.T) {
			p := w.person(strings.ReplaceAll(name, " ", "-"))
			w.grant(tenant, p, "viewer")
			ask := func(w *world) func() answer {
				return func() answer { return w.call("GET", base+"/documents", p.token, nil) }
			}
			for range 3 {
				w.want(ask(w)(), 200)
				other.want(ask(other)(), 200)
			}
			c.end(p)
			w.want(ask(w)(), c.status)
			other.eventually(c.status, ask(other))
			other.want(ask(other)(), c.status)
		})
	}
	t.Run("an API key", func(t *testing.T) {
		made := w.want(w.call("POST", base+"/api-keys", admin.token, map[string]any{"name": "press", "role": "viewer", "expires_in_days": 1}), 201)
		key := made.text("data.key")
		for range 3 {
			w.want(w.call("GET", base+"/documents", key, nil), 200)
			other.want(other.call("GET", base+"/documents", key, nil), 200)
		}
		w.want(w.call("GET", "/api/tenants/"+w.tenant(admin, "B")+"/documents", key, nil), 404)
		w.want(w.call("DELETE", base+"/api-keys/"+made.text("data.id"), admin.token, nil), 200)
		w.want(w.call("GET", base+"/documents", key, nil), 401)
		other.eventually(401, func() answer { return other.call("GET", base+"/documents", key, nil) })
	})
	t.Run("the tenant", func(t *testing.T) {
		w.want(w.call("GET", base+"/documents", admin.token, nil), 200)
		w.want(w.call("DELETE", base, admin.token, nil), 200)
		w.want(w.call("GET", base+"/documents", admin.token, nil), 404)
	})
}
