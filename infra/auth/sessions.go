package auth

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"
	"unicode"

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

// Principal is who a valid access token, or a valid API key, belongs to.
type Principal struct {
	UserID, SessionID, TokenID string // of a machine: its key's id, which stands for who acts, and no session
	TenantID, Role             string // of a machine: the only tenant that it may call, and as what; "" of a person
	Expires                    time.Time
}

// Machine tells whether it is an API key's.
func (p Principal) Machine() bool { return p.TenantID != "" }

// Session is a session that goes on, as its owner sees it.
type Session struct {
	ID, Agent                         string // Agent is the User-Agent of the log-in, at most 200 characters
	CreatedAt, RefreshedAt, ExpiresAt time.Time
}

// maxAgentChars bounds what is kept of a User-Agent.
const maxAgentChars = 200

// BeginSession starts a session of the user; agent is what the client calls itself, so that the user recognises the session.
func (a *Auth) BeginSession(ctx context.Context, userID, agent string) (Tokens, error) {
	session, refresh, now := uuid.NewString(), uuid.NewString(), a.now()
	_, err := a.pool.Exec(ctx, `insert into auth.sessions (id, user_id, refresh_id, agent, created_at, refreshed_at, expires_at)
		values ($1, $2, $3, $4, $5, $5, $6)`, session, userID, refresh, plainAgent(agent), now, now.Add(RefreshLife))
	if err != nil {
		return Tokens{}, fmt.Errorf("auth: begin a session: %w", err)
	}
	return a.tokens.pair(ctx, userID, session, refresh)
}

// plainAgent is what can be stored and shown of a header that anybody may have written.
func plainAgent(agent string) string {
	runes := []rune(strings.ToValidUTF8(agent, ""))
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, string(runes[:min(len(runes), maxAgentChars)]))
}

