package readapi

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/infra/httpapi"
)

func (r routes) platform(api huma.API) {
	httpapi.Route(api, get("list-users", "/api/platform/users", "platform", "All accounts, newest first unless sorted otherwise", http.StatusBadRequest), r.listUsers)
	httpapi.Route(api, get("list-all-tenants", "/api/platform/tenants", "platform", "All tenants, newest first unless sorted otherwise; nothing of what is in them", http.StatusBadRequest), r.listTenants)
}

type userQuery struct {
	httpapi.Fresh
	ListPage
	Period
	Sort     string `query:"sort" default:"-created_at" enum:"created_at,-created_at,email,-email" doc:"Column to sort by; - sorts downwards."`
	Email    string `query:"email" maxLength:"255" doc:"Only addresses that contain this, in whatever case."`
	IsActive string `query:"is_active" enum:"true,false" doc:"Only accounts that are in use, or only those that are switched off."`

	selected *list
}

// Resolve implements huma.Resolver.
func (in *userQuery) Resolve(huma.Context) (wrong []error) {
	in.selected, wrong = in.list()
	return wrong
}

type platformUser struct {
	httpapi.Account
	Administrator bool `json:"is_administrator" doc:"Administers the platform."`
}

type userPage struct {
	Users      []platformUser     `json:"users" nullable:"false"`
	Pagination httpapi.Pagination `json:"pagination"`
}

// list is the query for the part of the users that is asked for.
func (in *userQuery) list() (*list, []error) {
	l := &list{table: "users", as: "u", columns: `u.id::text, u.first_name, u.last_name, u.email, u.email_verified, u.is_active, u.created_at, u.updated_at,
		exists (select from {schema}.administrators a where a.user_id = u.id)`}
	l.created(in.Period)
	if in.Email != "" {
		l.where("email ilike $", "%"+likeLiteral.Replace(strings.TrimSpace(in.Email))+"%")
	}
	if in.IsActive != "" {
		l.where("is_active = $", in.IsActive == "true")
	}
	wrong := l.orderBy(in.Sort, map[string]string{"created_at": timeKind, "email": "text"}, in.ListPage)
	if !plain(in.Email) {
		return l, append(httpapi.Wrong(wrong), httpapi.Wrong(map[string][]string{"email": {"Must be valid text."}})...)
	}
	return l, httpapi.Wrong(wrong)
}

func (r routes) listUsers(ctx context.Context, in *userQuery) (*httpapi.Answer[userPage], error) {
	l := in.selected
	var out userPage
	var at httpapi.Settled
	var err error
	out.Users, out.Pagination, at, err = read(ctx, r.Server, httpapi.Directory(), in.MinPosition, l, func(row pgx.CollectableRow) (platformUser, error) {
		var u platformUser
		err := row.Scan(&u.ID, &u.FirstName, &u.LastName, &u.Email, &u.EmailVerified, &u.IsActive, &u.CreatedAt, &u.UpdatedAt, &u.Administrator)
		return u, err
	}, func(u platformUser) (value, id string) {
		return map[string]string{"created_at": u.CreatedAt.String(), "email": u.Email}[l.column], u.ID
	})
	if err != nil {
		return nil, fmt.Errorf("readapi: list users: %w", err)
	}
	return httpapi.Answered(at, "The accounts.", out), nil
}

type allTenantsQuery struct {
	httpapi.Fresh
	ListPage
	Period
	Sort         string `query:"sort" default:"-created_at" enum:"created_at,-created_at,name,-name" doc:"Column to sort by; - sorts downwards."`
	IsActive     string `query:"is_active" enum:"true,false" doc:"Only tenants that are served, or only those that were deleted."`
	WithoutAdmin string `query:"without_admin" enum:"true,false" doc:"Only tenants none of whose admins can log in, or only the others."`

	selected *list
}

// Resolve implements huma.Resolver.
func (in *allTenantsQuery) Resolve(huma.Context) (wrong []error) {
	in.selected, wrong = in.list()
	return wrong
}

type platformTenant struct {
	ID           string       `json:"id" format:"uuid"`
	Name         string       `json:"name"`
	DatabaseName string       `json:"database_name"`
	IsActive     bool         `json:"is_active"`
	MemberCount  int          `json:"member_count" doc:"Members whose accounts are in use."`
	AdminCount   int          `json:"admin_count" doc:"How many of them are admins. With none, POST …/admins appoints one."`
	CreatedAt    httpapi.Time `json:"created_at"`
	UpdatedAt    httpapi.Time `json:"updated_at"`
}

type tenantPage struct {
	Tenants    []platformTenant   `json:"tenants" nullable:"false"`
	Pagination httpapi.Pagination `json:"pagination"`
}

// inUse are the members of the tenant t whose accounts are in use.
const inUse = `from {schema}.memberships m join {schema}.users u on u.id = m.user_id where m.tenant_id = t.id and u.is_active`

// list is the query for the part of the tenants that is asked for.
func (in *allTenantsQuery) list() (*list, []error) {
	l := &list{table: "tenants", as: "t", columns: `t.id::text, t.name, t.database_name, t.is_active, (select count(*) ` + inUse + `),
		(select count(*) ` + inUse + ` and m.role = 'admin'), t.created_at, t.updated_at`}
	l.conditions = append(l.conditions, "provisioned")
	l.created(in.Period)
	if in.IsActive != "" {
		l.where("is_active = $", in.IsActive == "true")
	}
	if in.WithoutAdmin != "" {
		l.where("exists (select "+inUse+" and m.role = 'admin') <> $", in.WithoutAdmin == "true")
	}
	return l, httpapi.Wrong(l.orderBy(in.Sort, map[string]string{"created_at": timeKind, "name": "text"}, in.ListPage))
}

func (r routes) listTenants(ctx context.Context, in *allTenantsQuery) (*httpapi.Answer[tenantPage], error) {
	l := in.selected
	var out tenantPage
	var at httpapi.Settled
	var err error
	out.Tenants, out.Pagination, at, err = read(ctx, r.Server, httpapi.Directory(), in.MinPosition, l, func(row pgx.CollectableRow) (platformTenant, error) {
		var t platformTenant
		err := row.Scan(&t.ID, &t.Name, &t.DatabaseName, &t.IsActive, &t.MemberCount, &t.AdminCount, &t.CreatedAt, &t.UpdatedAt)
		return t, err
	}, func(t platformTenant) (value, id string) {
		return map[string]string{"created_at": t.CreatedAt.String(), "name": t.Name}[l.column], t.ID
	})
	if err != nil {
		return nil, fmt.Errorf("readapi: list all tenants: %w", err)
	}
	return httpapi.Answered(at, "The tenants.", out), nil
}
