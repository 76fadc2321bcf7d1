package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/esdbstore"
	"github.com/factum-platform/factum/eventstore/pgstore"
	"github.com/factum-platform/factum/infra/readmodel"
	"github.com/factum-platform/factum/infra/tenants"
)

// The engines that can hold the log.
const (
	enginePostgres     = "postgres"
	engineEventStoreDB = "eventstoredb"
)

const (
	// connectTimeout bounds one attempt to connect.
	connectTimeout = 5 * time.Second
	// guardEvery is how often a process looks whether the log is still where it was.
	guardEvery = 5 * time.Second
	// sweepEvery is how often a process settles claims that a crash left half taken, on engines that need it.
	sweepEvery = 5 * time.Minute
)

// logLock is held by every process that serves the platform, shared, and alone by one that copies logs.
const logLock = `hashtextextended('factum.log', 0)`

// lockNotAvailable is PostgreSQL's code for a wait that was too long.
const lockNotAvailable = "55P03"

// lockLog takes the log's lock for as long as the connection lives. It waits two seconds, in which the server may notice that a process
// which held the lock has just ended.
func lockLog(ctx context.Context, conn *pgx.Conn, function string) error {
	if _, err := conn.Exec(ctx, `set lock_timeout = '2s'; select `+function+`(`+logLock+`)`); err != nil {
		return fmt.Errorf("lock the log: %w", err)
	}
	return nil
}

// engine says which engine holds the log and how it is reached beyond the databases.
type engine struct {
	name string
	esdb string // connection string
}

// openStore opens the log. It is the one place that knows what the names of engines mean. notify is the database through which processes
// wake each other; nil for a process that follows nothing.
func openStore(ctx context.Context, e engine, dbs *tenants.Databases, notify *pgxpool.Pool, log *slog.Logger) (eventstore.Store, error) {
	switch e.name {
	case enginePostgres:
		return pgstore.Open(ctx, pgstore.Config{Databases: dbs, Notify: notify, Setting: "--database-url (FACTUM_DATABASE_URL)", Logger: log, Closed: newFollower(dbs).closed})
	case engineEventStoreDB:
		store, err := esdbstore.Open(ctx, esdbstore.Config{ConnectionString: e.esdb, Logger: log})
		if err != nil {
			return nil, fmt.Errorf("%w; check --esdb (ESDB_CONNECTION_STRING)", err)
		}
		return store, nil
	default:
		return nil, fmt.Errorf("there is no event store %q; use %s or %s", e.name, enginePostgres, engineEventStoreDB)
	}
}

// guardLog makes sure, for as long as the stack runs, that the platform's log lies on the engine that we use: we hold the log's lock, so that
// no copy runs beside us, and when we lost it and the log has moved since, the process ends.
func guardLog(ctx context.Context, st *stack, s settings) error {
	g := &logGuard{s: s}
	if err := g.hold(ctx); err != nil {
		return err
	}
	st.background("guard of the log", g.watch)
	return nil
}

// logGuard holds the log's lock.
type logGuard struct {
	s    settings
	conn *pgx.Conn // nil while it is lost
}

// hold takes the lock and checks the engine.
func (g *logGuard) hold(ctx context.Context) (err error) {
	conn, err := connect(ctx, g.s.adminDSN)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
		}
	}()
	err = lockLog(ctx, conn, `pg_advisory_lock_shared`)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == lockNotAvailable {
		return errCopyRuns
	}
	if err != nil {
		return err
	}
	found, err := tenants.RememberedEngine(ctx, conn)
	if err != nil {
		return err
	}
	if err := rightEngine(found, g.s.engine.name); err != nil {
		return err
	}
	g.conn = conn
	return nil
}

var errCopyRuns = errors.New("factum log copy works on these logs; wait until it has ended and start again")

// misplacedError says that the log does not lie on the engine that we use.
type misplacedError struct{ text string }

// Error implements error.
func (e *misplacedError) Error() string { return e.text }

