package httpapi

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"regexp"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humafiber"
	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/readmodel"
)

type (
	principalKey  struct{}
	tokenKey      struct{}
	membershipKey struct{}
	reachKey      struct{}
)

// PrincipalOf is who calls, in a route that demands an access token.
func PrincipalOf(ctx context.Context) auth.Principal {
	p, _ := ctx.Value(principalKey{}).(auth.Principal)
	return p
}

// RefreshTokenOf is the presented token, not yet verified, in a route that demands a refresh token.
func RefreshTokenOf(ctx context.Context) string {
	t, _ := ctx.Value(tokenKey{}).(string)
	return t
}

// MembershipOf is the caller's membership of the path's tenant, in a route that demands one.
func MembershipOf(ctx context.Context) Membership {
	m, _ := ctx.Value(membershipKey{}).(Membership)
	return m
}

// OwnerOf is whose things the caller may change, in a route that demands a membership: the caller's id, or "" for everybody's.
func OwnerOf(ctx context.Context) string {
	if reach, _ := ctx.Value(reachKey{}).(Reach); reach == Everything {
		return ""
	}
	return PrincipalOf(ctx).UserID
}

var (
	pathParameter = regexp.MustCompile(`\{([a-z_]+_id)\}`)
	idText        = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
)

const notUUID = "Not a valid UUID."

// guard is the one place that decides who may call a route. The order is the contract's: token, form of the ids, administrator of the
// platform or membership and role, and only then the body. What is wrong with an id or a header is told with what is wrong with the body, if it
// comes to that.
func (s *Server) guard(hc huma.Context, next func(huma.Context)) {
	op := hc.Operation()
	rule, ok := rules[op.Method+" "+op.Path]
	if !ok {
		s.refuse(hc, rule, Internal(fmt.Errorf("httpapi: %s %s has no row in Policy", op.Method, op.Path)))
		return
	}
	ctx, cancel := context.WithTimeout(hc.Context(), rule.within())
	defer cancel()
	if r := requestOf(ctx); r != nil {
		about, _ := op.Metadata[opKey].(Op)
		r.route, r.secret = op.Path, about.Secret
	}
	ctx, err := s.admit(ctx, hc, rule)
	if err != nil {
		p := problemOf(ctx, err)
		if wrong := noted(ctx); wrong != nil && p.Status < http.StatusInternalServerError {
			p = Invalid(wrong)
		}
		if p.Status != http.StatusNotFound || !s.doneBefore(ctx, hc, rule) {
			s.refuse(hc, rule, p)
		}
		return
	}
	s.once(huma.WithContext(hc, ctx), rule, func(hc huma.Context) { tagged(hc, next) })
}

