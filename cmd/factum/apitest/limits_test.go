package apitest

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/factum-platform/factum/infra/clientaddr"
	"github.com/factum-platform/factum/infra/httpapi"
	"github.com/factum-platform/factum/infra/ratelimit"
	"github.com/factum-platform/factum/infra/tenants"
)

// limited starts a server on the same databases that limits as q says, and believes its only peer, the test. Its leases are its own.
func (w *world) limited(q httpapi.Limits) *world {
	return w.second(func(c *httpapi.Config) {
		q.Limiter = ratelimit.New(ratelimit.Config{Pool: w.platform, MAC: func(ctx context.Context, scope, value string) ([]byte, error) {
			return w.keys.MAC(ctx, tenants.Platform, "ratelimit", scope+" "+value)
		}})
		c.Limits = q
		c.Proxies = clientaddr.Proxies{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	})
}

func from(address string) header { return header{"X-Forwarded-For": address} }

var itemForm = regexp.MustCompile(`^"(address|user|tenant)";r=(\d+);t=\d+(, "(address|user|tenant)";r=\d+;t=\d+)*$`)

func TestLimitsAreSharedByAllServers(t *testing.T) {
	w := newWorld(t)
	mina, noor := w.person("Mina"), w.person("Noor")
	a, b := w.tenant(mina, "A"), w.tenant(mina, "B")
	w.grant(a, noor, "viewer")
	const long = 10 * time.Minute // nothing comes back during the test

	// admitted counts how many of n requests two servers admit, in turn, and checks the last refusal.
	admitted := func(t *testing.T, q httpapi.Limits, n int, ask func(w *world) answer) int {
		t.Helper()
		servers := []*world{w.limited(q), w.limited(q)}
		count := 0
		for i := range n {
			server := servers[i%2]
			x := ask(server)
			if x.StatusCode != 429 {
				server.want(x, 200)
				count++
			} else {
				server.problem(x, 429, "TOO_MANY_REQUESTS")
				if wait, err := strconv.Atoi(x.Header.Get("Retry-After")); err != nil || wait < 1 || wait > 60 {
					t.Errorf("Retry-After: %q", x.Header.Get("Retry-After"))
				}
			}
			if !itemForm.MatchString(x.Header.Get("RateLimit")) || x.Header.Get("RateLimit-Policy") == "" {
				t.Errorf("RateLimit: %q, RateLimit-Policy: %q", x.Header.Get("RateLimit"), x.Header.Get("RateLimit-Policy"))
			}
		}
		return count
	}
	list := func(tenant string, p person) func(*world) answer {
		return func(w *world) answer { return w.call("GET", "/api/tenants/"+tenant+"/documents", p.token, nil) }
	}
	t.Run("of a user", func(t *testing.T) {
		q := httpapi.Limits{User: ratelimit.Quota{Requests: 20, Window: long}}
		if n := admitted(t, q, 30, list(a, mina)); n != 20 {
			t.Errorf("%d requests were admitted; want 20", n)
		}
		server := w.limited(q)
		x := server.want(list(a, noor)(server), 200)
		if x.Header.Get("RateLimit-Policy") != `"user";q=20;w=600` {
			t.Error(x.Header.Get("RateLimit-Policy"))
		}
	})
	t.Run("of a tenant", func(t *testing.T) {
		q := httpapi.Limits{Tenant: ratelimit.Quota{Requests: 20, Window: long}}
		i := 0
		if n := admitted(t, q, 30, func(w *world) answer {
			i++
			return list(a, []person{mina, noor}[i%2])(w)
		}); n != 20 {
			t.Errorf("%d requests were admitted; want 20", n)
		}
		server := w.limited(q)
		server.want(list(b, mina)(server), 200)
	})
	t.Run("of an address", func(t *testing.T) {
		q := httpapi.Limits{Address: ratelimit.Quota{Requests: 20, Window: long}}
		i := 0
		if n := admitted(t, q, 30, func(w *world) answer { // one /64; what the client itself writes is not believed
			i++
			return w.call("GET", "/api/tenants", mina.token, nil, from(fmt.Sprintf("203.0.113.%d, 2001:db8::%d", i, i)))
		}); n != 20 {
			t.Errorf("%d requests were admitted; want 20", n)
		}
		server := w.limited(q)
		server.want(server.call("GET", "/api/tenants", mina.token, nil, from("2001:db8:0:1::1")), 200)
		server.problem(server.call("POST", "/api/auth/login", "", map[string]any{"email": mina.email, "password": password}, from("2001:db8::99")), 429, "too_many_requests")
		server.problem(server.call("GET", "/api/nowhere", "", nil, from("2001:db8::99")), 429, "too_many_requests") // nor who looks around
		for range 30 {
			x := server.want(server.call("GET", "/health", "", nil, from("2001:db8::99")), 200)
			if x.Header.Get("RateLimit") != "" {
				t.Fatal("a probe is counted")
			}
		}
	})
}

// TestFailedAttemptsCountByTheAddressThatProxiesName goes past the 50 requests for mails that one network has free.
func TestFailedAttemptsCountByTheAddressThatProxiesName(t *testing.T) {
	w := newWorld(t)
	server := w.limited(httpapi.Limits{})
	ask := func(address string) int {
		return server.call("POST", "/api/auth/password/forgot", "", map[string]any{"email": "nobody@plant.example"}, from(address)).StatusCode
	}
	refused := false
	for range 60 {
		refused = refused || ask("198.51.100.1") == 429
	}
	if !refused || ask("198.51.100.2") != 202 {
		t.Errorf("refused: %v; another address: %d", refused, ask("198.51.100.2"))
	}
}
