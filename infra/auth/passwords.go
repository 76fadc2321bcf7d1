package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/zitadel/passwap"
	"github.com/zitadel/passwap/argon2"
	"github.com/zitadel/passwap/bcrypt"
	"golang.org/x/text/unicode/norm"
)

const (
	// waitingPerWorker bounds who waits: more than this many passwords per core, about a second of work, are refused with [ErrBusy].
	// A few wait, so that no core is idle between two.
	waitingPerWorker = 8
	// maxCandidates bounds the credentials of one address that are looked at: one is real, others are left from failed
	// registrations.
	maxCandidates = 5
)

// argon2Params follow RFC 9106 §4, second recommended option, with the threads that a small machine has.
var argon2Params = argon2.Params{Time: 3, Memory: 64 * 1024, Threads: 1, KeyLen: 32, SaltLen: 16}

// passwords hashes with argon2id, one password per core at a time.
type passwords struct {
	swapper *passwap.Swapper
	slots   chan struct{}
	waiting atomic.Int64
	dummy   string // the hash of no password; checked in place of a missing one, so that both take the same time
}

// newPasswords takes the memory of a hash in KiB.
func newPasswords(memory uint32) (*passwords, error) {
	params := argon2Params
	params.Memory = memory
	p := &passwords{
		swapper: passwap.NewSwapper(argon2.NewArgon2id(params, nil), bcrypt.New(12, nil)),
		slots:   make(chan struct{}, runtime.GOMAXPROCS(0)),
	}
	var err error
	p.dummy, err = p.swapper.Hash("no password has this hash: it holds a \x00 byte")
	return p, err
}

// most is how many passwords may be hashed or wait for that.
func (p *passwords) most() int64 { return int64(cap(p.slots) * (1 + waitingPerWorker)) }

// enter takes a place among those that are hashed or wait for that, which leave gives back. Error: [ErrBusy].
func (p *passwords) enter() error {
	if p.waiting.Add(1) > p.most() {
		p.waiting.Add(-1)
		return ErrBusy
	}
	return nil
}

func (p *passwords) leave() { p.waiting.Add(-1) }

// run does work in a slot, for somebody who has a place.
func (p *passwords) run(ctx context.Context, work func() error) error {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-p.slots }()
	return work()
}

// Busy is [ErrBusy] while another password would be refused for that. Asked before everything else that a log-in does, it lets a flood of them
// cost next to nothing; an answer of nil promises nothing.
func (a *Auth) Busy() error {
	if a.passwords.waiting.Load() >= a.passwords.most() {
		return ErrBusy
	}
	return nil
}

// Place is a place among those whose passwords are checked soon. Who takes it first of all looks nothing up in vain.
type Place struct{ a *Auth }

// Place takes a place, which must be left. Error: [ErrBusy], when there is none.
func (a *Auth) Place() (Place, error) { return Place{a}, a.passwords.enter() }

// Leave gives the place back. It is called once, and not for a place that there was not.
func (p Place) Leave() { p.a.passwords.leave() }

// SetPassword stores the hash of a new account's password. A credential that exists is left as it is. loginKey is the HMAC of
// the e-mail address. Error: [ErrBusy].
func (a *Auth) SetPassword(ctx context.Context, userID string, loginKey []byte, password string) error {
	hash, err := a.hash(ctx, password)
	if err != nil {
		return err
	}
	_, err = a.pool.Exec(ctx, `insert into auth.credentials (user_id, login_key, hash) values ($1, $2, $3) on conflict (user_id) do nothing`,
		userID, loginKey, hash)
	if err != nil {
		return fmt.Errorf("auth: store a credential: %w", err)
	}
	return nil
}

// ChangePassword replaces the password and ends all sessions of the user but keepSession, and all links that would set a password. It is
// all or nothing, in all API processes. Errors: [ErrBusy], [ErrInvalidCredentials] for an account that has no password.
func (a *Auth) ChangePassword(ctx context.Context, userID, password, keepSession string) error {
	defer a.ended.Add(1)
	hash, err := a.hash(ctx, password)
	if err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) error {
		return a.replace(ctx, tx, userID, hash, keepSession)
	})
	if err != nil && !errors.Is(err, ErrInvalidCredentials) {
		return fmt.Errorf("auth: change a password: %w", err)
	}
	return err
}

