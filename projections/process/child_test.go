package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/domain"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/pgstore"
	"github.com/factum-platform/factum/eventstore/seal"
	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/keyring"
	"github.com/factum-platform/factum/infra/tsa"
	"github.com/factum-platform/factum/projections/runner"
)

// childEnv makes the test binary be a process that runs the saga and its jobs; it holds an [errand] in JSON.
const childEnv = "FACTUM_TEST_SAGA_PROCESS"

// errand is what such a process needs to know.
type errand struct {
	Tenants map[string]string `json:"tenants"` // DSNs by the id of the log, the platform's too
	KEK     string            `json:"kek"`
	TSA     string            `json:"tsa"`
	Roots   string            `json:"roots"`
	DieAt   string            `json:"die_at"` // the step before which it dies; "" for none
}

// mortal tells the steps of its process on standard output, and kills the process with -9 before one of them.
type mortal struct {
	dieAt string
	mu    sync.Mutex
	seen  map[string]int
}

func (m *mortal) step(name string) {
	if name == "" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen[name]++
	name = fmt.Sprintf("%s #%d", name, m.seen[name])
	fmt.Println(name)
	if name == m.dieAt {
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			panic(err)
		}
		select {} // until the signal has come
	}
}

var (
	blanks = regexp.MustCompile(`\s+`)
	// ofRiver are statements by which River's processes know of each other, or keep house: no step from an event to its outcome.
	ofRiver = regexp.MustCompile(`(?i)river_leader|river_queue|river_client|river_migration|pg_notify|^listen|^-- ping|^select 1$|current_schema|RESET|UNLISTEN`)
)

// stepOf names a statement by its beginning.
func stepOf(sql string) string {
	sql = strings.TrimSpace(blanks.ReplaceAllString(sql, " "))
	if sql == "" || sql == ";" || ofRiver.MatchString(sql) {
		return ""
	}
	return "sql: " + sql[:min(len(sql), 90)]
}

func (m *mortal) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	m.step(stepOf(d.SQL))
	return ctx
}
func (*mortal) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (m *mortal) TraceBatchStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceBatchStartData) context.Context {
	if d.Batch.Len() > 0 {
		m.step(stepOf(d.Batch.QueuedQueries[0].SQL))
	}
	return ctx
}
func (*mortal) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (*mortal) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

func (m *mortal) TraceCopyFromStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceCopyFromStartData) context.Context {
	m.step("copy into " + d.TableName.Sanitize())
	return ctx
}
func (*mortal) TraceCopyFromEnd(context.Context, *pgx.Conn, pgx.TraceCopyFromEndData) {}

// stepping is an authority whose conversation has two steps.
type stepping struct {
	*tsa.Client
	mortal *mortal
}

func (s stepping) Stamp(ctx context.Context, digest []byte) (tsa.Stamp, error) {
	s.mortal.step("the authority is asked")
	stamp, err := s.Client.Stamp(ctx, digest)
	s.mortal.step("the authority has answered")
	return stamp, err
}

// pools are the databases of an errand.
type pools map[string]*pgxpool.Pool

func (p pools) Pool(_ context.Context, tenant string) (*pgxpool.Pool, error) { return p[tenant], nil }

// tenants lists the logs but the platform's.
func (p pools) tenants(context.Context) (ids []string, err error) {
	for id := range p {
		if id != string(eventstore.PlatformTenant) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// openPools opens the databases of an errand with the application's rights.
func openPools(ctx context.Context, e errand, tracer pgx.QueryTracer) (pools, error) {
	out := pools{}
	for id, dsn := range e.Tenants {
		c, err := pgxpool.ParseConfig(dsn + "&role=factum_app")
		if err != nil {
			return nil, err
		}
		c.MaxConns = 20
		if tracer != nil {
			c.ConnConfig.Tracer = tracer
		}
		if out[id], err = pgxpool.NewWithConfig(ctx, c); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// openCommands opens the logs and what reports to them.
func openCommands(ctx context.Context, e errand, dbs pools) (*commands.Commands, eventstore.Store, *seal.Codec, error) {
	kek, err := keyring.LoadOrCreateKEK(e.KEK)
	if err != nil {
		return nil, nil, nil, err
	}
	platform := dbs[string(eventstore.PlatformTenant)]
	keys := keyring.Open(platform, kek)
	accounts, err := auth.New(ctx, auth.Config{Pool: platform, Secrets: keys})
	if err != nil {
		return nil, nil, nil, err
	}
	types, err := eventstore.NewRegistry(domain.Catalog()...)
	if err != nil {
		return nil, nil, nil, err
	}
	store, err := pgstore.Open(ctx, pgstore.Config{Databases: dbs})
	if err != nil {
		return nil, nil, nil, err
	}
	codec := &seal.Codec{Registry: types, Keys: &seal.MemoryKeys{}}
	cmds, err := commands.New(commands.Config{
		Store: store, Codec: codec, MAC: keys.MAC, Auth: accounts, Now: time.Now, NewID: uuid.NewString,
		Provision: func(context.Context, string, string) error { return errors.New("not in this test") },
	})
	return cmds, store, codec, err
}

// runChild is the process: it runs the saga and its jobs on real servers until it is killed.
func runChild(raw string) error {
	var e errand
	if err := json.Unmarshal([]byte(raw), &e); err != nil {
		return err
	}
	ctx := context.Background()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	m := &mortal{dieAt: e.DieAt, seen: map[string]int{}}
	dbs, err := openPools(ctx, e, m)
	if err != nil {
		return err
	}
	cmds, store, codec, err := openCommands(ctx, e, dbs)
	if err != nil {
		return err
	}
	roots, err := tsa.LoadRoots(e.Roots)
	if err != nil {
		return err
	}
	client, err := tsa.New(tsa.Config{URL: e.TSA, Provider: "test", Roots: roots})
	if err != nil {
		return err
	}
	worker, err := NewWorker(Deps{
		Pool: dbs[string(eventstore.PlatformTenant)], Commands: cmds, TSA: stepping{client, m}, Retired: noneRetired{}, Logger: log, Exclusive: true,
	})
	if err != nil {
		return err
	}
	r, err := runner.New(runner.Config{
		Store: store, Codec: codec, Projections: Sagas(worker.lane.queue), Logger: log, Pool: dbs.Pool, Tenants: dbs.tenants,
	})
	if err != nil {
		return err
	}
	if err := worker.Start(ctx); err != nil {
		return err
	}
	return r.Run(ctx)
}
