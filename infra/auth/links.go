package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Purpose is what a mailed link is for.
type Purpose string

// The purposes of links, and how long a link is good.
const (
	VerifyEmail   Purpose = "verify"
	ResetPassword Purpose = "reset"
	Invite        Purpose = "invite" // the owner is the invitation, for there need not be an account
)

var linkLife = map[Purpose]time.Duration{VerifyEmail: 72 * time.Hour, ResetPassword: time.Hour, Invite: inviteLife}

// inviteLife is as long as an invitation is good after it was mailed.
const inviteLife = 7 * 24 * time.Hour

// LinkLife is how long a link of the purpose is good.
func LinkLife(p Purpose) time.Duration { return linkLife[p] }

const (
	linkTokenBytes = 32
	// maxLinks bounds how many mails with a link for one purpose an account is sent within linkWindow.
	maxLinks   = 3
	linkWindow = time.Hour
)

var (
	// ErrInvalidLink says that a link's token is unknown, was used, has expired or is for something else.
	ErrInvalidLink = errors.New("auth: the link is not valid")
	// ErrTooManyLinks says that the account was sent enough links for now.
	ErrTooManyLinks = errors.New("auth: the account was sent enough links for now")
)

// NewLink draws a one-time token for the user. Those drawn before stay good. Error: [ErrTooManyLinks].
func (a *Auth) NewLink(ctx context.Context, purpose Purpose, userID string) (token string, err error) {
	life, ok := linkLife[purpose]
	if !ok {
		return "", fmt.Errorf("auth: there are no links for %q", purpose)
	}
	var raw [linkTokenBytes]byte
	rand.Read(raw[:]) // never fails (Go 1.24)
	token, now := base64.RawURLEncoding.EncodeToString(raw[:]), a.now()
	tag, err := a.pool.Exec(ctx, `insert into auth.links (hash, purpose, user_id, created_at, expires_at)
		select $1, $2, $3, $4, $5 where (select count(*) from auth.links where user_id = $3 and purpose = $2 and created_at > $6) < $7`,
		hashOf(token), string(purpose), userID, now, now.Add(life), now.Add(-linkWindow), maxLinks)
	if err != nil {
		return "", fmt.Errorf("auth: draw a link: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return "", ErrTooManyLinks
	}
	return token, nil
}

func hashOf(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// LinkOwner says whose link it is, and leaves it good. Error: [ErrInvalidLink].
func (a *Auth) LinkOwner(ctx context.Context, purpose Purpose, token string) (userID string, err error) {
	err = a.pool.QueryRow(ctx, `select user_id::text from auth.links where hash = $1 and purpose = $2 and expires_at > $3`,
		hashOf(token), string(purpose), a.now()).Scan(&userID)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", ErrInvalidLink
	}
	if err != nil {
		return "", fmt.Errorf("auth: look up a link: %w", err)
	}
	return userID, nil
}

// SpendLink makes the link's user have no link for the purpose any more, this one included. They still count for [ErrTooManyLinks].
func (a *Auth) SpendLink(ctx context.Context, purpose Purpose, userID string) error {
	if _, err := a.pool.Exec(ctx, `update auth.links set expires_at = $3 where user_id = $1 and purpose = $2 and expires_at > $3`, userID, string(purpose), a.now()); err != nil {
		return fmt.Errorf("auth: spend a link: %w", err)
	}
	return nil
}

// ResetPassword sets the password of the link's owner, whom it answers, spends all links of the owner that reset, and ends all
// sessions: all or nothing, in all API processes. Errors: [ErrInvalidLink], [ErrBusy].
func (a *Auth) ResetPassword(ctx context.Context, token, password string) (userID string, err error) {
	defer a.ended.Add(1)
	if _, err := a.LinkOwner(ctx, ResetPassword, token); err != nil {
		return "", err // before the work of hashing
	}
	hash, err := a.hash(ctx, password)
	if err != nil {
		return "", err
	}
	err = pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `delete from auth.links where hash = $1 and purpose = $2 and expires_at > $3 returning user_id::text`,
			hashOf(token), string(ResetPassword), a.now()).Scan(&userID)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrInvalidLink // somebody was faster
		}
		if err != nil {
			return err
		}
		return a.replace(ctx, tx, userID, hash, nobody)
	})
	if errors.Is(err, ErrInvalidLink) {
		return "", err
	}
	if err != nil {
		return "", fmt.Errorf("auth: reset a password: %w", err)
	}
	return userID, nil
}
