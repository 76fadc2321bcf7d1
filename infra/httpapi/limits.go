package httpapi

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/factum-platform/factum/infra/clientaddr"
	"github.com/factum-platform/factum/infra/ratelimit"
)

// Limits are how many requests are admitted from one network address, of one user or API key, and in one tenant. A quota that is off
// limits nothing.
type Limits struct {
	Limiter               *ratelimit.Limiter // nil limits nothing
	Address, User, Tenant ratelimit.Quota
}

// limited are the scopes, in the order in which a request passes them, and what their refusal says.
var limited = map[string]string{
	"address": "Too many requests come from your network address.",
	"user":    "You, or your API key, send too many requests.",
	"tenant":  "Too many requests are sent in this tenant, by all its members together.",
}

// unlimited tells whether the route is for probes and for people who look around; it asks no database.
func (r Rule) unlimited() bool { return r.Path == "/" || strings.HasSuffix(r.Path, "/health") }

// limit admits a request in one scope, or answers 429, and tells the client in RateLimit and RateLimit-Policy
// (draft-ietf-httpapi-ratelimit-headers-10) what is left; an answer has an item for each scope that the request has passed. key "" is
// not limited.
func (s *Server) limit(ctx context.Context, hc huma.Context, rule Rule, scope, key string, q ratelimit.Quota) error {
	if rule.unlimited() {
		return nil
	}
	return s.take(ctx, hc.AppendHeader, scope, key, q)
}

// take is [Server.limit] for a request that no route serves, too.
func (s *Server) take(ctx context.Context, tell func(name, value string), scope, key string, q ratelimit.Quota) error {
	if s.c.Limits.Limiter == nil || q.Off() || key == "" {
		return nil
	}
	v, err := s.c.Limits.Limiter.Take(ctx, scope, key, q)
	if err != nil {
		return err
	}
	tell("RateLimit-Policy", fmt.Sprintf("%q;q=%d;w=%d", scope, q.Requests, int(q.Window.Seconds())))
	tell("RateLimit", fmt.Sprintf("%q;r=%d;t=%d", scope, v.Remaining, seconds(v.Reset)))
	if v.Admitted {
		return nil
	}
	s.metrics.refuse(scope)
	return TooMany(limited[scope]+" Wait as Retry-After says.", max(1, seconds(v.After)))
}

// seconds rounds up.
func seconds(d time.Duration) int { return int(math.Ceil(d.Seconds())) }

// networkOf is what an address is counted as.
func networkOf(address string) string {
	network, ok := clientaddr.Network(address)
	if !ok {
		return "" // a socket without an address
	}
	return network.String()
}
