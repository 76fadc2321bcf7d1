package rest

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/infra/httpapi"
)

func (r routes) tenants(api huma.API) {
	route(api, httpapi.Op{
		ID: "create-tenant", Method: http.MethodPost, Path: "/api/tenants", Tag: "tenants", Accepts: true,
		Summary: "Make a tenant with a database of its own; the caller becomes its admin", Status: http.StatusCreated,
		Errors: []int{http.StatusConflict},
	}, r.createTenant)
}

type newTenant struct {
	httpapi.Repeatable
	Body struct {
		Name string `json:"name" minLength:"1" maxLength:"255" example:"North Mill"`
	}
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
	at := r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Directory())
	if t.TSAEnabled {
		// The tenant's own log begins with this switch, at position 1; the directory shows it too.
		if own := r.Server.Settle(ctx, 1, httpapi.DirectoryOf(t.ID), httpapi.Documents(t.ID)); at.Pending == "" {
			at.Pending = own.Pending
		}
	}
	return httpapi.Answered(at, "The tenant is ready.", tenantWithRole{tenantOf(t), "admin"}), nil
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
