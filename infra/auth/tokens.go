package auth

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
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
	keys   *keys
	issuer string
	now    func() time.Time
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

// verify checks signature, algorithm, issuer, audience, times and type. Errors: [ErrInvalidToken], [ErrTokenExpired].
func (s *signer) verify(ctx context.Context, token, kind string) (*claims, error) {
	if len(token) > maxTokenBytes {
		return nil, ErrInvalidToken
	}
	with, err := s.keys.current(ctx)
	if err != nil {
		return nil, err
	}
	var c claims
	_, err = jwt.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		if _, demands := t.Header["crit"]; demands {
			return nil, errors.New("crit names what we do not understand") // RFC 7515 §4.1.11
		}
		kid, ok := t.Header["kid"].(string)
		if !ok {
			return nil, errors.New("no kid")
		}
		key, ok := with.verify[kid]
		if !ok {
			return nil, errors.New("unknown kid")
		}
		return key, nil
	}, jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithIssuer(s.issuer), jwt.WithAudience(s.issuer),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithStrictDecoding(), jwt.WithTimeFunc(s.now),
		jwt.WithLeeway(slack)) // for iat and nbf; exp is exact
	switch {
	case err == nil && (c.Type != kind || uuid.Validate(c.Subject) != nil || uuid.Validate(c.Session) != nil || uuid.Validate(c.ID) != nil):
		return nil, ErrInvalidToken
	case err == nil && !c.ExpiresAt.After(s.now()):
		return nil, ErrTokenExpired
	case errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenSignatureInvalid) && c.Type == kind:
		return nil, ErrTokenExpired
	case err != nil:
		return nil, ErrInvalidToken
	}
	return &c, nil
}