// replace stores a new hash and ends what the old password began.
func (a *Auth) replace(ctx context.Context, tx pgx.Tx, userID, hash, keepSession string) error {
	tag, err := tx.Exec(ctx, `update auth.credentials set hash = $2, changed_at = $3 where user_id = $1`, userID, hash, a.now())
	if err != nil {
		return err
	}
	if tag.RowsAffected() == 0 {
		return ErrInvalidCredentials
	}
	if _, err := tx.Exec(ctx, endSessions, userID, a.now(), keepSession); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `delete from auth.links where user_id = $1 and purpose = $2`, userID, string(ResetPassword))
	return err
}

// hash hashes a new password, in composed characters (Unicode NFC): keyboards differ in how they send the same text. Error: [ErrBusy].
func (a *Auth) hash(ctx context.Context, password string) (hash string, err error) {
	if err = a.passwords.enter(); err == nil {
		defer a.passwords.leave()
		err = a.passwords.run(ctx, func() (err error) {
			hash, err = a.passwords.swapper.Hash(norm.NFC.String(password))
			return err
		})
	}
	if err != nil {
		return "", fmt.Errorf("auth: hash a password: %w", err)
	}
	return hash, nil
}

// RemovePassword deletes the credential of an account that did not come to be.
func (a *Auth) RemovePassword(ctx context.Context, userID string) error {
	if _, err := a.pool.Exec(ctx, `delete from auth.credentials where user_id = $1`, userID); err != nil {
		return fmt.Errorf("auth: remove a credential: %w", err)
	}
	return nil
}

// Candidates returns the ids of the accounts that the address may belong to, oldest first, at most five.
func (a *Auth) Candidates(ctx context.Context, loginKey []byte) ([]string, error) {
	rows, err := a.pool.Query(ctx, `select user_id::text from auth.credentials where login_key = $1 order by created_at limit $2`, loginKey, maxCandidates)
	if err != nil {
		return nil, fmt.Errorf("auth: look up a login: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("auth: look up a login: %w", err)
	}
	return ids, nil
}

// verify compares, and answers a hash to replace this one if it is of an older kind.
func (p *passwords) verify(hash, password string) (replacement string, err error) {
	composed := norm.NFC.String(password)
	replacement, err = p.swapper.Verify(hash, composed)
	if composed == password || !errors.Is(err, passwap.ErrPasswordMismatch) {
		return replacement, err
	}
	if replacement, err = p.swapper.Verify(hash, password); err == nil { // from before passwords were composed
		replacement, err = p.swapper.Hash(composed)
	}
	return replacement, err
}

// CheckPassword compares in constant time; with userID "" it takes as long and fails. A hash of an older kind is replaced by
// the current one. Error: [ErrInvalidCredentials].
func (p Place) CheckPassword(ctx context.Context, userID, password string) error {
	a := p.a
	hash := a.passwords.dummy
	err := a.pool.QueryRow(ctx, `select hash from auth.credentials where user_id = $1`, cmp.Or(userID, nobody)).Scan(&hash)
	known := err == nil
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("auth: load a credential: %w", err)
	}
	var replacement string
	err = a.passwords.run(ctx, func() (err error) {
		replacement, err = a.passwords.verify(hash, password)
		return err
	})
	switch {
	case errors.Is(err, passwap.ErrPasswordMismatch) || (err == nil && !known):
		return ErrInvalidCredentials
	case err != nil:
		return fmt.Errorf("auth: check a password: %w", err)
	}
	if replacement == "" {
		return nil
	}
	_, err = a.pool.Exec(ctx, `update auth.credentials set hash = $3, changed_at = now() where user_id = $1 and hash = $2`, userID, hash, replacement)
	if err != nil {
		return fmt.Errorf("auth: renew a hash: %w", err)
	}
	return nil
}
