// Package pgstore is the log on PostgreSQL: one schema es in each tenant's own database. An append is one statement in one round
// trip; positions come from a counter row and are gap-free.
package pgstore

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/internal/tail"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the goose files of the schema es. They grant to the roles factum_app and factum_tenant, which must exist.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic("pgstore: embedded migrations: " + err.Error())
	}
	return sub
}

// Databases finds the database that holds a tenant's log. It hands out pools, never transactions: an append inside a wider
// transaction would hold the counter's lock for as long.
type Databases interface {
	Pool(ctx context.Context, tenant string) (*pgxpool.Pool, error)
}

// Config is what a store needs. Notify is the database through which processes wake each other (LISTEN, NOTIFY); nil wakes only
// this process, and the others notice by polling. Setting is what people set to say where the databases are, for error messages.
type Config struct {
	Databases Databases
	Notify    *pgxpool.Pool
	Setting   string       // optional
	Logger    *slog.Logger // nil means slog.Default()
	// Closed is called when an append finds the log closed, see [Close]: it makes Databases look anew where the log lies, and opens one that
	// nobody means to move any more. The append then tries again, for some seconds. Its error is logged. Optional.
	Closed func(ctx context.Context, tenant string) error
}

// Store implements [eventstore.Store].
type Store struct {
	databases Databases
	bell      eventstore.Bell
	notifier  *notifier
	setting   string
	shut      func(ctx context.Context, tenant string) error
	logger    *slog.Logger
	closed    context.Context
	close     context.CancelFunc

	mu      sync.Mutex
	lanes   map[eventstore.TenantID]*lane // those that run
	running sync.WaitGroup
}

