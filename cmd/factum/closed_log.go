package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/eventstore/pgstore"
	"github.com/factum-platform/factum/infra/tenants"
)

const (
	// suspectAfter is how long a log is closed before it is asked who closed it: a move needs less.
	suspectAfter = 300 * time.Millisecond
	// closedFor ends what is remembered of a log that was closed.
	closedFor = 10 * time.Second
	// tidyEvery is how often a worker looks for databases that are to be dropped.
	tidyEvery = time.Minute
)

// follower lets appends follow the logs of tenants that move, and opens a log whose mover has died while it was closed. It is safe for
// concurrent use.
type follower struct {
	dbs *tenants.Databases

	mu   sync.Mutex
	next map[string]time.Time // when to ask again who closed the tenant's log
}

func newFollower(dbs *tenants.Databases) *follower {
	return &follower{dbs: dbs, next: map[string]time.Time{}}
}

// closed is called by every attempt to append to a closed log.
func (f *follower) closed(ctx context.Context, tenant string) error {
	p, err := f.dbs.Refresh(ctx, tenant)
	if err != nil || !f.due(tenant, time.Now()) {
		return err
	}
	return openAbandoned(ctx, f.dbs, p)
}

// due tells whether the log has been closed for a while, and nobody asked lately.
func (f *follower) due(tenant string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, known := f.next[tenant]
	if known && now.Before(at) {
		return false
	}
	for t, at := range f.next {
		if now.Sub(at) > closedFor {
			delete(f.next, t)
		}
	}
	_, known = f.next[tenant]
	f.next[tenant] = now.Add(suspectAfter)
	return known
}

// openAbandoned opens the tenant's log if it is closed and nobody goes on with what it was closed for.
func openAbandoned(ctx context.Context, dbs *tenants.Databases, p tenants.Placement) error {
	return withAdmin(ctx, dbs, p.Place(), func(admin *pgx.Conn) error {
		by, closed, err := pgstore.ClosedBy(ctx, admin)
		if err != nil || !closed {
			return err
		}
		abandoned, err := dbs.Abandoned(ctx, p.Tenant, p.Place(), by)
		if err != nil || !abandoned {
			return err
		}
		_, err = pgstore.Reopen(ctx, admin, by)
		return err
	})
}

// reclaim opens the log if a process that is dead has left it closed: whoever has the tenant's turn need not wait until its time is up. admin
// is connected to the placement's database.
func reclaim(ctx context.Context, dbs *tenants.Databases, turn *tenants.Turn, p tenants.Placement, admin *pgx.Conn) error {
	by, closed, err := pgstore.ClosedBy(ctx, admin)
	if err != nil || !closed {
		return err
	}
	if _, err := turn.Withdraw(ctx, by); err != nil {
		return err
	}
	now, err := dbs.Placement(ctx, p.Tenant)
	if err != nil {
		return err
	}
	if now.Place() != p.Place() {
		return fmt.Errorf("another process has moved the tenant to %s at this moment; start again", now.Place())
	}
	_, err = pgstore.Reopen(ctx, admin, by)
	return err
}

// withAdmin calls fn with a connection of the administrator to a database.
func withAdmin(ctx context.Context, dbs *tenants.Databases, at tenants.Place, fn func(*pgx.Conn) error) error {
	conn, err := dbs.Admin(ctx, at.Server, at.Database)
	if err != nil {
		return err
	}
	return errors.Join(fn(conn), conn.Close(context.WithoutCancel(ctx)))
}

// refresh makes reads follow a tenant that has moved.
func (p *platform) refresh(ctx context.Context, tenant string) error {
	_, err := p.dbs.Refresh(ctx, tenant)
	return err
}

// tidyDatabases drops databases that are out of service when their time has come, until ctx ends.
func tidyDatabases(ctx context.Context, dbs *tenants.Databases, log *slog.Logger) error {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		dropped, err := dbs.Tidy(ctx)
		for _, r := range dropped {
			log.Info("dropped a database that was out of service", "tenant", r.Tenant, "server", r.Server, "database", r.Database, "why", r.Why)
		}
		if err != nil && ctx.Err() == nil {
			log.Warn("databases that are out of service cannot be looked after; this is tried again", "after", tidyEvery, "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
