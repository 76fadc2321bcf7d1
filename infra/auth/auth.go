// Package auth keeps what lets people in and is no fact: password hashes, sessions and the keys that sign tokens. It lives in the
// schema auth of the platform's database, which every API process shares.
package auth

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

var (
	// ErrInvalidCredentials says that address and password do not belong together; it does not say which is wrong.
	ErrInvalidCredentials = errors.New("auth: the e-mail address or the password is wrong")
	// ErrBusy says that more passwords wait to be checked than this machine can check soon. Try again in a second.
	ErrBusy = errors.New("auth: too many passwords are being checked at once")
	// ErrInvalidToken says that a token is malformed, forged, not ours or of the wrong type.
	ErrInvalidToken = errors.New("auth: the token is not valid")
	// ErrTokenExpired says that a token was good and is too old.
	ErrTokenExpired = errors.New("auth: the token has expired")
	// ErrTokenRevoked says that the token's session has ended.
	ErrTokenRevoked = errors.New("auth: the session has ended")
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the goose files of the schema auth.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic("auth: embedded migrations: " + err.Error())
	}
	return sub
}

// Secrets seals the signing keys at rest.
type Secrets interface {
	Seal(ctx context.Context, purpose string, plain []byte) ([]byte, error)
	Open(ctx context.Context, purpose string, sealed []byte) ([]byte, error)
}

// Config is what the package needs. Pool and Secrets are required.
type Config struct {
	Pool    *pgxpool.Pool
	Secrets Secrets
	Issuer  string           // iss and aud of the tokens; "" means "factum". The same for all processes.
	Now     func() time.Time // nil means time.Now
	// HashMemory is how many KiB the hash of a new password takes; 0 means 64 MiB, which is what people are to have. Only tests take less: with the
	// race detector a hash takes a second. The same for all processes, because a log-in renews what was hashed otherwise.
	HashMemory uint32
}

// Auth is safe for concurrent use, also by several processes.
type Auth struct {
	pool      *pgxpool.Pool
	passwords *passwords
	tokens    *signer
	now       func() time.Time
	ended     atomic.Uint64
}

// Ended counts what this process has done that can end somebody's access: a session, an API key or an account. Whoever remembers that a
// [Claim] held, and since when, knows by it that something has changed; what other processes do is not counted.
func (a *Auth) Ended() uint64 { return a.ended.Load() }

// New loads the signing keys; at the very first start it makes one.
func New(ctx context.Context, c Config) (*Auth, error) {
	if c.Pool == nil || c.Secrets == nil {
		return nil, errors.New("auth: Pool and Secrets are required")
	}
	if c.Issuer == "" {
		c.Issuer = "factum"
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	signing := &keys{pool: c.Pool, secrets: c.Secrets, now: c.Now}
	if _, err := signing.current(ctx); err != nil {
		return nil, err
	}
	hashes, err := newPasswords(cmp.Or(c.HashMemory, argon2Params.Memory))
	if err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	tokens, err := newSigner(signing, c.Issuer, c.Now)
	if err != nil {
		return nil, err
	}
	return &Auth{pool: c.Pool, passwords: hashes, tokens: tokens, now: c.Now}, nil
}
