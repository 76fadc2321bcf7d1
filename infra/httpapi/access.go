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
	op, _ := hc.Operation().Metadata[opKey].(Op)
	if op.Overloaded != nil {
		if err := op.Overloaded(); err != nil {
			return ctx, err
		}
	}
	if err := s.limit(ctx, hc, rule, "address", networkOf(ClientOf(ctx).Address), s.c.Limits.Address); err != nil {
		return ctx, err
	}
	if rule.Access != Anyone {
		var err error
		if ctx, err = s.identify(ctx, hc, rule); err != nil {
			return ctx, err
		}
	}
	ctx, err := precondition(ctx, hc, op)
	if err != nil {
		return ctx, err
	}
	return ctx, acceptable(hc)
}

// identify says who calls a route that demands a token, and whether they may. It asks the database once.
func (s *Server) identify(ctx context.Context, hc huma.Context, rule Rule) (context.Context, error) {
	token, err := bearer(hc.Header("Authorization"))
	if err != nil {
		return ctx, refusedToken(rule, err)
	}
	if rule.Access == Refresh {
		noteIDs(ctx, hc, rule)
		return context.WithValue(ctx, tokenKey{}, token), nil
	}
	claim, err := s.c.Auth.Claim(ctx, token)
	if err != nil {
		return ctx, refusedToken(rule, err)
	}
	who, err := s.whoIs(ctx, hc, rule, claim)
	if err != nil {
		return ctx, refusedToken(rule, err)
	}
	principal := who.by
	if r := requestOf(ctx); r != nil {
		r.user = principal.UserID
	}
	ctx = context.WithValue(ctx, principalKey{}, principal)
	if err := s.limit(ctx, hc, rule, "user", principal.UserID, s.c.Limits.User); err != nil {
		return ctx, err
	}
	if principal.Machine() && (!rule.tenant() || rule.Access == AdminPerson) {
		return ctx, NewProblem(http.StatusForbidden, "", "This is not for API keys, but for people who are logged in.")
	}
	noteIDs(ctx, hc, rule)
	switch {
	case rule.Access == PlatformAdmin && !who.administrator:
		return ctx, NewProblem(http.StatusForbidden, "", "Only administrators of the platform may do this.")
	case rule.tenant() && !idText.MatchString(hc.Param("tenant_id")): // nobody can be its member
		return ctx, Invalid(noted(ctx))
	case rule.tenant():
		return s.enter(ctx, hc, rule, who)
	}
	return ctx, nil
}

// caller is what the database knows of who calls.
type caller struct {
	by            auth.Principal
	administrator bool         // of the platform; known where a route demands that
	member        []Membership // of the path's tenant: one, or none
}

// whoIs asks the database whether the claim holds, and what else it knows of who makes it, unless it was asked within this second. Errors:
// those of [auth.Claim.Principal].
func (s *Server) whoIs(ctx context.Context, hc huma.Context, rule Rule, claim *auth.Claim) (c caller, err error) {
	tenant := strings.ToLower(hc.Param("tenant_id"))
	inside := rule.tenant() && idText.MatchString(tenant)
	remembers := inside && s.admissions.serve(hc, rule)
	key := admissionKey{claim.Sum(), tenant}
	var as admission
	if remembers {
		var known bool
		if c, as, known = s.admissions.recall(key); known {
			return c, nil
		}
	}
	switch {
	case rule.Access == PlatformAdmin:
		_, err = s.ask(ctx, Directory(), 0, func(schema string) readmodel.Query {
			c.administrator = false
			return administration(schema, claim.UserID(), func() { c.administrator = true })
		}, claim.Queue)
	case inside:
		_, err = s.ask(ctx, Directory(), 0, func(schema string) readmodel.Query {
			c.member = nil
			return membership(schema, claim, tenant, rule.Access == AdminOfDeleted, func(m Membership) { c.member = append(c.member, m) })
		}, claim.Queue)
	default:
		var b pgx.Batch
		claim.Queue(&b)
		err = s.c.Platform.SendBatch(ctx, &b).Close()
	}
	if err != nil {
		return c, fmt.Errorf("httpapi: look up who calls: %w", err)
	}
	if c.by, err = claim.Principal(ctx); err != nil {
		return c, err
	}
	if remembers && len(c.member) > 0 {
		s.admissions.keep(key, as, c)
	}
	return c, nil
}