// rightEngine refuses an engine that does not hold the logs.
func rightEngine(found tenants.Engine, wanted string) error {
	switch {
	case found.MovingTo != "":
		return &misplacedError{fmt.Sprintf("the logs of this platform are being moved from %[1]s to %[2]s, and that was not finished; finish it with "+
			"'factum log copy --from %[1]s --to %[2]s --all --switch', or give it up with 'factum log copy --from %[1]s --to %[1]s --all --switch'", found.Name, found.MovingTo)}
	case found.Name != "" && found.Name != wanted:
		return &misplacedError{fmt.Sprintf("the logs of this platform lie in %[1]s; in %[2]s all accounts would seem lost; start with --event-store %[1]s, or move the logs first with "+
			"'factum log copy --from %[1]s --to %[2]s --all --switch'", found.Name, wanted)}
	default:
		return nil
	}
}

// watch looks from time to time. A database that is away is no reason to end; a log that has moved is.
func (g *logGuard) watch(ctx context.Context) error {
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	defer func() { g.drop(context.WithoutCancel(ctx)) }()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := g.look(ctx); err != nil {
			return err
		}
	}
}

// look answers an error only for a log that has moved.
func (g *logGuard) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if g.conn != nil {
		if err := g.conn.Ping(ctx); err == nil {
			return nil // we hold the lock, so nobody can have moved the log
		}
		g.drop(ctx)
	}
	err := g.hold(ctx)
	var misplaced *misplacedError
	if errors.As(err, &misplaced) || errors.Is(err, errCopyRuns) {
		return err
	}
	if err != nil && ctx.Err() == nil {
		g.s.log.Warn("the lock of the log is lost and cannot be taken again yet", "error", err)
	}
	return nil
}

func (g *logGuard) drop(ctx context.Context) {
	if g.conn == nil {
		return
	}
	if err := g.conn.Close(ctx); err != nil {
		g.s.log.Debug("close the connection that holds the lock of the log", "error", err)
	}
	g.conn = nil
}

// rememberEngine notes the engine of the first start, once its store could be opened.
func rememberEngine(ctx context.Context, s settings) (err error) {
	conn, err := connect(ctx, s.adminDSN)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	found, err := tenants.RememberEngine(ctx, conn, s.engine.name)
	if err != nil {
		return err
	}
	return rightEngine(found, s.engine.name) // another first start may have been faster
}

// sameLog refuses an event store that is empty although read models were computed from its log: another server than the one that was
// used, or one that lost its data.
func sameLog(ctx context.Context, pool *pgxpool.Pool, store eventstore.Store) error {
	head, err := store.Tenant(eventstore.PlatformTenant).Head(ctx)
	if err != nil || head > 0 {
		return err
	}
	at, err := readmodel.Position(ctx, pool, "directory", string(eventstore.PlatformTenant))
	if err != nil || at == 0 {
		return err
	}
	return fmt.Errorf("the event store holds no log of the platform, but its read models have come to position %d of one; this is another server than before (--esdb), or it lost its data: restore it", at)
}

// watched is a store that notices when its server stops handing out new events.
type watched interface{ Stuck() int }

// sweeper is a store whose claims are reservations that a crash may leave half taken.
type sweeper interface {
	Sweep(ctx context.Context, t eventstore.TenantID) error
}

// sweepClaims settles what crashes left, of all tenants, until ctx ends.
func sweepClaims(ctx context.Context, store sweeper, list func(context.Context) ([]string, error), log *slog.Logger) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		ids, err := list(ctx)
		if err != nil && ctx.Err() == nil {
			log.Warn("the list of tenants cannot be read; only the platform's claims are settled", "error", err)
		}
		for _, t := range append([]string{tenants.Platform}, ids...) {
			if err := store.Sweep(ctx, eventstore.TenantID(t)); err != nil && ctx.Err() == nil {
				log.Warn("claims that a crash left half taken cannot be settled; this is tried again", "tenant", t, "after", sweepEvery, "error", err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