func (s *Server) admit(ctx context.Context, hc huma.Context, rule Rule) (context.Context, error) {
	quotas := s.c.Limits
	if err := s.limit(ctx, hc, rule, "address", networkOf(ClientOf(ctx).Address), quotas.Address); err != nil {
		return ctx, err
	}
	if rule.Access != Anyone {
		token, err := bearer(hc.Header("Authorization"))
		if err != nil {
			return ctx, refusedToken(rule, err)
		}
		if rule.Access == Refresh {
			ctx = context.WithValue(ctx, tokenKey{}, token)
		} else {
			principal, err := s.c.Auth.Authenticate(ctx, token)
			if err != nil {
				return ctx, refusedToken(rule, err)
			}
			if r := requestOf(ctx); r != nil {
				r.user = principal.UserID
			}
			ctx = context.WithValue(ctx, principalKey{}, principal)
			if err := s.limit(ctx, hc, rule, "user", principal.UserID, quotas.User); err != nil {
				return ctx, err
			}
			if principal.Machine() && (!rule.tenant() || rule.Access == AdminPerson) {
				return ctx, NewProblem(http.StatusForbidden, "", "This is not for API keys, but for people who are logged in.")
			}
		}
	}
	for _, name := range pathParameter.FindAllStringSubmatch(rule.Path, -1) {
		if !idText.MatchString(hc.Param(name[1])) {
			note(ctx, name[1], notUUID)
		}
	}
	if rule.Access == PlatformAdmin {
		if err := s.administers(ctx, PrincipalOf(ctx).UserID); err != nil {
			return ctx, err
		}
	}
	if rule.tenant() {
		if !idText.MatchString(hc.Param("tenant_id")) { // nobody can be its member
			return ctx, Invalid(noted(ctx))
		}
		m, err := s.membership(ctx, PrincipalOf(ctx), strings.ToLower(hc.Param("tenant_id")), rule.Access == AdminOfDeleted)
		if err != nil {
			return ctx, err
		}
		if err := s.limit(ctx, hc, rule, "tenant", m.ID, quotas.Tenant); err != nil {
			return ctx, err
		}
		reach := rule.For(m.Role)
		if reach == Nothing {
			return ctx, NewProblem(http.StatusForbidden, "", "Your role in this tenant does not allow this.")
		}
		ctx = context.WithValue(context.WithValue(ctx, membershipKey{}, m), reachKey{}, reach)
	}
	op, _ := hc.Operation().Metadata[opKey].(Op)
	ctx, err := precondition(ctx, hc, op)
	if err != nil {
		return ctx, err
	}
	return ctx, acceptable(hc)
}

var errNoToken = errors.New("httpapi: no bearer token")

// bearer reads an Authorization header (RFC 6750 §2.1).
func bearer(header string) (string, error) {
	if header == "" {
		return "", errNoToken
	}
	scheme, token, ok := strings.Cut(header, " ")
	if token = strings.TrimSpace(token); !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", auth.ErrInvalidToken
	}
	return token, nil
}

// RefusedRefresh is the answer to a refresh token that does not hold; nil when err is another failure.
func RefusedRefresh(err error) error { return tokenProblem(Rule{Path: "/api/auth/refresh"}, err) }

func refusedToken(rule Rule, err error) error {
	if p := tokenProblem(rule, err); p != nil {
		return p
	}
	return err
}

// tokenProblem tells the causes apart in auth and says UNAUTHORIZED elsewhere.
func tokenProblem(rule Rule, err error) error {
	var code, detail string
	switch {
	case errors.Is(err, errNoToken):
		code, detail = "authorization_required", "Send the header Authorization: Bearer <token>."
	case errors.Is(err, auth.ErrInvalidToken):
		code, detail = "invalid_token", "The token is not valid here."
	case errors.Is(err, auth.ErrTokenExpired):
		code, detail = "token_expired", "The token has expired."
	case errors.Is(err, auth.ErrTokenRevoked):
		code, detail = "token_revoked", "The session of this token has ended, or the API key was revoked."
	default:
		return nil
	}
	if !rule.flat() {
		code = ""
	}
	challenge := "Bearer"
	if !errors.Is(err, errNoToken) {
		challenge = `Bearer error="invalid_token"`
	}
	return NewProblem(http.StatusUnauthorized, code, detail).With("WWW-Authenticate", challenge)
}

// acceptable answers 415 to a JSON route that is sent something else.
func acceptable(hc huma.Context) error {
	body := hc.Operation().RequestBody
	if body == nil || body.Content["application/json"] == nil {
		return nil
	}
	kind, params, err := mime.ParseMediaType(hc.Header("Content-Type"))
	if err != nil || kind != "application/json" || (params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8")) {
		return NewProblem(http.StatusUnsupportedMediaType, "", "Send the header Content-Type: application/json.")
	}
	return nil
}

// refuse answers before the route's own code runs.
func (s *Server) refuse(hc huma.Context, rule Rule, p *Problem) {
	for name := range p.headers {
		hc.SetHeader(name, p.headers.Get(name))
	}
	hc.SetHeader("Content-Type", problemType)
	hc.SetStatus(p.Status)
	c := humafiber.Unwrap(hc)
	c.Response().SetBody(p.completed(c.Path(), rule).encode())
}

