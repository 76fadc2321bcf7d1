package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	sealPurpose = "jwt-signing-key"
	// lookEvery is how often a process looks for keys that another, or "factum keys rotate", has changed.
	lookEvery = 5 * time.Second
	// slack is how much the clocks of our processes may differ.
	slack = time.Minute
)

// keySet is every key that may verify at a moment, and the one that signs.
type keySet struct {
	verify map[string]ed25519.PublicKey
	kid    string
	sign   ed25519.PrivateKey
	public []JWK // newest first
}

// JWK is a public key (RFC 7517, RFC 8037).
type JWK struct {
	Kty string `json:"kty" enum:"OKP"`
	Crv string `json:"crv" enum:"Ed25519"`
	Alg string `json:"alg" enum:"EdDSA"`
	Use string `json:"use" enum:"sig"`
	Kid string `json:"kid"`
	X   string `json:"x" doc:"The public key, base64url."`
}

// keys knows the signing keys, at most 5 s late. It is safe for concurrent use.
type keys struct {
	pool    *pgxpool.Pool
	secrets Secrets
	now     func() time.Time

	mu     sync.Mutex
	opened map[string]ed25519.PrivateKey // a key does not change under its kid
	list   []keyRow
	looked time.Time
}

type keyRow struct {
	Kid           string
	Sealed        []byte
	SignsFrom     time.Time
	VerifiesUntil *time.Time
}

// current returns the keys as they count now. At the very first start it makes one.
func (k *keys) current(ctx context.Context) (keySet, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	if age := now.Sub(k.looked); k.list == nil || age < 0 || age >= lookEvery {
		if err := k.load(ctx); err != nil {
			return keySet{}, fmt.Errorf("auth: load the signing keys: %w", err)
		}
		k.looked = now
	}
	out, signs := keySet{verify: map[string]ed25519.PublicKey{}}, false
	for _, r := range k.list { // the latest to sign comes first
		if r.VerifiesUntil != nil && !r.VerifiesUntil.After(now) {
			continue
		}
		public := k.opened[r.Kid].Public().(ed25519.PublicKey)
		out.verify[r.Kid] = public
		out.public = append(out.public, JWK{
			Kty: "OKP", Crv: "Ed25519", Alg: "EdDSA", Use: "sig", Kid: r.Kid, X: base64.RawURLEncoding.EncodeToString(public),
		})
		if !signs {
			// Before the time of all of them, by a clock that is slow, the oldest signs.
			out.kid, out.sign, signs = r.Kid, k.opened[r.Kid], !r.SignsFrom.After(now)
		}
	}
	if out.sign == nil {
		return keySet{}, errors.New("auth: all keys that sign tokens have expired; run \"factum keys rotate --compromised\"")
	}
	return out, nil
}

func (k *keys) load(ctx context.Context) error {
	list, err := readKeys(ctx, k.pool)
	if err == nil && len(list) == 0 {
		list, err = firstKey(ctx, k.pool, k.secrets, k.now())
	}
	if err != nil {
		return err
	}
	opened := make(map[string]ed25519.PrivateKey, len(list))
	for _, r := range list {
		if known, ok := k.opened[r.Kid]; ok {
			opened[r.Kid] = known
			continue
		}
		seed, err := k.secrets.Open(ctx, sealPurpose, r.Sealed)
		if err != nil {
			return err
		}
		if len(seed) != ed25519.SeedSize {
			return fmt.Errorf("key %s has %d bytes", r.Kid, len(seed))
		}
		opened[r.Kid] = ed25519.NewKeyFromSeed(seed)
	}
	k.list, k.opened = list, opened
	return nil
}

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// readKeys reads all keys, the latest to sign first.
func readKeys(ctx context.Context, q querier) ([]keyRow, error) {
	rows, err := q.Query(ctx, `select kid, sealed_seed, signs_from, verifies_until from auth.signing_keys order by signs_from desc, kid`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[keyRow])
}

