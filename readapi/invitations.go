package readapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/infra/httpapi"
	"github.com/factum-platform/factum/infra/readmodel"
)

func (r routes) invitations(api huma.API) {
	httpapi.Route(api, get("list-invitations", "/api/tenants/{tenant_id}/invitations", "invitations", "The tenant's invitations, the latest first; positions are the platform's"), r.listInvitations)
	httpapi.Route(api, get("my-invitations", "/api/users/me/invitations", "invitations", "The open invitations of the caller's e-mail address, which must be verified; the latest first",
		http.StatusNotFound, http.StatusBadRequest), r.myInvitations)
}

type invitationQuery struct {
	httpapi.InTenant
	httpapi.Fresh
	httpapi.Page
	State string `query:"state" enum:"open,expired,accepted,declined,revoked" doc:"Only invitations in this state."`
}

type invitationPage struct {
	Invitations []httpapi.Invitation `json:"invitations" nullable:"false"`
	Pagination  httpapi.Pagination   `json:"pagination"`
}

// invitationRows are the tenant's invitations, in one state or in all; $2 is now.
const invitationRows = `(select *, case when state = 'open' and expires_at <= $2 then 'expired' else state end as seen from %[1]s.invitations where tenant_id = $1) i
	where ($3 = '' or i.seen = $3)`

func (r routes) listInvitations(ctx context.Context, in *invitationQuery) (*httpapi.Answer[invitationPage], error) {
	var out invitationPage
	args := []any{httpapi.MembershipOf(ctx).ID, r.Now(), in.State}
	at, err := r.Server.Read(ctx, httpapi.Directory(), in.MinPosition, func(tx readmodel.Tx, schema string) error {
		var total int
		if err := tx.QueryRow(ctx, fmt.Sprintf(`select count(*) from `+invitationRows, schema), args...).Scan(&total); err != nil {
			return err
		}
		out.Pagination = in.Of(total)
		rows, err := tx.Query(ctx, fmt.Sprintf(`select id::text, tenant_id::text, email, role, seen, invited_by::text, invited_at, expires_at, answered_at from `+
			invitationRows+` order by invited_at desc, id limit $4 offset $5`, schema), append(args, in.PerPage, in.Offset())...)
		if err != nil {
			return err
		}
		out.Invitations, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (httpapi.Invitation, error) {
			var i httpapi.Invitation
			var answered *time.Time
			err := row.Scan(&i.ID, &i.TenantID, &i.Email, &i.Role, &i.State, &i.InvitedBy, &i.InvitedAt, &i.ExpiresAt, &answered)
			i.AnsweredAt = httpapi.TimeOf(answered)
			return i, err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("readapi: invitations: %w", err)
	}
	return httpapi.Answered(at, "The invitations.", out), nil
}

type myInvitation struct {
	ID         string       `json:"id" format:"uuid"`
	TenantID   string       `json:"tenant_id" format:"uuid"`
	TenantName string       `json:"tenant_name"`
	Role       string       `json:"role" enum:"admin,user,viewer"`
	InvitedAt  httpapi.Time `json:"invited_at"`
	ExpiresAt  httpapi.Time `json:"expires_at"`
}

// maxMyInvitations is how many invitations somebody is shown at most.
const maxMyInvitations = 100

func (r routes) myInvitations(ctx context.Context, in *httpapi.Fresh) (*httpapi.Answer[[]myInvitation], error) {
	out, verified, user := []myInvitation{}, false, httpapi.PrincipalOf(ctx).UserID
	at, err := r.Server.Read(ctx, httpapi.Directory(), in.MinPosition, func(tx readmodel.Tx, schema string) error {
		if err := tx.QueryRow(ctx, fmt.Sprintf(`select email_verified from %s.users where id = $1`, schema), user).Scan(&verified); err != nil || !verified {
			return err
		}
		rows, err := tx.Query(ctx, fmt.Sprintf(`select i.id::text, i.tenant_id::text, t.name, i.role, i.invited_at, i.expires_at
			from %[1]s.users u join %[1]s.invitations i on i.email = u.email join %[1]s.tenants t on t.id = i.tenant_id
			join %[1]s.memberships m on m.tenant_id = i.tenant_id and m.user_id = i.invited_by join %[1]s.users b on b.id = m.user_id
			where u.id = $1 and u.email <> '' and i.state = 'open' and i.expires_at > $2 and t.is_active and t.provisioned and m.role = 'admin' and b.is_active
			order by i.invited_at desc, i.id limit $3`, schema), user, r.Now(), maxMyInvitations)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, pgx.RowToStructByPos[myInvitation])
		return err
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, httpapi.NotFound()
	case err != nil:
		return nil, fmt.Errorf("readapi: invitations of a user: %w", err)
	case !verified:
		return nil, httpapi.NewProblem(http.StatusForbidden, "EMAIL_UNVERIFIED",
			"Show first that your e-mail address is yours: follow the link that was mailed to it. POST /api/auth/verify-email/resend has it mailed again.")
	}
	return httpapi.Answered(at, "Your invitations.", out), nil
}