// administers refuses a user who does not administer the platform.
func (s *Server) administers(ctx context.Context, user string) error {
	var found bool
	_, err := s.Read(ctx, Directory(), 0, func(tx readmodel.Tx, schema string) error {
		return tx.QueryRow(ctx, fmt.Sprintf(`select exists (select from %[1]s.administrators a join %[1]s.users u on u.id = a.user_id
			where a.user_id = $1 and u.is_active)`, schema), user).Scan(&found)
	})
	switch {
	case err != nil:
		return fmt.Errorf("httpapi: look up an administrator: %w", err)
	case !found:
		return NewProblem(http.StatusForbidden, "", "Only administrators of the platform may do this.")
	}
	return nil
}

const tenantColumns = `select t.id::text, t.name, t.database_name, t.is_active, t.tsa_enabled, t.tsa_provider, t.created_by::text,
	t.created_at, t.updated_at, t.version, t.require_if_match, `

const membershipColumns = tenantColumns + `m.role, m.joined_at
	from %[1]s.memberships m join %[1]s.tenants t on t.id = m.tenant_id join %[1]s.users u on u.id = m.user_id
	where m.user_id = $1 and u.is_active and (t.is_active or $2) and t.provisioned`

// machineColumns shows the tenant of an API key as a membership, in the key's role, that is as old as the tenant. A key holds as long as who
// made it is an admin of the tenant, or a former one would still have access, and could return with it.
const machineColumns = tenantColumns + `k.role, t.created_at
	from auth.api_keys k join %[1]s.tenants t on t.id = k.tenant_id
	join %[1]s.memberships m on m.tenant_id = k.tenant_id and m.user_id = k.created_by and m.role = 'admin'
	where k.id = $1 and (t.is_active or $2) and t.provisioned`

// membership answers [NotFound] alike for a tenant that does not exist, is not ready, is deleted (unless that is allowed), or is not the
// caller's.
func (s *Server) membership(ctx context.Context, by auth.Principal, tenant string, deletedToo bool) (Membership, error) {
	columns := membershipColumns
	if by.Machine() {
		columns = machineColumns
	}
	var found []Membership
	_, err := s.ReadBatch(ctx, Directory(), 0, func(b *pgx.Batch, schema string) {
		b.Queue(fmt.Sprintf(columns, schema)+` and t.id = $3`, by.UserID, deletedToo, tenant).Query(func(rows pgx.Rows) (err error) {
			found, err = pgx.CollectRows(rows, scanMembership)
			return err
		})
	})
	if err != nil {
		return Membership{}, fmt.Errorf("httpapi: look up a membership: %w", err)
	}
	if len(found) == 0 {
		return Membership{}, NotFound()
	}
	return found[0], nil
}

// Memberships lists the user's tenants that can be used, or those that were deleted, newest membership first, and how far the directory is.
// minPosition is as in [Server.Read].
func (s *Server) Memberships(ctx context.Context, user string, active bool, minPosition uint64) ([]Membership, Settled, error) {
	out := []Membership{}
	at, err := s.Read(ctx, Directory(), minPosition, func(tx readmodel.Tx, schema string) error {
		rows, err := tx.Query(ctx, fmt.Sprintf(membershipColumns+` and t.is_active <> $2 order by m.joined_at desc, t.id`, schema), user, !active)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, scanMembership)
		return err
	})
	if err != nil {
		return nil, at, fmt.Errorf("httpapi: list memberships: %w", err)
	}
	return out, at, nil
}

func scanMembership(row pgx.CollectableRow) (Membership, error) {
	m := Membership{Tenant: NewTenant("", "", "")}
	err := row.Scan(&m.ID, &m.Name, &m.DatabaseName, &m.IsActive, &m.TSAEnabled, &m.TSAProvider, &m.CreatedBy,
		&m.CreatedAt, &m.UpdatedAt, &m.Version, &m.RequireIfMatch, &m.Role, &m.JoinedAt)
	return m, err
}
