package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

const (
	// keyPrefix tells API keys from tokens, for us and for programs that look for secrets in texts.
	keyPrefix      = "fk_"
	keySecretBytes = 32
	// maxKeys bounds the keys of one tenant that are good.
	maxKeys = 100
	// usedEvery is how exact the time of the last use is: not every request writes.
	usedEvery = time.Minute
	// keepKeys is how long a key that is good no longer is still shown.
	keepKeys = 90 * 24 * time.Hour
)

// ErrTooManyKeys says that the tenant has 100 API keys that are good.
var ErrTooManyKeys = errors.New("auth: the tenant has too many API keys")

// APIKey lets a machine call the API, in one tenant and one role. Its secret is known to the machine only.
type APIKey struct {
	ID, TenantID, Name, Role, CreatedBy string
	CreatedAt, ExpiresAt                time.Time
	LastUsedAt, RevokedAt               *time.Time // LastUsedAt may be a minute late
}

// NewAPIKey makes a key from its TenantID, Name, Role, CreatedBy and ExpiresAt. The text that the machine sends as its bearer token is
// answered this once and nowhere kept. Error: [ErrTooManyKeys].
func (a *Auth) NewAPIKey(ctx context.Context, k APIKey) (made APIKey, key string, err error) {
	id := uuid.New()
	var secret [keySecretBytes]byte
	rand.Read(secret[:]) // never fails (Go 1.24)
	k.ID, k.CreatedAt, k.ExpiresAt = id.String(), a.now().UTC().Truncate(time.Microsecond), k.ExpiresAt.UTC().Truncate(time.Microsecond)
	sum := sha256.Sum256(secret[:])
	tag, err := a.pool.Exec(ctx, `insert into auth.api_keys (id, tenant_id, name, role, hash, created_by, created_at, expires_at)
		select $1, $2, $3, $4, $5, $6, $7, $8
		where (select count(*) from auth.api_keys where tenant_id = $2 and revoked_at is null and expires_at > $7) < $9`,
		k.ID, k.TenantID, k.Name, k.Role, sum[:], k.CreatedBy, k.CreatedAt, k.ExpiresAt, maxKeys)
	if err != nil {
		return APIKey{}, "", fmt.Errorf("auth: make an API key: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return APIKey{}, "", ErrTooManyKeys
	}
	return k, keyPrefix + base64.RawURLEncoding.EncodeToString(id[:]) + "." + base64.RawURLEncoding.EncodeToString(secret[:]), nil
}

// APIKeys lists the tenant's keys, the newest first; those that are good no longer are shown for 90 days.
func (a *Auth) APIKeys(ctx context.Context, tenantID string) ([]APIKey, error) {
	rows, err := a.pool.Query(ctx, `select id::text, tenant_id::text, name, role, created_by::text, created_at, expires_at, last_used_at, revoked_at
		from auth.api_keys where tenant_id = $1 order by created_at desc, id`, tenantID)
	if err != nil {
		return nil, fmt.Errorf("auth: list API keys: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[APIKey])
	if err != nil {
		return nil, fmt.Errorf("auth: list API keys: %w", err)
	}
	return list, nil
}

// RevokeAPIKey ends the key in all API processes, and tells whether the tenant had such a key that was not revoked.
func (a *Auth) RevokeAPIKey(ctx context.Context, tenantID, id string) (bool, error) {
	defer a.ended.Add(1)
	tag, err := a.pool.Exec(ctx, `update auth.api_keys set revoked_at = $3 where tenant_id = $1 and id = $2 and revoked_at is null`, tenantID, id, a.now())
	if err != nil {
		return false, fmt.Errorf("auth: revoke an API key: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}

// claimOfKey is [Auth.Claim] for an API key.
func (a *Auth) claimOfKey(key string, sum [sha256.Size]byte) (*Claim, error) {
	id, secret, err := parseKey(key)
	if err != nil {
		return nil, err
	}
	c := &Claim{sum: sum, by: Principal{UserID: id.String(), TokenID: id.String()}}
	var hash []byte
	var used, revoked *time.Time
	c.queue = func(b *pgx.Batch) {
		hash = nil
		b.Queue(`select hash, tenant_id::text, role, expires_at, last_used_at, revoked_at from auth.api_keys where id = $1`, c.by.UserID).QueryRow(func(row pgx.Row) error {
			err := row.Scan(&hash, &c.by.TenantID, &c.by.Role, &c.by.Expires, &used, &revoked)
			if errors.Is(err, pgx.ErrNoRows) {
				return nil // without a hash no secret fits
			}
			return err
		})
	}
	c.confirm = func(ctx context.Context) error {
		now, sum := a.now(), sha256.Sum256(secret)
		switch {
		case subtle.ConstantTimeCompare(hash, sum[:]) != 1:
			return ErrInvalidToken
		case revoked != nil:
			return ErrTokenRevoked
		case !c.by.Expires.After(now):
			return ErrTokenExpired
		case used != nil && now.Sub(*used) < usedEvery:
			return nil
		}
		if _, err := a.pool.Exec(ctx, `update auth.api_keys set last_used_at = $2 where id = $1`, c.by.UserID, now); err != nil {
			return fmt.Errorf("auth: note the use of an API key: %w", err)
		}
		return nil
	}
	return c, nil
}

// parseKey takes a key apart. There is one way to write a key.
func parseKey(key string) (id uuid.UUID, secret []byte, err error) {
	first, second, _ := strings.Cut(strings.TrimPrefix(key, keyPrefix), ".")
	strict := base64.RawURLEncoding.Strict()
	raw, err := strict.DecodeString(first)
	if err != nil || len(raw) != len(id) || len(second) > strict.EncodedLen(keySecretBytes) {
		return id, nil, ErrInvalidToken
	}
	if secret, err = strict.DecodeString(second); err != nil || len(secret) != keySecretBytes {
		return id, nil, ErrInvalidToken
	}
	copy(id[:], raw)
	return id, secret, nil
}
