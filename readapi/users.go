package readapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/infra/httpapi"
	"github.com/factum-platform/factum/infra/readmodel"
)

func (r routes) users(api huma.API) {
	httpapi.Route(api, versioned(httpapi.TagUser, get("me", "/api/users/me", "users", "The caller's account", http.StatusNotFound, http.StatusBadRequest)), r.me)
	httpapi.Route(api, get("my-tenants", "/api/users/me/tenants", "users", "The caller's tenants, latest joined first", http.StatusBadRequest), r.myTenants)
}

func (r routes) me(ctx context.Context, in *httpapi.Fresh) (*httpapi.Answer[httpapi.Account], error) {
	var u httpapi.Account
	var version uint64
	at, err := r.Server.Read(ctx, httpapi.Directory(), in.MinPosition, func(tx readmodel.Tx, schema string) error {
		return tx.QueryRow(ctx, fmt.Sprintf(`select id::text, first_name, last_name, email, email_verified, is_active, created_at, updated_at, version from %s.users where id = $1`, schema),
			httpapi.PrincipalOf(ctx).UserID).Scan(&u.ID, &u.FirstName, &u.LastName, &u.Email, &u.EmailVerified, &u.IsActive, &u.CreatedAt, &u.UpdatedAt, &version)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, httpapi.NotFound()
	}
	if err != nil {
		return nil, fmt.Errorf("readapi: user: %w", err)
	}
	httpapi.Tag(ctx, httpapi.TagUser, version)
	return httpapi.Answered(at, "Your account.", u), nil
}

type tenantQuery struct {
	httpapi.Fresh
	IsActive bool `query:"is_active" default:"true" doc:"false lists the tenants that were deleted; their admins may restore them."`
}

func (r routes) myTenants(ctx context.Context, in *tenantQuery) (*httpapi.Answer[[]httpapi.Membership], error) {
	all, at, err := r.Server.Memberships(ctx, httpapi.PrincipalOf(ctx).UserID, in.IsActive, in.MinPosition)
	if err != nil {
		return nil, err
	}
	return httpapi.Answered(at, "Your tenants.", all), nil
}
