package rest

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/infra/httpapi"
)

func (r routes) tenants(api huma.API) {
	route(api, httpapi.Op{
		ID: "create-tenant", Method: http.MethodPost, Path: "/api/tenants", Tag: "tenants", Accepts: true, Makes: true,
		Summary: "Make a tenant with a database of its own; the caller becomes its admin", Status: http.StatusCreated,
		Errors: []int{http.StatusConflict},
	}, r.createTenant)
	route(api, httpapi.Op{
		ID: "change-tenant", Method: http.MethodPut, Versioned: httpapi.TagTenant, Path: "/api/tenants/{tenant_id}", Tag: "tenants", Accepts: true,
		Summary: "Change a tenant's name (its database keeps the first one), or whether changes need If-Match", Errors: []int{http.StatusConflict},
	}, r.changeTenant)
	route(api, httpapi.Op{
		ID: "delete-tenant", Method: http.MethodDelete, Versioned: httpapi.TagTenant, Path: "/api/tenants/{tenant_id}", Tag: "tenants",
		Summary: "Serve a tenant no longer; everything stays for a return", Errors: []int{http.StatusConflict},
	}, r.deleteTenant)
	route(api, httpapi.Op{
		ID: "restore-tenant", Method: http.MethodPost, Versioned: httpapi.TagTenant, Path: "/api/tenants/{tenant_id}/restore", Tag: "tenants",
		Summary: "Serve a deleted tenant again, with the members that it had", Errors: []int{http.StatusConflict},
	}, r.restoreTenant)
}

type newTenant struct {
	httpapi.Repeatable
	Body struct {
		Name string `json:"name" minLength:"1" maxLength:"255" example:"North Mill"`
	}
}

// Resolve implements huma.Resolver.
func (in *newTenant) Resolve(huma.Context) []error {
	return httpapi.Wrong(commands.CheckNewTenant(in.Body.Name))
}

type tenantWithRole struct {
	httpapi.Tenant
	Role string `json:"role" enum:"admin,user,viewer"`
}

func (r routes) createTenant(ctx context.Context, in *newTenant) (*httpapi.Answer[tenantWithRole], error) {
	t, receipt, err := r.Commands.CreateTenant(ctx, r.caller(ctx, in.IdempotencyKey), in.Body.Name)
	if err != nil {
		return nil, err
	}
	httpapi.Tag(ctx, httpapi.TagTenant, uint64(receipt.Version))
	at := r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Directory())
	if t.TSAEnabled {
		// The tenant's own log begins with this switch, at position 1; the directory shows it too.
		if own := r.Server.Settle(ctx, 1, httpapi.DirectoryOf(t.ID), httpapi.Documents(t.ID)); at.Pending == "" {
			at.Pending = own.Pending
		}
	}
	return httpapi.Answered(at, "The tenant is ready.", tenantWithRole{tenantOf(t), "admin"}), nil
}

type tenantChange struct {
	httpapi.InTenant
	httpapi.Repeatable
	Body struct {
		Name           *string `json:"name,omitempty" minLength:"1" maxLength:"255" example:"North Mill"`
		RequireIfMatch *bool   `json:"require_if_match,omitempty" doc:"Whether changes of documents, files, members and of the tenant itself are refused (428) without If-Match."`
		IsActive       *bool   `json:"is_active,omitempty" enum:"true" doc:"Changes nothing: to end a tenant, delete it."`
	}
}

// Resolve implements huma.Resolver.
func (in *tenantChange) Resolve(huma.Context) []error {
	if in.Body.Name == nil && in.Body.RequireIfMatch == nil && in.Body.IsActive == nil {
		return httpapi.Wrong(map[string][]string{"_schema": {"Name at least one field."}})
	}
	return httpapi.Wrong(in.command().Check())
}

func (in *tenantChange) command() commands.ChangeTenant {
	return commands.ChangeTenant{Name: in.Body.Name, RequireIfMatch: in.Body.RequireIfMatch}
}

func (r routes) changeTenant(ctx context.Context, in *tenantChange) (*httpapi.Answer[httpapi.Tenant], error) {
	t := httpapi.MembershipOf(ctx).Tenant
	changed, receipt, err := r.Commands.ChangeTenant(ctx, r.caller(ctx, in.IdempotencyKey), t.ID, in.command())
	if err != nil {
		return nil, err
	}
	httpapi.Tag(ctx, httpapi.TagTenant, uint64(receipt.Version))
	t.Name, t.RequireIfMatch = changed.Name, changed.RequireIfMatch
	if changed.UpdatedAt.After(time.Time(t.UpdatedAt)) {
		t.UpdatedAt = httpapi.Time(changed.UpdatedAt)
	}
	return httpapi.Answered(r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Directory()), "The tenant is as you want it.", t), nil
}

type tenantOnly struct {
	httpapi.InTenant
	httpapi.Repeatable
}

func (r routes) deleteTenant(ctx context.Context, in *tenantOnly) (*httpapi.Done, error) {
	receipt, err := r.Commands.DeleteTenant(ctx, r.caller(ctx, in.IdempotencyKey), httpapi.MembershipOf(ctx).ID)
	if err != nil {
		return nil, err
	}
	return httpapi.DoneWith(r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Directory()), "The tenant is deleted; an admin can restore it."), nil
}

func (r routes) restoreTenant(ctx context.Context, in *tenantOnly) (*httpapi.Done, error) {
	receipt, err := r.Commands.RestoreTenant(ctx, r.caller(ctx, in.IdempotencyKey), httpapi.MembershipOf(ctx).ID)
	if err != nil {
		return nil, err
	}
	return httpapi.DoneWith(r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Directory()), "The tenant is served again."), nil
}

func tenantOf(t commands.Tenant) httpapi.Tenant {
	out := httpapi.NewTenant(t.ID, t.Name, t.DatabaseName)
	out.TSAEnabled = t.TSAEnabled
	if t.TSAProvider != "" {
		out.TSAProvider = &t.TSAProvider
	}
	out.CreatedAt, out.UpdatedAt = httpapi.Time(t.CreatedAt), httpapi.Time(t.UpdatedAt)
	if t.CreatedBy != "" {
		out.CreatedBy = &t.CreatedBy
	}
	return out
}
