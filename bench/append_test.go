// Package bench measures Factum beside the plain thing that it is built on, in the same run and on the same server, so that the
// ratio means something on any machine. Run it with make bench.
package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/pgstore"
	"github.com/factum-platform/factum/infra/devstack"
	"github.com/factum-platform/factum/infra/postgres"
)

// bareTable has the columns and the three unique indexes of es.events and nothing else.
const bareTable = `create table bare (
  pos bigint primary key, kind text not null, id text not null, version bigint not null, event_id uuid not null, type text not null,
  schema integer not null, data json not null, meta json not null, recorded_at timestamptz not null default clock_timestamp(),
  unique (kind, id, version), unique (event_id))`

const bareInsert = `insert into bare (pos, kind, id, version, event_id, type, schema, data, meta) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)`

const tenant eventstore.TenantID = "bench"

var payload = []byte(`{"file_id":"34c96c8e-fdb8-8752-88fd-b0f79d8f7569","document_id":"70cd2f7a-9895-8322-b707-8fb6b853927f","at":"2026-01-02T03:04:05.678901Z"}`)

// oneDatabase places every tenant in the one database that is measured.
type oneDatabase struct{ pool *pgxpool.Pool }

func (d oneDatabase) Pool(context.Context, string) (*pgxpool.Pool, error) { return d.pool, nil }

// BenchmarkAppend appends one event per append to the log of one tenant, each writer to a stream of its own, and inserts the same
// rows without a log, each as one statement. fsync is on for both. "x-bare" is how many times an append takes of a bare INSERT.
func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 8, 32} {
		// The two share a server and take turns, so that whatever else the machine does meets both.
		pool := database(b, int32(writers))
		store, err := pgstore.Open(b.Context(), pgstore.Config{Databases: oneDatabase{pool}})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := store.Close(); err != nil {
				b.Error(err)
			}
		})
		var bare time.Duration
		var position atomic.Int64
		b.Run(fmt.Sprintf("bare-insert/writers=%d", writers), func(b *testing.B) {
			bare = perOperation(b, writers, func(ctx context.Context, stream string, version int) error {
				id := uuid.New()
				meta, err := json.Marshal(metaOf(id))
				if err != nil {
					return err
				}
				_, err = pool.Exec(ctx, bareInsert, position.Add(1), "file", stream, version, id, "file.linked", 1, payload, meta)
				return err
			})
		})
		b.Run(fmt.Sprintf("append/writers=%d", writers), func(b *testing.B) {
			log := store.Tenant(tenant)
			took := perOperation(b, writers, func(ctx context.Context, stream string, version int) error {
				id := uuid.New()
				_, err := log.Append(ctx, eventstore.Write{
					Stream: eventstore.StreamID{Kind: "file", ID: stream}, Expected: eventstore.At(eventstore.Version(version - 1)),
					Events: []eventstore.Proposed{{ID: eventstore.EventID(id), Type: "file.linked", Schema: 1, Data: payload, Meta: metaOf(id)}},
				})
				return err
			})
			if bare > 0 {
				b.ReportMetric(float64(took)/float64(bare), "x-bare")
			}
		})
	}
}

func metaOf(id uuid.UUID) eventstore.Meta {
	return eventstore.Meta{Command: id.String(), Correlation: "bench", Actor: "system", At: time.Now().UTC()}
}

// perOperation runs b.N operations on the given number of writers and returns the wall time of one. Each writer has its own stream,
// whose versions it counts from 1.
func perOperation(b *testing.B, writers int, do func(ctx context.Context, stream string, version int) error) time.Duration {
	b.Helper()
	ctx := b.Context()
	var left atomic.Int64
	left.Store(int64(b.N))
	failed := make(chan error, writers)
	b.ResetTimer()
	for range writers {
		go func() {
			stream := uuid.NewString()
			for version := 1; left.Add(-1) >= 0; version++ {
				if err := do(ctx, stream, version); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
	}
	for range writers {
		if err := <-failed; err != nil {
			b.Error(err)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	return b.Elapsed() / time.Duration(b.N)
}

// database starts a PostgreSQL of its own with fsync on, because the tests' shared one has it off, and answers a pool to a database
// that holds a log and the bare table.
func database(b *testing.B, maxConns int32) *pgxpool.Pool {
	b.Helper()
	server, err := devstack.StartPostgres(b.Context(), devstack.PostgresConfig{Dir: filepath.Join(b.TempDir(), "postgres")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			b.Error(err)
		}
	})
	if err := postgres.Migrate(b.Context(), server.AdminDSN(), postgres.Migrations{Name: "es", FS: pgstore.Migrations()}); err != nil {
		b.Fatal(err)
	}
	pool, err := postgres.Open(b.Context(), server.AdminDSN(), maxConns)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	if _, err := pool.Exec(b.Context(), bareTable); err != nil {
		b.Fatal(err)
	}
	return pool
}
