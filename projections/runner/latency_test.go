package runner_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/pgstore"
	"github.com/factum-platform/factum/infra/notify"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
	"github.com/factum-platform/factum/infra/readmodel"
	"github.com/factum-platform/factum/projections/runner"
)

// process is what one process has of its own: pools, a store with its doorbell, and a waiter that hears of moves.
type process struct {
	pools  map[string]*pgxpool.Pool
	store  *pgstore.Store
	moves  *readmodel.Moves
	waiter *readmodel.Waiter
}

// Pool implements [pgstore.Databases].
func (p *process) Pool(_ context.Context, tenant string) (*pgxpool.Pool, error) {
	return p.pools[tenant], nil
}

// startProcess opens everything as the platform's wiring does. dsns are the platform's database and the tenant's.
func startProcess(tb testing.TB, dsns map[string]string) *process {
	tb.Helper()
	p := &process{pools: map[string]*pgxpool.Pool{}, moves: &readmodel.Moves{}}
	for name, dsn := range dsns {
		pool, err := postgres.Open(tb.Context(), dsn, 6)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(pool.Close)
		p.pools[name] = pool
	}
	var err error
	quiet := slog.New(slog.DiscardHandler)
	if p.store, err = pgstore.Open(tb.Context(), pgstore.Config{Databases: p, Notify: p.pools["platform"], Logger: quiet}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := p.store.Close(); err != nil {
			tb.Error(err)
		}
	})
	hub := notify.Open(p.pools["platform"], quiet, map[string]func(notify.Hint){readmodel.Channel: p.moves.Hear})
	tb.Cleanup(hub.Close)
	p.moves.Share(func(h notify.Hint) { hub.Send(readmodel.Channel, h) }, hub.Connected)
	p.waiter = readmodel.NewWaiter(p.moves)
	<-hub.Ready()
	return p
}

// latencies appends one event after the other on an idle system and measures, from the append's answer until a query sees the row.
func latencies(tb testing.TB, writer, projector *process, n int) []time.Duration {
	tb.Helper()
	w := &world{codec: codec(tb)}
	r, err := runner.New(runner.Config{
		Store: projector.store, Codec: w.codec, Pool: projector.Pool, Moves: projector.moves, Logger: slog.New(slog.DiscardHandler),
		Tenants: func(context.Context) ([]string, error) { return []string{string(tenant)}, nil }, Projections: []runner.Projection{sums()},
	})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	defer func() {
		stop()
		<-done
	}()
	log := writer.store.Tenant(tenant)
	var out []time.Duration
	pace := time.NewTicker(60 * time.Millisecond) // slower than any limit on notifications: the system is idle in between
	defer pace.Stop()
	for i := range n + 10 {
		<-pace.C
		stream := eventstore.StreamID{Kind: "test", ID: fmt.Sprint("s", i)}
		at, err := log.Append(tb.Context(), eventstore.Write{Stream: stream, Expected: eventstore.NoStream(), Events: []eventstore.Proposed{{
			ID: eventstore.NewEventID(tenant, "a", fmt.Sprint(tb.Name(), i), 0), Type: "test.added", Schema: 1, Data: []byte(`{"n":1}`), Meta: eventstore.Meta{Command: "c", Actor: "a"},
		}}})
		if err != nil {
			tb.Fatal(err)
		}
		begun := time.Now()
		pool := writer.pools[string(tenant)]
		if err := writer.waiter.Wait(tb.Context(), pool, "sums", string(tenant), uint64(at[0].Position)); err != nil {
			tb.Fatal(err)
		}
		var seen bool
		if err := pool.QueryRow(tb.Context(), `select exists (select from sums_g1.sums where stream = $1)`, stream.ID).Scan(&seen); err != nil || !seen {
			tb.Fatal("the row is not there:", seen, err)
		}
		if i >= 10 { // connections are open and statements prepared from then on
			out = append(out, time.Since(begun))
		}
	}
	slices.Sort(out)
	return out
}

// TestLatencyFromAppendToVisibleRow measures on an idle system, within one process and across two, and prints it: how long it may take is
// bench/projections' matter. That rows do not wait for a sweep, which comes every five seconds, is this test's.
func TestLatencyFromAppendToVisibleRow(t *testing.T) {
	for _, c := range []struct {
		name      string
		processes int
	}{
		{"one process", 1},
		{"across processes", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			dsns := map[string]string{
				"platform":     pgtest.Database(t),
				string(tenant): pgtest.Database(t, postgres.Migrations{Name: "es", FS: pgstore.Migrations()}, postgres.Migrations{Name: "proj", FS: runner.Migrations()}),
			}
			if err := postgres.Migrate(t.Context(), dsns["platform"], postgres.Migrations{Name: "es", FS: pgstore.Migrations()}, postgres.Migrations{Name: "proj", FS: runner.Migrations()}); err != nil {
				t.Fatal(err)
			}
			writer := startProcess(t, dsns)
			projector := writer
			if c.processes == 2 {
				projector = startProcess(t, dsns)
			}
			all := latencies(t, writer, projector, 50)
			median, p99 := all[len(all)/2], all[len(all)*99/100]
			t.Logf("append to visible row, %s: median %s, p99 %s", c.name, median.Round(10*time.Microsecond), p99.Round(10*time.Microsecond))
			if median > 2*time.Second {
				t.Errorf("the median is %s: rows wait for a sweep", median)
			}
		})
	}
}
