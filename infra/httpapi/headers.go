package httpapi

import (
	"maps"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// describedHeaders are those of answers that programs read besides what the routes themselves declare; the document describes each once.
var describedHeaders = map[string]*huma.Header{
	"X-Request-Id": {
		Description: "Names the request in our log; the request's own X-Request-Id, if it has 1 to 64 of A-Z, a-z, 0-9, dot, dash and underscore.",
		Schema:      &huma.Schema{Type: huma.TypeString},
	},
	"Retry-After": {
		Description: "Seconds to wait before trying again (RFC 9110 §10.2.3).",
		Schema:      &huma.Schema{Type: huma.TypeInteger, Minimum: minimum(1)},
	},
	"WWW-Authenticate": {
		Description: "What token is wanted (RFC 6750 §3).",
		Schema:      &huma.Schema{Type: huma.TypeString},
	},
	"ETag": {
		Description: "The entity tag of what the answer shows, for If-Match and If-None-Match; absent where nothing is left to change.",
		Schema:      &huma.Schema{Type: huma.TypeString},
	},
	"Factum-Position": {
		Description: "How far the read model has applied the log.",
		Schema:      &huma.Schema{Type: huma.TypeString},
	},
	"Idempotency-Replayed": {
		Description: "true when the answer is that of an earlier request with the same Idempotency-Key; absent otherwise.",
		Schema:      &huma.Schema{Type: huma.TypeString, Enum: []any{"true"}},
	},
	"RateLimit": {
		Description: `What is left of the quotas that the request counted in (draft-ietf-httpapi-ratelimit-headers-10): "address";r=2999;t=1, "user";r=1199;t=1. ` +
			"r is how many requests may follow, t the seconds until the whole quota is there again. Absent where nothing is limited.",
		Schema: &huma.Schema{Type: huma.TypeString},
	},
	"RateLimit-Policy": {
		Description: `The same quotas: "address";q=3000;w=60, "user";q=1200;w=60. q requests are admitted in w seconds.`,
		Schema:      &huma.Schema{Type: huma.TypeString},
	},
}

func minimum(v float64) *float64 { return &v }

// describeHeaders adds to every answer of a route the headers that it can have.
func describeHeaders(rule Rule, op Op, responses map[string]*huma.Response) {
	for status, response := range responses {
		names := []string{"X-Request-Id"}
		if !rule.unlimited() {
			names = append(names, "RateLimit", "RateLimit-Policy")
		}
		if op.tagged() && (strings.HasPrefix(status, "2") || status == "304") {
			names = append(names, "ETag")
		}
		if op.repeatable() && strings.HasPrefix(status, "2") {
			names = append(names, "Idempotency-Replayed")
		}
		switch status {
		case "304":
			names = append(names, "Factum-Position")
		case strconv.Itoa(http.StatusConflict):
			if op.repeatable() {
				names = append(names, "Retry-After")
			}
		case strconv.Itoa(http.StatusUnauthorized):
			names = append(names, "WWW-Authenticate")
		case strconv.Itoa(http.StatusTooManyRequests), strconv.Itoa(http.StatusServiceUnavailable):
			names = append(names, "Retry-After")
		}
		if response.Headers == nil {
			response.Headers = map[string]*huma.Header{}
		}
		for _, name := range names {
			response.Headers[name] = &huma.Header{Ref: "#/components/headers/" + name}
		}
	}
}

// headerComponents is what the answers refer to.
func headerComponents() map[string]*huma.Header { return maps.Clone(describedHeaders) }