// firstKey makes the first key, unless another process was faster: a lock lets them take turns.
func firstKey(ctx context.Context, pool *pgxpool.Pool, secrets Secrets, now time.Time) (list []keyRow, err error) {
	err = inTurn(ctx, pool, func(tx pgx.Tx) error {
		if list, err = readKeys(ctx, tx); err != nil || len(list) > 0 {
			return err
		}
		if _, err = addKey(ctx, tx, secrets, now); err != nil {
			return err
		}
		list, err = readKeys(ctx, tx)
		return err
	})
	return list, err
}

func inTurn(ctx context.Context, pool *pgxpool.Pool, fn func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock(hashtextextended('factum.auth.signing_keys', 0))`); err != nil {
			return err
		}
		return fn(tx)
	})
}

// addKey draws a key and answers its kid, the beginning of the public key's SHA-256.
func addKey(ctx context.Context, tx pgx.Tx, secrets Secrets, signsFrom time.Time) (kid string, err error) {
	var seed [ed25519.SeedSize]byte
	rand.Read(seed[:]) // never fails (Go 1.24)
	sealed, err := secrets.Seal(ctx, sealPurpose, seed[:])
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey))
	kid = hex.EncodeToString(sum[:8])
	_, err = tx.Exec(ctx, `insert into auth.signing_keys (kid, sealed_seed, signs_from) values ($1, $2, $3)`, kid, sealed, signsFrom)
	return kid, err
}

// JWKS returns the public keys that tokens may be verified with, also those that will sign soon.
func (a *Auth) JWKS(ctx context.Context) ([]JWK, error) {
	set, err := a.tokens.keys.current(ctx)
	return slices.Clone(set.public), err
}

// Key is a signing key as its operator sees it.
type Key struct {
	Kid           string
	SignsFrom     time.Time
	VerifiesUntil *time.Time // nil: until it is replaced
}

// Keys lists the signing keys, the latest to sign first. pool may be the administrator's.
func Keys(ctx context.Context, pool *pgxpool.Pool) ([]Key, error) {
	list, err := readKeys(ctx, pool)
	if err != nil {
		return nil, fmt.Errorf("auth: list the signing keys: %w", err)
	}
	out := make([]Key, len(list))
	for i, r := range list {
		out[i] = Key{r.Kid, r.SignsFrom, r.VerifiesUntil}
	}
	return out, nil
}

// Rotation says how a signing key is replaced.
type Rotation struct {
	// Lead is how long the new key is published before it signs, so that everybody who verifies knows it by then. At least 10 s, in
	// which all processes have seen it.
	Lead time.Duration
	// Compromised lets the new key sign at once and the others verify nothing any more: all sessions end within 5 s. Lead does not count.
	Compromised bool
}

// RotateKeys adds a signing key and answers its kid. The others verify until the last token that they signed has expired; those that
// verify nothing any more are deleted. It needs an administrator's pool: the application may not change keys.
func RotateKeys(ctx context.Context, pool *pgxpool.Pool, secrets Secrets, now time.Time, r Rotation) (kid string, err error) {
	if !r.Compromised && r.Lead < 2*lookEvery {
		return "", fmt.Errorf("auth: rotate the signing keys: a lead of %s is too short: processes look for keys every %s", r.Lead, lookEvery)
	}
	signsFrom := now.Add(r.Lead)
	until := signsFrom.Add(RefreshLife + slack)
	if r.Compromised {
		signsFrom, until = now, now
	}
	err = inTurn(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `update auth.signing_keys set verifies_until = least(verifies_until, $1)`, until); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `delete from auth.signing_keys where verifies_until <= $1`, now); err != nil {
			return err
		}
		kid, err = addKey(ctx, tx, secrets, signsFrom)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("auth: rotate the signing keys: %w", err)
	}
	return kid, nil
}
