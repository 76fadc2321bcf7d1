// Package ratelimit limits how many requests are admitted in a window, over all processes of a platform together.
//
// A quota is a bucket of tokens that fills steadily: it holds at most Requests, and as many come back in each window. The buckets
// are rows of the platform's database. So that not every request asks it, a process leases some tokens at a time, spends them by itself and
// gives none back: what it has not spent after a sixth of the window is lost. A lease has between a hundredth and a twentieth of the quota
// (at least one token); it doubles while leases are spent in time and shrinks to what was spent when they are not.
//
// Bounds. Tokens are taken out of the bucket before they are spent, so that P processes together never admit more than the quota in a
// window in the long run, and at most the quota and P twentieths of it at once. A client that is spread over P processes can lose up to P
// hundredths of its quota in each sixth of a window, or as many tokens as it spends. Who has no token is refused by the process alone
// until the bucket has one again. A database that crashes forgets what was spent.
package ratelimit

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/semaphore"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the goose files of the schema ratelimit.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic("ratelimit: embedded migrations: " + err.Error())
	}
	return sub
}

const (
	smallestShare = 100 // of the quota is the first lease
	largestShare  = 20
	leaseShare    = 6 // of the window is how long a lease is good
	// forgetAbove is how many clients a process knows before it looks which of them it may forget.
	forgetAbove = 10_000
)

// Config is what a limiter needs. Pool and MAC are required.
type Config struct {
	Pool *pgxpool.Pool // the platform's database
	// MAC is HMAC under a key of the platform: the table shall name neither people nor their addresses.
	MAC func(ctx context.Context, scope, value string) ([]byte, error)
	Now func() time.Time // nil means time.Now; of this process's leases only, buckets go by the database's clock
}

// Limiter admits requests. It is safe for concurrent use.
type Limiter struct {
	c       Config
	mu      sync.Mutex
	clients map[client]*leases
	sweepAt int // so many clients
}

type client struct{ scope, key string }

// leases are what this process holds of one bucket.
type leases struct {
	asks *semaphore.Weighted // one lease is asked for at a time

	mu    sync.Mutex
	size  int // of the last lease that was asked for
	left  int
	spent int
	rest  int       // what the bucket had, after the last lease
	until time.Time // the lease is good
	again time.Time // when the bucket has a token, as far as we know
	full  time.Time // when the bucket is full, if nobody takes more
}

// New returns a limiter over the shared buckets.
func New(c Config) *Limiter {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Limiter{c: c, clients: map[client]*leases{}, sweepAt: forgetAbove}
}

// Verdict is what became of a request, and what is left.
type Verdict struct {
	Admitted  bool
	Remaining int           // that this process knows of; others may spend some of them
	Reset     time.Duration // until the whole quota is there, if nothing is spent
	After     time.Duration // of a request that was refused: until another may be admitted
}

// Take admits or refuses one request of the client that key names, in the scope's quota, which must not be off. It asks the database
// once for each lease. Errors: that the database does not answer, or the context's.
func (l *Limiter) Take(ctx context.Context, scope, key string, q Quota) (Verdict, error) {
	of := l.of(client{scope, key})
	if v, ok := of.take(l.c.Now()); ok {
		return v, nil
	}
	if err := of.asks.Acquire(ctx, 1); err != nil {
		return Verdict{}, fmt.Errorf("ratelimit: wait for a lease: %w", err)
	}
	defer of.asks.Release(1)
	if v, ok := of.take(l.c.Now()); ok { // somebody else has asked meanwhile
		return v, nil
	}
	if err := l.lease(ctx, of, scope, key, q); err != nil {
		return Verdict{}, err
	}
	v, _ := of.take(l.c.Now())
	return v, nil
}

// take spends a token, or says that there is none to be had. ok is false when the bucket must be asked.
func (o *leases) take(now time.Time) (v Verdict, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	v.Reset = max(0, o.full.Sub(now))
	switch {
	case o.left > 0 && now.Before(o.until):
		o.left--
		o.spent++
		v.Admitted, v.Remaining = true, o.left+o.rest
		return v, true
	case now.Before(o.again):
		v.After = o.again.Sub(now)
		return v, true
	default:
		return Verdict{}, false
	}
}

// lease takes tokens out of the shared bucket, in one statement.
func (l *Limiter) lease(ctx context.Context, o *leases, scope, key string, q Quota) error {
	mac, err := l.c.MAC(ctx, scope, key)
	if err != nil {
		return fmt.Errorf("ratelimit: %w", err)
	}
	now := l.c.Now()
	want := o.next(now, q)
	// Time before used_until is what was spent; a token is worth q.each(). The row's lock makes processes take turns.
	var granted int
	var used time.Duration
	err = l.c.Pool.QueryRow(ctx, `
		insert into ratelimit.buckets as b (scope, key, used_until, granted) values ($1, $2, now() + $3::int * $4::interval, $3)
		on conflict (scope, key) do update set
			granted = least($3, floor(extract(epoch from $5::interval - greatest(b.used_until - now(), '0')) / extract(epoch from $4::interval) + 1e-6)::int),
			used_until = greatest(b.used_until, now()) + greatest(0, least($3, floor(extract(epoch from $5::interval
				- greatest(b.used_until - now(), '0')) / extract(epoch from $4::interval) + 1e-6)::int)) * $4::interval
		returning granted, used_until - now()`, scope, mac, want, q.each(), q.each()*time.Duration(q.Requests)).Scan(&granted, &used)
	if err != nil {
		return fmt.Errorf("ratelimit: lease from the bucket: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	room := q.each()*time.Duration(q.Requests) - used // of what was not spent
	o.left, o.spent, o.rest = max(0, granted), 0, max(0, int(room/q.each()))
	o.until, o.full, o.again = now.Add(q.Window/leaseShare), now.Add(used), now
	if o.rest == 0 {
		o.again = now.Add(max(time.Millisecond, q.each()-room))
	}
	return nil
}

// next is how many tokens the next lease should have.
func (o *leases) next(now time.Time, q Quota) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	smallest := max(1, q.Requests/smallestShare)
	switch {
	case now.Before(o.until): // all were spent in time
		o.size *= 2
	case o.spent > 0:
		o.size = o.spent
	}
	o.size = min(max(o.size, smallest), max(1, q.Requests/largestShare))
	return o.size
}

func (l *Limiter) of(c client) *leases {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o, ok := l.clients[c]; ok {
		return o
	}
	if len(l.clients) >= l.sweepAt {
		l.forget()
	}
	o := &leases{asks: semaphore.NewWeighted(1)}
	l.clients[c] = o
	return o
}

// forget drops clients whose lease is over. Those who hold one of them now see to the end of their own request.
func (l *Limiter) forget() {
	now := l.c.Now()
	for c, o := range l.clients {
		o.mu.Lock()
		if !now.Before(o.until) {
			delete(l.clients, c)
		}
		o.mu.Unlock()
	}
	l.sweepAt = max(forgetAbove, 2*len(l.clients))
}

// Sweep deletes the buckets that are full, which are as good as none.
func Sweep(ctx context.Context, pool *pgxpool.Pool) error {
	if _, err := pool.Exec(ctx, `delete from ratelimit.buckets where used_until < now()`); err != nil {
		return fmt.Errorf("ratelimit: delete full buckets: %w", err)
	}
	return nil
}
