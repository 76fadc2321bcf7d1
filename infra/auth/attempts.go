package auth

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
)

// The n-th failure in a row, counted from free, is followed by a second in which no password is looked at, and each further one by
// twice that, up to longest. After forget without a failure the count begins anew.
const longestBlock = 15 * time.Minute

var scopes = map[string]struct {
	free   int
	forget time.Duration
}{
	"account": {5, 24 * time.Hour},
	"address": {50, time.Hour}, // behind which many people may be
}

// Attempt says whose password is about to be looked at: the HMAC of the account's e-mail address, whether there is such an account
// or not, and that of the network address that asks. A nil key is not counted.
type Attempt struct{ Account, Address []byte }

// ThrottledError says that too many attempts failed and when the next may be made. It says nothing of whether an account exists.
type ThrottledError struct{ After time.Duration }

// Error implements error.
func (e *ThrottledError) Error() string {
	return fmt.Sprintf("auth: too many failed attempts; the next may be made in %d s", e.Seconds())
}

// Seconds is After in whole seconds, at least 1.
func (e *ThrottledError) Seconds() int { return max(1, int(math.Ceil(e.After.Seconds()))) }

// Admit refuses an attempt with *[ThrottledError] while its account or its address is blocked. All processes share the state; what they
// check at the same moment is not counted yet, which is bounded by how many passwords they check at once.
func (a *Auth) Admit(ctx context.Context, t Attempt) error {
	var until *time.Time
	err := a.pool.QueryRow(ctx, `select max(blocked_until) from auth.attempts
		where scope = 'account' and key = $1 or scope = 'address' and key = $2`, t.Account, t.Address).Scan(&until)
	if err != nil {
		return fmt.Errorf("auth: look up failed attempts: %w", err)
	}
	if now := a.now(); until != nil && until.After(now) {
		return &ThrottledError{until.Sub(now)}
	}
	return nil
}

// Failed counts a failed attempt.
func (a *Auth) Failed(ctx context.Context, t Attempt) error {
	batch := &pgx.Batch{}
	for _, f := range []struct {
		scope string
		key   []byte
	}{{"account", t.Account}, {"address", t.Address}} {
		if f.key == nil {
			continue
		}
		s := scopes[f.scope]
		batch.Queue(`
			insert into auth.attempts as t (scope, key, failures, last_at, blocked_until) values ($1, $2, 1, $3, $3)
			on conflict (scope, key) do update set last_at = $3,
				failures = case when t.last_at < $4 then 1 else t.failures + 1 end,
				blocked_until = $3 + case when t.last_at < $4 or t.failures + 1 < $5::int then interval '0'
					else interval '1 second' * least($6::float8, power(2, least(t.failures + 1 - $5::int, 30))) end`,
			f.scope, f.key, a.now(), a.now().Add(-s.forget), s.free, longestBlock.Seconds())
	}
	if err := a.pool.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("auth: count a failed attempt: %w", err)
	}
	return nil
}

// Charge counts, and perhaps delays, requests that cost us or somebody else something and show no password, by their network address.
func (a *Auth) Charge(ctx context.Context, address []byte) error {
	t := Attempt{Address: address}
	if err := a.Admit(ctx, t); err != nil {
		return err
	}
	return a.Failed(ctx, t)
}

// Succeeded forgets the account's failures. Those of the address stay: whoever guesses at many accounts may own one of them.
func (a *Auth) Succeeded(ctx context.Context, t Attempt) error {
	if _, err := a.pool.Exec(ctx, `delete from auth.attempts where scope = 'account' and key = $1`, t.Account); err != nil {
		return fmt.Errorf("auth: forget failed attempts: %w", err)
	}
	return nil
}

// Sweep deletes what can let nobody in and holds nobody up any more: sessions, links and counts that ended or expired.
func (a *Auth) Sweep(ctx context.Context) error {
	now := a.now()
	batch := &pgx.Batch{}
	// An ended session is kept as long as its tokens may live: they are told that it ended and not that they are unknown.
	batch.Queue(`delete from auth.sessions where expires_at < $1`, now.Add(-AccessLife))
	batch.Queue(`delete from auth.links where expires_at < $1`, now.Add(-linkWindow))
	batch.Queue(`delete from auth.api_keys where least(expires_at, revoked_at) < $1`, now.Add(-keepKeys))
	batch.Queue(`delete from auth.attempts where last_at < $1`, now.Add(-scopes["account"].forget))
	if err := a.pool.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("auth: delete what has expired: %w", err)
	}
	return nil
}
