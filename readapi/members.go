package readapi

import (
	"context"
	"fmt"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/infra/httpapi"
	"github.com/factum-platform/factum/infra/readmodel"
)

// maxMembers is how many members the answer about a tenant holds at most; the list of members has pages.
const maxMembers = 1000

func (r routes) members(api huma.API) {
	httpapi.Route(api, get("list-members", "/api/tenants/{tenant_id}/users", "members", "The tenant's members, oldest membership first; positions are the platform's"), r.listMembers)
}

type memberQuery struct {
	httpapi.InTenant
	httpapi.Fresh
	httpapi.Page
	Role     string `query:"role" enum:"admin,user,viewer" doc:"Only members in this role."`
	IsActive bool   `query:"is_active" default:"true" doc:"false lists the members whose accounts are switched off; they are shown nowhere else."`
}

type memberPage struct {
	Members    []httpapi.Member   `json:"members" nullable:"false"`
	Pagination httpapi.Pagination `json:"pagination"`
}

func (r routes) listMembers(ctx context.Context, in *memberQuery) (*httpapi.Answer[memberPage], error) {
	var out memberPage
	tenant := httpapi.MembershipOf(ctx).ID
	at, err := r.Server.Read(ctx, httpapi.Directory(), in.MinPosition, func(tx readmodel.Tx, schema string) error {
		var total int
		err := tx.QueryRow(ctx, fmt.Sprintf(`select count(*) from `+memberRows, schema), tenant, in.Role, in.IsActive).Scan(&total)
		if err != nil {
			return err
		}
		out.Pagination = in.Of(total)
		out.Members, err = members(ctx, tx, schema, tenant, in.Role, in.IsActive, in.Page)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("readapi: members: %w", err)
	}
	return httpapi.Answered(at, "The members.", out), nil
}

// memberRows are the tenant's members who may log in, or those who may not, in one role or in all.
const memberRows = `%[1]s.memberships m join %[1]s.users u on u.id = m.user_id where m.tenant_id = $1 and u.is_active = $3 and ($2 = '' or m.role = $2)`

func members(ctx context.Context, tx readmodel.Tx, schema, tenant, role string, active bool, page httpapi.Page) ([]httpapi.Member, error) {
	rows, err := tx.Query(ctx, fmt.Sprintf(`select u.id::text, u.first_name, u.last_name, u.email, u.is_active, u.created_at, u.updated_at, m.role, m.joined_at from `+
		memberRows+` order by m.joined_at, u.id limit $4 offset $5`, schema), tenant, role, active, page.PerPage, page.Offset())
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (httpapi.Member, error) {
		var m httpapi.Member
		err := row.Scan(&m.ID, &m.FirstName, &m.LastName, &m.Email, &m.IsActive, &m.CreatedAt, &m.UpdatedAt, &m.Role, &m.JoinedAt)
		return m, err
	})
}
