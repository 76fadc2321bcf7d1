package rest

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/infra/httpapi"
)

func (r routes) apiKeys(api huma.API) {
	route(api, httpapi.Op{
		ID: "issue-api-key", Method: http.MethodPost, Path: "/api/tenants/{tenant_id}/api-keys", Tag: "api-keys", Accepts: true,
		Summary: "Make a key with which a machine calls the API in this tenant; the key itself is shown this once", Status: http.StatusCreated,
		Errors: []int{http.StatusConflict}, Secret: true,
	}, r.issueAPIKey)
	route(api, httpapi.Op{
		ID: "revoke-api-key", Method: http.MethodDelete, Path: "/api/tenants/{tenant_id}/api-keys/{api_key_id}", Tag: "api-keys",
		Summary: "End a key, at once",
	}, r.revokeAPIKey)
}

type newAPIKey struct {
	httpapi.InTenant
	Body struct {
		Name          string `json:"name" minLength:"1" maxLength:"100" example:"press 4"`
		Role          string `json:"role" enum:"admin,user,viewer"`
		ExpiresInDays int    `json:"expires_in_days,omitempty" default:"90" minimum:"1" maximum:"365"`
	}
}

// Resolve implements huma.Resolver.
func (in *newAPIKey) Resolve(huma.Context) []error { return httpapi.Wrong(in.command("").Check()) }

func (in *newAPIKey) command(tenantID string) commands.IssueAPIKey {
	return commands.IssueAPIKey{TenantID: tenantID, Name: in.Body.Name, Role: in.Body.Role, Days: in.Body.ExpiresInDays}
}

type issuedAPIKey struct {
	httpapi.APIKey
	Key string `json:"key" doc:"What the machine sends as Authorization: Bearer <key>. It cannot be read again."`
}

func (r routes) issueAPIKey(ctx context.Context, in *newAPIKey) (*httpapi.Answer[issuedAPIKey], error) {
	made, key, err := r.Commands.IssueAPIKey(ctx, r.caller(ctx, ""), in.command(httpapi.MembershipOf(ctx).ID))
	if err != nil {
		return nil, err
	}
	return httpapi.Answered(httpapi.Settled{}, "The key is good from now on. Keep it: it is not shown again.", issuedAPIKey{httpapi.APIKeyOf(made), key}), nil
}

type oneAPIKey struct {
	httpapi.InTenant
	APIKeyID string `path:"api_key_id" format:"uuid"`
}

type revokedAPIKey struct {
	RevokedAPIKeyID string `json:"revoked_api_key_id" format:"uuid"`
}

func (r routes) revokeAPIKey(ctx context.Context, in *oneAPIKey) (*httpapi.Answer[revokedAPIKey], error) {
	id := strings.ToLower(in.APIKeyID)
	if err := r.Commands.RevokeAPIKey(ctx, httpapi.MembershipOf(ctx).ID, id); err != nil {
		return nil, err
	}
	return httpapi.Answered(httpapi.Settled{}, "The key is revoked.", revokedAPIKey{id}), nil
}
