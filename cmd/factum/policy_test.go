package main

import (
	"strings"
	"testing"

	"github.com/factum-platform/factum/infra/httpapi"
)

func TestThePolicyIsPrintedWhole(t *testing.T) {
	var out strings.Builder
	if err := printPolicy(&out); err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for _, line := range strings.Split(out.String(), "\n") {
		if f := strings.Fields(line); len(f) == 8 {
			rows[f[0]+" "+f[1]] = strings.Join(f[2:], " ")
		}
	}
	if len(rows) != len(httpapi.Policy) {
		t.Errorf("%d rows are printed of %d:\n%s", len(rows), len(httpapi.Policy), out.String())
	}
	for route, want := range map[string]string{ // anyone, signed in, viewer, user, admin, platform
		"POST /api/auth/login":                                    "yes yes yes yes yes yes",
		"GET /api/users/me":                                       "- yes yes yes yes yes",
		"GET /api/tenants/{tenant_id}/documents":                  "- - yes yes yes -",
		"POST /api/tenants/{tenant_id}/documents":                 "- - - yes yes -",
		"DELETE /api/tenants/{tenant_id}/documents/{document_id}": "- - - own yes -",
		"DELETE /api/tenants/{tenant_id}/users/{user_id}":         "- - - - yes -",
		"GET /api/platform/projections":                           "- - - - - yes",
		"POST /api/tenants/{tenant_id}/restore":                   "- - - - yes -",
	} {
		if rows[route] != want {
			t.Errorf("%s: %q, want %q", route, rows[route], want)
		}
	}
}
