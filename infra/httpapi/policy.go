package httpapi

import (
	"fmt"
	"strings"
	"time"
)

// Access is who may call a route. Those from ViewerUp on demand a membership of the path's tenant.
type Access uint8

// The kinds of access. Refresh demands the refresh token, the others that follow it an access token.
const (
	Anyone         Access = iota + 1 // no token
	Refresh                          // the refresh token; the handler verifies it
	SignedIn                         // any user
	PlatformAdmin                    // an administrator of the platform; roles in tenants do not count
	ViewerUp                         // a member, in any role
	UserUp                           // a member who may write
	OwnerUp                          // a member who may write, to what the member uploaded; an admin to everything
	AdminOnly                        // a member who administers the tenant
	AdminPerson                      // the same, and no API key: a key makes no keys and invites nobody
	AdminOfDeleted                   // an admin, and the tenant may be deleted
)

// Reach is how far a role's right to a route goes.
type Reach uint8

// A role may do nothing with a route, or call it for what the member uploaded, or for everything in the tenant.
const (
	Nothing Reach = iota
	Own
	Everything
)

// String returns the word that "factum policy" prints.
func (r Reach) String() string { return [...]string{"-", "own", "yes"}[r] }

// Roles are the roles of memberships, from the least to the most.
var Roles = []string{"viewer", "user", "admin"}

// reaches says what each role may do where a membership is demanded; a role that is not here may do nothing.
var reaches = map[Access]map[string]Reach{
	ViewerUp:       {"viewer": Everything, "user": Everything, "admin": Everything},
	UserUp:         {"user": Everything, "admin": Everything},
	OwnerUp:        {"user": Own, "admin": Everything},
	AdminOnly:      {"admin": Everything},
	AdminPerson:    {"admin": Everything},
	AdminOfDeleted: {"admin": Everything},
}

// Rule is one row of the policy: who may call a route, and how long it may take.
type Rule struct {
	Method, Path string
	Access       Access
	failure      string        // the code of a 500, where the contract has one of its own
	limit        time.Duration // how long the handler may take; 0 means [usualLimit]
}

const (
	usualLimit = 30 * time.Second
	bulkLimit  = 2 * time.Minute  // a thousand things are changed
	longLimit  = 30 * time.Minute // whole contents pass through
)