// enter lets a member into a tenant, in the member's role. It answers [NotFound] alike for a tenant that does not exist, is not ready, is
// deleted (unless that is allowed), or is not the caller's.
func (s *Server) enter(ctx context.Context, hc huma.Context, rule Rule, who caller) (context.Context, error) {
	if len(who.member) == 0 {
		return ctx, NotFound()
	}
	m := who.member[0]
	if err := s.limit(ctx, hc, rule, "tenant", m.ID, s.c.Limits.Tenant); err != nil {
		return ctx, err
	}
	reach := rule.For(m.Role)
	if reach == Nothing {
		return ctx, NewProblem(http.StatusForbidden, "", "Your role in this tenant does not allow this.")
	}
	return context.WithValue(context.WithValue(ctx, membershipKey{}, m), reachKey{}, reach), nil
}

// noteIDs notes the ids in the path that are none.
func noteIDs(ctx context.Context, hc huma.Context, rule Rule) {
	for _, name := range pathParameter.FindAllStringSubmatch(rule.Path, -1) {
		if !idText.MatchString(hc.Param(name[1])) {
			note(ctx, name[1], notUUID)
		}
	}
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

// acceptable answers 415 to a body that the route does not read, whatever is in it, and 413 to one that is declared too large, before it comes.
// Compressed bodies are not read at all: what they grow to is known only afterwards.
func acceptable(hc huma.Context) error {
	body := hc.Operation().RequestBody
	if body == nil {
		return nil
	}
	if coding := lines(hc, "Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return NewProblem(http.StatusUnsupportedMediaType, "", "Send the body as it is, without Content-Encoding.")
	}
	if body.Content["application/json"] == nil {
		return nil
	}
	kind, params, err := mime.ParseMediaType(hc.Header("Content-Type"))
	if err != nil || kind != "application/json" || (params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8")) {
		return NewProblem(http.StatusUnsupportedMediaType, "", "Send the header Content-Type: application/json.")
	}
	if humafiber.Unwrap(hc).Request().Header.ContentLength() > maxJSONBytes {
		return tooLarge()
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

// administration asks whether the user administers the platform, and calls found if so.
func administration(schema, user string, found func()) readmodel.Query {
	return readmodel.Query{
		Columns: "a.user_id", From: fmt.Sprintf(`%[1]s.administrators a join %[1]s.users u on u.id = a.user_id where a.user_id = $1 and u.is_active`, schema),
		Args: []any{user},
		Row:  func(pgx.CollectableRow) error { found(); return nil },
	}
}

const (
	tenantColumns = `t.id::text, t.name, t.database_name, t.is_active, t.tsa_enabled, t.tsa_provider, t.created_by::text,
		t.created_at, t.updated_at, t.version, t.require_if_match, `
	membershipColumns = tenantColumns + `m.role, m.joined_at`
	memberships       = `%[1]s.memberships m join %[1]s.tenants t on t.id = m.tenant_id join %[1]s.users u on u.id = m.user_id
		where m.user_id = $1 and u.is_active and (t.is_active or $2) and t.provisioned`
	// machineColumns shows the tenant of an API key as a membership, in the key's role, that is as old as the tenant. A key holds as long as
	// who made it is an admin of the tenant, or a former one would still have access, and could return with it.
	machineColumns = tenantColumns + `k.role, t.created_at`
	machines       = `auth.api_keys k join %[1]s.tenants t on t.id = k.tenant_id
		join %[1]s.memberships m on m.tenant_id = k.tenant_id and m.user_id = k.created_by and m.role = 'admin'
		where k.id = $1 and (t.is_active or $2) and t.provisioned`
)

// membership asks for the caller's membership of a tenant; of an API key, for the tenant.
func membership(schema string, by *auth.Claim, tenant string, deletedToo bool, found func(Membership)) readmodel.Query {
	q := readmodel.Query{
		Columns: membershipColumns, From: memberships, Args: []any{by.UserID(), deletedToo, tenant},
		Row: func(row pgx.CollectableRow) error {
			m, err := scanMembership(row)
			found(m)
			return err
		},
	}
	if by.Machine() {
		q.Columns, q.From = machineColumns, machines
	}
	q.From = fmt.Sprintf(q.From, schema) + ` and t.id = $3`
	return q
}

// Memberships lists the user's tenants that can be used, or those that were deleted, newest membership first, and how far the directory is.
// minPosition is as in [Server.Read].
func (s *Server) Memberships(ctx context.Context, user string, active bool, minPosition uint64) ([]Membership, Settled, error) {
	var out []Membership
	at, err := s.Ask(ctx, Directory(), minPosition, func(schema string) readmodel.Query {
		out = []Membership{}
		return readmodel.Query{
			Columns: membershipColumns, From: fmt.Sprintf(memberships, schema) + ` and t.is_active <> $2`,
			Order: "m.joined_at desc, t.id", Limit: "all", Args: []any{user, !active},
			Row: func(row pgx.CollectableRow) error {
				m, err := scanMembership(row)
				out = append(out, m)
				return err
			},
		}
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
