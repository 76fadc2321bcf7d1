package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	accessType  = "access"
	refreshType = "refresh"
	// maxTokenBytes bounds what is parsed; ours have under 700.
	maxTokenBytes = 4096
	sealPurpose   = "jwt-signing-key"
)

// claims are those of RFC 7519 with the original's type and the session that the token belongs to.
type claims struct {
	jwt.RegisteredClaims
	Type    string `json:"type"`
	Session string `json:"sid"`
}

// signingKeys holds every key that may verify, and the one that signs.
type signingKeys struct {
	verify map[string]ed25519.PublicKey
	kid    string
	sign   ed25519.PrivateKey
}

type signer struct {
	keys   *signingKeys
	issuer string
	now    func() time.Time
}

// pair signs an access token and the refresh token with the given id.
func (s *signer) pair(userID, session, refreshID string) (Tokens, error) {
	access, err := s.sign(userID, session, uuid.NewString(), accessType, AccessLife)
	if err != nil {
		return Tokens{}, err
	}
	refresh, err := s.sign(userID, session, refreshID, refreshType, RefreshLife)
	return Tokens{access, refresh}, err
}

func (s *signer) sign(userID, session, id, kind string, life time.Duration) (string, error) {
	now := s.now()
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: s.issuer, Audience: jwt.ClaimStrings{s.issuer}, Subject: userID, ID: id,
			IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(life)),
		},
		Type: kind, Session: session,
	})
	token.Header["kid"] = s.keys.kid
	signed, err := token.SignedString(s.keys.sign)
	if err != nil {
		return "", fmt.Errorf("auth: sign a token: %w", err)
	}
	return signed, nil
}

// verify checks signature, algorithm, issuer, audience, times and type. Errors: [ErrInvalidToken], [ErrTokenExpired].
func (s *signer) verify(token, kind string) (*claims, error) {
	if len(token) > maxTokenBytes {
		return nil, ErrInvalidToken
	}
	var c claims
	_, err := jwt.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		kid, ok := t.Header["kid"].(string)
		if !ok {
			return nil, errors.New("no kid")
		}
		key, ok := s.keys.verify[kid]
		if !ok {
			return nil, errors.New("unknown kid")
		}
		return key, nil
	}, jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithIssuer(s.issuer), jwt.WithAudience(s.issuer),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithStrictDecoding(), jwt.WithTimeFunc(s.now))
	switch {
	case err == nil && (c.Type != kind || uuid.Validate(c.Subject) != nil || uuid.Validate(c.Session) != nil || uuid.Validate(c.ID) != nil):
		return nil, ErrInvalidToken
	case errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenSignatureInvalid) && c.Type == kind:
		return nil, ErrTokenExpired
	case err != nil:
		return nil, ErrInvalidToken
	}
	return &c, nil
}

// loadKeys reads the signing keys, newest first. Without any it makes one; processes that do so at once agree on one,
// because an advisory lock lets them take turns.
func loadKeys(ctx context.Context, pool *pgxpool.Pool, secrets Secrets) (*signingKeys, error) {
	out := &signingKeys{verify: map[string]ed25519.PublicKey{}}
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock(hashtextextended('factum.auth.signing_keys', 0))`); err != nil {
			return err
		}
		if err := readKeys(ctx, tx, secrets, out); err != nil || out.sign != nil {
			return err
		}
		var seed [ed25519.SeedSize]byte
		rand.Read(seed[:]) // never fails (Go 1.24)
		sealed, err := secrets.Seal(ctx, sealPurpose, seed[:])
		if err != nil {
			return err
		}
		private := ed25519.NewKeyFromSeed(seed[:])
		public := private.Public().(ed25519.PublicKey)
		sum := sha256.Sum256(public)
		if _, err := tx.Exec(ctx, `insert into auth.signing_keys (kid, sealed_seed) values ($1, $2)`, hex.EncodeToString(sum[:8]), sealed); err != nil {
			return err
		}
		return readKeys(ctx, tx, secrets, out)
	})
	if err != nil {
		return nil, fmt.Errorf("auth: load the signing keys: %w", err)
	}
	return out, nil
}

func readKeys(ctx context.Context, tx pgx.Tx, secrets Secrets, out *signingKeys) error {
	rows, err := tx.Query(ctx, `select kid, sealed_seed from auth.signing_keys order by created_at desc, kid`)
	if err != nil {
		return err
	}
	type row struct {
		Kid    string
		Sealed []byte
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil {
		return err
	}
	for _, r := range list {
		seed, err := secrets.Open(ctx, sealPurpose, r.Sealed)
		if err != nil {
			return err
		}
		if len(seed) != ed25519.SeedSize {
			return fmt.Errorf("key %s has %d bytes", r.Kid, len(seed))
		}
		private := ed25519.NewKeyFromSeed(seed)
		out.verify[r.Kid] = private.Public().(ed25519.PublicKey)
		if out.sign == nil {
			out.kid, out.sign = r.Kid, private
		}
	}
	return nil
}