// Sessions lists the user's sessions that go on, the latest begun first.
func (a *Auth) Sessions(ctx context.Context, userID string) ([]Session, error) {
	rows, err := a.pool.Query(ctx, `select id::text, agent, created_at, refreshed_at, expires_at from auth.sessions
		where user_id = $1 and ended_at is null and expires_at > $2 order by created_at desc, id`, userID, a.now())
	if err != nil {
		return nil, fmt.Errorf("auth: list sessions: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Session])
	if err != nil {
		return nil, fmt.Errorf("auth: list sessions: %w", err)
	}
	return list, nil
}

// EndSessionOf ends one session of the user, in all API processes, and tells whether there was such a session going on.
func (a *Auth) EndSessionOf(ctx context.Context, userID, sessionID string) (bool, error) {
	defer a.ended.Add(1)
	tag, err := a.pool.Exec(ctx, `update auth.sessions set ended_at = $3 where id = $2 and user_id = $1 and ended_at is null and expires_at > $3`,
		userID, sessionID, a.now())
	if err != nil {
		return false, fmt.Errorf("auth: end a session: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}

// EndSessions ends all sessions of the user, in all API processes, and says how many went on.
func (a *Auth) EndSessions(ctx context.Context, userID string) (int, error) {
	defer a.ended.Add(1)
	tag, err := a.pool.Exec(ctx, endSessions, userID, a.now(), nobody)
	if err != nil {
		return 0, fmt.Errorf("auth: end sessions: %w", err)
	}
	return int(tag.RowsAffected()), nil
}

// endSessions ends the sessions of user $1 at $2, but for session $3.
const endSessions = `update auth.sessions set ended_at = $2 where user_id = $1 and id <> $3 and ended_at is null and expires_at > $2`

// nobody is the id of no user and no session.
const nobody = "00000000-0000-0000-0000-000000000000"

// Refresh exchanges a refresh token for a new pair; the old one is good no longer. Presenting a used one ends the session,
// because one of the two who have it stole it (RFC 9700 §4.14.2). Errors: [ErrInvalidToken], [ErrTokenExpired],
// [ErrTokenRevoked], [ErrInactive].
func (a *Auth) Refresh(ctx context.Context, token string) (Tokens, error) {
	c, _, err := a.tokens.verify(ctx, token, refreshType)
	if err != nil {
		return Tokens{}, err
	}
	next := uuid.NewString()
	tag, err := a.pool.Exec(ctx, `
		update auth.sessions set refresh_id = $3, expires_at = $4, refreshed_at = $5
		where id = $1 and refresh_id = $2 and ended_at is null and expires_at > $5 and not exists (select from auth.inactive where user_id = sessions.user_id)`, c.Session, c.ID, next, a.now().Add(RefreshLife), a.now())
	if err != nil {
		return Tokens{}, fmt.Errorf("auth: refresh a session: %w", err)
	}
	if tag.RowsAffected() == 1 {
		return a.tokens.pair(ctx, c.Subject, c.Session, next)
	}
	if err := a.active(ctx, c.Subject); err != nil {
		return Tokens{}, err
	}
	if err := a.EndSession(ctx, c.Session); err != nil {
		return Tokens{}, err
	}
	return Tokens{}, ErrTokenRevoked
}

// EndSession ends the session in all API processes. Ending twice is no error.
func (a *Auth) EndSession(ctx context.Context, sessionID string) error {
	defer a.ended.Add(1)
	if _, err := a.pool.Exec(ctx, `update auth.sessions set ended_at = $2 where id = $1 and ended_at is null`, sessionID, a.now()); err != nil {
		return fmt.Errorf("auth: end a session: %w", err)
	}
	return nil
}

// Authenticate verifies an access token and that its session goes on, or an API key. Errors: [ErrInvalidToken], [ErrTokenExpired],
// [ErrTokenRevoked].
func (a *Auth) Authenticate(ctx context.Context, bearer string) (Principal, error) {
	claim, err := a.Claim(ctx, bearer)
	if err != nil {
		return Principal{}, err
	}
	var b pgx.Batch
	claim.Queue(&b)
	if err := a.pool.SendBatch(ctx, &b).Close(); err != nil {
		return Principal{}, fmt.Errorf("auth: look up a session or an API key: %w", err)
	}
	return claim.Principal(ctx)
}

// Claim is what a bearer token says of who calls, before the database was asked: it saves a round trip to ask together with something else.
// It is for one goroutine.
type Claim struct {
	sum     [sha256.Size]byte
	by      Principal
	queue   func(b *pgx.Batch)
	confirm func(ctx context.Context) error
}

// Claim verifies what needs no look-up: an access token's signature, times and type, or the form of an API key. Errors: [ErrInvalidToken],
// [ErrTokenExpired].
func (a *Auth) Claim(ctx context.Context, bearer string) (*Claim, error) {
	sum := sha256.Sum256([]byte(bearer))
	if strings.HasPrefix(bearer, keyPrefix) {
		return a.claimOfKey(bearer, sum)
	}
	c, err := a.tokens.access(ctx, bearer, sum)
	if err != nil {
		return nil, err
	}
	var going bool
	return &Claim{
		sum: sum,
		by:  Principal{UserID: c.Subject, SessionID: c.Session, TokenID: c.ID, Expires: c.ExpiresAt.Time},
		queue: func(b *pgx.Batch) {
			going = false
			b.Queue(`select exists (select from auth.sessions where id = $1 and user_id = $2 and ended_at is null)
				and not exists (select from auth.inactive where user_id = $2)`, c.Session, c.Subject).QueryRow(func(row pgx.Row) error { return row.Scan(&going) })
		},
		confirm: func(context.Context) error {
			if !going {
				return ErrTokenRevoked
			}
			return nil
		},
	}, nil
}

// Sum is the SHA-256 of the token or key, by which it can be recognised without being kept.
func (c *Claim) Sum() [sha256.Size]byte { return c.sum }

// Machine tells whether it is an API key's.
func (c *Claim) Machine() bool { return c.by.SessionID == "" }

// UserID is who calls if the claim holds; of a machine, its key's id.
func (c *Claim) UserID() string { return c.by.UserID }

// Queue puts the question whether the claim holds into a batch for the platform's database. It may be asked again.
func (c *Claim) Queue(b *pgx.Batch) { c.queue(b) }

// Principal is who calls, once the batch of [Claim.Queue] was answered. Errors: [ErrTokenRevoked]; of an API key also [ErrInvalidToken] and
// [ErrTokenExpired].
func (c *Claim) Principal(ctx context.Context) (Principal, error) {
	if err := c.confirm(ctx); err != nil {
		return Principal{}, err
	}
	return c.by, nil
}
