// Package pgstore is the log on PostgreSQL: one schema es in each tenant's own database. An append is one statement in one round
// trip; positions come from a counter row and are gap-free.
package pgstore

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strings"

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
// this process, and the others notice by polling.
type Config struct {
	Databases Databases
	Notify    *pgxpool.Pool
}

// Store implements [eventstore.Store].
type Store struct {
	databases Databases
	bell      eventstore.Bell
	notifier  *notifier
	closed    context.Context
	close     context.CancelFunc
}

// Open starts the store's doorbell.
func Open(_ context.Context, c Config) (*Store, error) {
	if c.Databases == nil {
		return nil, errors.New("pgstore: Config.Databases is required")
	}
	s := &Store{databases: c.Databases}
	s.closed, s.close = context.WithCancel(context.Background())
	if c.Notify != nil {
		s.notifier = startNotifier(c.Notify, &s.bell)
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

// Close implements [eventstore.Store]: it ends followers and the doorbell. The pools are their owner's to close.
func (s *Store) Close() error {
	s.close()
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
		return nil, &eventstore.InvalidError{Reason: strings.TrimPrefix(err.Error(), "eventstore: ")}
	}
	return l.store.databases.Pool(ctx, string(l.tenant))
}

const columns = `e.pos, e.kind, e.id, e.version, e.event_id, e.type, e.schema, e.data::text, e.meta::text, e.recorded_at`

// streamPage is how many events ReadStream fetches at a time.
const streamPage = 500

// ReadStream implements [eventstore.Log]. It reads page by page, so that a slow consumer holds no connection.
func (l *log) ReadStream(ctx context.Context, s eventstore.StreamID, from eventstore.Version) iter.Seq2[eventstore.Recorded, error] {
	return func(yield func(eventstore.Recorded, error) bool) {
		for {
			pool, err := l.pool(ctx)
			var page []eventstore.Recorded
			if err == nil {
				page, err = l.query(ctx, pool, `select `+columns+` from es.events e
					where e.kind = $1 and e.id = $2 and e.version >= $3 order by e.version limit $4`, s.Kind, s.ID, int64(from), streamPage)
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
			if len(page) < streamPage {
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
	events, err := l.query(ctx, pool, `select `+columns+` from es.events e where e.pos > $1 order by e.pos limit $2`, int64(after), limit)
	if err != nil {
		return eventstore.Batch{}, err
	}
	b := eventstore.Batch{Events: events, Through: after, Live: len(events) < limit}
	if len(events) > 0 {
		b.Through = events[len(events)-1].Position
	}
	return b, nil
}

// Follow implements [eventstore.Log].
func (l *log) Follow(ctx context.Context, after eventstore.Position) iter.Seq2[eventstore.Batch, error] {
	return tail.Source{
		Tenant: l.tenant, Bell: &l.store.bell, Closed: l.store.closed,
		Page: func(ctx context.Context, after eventstore.Position) (eventstore.Batch, error) {
			return l.Page(ctx, after, streamPage)
		},
		Transient: func(err error) bool {
			var invalid *eventstore.InvalidError
			return !errors.As(err, &invalid)
		},
	}.Follow(ctx, after)
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

func (l *log) query(ctx context.Context, pool *pgxpool.Pool, sql string, args ...any) ([]eventstore.Recorded, error) {
	rows, err := pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("pgstore: read the log of tenant %s: %w", l.tenant, err)
	}
	events, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (eventstore.Recorded, error) {
		rec := eventstore.Recorded{Tenant: l.tenant}
		var data, meta string
		err := row.Scan(&rec.Position, &rec.Stream.Kind, &rec.Stream.ID, &rec.Version, &rec.ID, &rec.Type, &rec.Schema, &data, &meta, &rec.Recorded)
		if err != nil {
			return rec, err
		}
		rec.Data, rec.Recorded = []byte(data), rec.Recorded.UTC()
		return rec, json.Unmarshal([]byte(meta), &rec.Meta)
	})
	if err != nil {
		return nil, fmt.Errorf("pgstore: read the log of tenant %s: %w", l.tenant, err)
	}
	return events, nil
}

// sqlState is PostgreSQL's code of an error, "" for other errors.
func sqlState(err error) (code, detail string) {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code, pg.Detail
	}
	return "", ""
}