// Policy is the whole table: a route that is not here is not registered, and a test compares it with the router.
var Policy = []Rule{
	{"GET", "/", Anyone, "", 0},
	{"GET", "/health", Anyone, "", 0},
	{"GET", "/.well-known/jwks.json", Anyone, "", 0},
	{"GET", "/account", Anyone, "", 0}, // the page that mailed links lead to
	{"GET", "/account.js", Anyone, "", 0},
	{"GET", "/metrics", Anyone, "", 0}, // exists only when [Config.MetricsHandler] is set
	{"GET", "/api/docs", Anyone, "", 0},
	{"GET", "/api/docs/", Anyone, "", 0},
	{"GET", "/api/docs/{asset}", Anyone, "", 0},
	{"GET", "/api/docs/swagger.yaml", Anyone, "", 0},
	{"GET", "/api/docs/openapi.json", Anyone, "", 0},

	{"POST", "/api/auth/register", Anyone, "registration_failed", 0},
	{"POST", "/api/auth/login", Anyone, "login_failed", 0},
	{"POST", "/api/auth/refresh", Refresh, "token_refresh_failed", 0},
	{"POST", "/api/auth/logout", SignedIn, "logout_failed", 0},
	{"POST", "/api/auth/logout-all", SignedIn, "logout_failed", 0},
	{"GET", "/api/auth/sessions", SignedIn, "", 0},
	{"DELETE", "/api/auth/sessions/{session_id}", SignedIn, "", 0},
	{"POST", "/api/auth/password/change", SignedIn, "", 0},
	{"POST", "/api/auth/password/forgot", Anyone, "", 0},
	{"POST", "/api/auth/password/reset", Anyone, "", 0},
	{"POST", "/api/auth/verify-email", Anyone, "", 0},
	{"POST", "/api/auth/verify-email/resend", SignedIn, "", 0},
	{"GET", "/api/auth/health", Anyone, "", 0},

	{"GET", "/api/users/me", SignedIn, "", 0},
	{"PUT", "/api/users/me", SignedIn, "", 0},
	{"GET", "/api/users/me/tenants", SignedIn, "", 0},
	{"GET", "/api/users/me/invitations", SignedIn, "", 0},
	{"POST", "/api/users/me/invitations/{invitation_id}/accept", SignedIn, "", 0},
	{"POST", "/api/users/me/invitations/{invitation_id}/decline", SignedIn, "", 0},
	{"GET", "/api/users/health", Anyone, "", 0},

	{"POST", "/api/invitations/accept", SignedIn, "", 0},
	{"POST", "/api/invitations/decline", Anyone, "", 0}, // the link is the right to

	{"GET", "/api/platform/projections", PlatformAdmin, "", 2 * time.Minute}, // asks the databases of all tenants
	{"POST", "/api/platform/projections/{projection}/pause", PlatformAdmin, "", 0},
	{"POST", "/api/platform/projections/{projection}/resume", PlatformAdmin, "", 0},
	{"POST", "/api/platform/projections/{projection}/retry", PlatformAdmin, "", 0},
	{"POST", "/api/platform/projections/{projection}/skip", PlatformAdmin, "", 0},
	{"GET", "/api/platform/users", PlatformAdmin, "", 0},
	{"GET", "/api/platform/tenants", PlatformAdmin, "", 0},
	{"POST", "/api/platform/tenants/{tenant_id}/admins", PlatformAdmin, "", 0},
	{"POST", "/api/platform/users/{user_id}/deactivate", PlatformAdmin, "", 0},
	{"POST", "/api/platform/users/{user_id}/activate", PlatformAdmin, "", 0},

	{"GET", "/api/tenants", SignedIn, "", 0},
	{"POST", "/api/tenants", SignedIn, "", time.Minute}, // makes a database
	{"GET", "/api/tenants/health", Anyone, "", 0},
	{"GET", "/api/tenants/{tenant_id}", ViewerUp, "", 0},
	{"GET", "/api/tenants/{tenant_id}/api-keys", AdminOnly, "", 0},
	{"POST", "/api/tenants/{tenant_id}/api-keys", AdminPerson, "", 0},
	{"DELETE", "/api/tenants/{tenant_id}/api-keys/{api_key_id}", AdminPerson, "", 0},
	{"PUT", "/api/tenants/{tenant_id}", AdminOnly, "", 0},
	{"DELETE", "/api/tenants/{tenant_id}", AdminOnly, "", 0},
	{"POST", "/api/tenants/{tenant_id}/restore", AdminOfDeleted, "", 0},
	{"GET", "/api/tenants/{tenant_id}/users", ViewerUp, "", 0},
	{"POST", "/api/tenants/{tenant_id}/users", AdminOnly, "", 0},
	{"PUT", "/api/tenants/{tenant_id}/users/{user_id}", AdminOnly, "", 0},
	{"DELETE", "/api/tenants/{tenant_id}/users/{user_id}", AdminOnly, "", 0},
	{"GET", "/api/tenants/{tenant_id}/invitations", AdminOnly, "", 0},
	{"POST", "/api/tenants/{tenant_id}/invitations", AdminPerson, "", 0},
	{"POST", "/api/tenants/{tenant_id}/invitations/{invitation_id}/resend", AdminPerson, "", 0},
	{"DELETE", "/api/tenants/{tenant_id}/invitations/{invitation_id}", AdminOnly, "", 0},
	{"GET", "/api/tenants/{tenant_id}/audit", ViewerUp, "", 0},
	{"PUT", "/api/tenants/{tenant_id}/tsa/enable", AdminOnly, "", 0},
	{"PUT", "/api/tenants/{tenant_id}/tsa/disable", AdminOnly, "", 0},
	{"GET", "/api/tenants/{tenant_id}/tsa/status", ViewerUp, "", 0},

	{"GET", "/api/tenants/{tenant_id}/documents", ViewerUp, "", 0},
	{"POST", "/api/tenants/{tenant_id}/documents", UserUp, "", longLimit},
	{"GET", "/api/tenants/{tenant_id}/documents/health", Anyone, "", 0},
	{"GET", "/api/tenants/{tenant_id}/documents/{document_id}", ViewerUp, "", 0},
	{"GET", "/api/tenants/{tenant_id}/documents/{document_id}/download", ViewerUp, "", 0},
	{"GET", "/api/tenants/{tenant_id}/documents/{document_id}/download-url", ViewerUp, "", 0},
	{"PUT", "/api/tenants/{tenant_id}/documents/{document_id}", OwnerUp, "", 0},
	{"DELETE", "/api/tenants/{tenant_id}/documents/{document_id}", OwnerUp, "", 0},
	{"POST", "/api/tenants/{tenant_id}/documents/bulk/delete", OwnerUp, "", bulkLimit},
	{"POST", "/api/tenants/{tenant_id}/documents/bulk/metadata", OwnerUp, "", bulkLimit},

	{"GET", "/api/files/{tenant_id}/files", ViewerUp, "", 0},
	{"GET", "/api/files/{tenant_id}/files/{file_id}", ViewerUp, "", 0},
	{"DELETE", "/api/files/{tenant_id}/files/{file_id}", AdminOnly, "", 0},
	{"POST", "/api/files/{tenant_id}/files/bulk/delete", AdminOnly, "", bulkLimit},
	{"GET", "/api/tenants/{tenant_id}/files/{file_id}/timestamp", ViewerUp, "", 0},
	{"GET", "/api/tenants/{tenant_id}/files/{file_id}/timestamp/download", ViewerUp, "", 0},
	{"POST", "/api/tenants/{tenant_id}/files/{file_id}/timestamp/verify", ViewerUp, "", longLimit}, // changes nothing

	{"POST", "/api/demo/kafka/produce", SignedIn, "", 0},
	{"GET", "/api/demo/kafka/consume", SignedIn, "", 0},
	{"GET", "/api/demo/kafka/health", Anyone, "", 0},
}

// rules finds a row by "METHOD /path".
var rules = func() map[string]Rule {
	out := make(map[string]Rule, len(Policy))
	for _, r := range Policy {
		key := r.Method + " " + r.Path
		if _, twice := out[key]; twice {
			panic("httpapi: two policies for " + key)
		}
		out[key] = r
	}
	return out
}()

// ruleOf panics for a route without a row: that is a mistake in the program, found at its start.
func ruleOf(method, path string) Rule {
	r, ok := rules[method+" "+path]
	if !ok {
		panic(fmt.Sprintf("httpapi: %s %s has no row in Policy", method, path))
	}
	return r
}

// flat tells whether the route's codes are lower case; the zero Rule is that of a path nobody serves.
func (r Rule) flat() bool {
	return !strings.HasPrefix(r.Path, "/api/") || strings.HasPrefix(r.Path, "/api/auth/") || strings.HasPrefix(r.Path, "/api/docs")
}

// For says how far the right of a member in the role goes, in a route that demands a membership.
func (r Rule) For(role string) Reach { return reaches[r.Access][role] }

// tenant tells whether the caller must be a member of the path's tenant.
func (r Rule) tenant() bool { return reaches[r.Access] != nil }

func (r Rule) within() time.Duration {
	if r.limit == 0 {
		return usualLimit
	}
	return r.limit
}