// Open starts the store's doorbell.
func Open(_ context.Context, c Config) (*Store, error) {
	if c.Databases == nil {
		return nil, errors.New("pgstore: Config.Databases is required")
	}
	if c.Setting == "" {
		c.Setting = "the setting of the database's URL"
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Closed == nil {
		c.Closed = func(context.Context, string) error { return nil }
	}
	s := &Store{databases: c.Databases, setting: c.Setting, shut: c.Closed, logger: c.Logger, lanes: map[eventstore.TenantID]*lane{}}
	s.closed, s.close = context.WithCancel(context.Background())
	if c.Notify != nil {
		s.notifier = startNotifier(c.Notify, &s.bell, c.Logger)
	}
	return s, nil
}

// Tenant implements [eventstore.Store].
func (s *Store) Tenant(t eventstore.TenantID) eventstore.Log { return &log{s, t} }

// Caps implements [eventstore.Store].
func (s *Store) Caps() eventstore.Caps {
	return eventstore.Caps{Gapless: true, MultiStream: true, AtomicClaim: true}
}

// Bell implements [eventstore.Store].
func (s *Store) Bell() *eventstore.Bell { return &s.bell }

// Close implements [eventstore.Store]: appends that are on their way are finished, waiting ones are answered [eventstore.ErrClosed],
// followers and the doorbell end. The pools are their owner's to close.
func (s *Store) Close() error {
	s.mu.Lock()
	s.close() // under the lock: no lane starts from here on
	s.mu.Unlock()
	s.running.Wait()
	if s.notifier != nil {
		s.notifier.stop()
	}
	return nil
}

type log struct {
	store  *Store
	tenant eventstore.TenantID
}

// pool is what every call checks first.
func (l *log) pool(ctx context.Context) (*pgxpool.Pool, error) {
	if l.store.closed.Err() != nil {
		return nil, eventstore.ErrClosed
	}
	if err := l.tenant.Validate(); err != nil {
		return nil, invalid(err)
	}
	pool, err := l.store.databases.Pool(ctx, string(l.tenant))
	if err != nil {
		err = fmt.Errorf("pgstore: the database of tenant %s: %w", l.tenant, err)
		var passing interface{ Temporary() bool } // such as a schema that is about to be migrated
		if !connectionTrouble(err) && (!errors.As(err, &passing) || !passing.Temporary()) {
			err = &unplacedError{err}
		}
	}
	return pool, err
}

// unplacedError says that a tenant has no database, as far as anybody knows.
type unplacedError struct{ error }

// Unwrap makes the cause visible to errors.Is and errors.As.
func (e *unplacedError) Unwrap() error { return e.error }

// connectionTrouble tells whether err is about reaching a server rather than about what it answered.
func connectionTrouble(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	var pg *pgconn.PgError
	return errors.As(err, &connect) || errors.As(err, &network) || errors.As(err, &pg) ||
		errors.Is(err, context.Canceled) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

const (
	// streamPage is how many events ReadStream fetches at a time, followPage how many Follow does.
	streamPage = 500
	followPage = 1000
	// pageBytes bounds the data that a page holds in memory, except for its last event.
	pageBytes = 16 << 20
)

// The last column of both says, of the same snapshot, where the log or the stream ends.
const (
	pageSQL = `select ` + columns + `, (select h.pos from es.head h) from (
		select e.*, sum(pg_column_size(e.data)) over (order by e.pos rows unbounded preceding) - pg_column_size(e.data) as before
		  from es.events e where e.pos > $1 order by e.pos limit $2) e
		where e.before < $3 order by e.pos`
	streamSQL = `select ` + columns + `, (select max(s.version) from es.events s where s.kind = $4 and s.id = $5) from (
		select e.*, sum(pg_column_size(e.data)) over (order by e.version rows unbounded preceding) - pg_column_size(e.data) as before
		  from es.events e where e.kind = $4 and e.id = $5 and e.version >= $1 order by e.version limit $2) e
		where e.before < $3 order by e.version`
)

// ReadStream implements [eventstore.Log]. It reads page by page, so that a slow consumer holds no connection.
func (l *log) ReadStream(ctx context.Context, s eventstore.StreamID, from eventstore.Version) iter.Seq2[eventstore.Recorded, error] {
	return func(yield func(eventstore.Recorded, error) bool) {
		if err := s.Validate(); err != nil {
			yield(eventstore.Recorded{}, invalid(err))
			return
		}
		for {
			pool, err := l.pool(ctx)
			var page []eventstore.Recorded
			var end uint64
			if err == nil {
				page, end, err = l.query(ctx, pool, streamSQL, int64(from), streamPage, pageBytes, s.Kind, s.ID)
			}
			if err != nil {
				yield(eventstore.Recorded{}, err)
				return
			}
			for _, rec := range page {
				if !yield(rec, nil) {
					return
				}
				from = rec.Version + 1
			}
			if len(page) == 0 || uint64(from) > end {
				return
			}
		}
	}
}

// Page implements [eventstore.Log].
func (l *log) Page(ctx context.Context, after eventstore.Position, limit int) (eventstore.Batch, error) {
	if limit < 1 || limit > eventstore.MaxPageEvents {
		return eventstore.Batch{}, &eventstore.InvalidError{Reason: fmt.Sprintf("a page holds 1 to %d events, not %d", eventstore.MaxPageEvents, limit)}
	}
	pool, err := l.pool(ctx)
	if err != nil {
		return eventstore.Batch{}, err
	}
	events, head, err := l.query(ctx, pool, pageSQL, int64(after), limit, pageBytes)
	if err != nil {
		return eventstore.Batch{}, err
	}
	if len(events) == 0 {
		return eventstore.Batch{Through: after, Live: true}, nil
	}
	through := events[len(events)-1].Position
	return eventstore.Batch{Events: events, Through: through, Live: uint64(through) >= head}, nil
}

// Follow implements [eventstore.Log].
func (l *log) Follow(ctx context.Context, after eventstore.Position) iter.Seq2[eventstore.Batch, error] {
	return tail.Source{
		Tenant: l.tenant, Bell: &l.store.bell, Closed: l.store.closed,
		Page: func(ctx context.Context, after eventstore.Position) (eventstore.Batch, error) {
			return l.Page(ctx, after, followPage)
		},
		Transient: func(err error) bool { return !terminal(err) },
	}.Follow(ctx, after)
}

// terminalClasses are the classes of SQLSTATE that waiting does not cure.
var terminalClasses = []string{
	"22", // malformed data
	"28", // wrong password
	"3D", // no such database
	"42", // no such table, no permission
}

// terminal tells whether reading again is pointless.
func terminal(err error) bool {
	var malformed *eventstore.InvalidError
	if errors.As(err, &malformed) {
		return true
	}
	var unknown *unplacedError
	if errors.As(err, &unknown) {
		return true
	}
	var pg *pgconn.PgError
	return errors.As(err, &pg) && len(pg.Code) == 5 && slices.Contains(terminalClasses, pg.Code[:2])
}

// Head implements [eventstore.Log].
func (l *log) Head(ctx context.Context) (eventstore.Position, error) {
	pool, err := l.pool(ctx)
	if err != nil {
		return 0, err
	}
	var pos int64
	if err := pool.QueryRow(ctx, `select h.pos from es.head h`).Scan(&pos); err != nil {
		return 0, fmt.Errorf("pgstore: read the head of tenant %s: %w", l.tenant, err)
	}
	return eventstore.Position(pos), nil
}

const claimsSQL = `select c.scope, c.key, c.kind, c.id from es.claims c
	where (c.scope, c.key) > ($1, $2) order by c.scope, c.key limit $3`

// Claims implements [eventstore.Log].
func (l *log) Claims(ctx context.Context) iter.Seq2[eventstore.Held, error] {
	return func(yield func(eventstore.Held, error) bool) {
		var last eventstore.Held
		for {
			pool, err := l.pool(ctx)
			var page []eventstore.Held
			if err == nil {
				page, err = l.claims(ctx, pool, last)
			}
			if err != nil {
				yield(eventstore.Held{}, err)
				return
			}
			for _, h := range page {
				if !yield(h, nil) {
					return
				}
				last = h
			}
			if len(page) < streamPage {
				return
			}
		}
	}
}

// Snapshot calls fn with a head of the tenant's log and the claims that hold at it, also while others write. fn reads the claims at most once,
// within its call.
func (s *Store) Snapshot(ctx context.Context, t eventstore.TenantID, fn func(head eventstore.Position, claims iter.Seq2[eventstore.Held, error]) error) error {
	l := &log{s, t}
	pool, err := l.pool(ctx)
	if err != nil {
		return err
	}
	return pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		var pos int64
		if err := tx.QueryRow(ctx, `select h.pos from es.head h`).Scan(&pos); err != nil {
			return fmt.Errorf("pgstore: read the head of tenant %s: %w", t, err)
		}
		rows, err := tx.Query(ctx, `select c.scope, c.key, c.kind, c.id from es.claims c order by c.scope, c.key`)
		if err != nil {
			return fmt.Errorf("pgstore: read the claims of tenant %s: %w", t, err)
		}
		defer rows.Close()
		return fn(eventstore.Position(pos), func(yield func(eventstore.Held, error) bool) {
			for rows.Next() {
				if h, err := scanClaim(rows); !yield(h, err) || err != nil {
					return
				}
			}
			if err := rows.Err(); err != nil {
				yield(eventstore.Held{}, fmt.Errorf("pgstore: read the claims of tenant %s: %w", t, err))
			}
		})
	})
}

func scanClaim(row pgx.CollectableRow) (eventstore.Held, error) {
	var h eventstore.Held
	var key []byte
	err := row.Scan(&h.Scope, &key, &h.Stream.Kind, &h.Stream.ID)
	h.Key = string(key)
	return h, err
}

func (l *log) claims(ctx context.Context, pool *pgxpool.Pool, after eventstore.Held) ([]eventstore.Held, error) {
	rows, err := pool.Query(ctx, claimsSQL, after.Scope, []byte(after.Key), streamPage)
	if err != nil {
		return nil, fmt.Errorf("pgstore: read the claims of tenant %s: %w", l.tenant, err)
	}
	held, err := pgx.CollectRows(rows, scanClaim)
	if err != nil {
		return nil, fmt.Errorf("pgstore: read the claims of tenant %s: %w", l.tenant, err)
	}
	return held, nil
}

func invalid(err error) error {
	return &eventstore.InvalidError{Reason: strings.TrimPrefix(err.Error(), "eventstore: ")}
}
