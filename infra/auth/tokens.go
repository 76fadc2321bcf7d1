package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
)

const (
	accessType  = "access"
	refreshType = "refresh"
	// maxTokenBytes bounds what is parsed; ours have under 700.
	maxTokenBytes = 4096
)

// claims are those of RFC 7519 with the original's type and the session that the token belongs to.
type claims struct {
	jwt.RegisteredClaims
	Type    string `json:"type"`
	Session string `json:"sid"`
}

type signer struct {
	keys      *keys
	issuer    string
	now       func() time.Time
	parser    *jwt.Parser
	validator *jwt.Validator
	// known are access tokens whose signature and form were found good, by their SHA-256: checking a signature costs a process more than all
	// else that it does for a short list.
	known *lru.Cache[[sha256.Size]byte, known]
}

// known is a token that was found good, and under which key. Nobody changes it.
type known struct {
	claims *claims
	kid    string
}

// maxKnown bounds the tokens that a process remembers; one takes about half a kilobyte.
const maxKnown = 10_000

func newSigner(k *keys, issuer string, now func() time.Time) (*signer, error) {
	remembered, err := lru.New[[sha256.Size]byte, known](maxKnown)
	if err != nil {
		return nil, fmt.Errorf("auth: remember tokens: %w", err)
	}
	demanded := []jwt.ParserOption{
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithIssuer(issuer), jwt.WithAudience(issuer),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithStrictDecoding(), jwt.WithTimeFunc(now),
		jwt.WithLeeway(slack), // for iat and nbf; exp is exact
	}
	return &signer{
		keys: k, issuer: issuer, now: now, parser: jwt.NewParser(demanded...), validator: jwt.NewValidator(demanded...), known: remembered,
	}, nil
}

// pair signs an access token and the refresh token with the given id.
func (s *signer) pair(ctx context.Context, userID, session, refreshID string) (Tokens, error) {
	with, err := s.keys.current(ctx)
	if err != nil {
		return Tokens{}, err
	}
	access, err := s.sign(with, userID, session, uuid.NewString(), accessType, AccessLife)
	if err != nil {
		return Tokens{}, err
	}
	refresh, err := s.sign(with, userID, session, refreshID, refreshType, RefreshLife)
	return Tokens{access, refresh}, err
}

func (s *signer) sign(with keySet, userID, session, id, kind string, life time.Duration) (string, error) {
	now := s.now()
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: s.issuer, Audience: jwt.ClaimStrings{s.issuer}, Subject: userID, ID: id,
			IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(life)),
		},
		Type: kind, Session: session,
	})
	token.Header["kid"] = with.kid
	signed, err := token.SignedString(with.sign)
	if err != nil {
		return "", fmt.Errorf("auth: sign a token: %w", err)
	}
	return signed, nil
}

// access is verify for an access token. What cannot change about one that was found good is remembered: who signed what. The rest is checked
// each time: its times, and that its key still counts. sum is the token's SHA-256.
func (s *signer) access(ctx context.Context, token string, sum [sha256.Size]byte) (*claims, error) {
	if before, ok := s.known.Get(sum); ok {
		with, err := s.keys.current(ctx)
		if err != nil {
			return nil, err
		}
		if _, counts := with.verify[before.kid]; counts && s.inTime(before.claims) && s.validator.Validate(before.claims) == nil {
			return before.claims, nil
		}
		s.known.Remove(sum) // and verify says why it is good no longer
	}
	c, kid, err := s.verify(ctx, token, accessType)
	if err != nil {
		return nil, err
	}
	s.known.Add(sum, known{c, kid})
	return c, nil
}

// inTime tells whether the token has not expired, without the slack that its other times have.
func (s *signer) inTime(c *claims) bool { return c.ExpiresAt.After(s.now()) }

// verify checks signature, algorithm, issuer, audience, times and type, and says which key has signed. Errors: [ErrInvalidToken],
// [ErrTokenExpired].
func (s *signer) verify(ctx context.Context, token, kind string) (c *claims, kid string, err error) {
	if len(token) > maxTokenBytes {
		return nil, "", ErrInvalidToken
	}
	with, err := s.keys.current(ctx)
	if err != nil {
		return nil, "", err
	}
	c = &claims{}
	_, err = s.parser.ParseWithClaims(token, c, func(t *jwt.Token) (any, error) {
		if _, demands := t.Header["crit"]; demands {
			return nil, errors.New("crit names what we do not understand") // RFC 7515 §4.1.11
		}
		var ok bool
		if kid, ok = t.Header["kid"].(string); !ok {
			return nil, errors.New("no kid")
		}
		key, ok := with.verify[kid]
		if !ok {
			return nil, errors.New("unknown kid")
		}
		return key, nil
	})
	switch {
	case err == nil && (c.Type != kind || uuid.Validate(c.Subject) != nil || uuid.Validate(c.Session) != nil || uuid.Validate(c.ID) != nil):
		return nil, "", ErrInvalidToken
	case err == nil && !s.inTime(c):
		return nil, "", ErrTokenExpired
	case errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenSignatureInvalid) && c.Type == kind:
		return nil, "", ErrTokenExpired
	case err != nil:
		return nil, "", ErrInvalidToken
	}
	return c, kid, nil
}
