package auth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const (
	// AccessLife is how long an access token is good.
	AccessLife = 15 * time.Minute
	// RefreshLife is how long a session lasts without a refresh.
	RefreshLife = 7 * 24 * time.Hour
)

// Tokens are a session's current tokens (JWT, RFC 7519).
type Tokens struct{ Access, Refresh string }

// Principal is who a valid access token belongs to.
type Principal struct {
	UserID, SessionID, TokenID string
	Expires                    time.Time
}

// BeginSession starts a session of the user.
func (a *Auth) BeginSession(ctx context.Context, userID string) (Tokens, error) {
	session, refresh := uuid.NewString(), uuid.NewString()
	_, err := a.pool.Exec(ctx, `insert into auth.sessions (id, user_id, refresh_id, expires_at) values ($1, $2, $3, $4)`,
		session, userID, refresh, a.now().Add(RefreshLife))
	if err != nil {
		return Tokens{}, fmt.Errorf("auth: begin a session: %w", err)
	}
	return a.tokens.pair(userID, session, refresh)
}

// Refresh exchanges a refresh token for a new pair; the old one is good no longer. Presenting a used one ends the session,
// because one of the two who have it stole it (RFC 9700 §4.14.2). Errors: [ErrInvalidToken], [ErrTokenExpired],
// [ErrTokenRevoked].
func (a *Auth) Refresh(ctx context.Context, token string) (Tokens, error) {
	c, err := a.tokens.verify(token, refreshType)
	if err != nil {
		return Tokens{}, err
	}
	next := uuid.NewString()
	tag, err := a.pool.Exec(ctx, `
		update auth.sessions set refresh_id = $3, expires_at = $4
		where id = $1 and refresh_id = $2 and ended_at is null and expires_at > $5`, c.Session, c.ID, next, a.now().Add(RefreshLife), a.now())
	if err != nil {
		return Tokens{}, fmt.Errorf("auth: refresh a session: %w", err)
	}
	if tag.RowsAffected() == 1 {
		return a.tokens.pair(c.Subject, c.Session, next)
	}
	if err := a.EndSession(ctx, c.Session); err != nil {
		return Tokens{}, err
	}
	return Tokens{}, ErrTokenRevoked
}

// EndSession ends the session in all API processes at once. Ending twice is no error.
func (a *Auth) EndSession(ctx context.Context, sessionID string) error {
	if _, err := a.pool.Exec(ctx, `update auth.sessions set ended_at = $2 where id = $1 and ended_at is null`, sessionID, a.now()); err != nil {
		return fmt.Errorf("auth: end a session: %w", err)
	}
	return nil
}

// Authenticate verifies an access token and that its session goes on. Errors: [ErrInvalidToken], [ErrTokenExpired],
// [ErrTokenRevoked].
func (a *Auth) Authenticate(ctx context.Context, bearer string) (Principal, error) {
	c, err := a.tokens.verify(bearer, accessType)
	if err != nil {
		return Principal{}, err
	}
	return a.principal(ctx, c)
}

func (a *Auth) principal(ctx context.Context, c *claims) (Principal, error) {
	var going bool
	err := a.pool.QueryRow(ctx, `select ended_at is null from auth.sessions where id = $1 and user_id = $2`, c.Session, c.Subject).Scan(&going)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return Principal{}, fmt.Errorf("auth: look up a session: %w", err)
	}
	if !going {
		return Principal{}, ErrTokenRevoked
	}
	return Principal{UserID: c.Subject, SessionID: c.Session, TokenID: c.ID, Expires: c.ExpiresAt.Time}, nil
}
