package readapi

import (
	"context"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/factum-platform/factum/infra/httpapi"
	"github.com/factum-platform/factum/infra/readmodel"
)

func (r routes) tenants(api huma.API) {
	httpapi.Route(api, get("list-tenants", "/api/tenants", "tenants", "The caller's tenants, latest joined first", http.StatusBadRequest), r.myTenants)
	tenant := versioned(httpapi.TagTenant, get("get-tenant", "/api/tenants/{tenant_id}", "tenants", "A tenant and its members; positions are the platform's"))
	tenant.ShowsMembership = true
	httpapi.Route(api, tenant, r.tenant)
	httpapi.Route(api, get("tsa-status", "/api/tenants/{tenant_id}/tsa/status", "time-stamps", "Whether new files are time-stamped, and how many were"), r.tsaStatus)
}

type inTenant struct {
	httpapi.InTenant
	httpapi.Fresh
}

type tenantWithMembers struct {
	httpapi.Tenant
	Role    string           `json:"role" enum:"admin,user,viewer"`
	Members []httpapi.Member `json:"members" nullable:"false"`
}

func (r routes) tenant(ctx context.Context, in *inTenant) (*httpapi.Answer[tenantWithMembers], error) {
	m := httpapi.MembershipOf(ctx)
	out := tenantWithMembers{Tenant: m.Tenant, Role: m.Role}
	var membersAt uint64
	at, err := r.Server.Read(ctx, httpapi.Directory(), in.MinPosition, func(tx readmodel.Tx, schema string) (err error) {
		if err := tx.QueryRow(ctx, fmt.Sprintf(`select coalesce((select version from %s.member_lists where tenant_id = $1), 0)`, schema), m.ID).Scan(&membersAt); err != nil {
			return err
		}
		out.Members, err = members(ctx, tx, schema, m.ID, "", true, httpapi.Page{Page: 1, PerPage: maxMembers})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("readapi: tenant: %w", err)
	}
	httpapi.Tag(ctx, httpapi.TagTenant, m.Version)
	httpapi.Tag(ctx, httpapi.TagMembers, membersAt)
	httpapi.TagWhole(ctx) // it shows the members' accounts, and the caller's role
	return httpapi.Answered(at, "The tenant.", out), nil
}

type tsaStatus struct {
	TSAEnabled  bool    `json:"tsa_enabled"`
	TSAProvider *string `json:"tsa_provider"`
	Timestamped int     `json:"total_timestamped_files"`
	Pending     int     `json:"pending_timestamps"`
	Failed      int     `json:"failed_timestamps" doc:"Given up; pending ones that failed so far do not count."`
}

func (r routes) tsaStatus(ctx context.Context, in *inTenant) (*httpapi.Answer[tsaStatus], error) {
	id := httpapi.MembershipOf(ctx).ID
	var out tsaStatus
	at, err := r.Server.Read(ctx, httpapi.DirectoryOf(id), in.MinPosition, func(tx readmodel.Tx, schema string) error {
		return tx.QueryRow(ctx, fmt.Sprintf(`select tsa_enabled, tsa_provider from %s.tenants where id = $1`, schema), id).Scan(&out.TSAEnabled, &out.TSAProvider)
	})
	if err != nil {
		return nil, fmt.Errorf("readapi: time-stamping of a tenant: %w", err)
	}
	_, err = r.Server.Read(ctx, httpapi.Documents(id), in.MinPosition, func(tx readmodel.Tx, schema string) error {
		return tx.QueryRow(ctx, fmt.Sprintf(`select count(*) filter (where ts_status = 'success'), count(*) filter (where ts_status = 'pending'),
			count(*) filter (where ts_status = 'error') from %s.files`, schema)).Scan(&out.Timestamped, &out.Pending, &out.Failed)
	})
	if err != nil {
		return nil, fmt.Errorf("readapi: time-stamps of a tenant: %w", err)
	}
	return httpapi.Answered(at, "", out), nil
}
