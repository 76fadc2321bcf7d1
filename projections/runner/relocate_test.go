package runner_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/projections/runner"
)

// spread is a store whose positions are ten times as far apart.
type spread struct{ eventstore.Store }

func (s spread) Tenant(t eventstore.TenantID) eventstore.Log { return spreadLog{s.Store.Tenant(t)} }

type spreadLog struct{ eventstore.Log }

// Page implements [eventstore.Log].
func (l spreadLog) Page(ctx context.Context, after eventstore.Position, limit int) (eventstore.Batch, error) {
	b, err := l.Log.Page(ctx, after/10, limit)
	for i := range b.Events {
		b.Events[i].Position *= 10
	}
	b.Through *= 10
	return b, err
}

// Head implements [eventstore.Log].
func (l spreadLog) Head(ctx context.Context) (eventstore.Position, error) {
	head, err := l.Log.Head(ctx)
	return head * 10, err
}

func TestALogThatMovedToAnotherEngineIsGoneOnWith(t *testing.T) {
	w := newWorld(t)
	trail := runner.Projection{
		Name: "trail", Version: 1, Home: runner.TenantHome, Positions: true, DDL: `create table trail (position bigint primary key)`,
		Apply: func(w *runner.Writes, rec eventstore.Recorded, _ any) error {
			w.Exec(`insert into `+w.Table("trail")+` values ($1)`, int64(rec.Position))
			return nil
		},
	}
	saga := runner.Projection{
		Name: "saga", Version: 1, Home: runner.PlatformHome, Effects: true, Halt: true,
		InTx: func(ctx context.Context, tx pgx.Tx, _ eventstore.TenantID, slice []runner.Fact) error {
			_, err := tx.Exec(ctx, `insert into asked select n from unnest($1::int[]) n`, []int{len(slice)})
			return err
		},
	}
	if _, err := w.pool.Exec(t.Context(), `create table asked (events int)`); err != nil {
		t.Fatal(err)
	}
	all := []runner.Projection{sums(), trail, saga}
	stop := w.run(nil, all...)
	w.add("a", 1)
	at := w.add("a", 2)
	for _, p := range all {
		w.await(p.Name, at)
	}
	stop()

	last, err := runner.LastEvents(t.Context(), w.pool)
	if err != nil || len(last) != 1 || len(last[tenant]) != 1 {
		t.Fatal(last, err)
	}
	relocate := func(positions map[eventstore.EventID]eventstore.Position) error {
		return pgx.BeginFunc(t.Context(), w.pool, func(tx pgx.Tx) error {
			return runner.Relocate(t.Context(), tx, map[eventstore.TenantID]map[eventstore.EventID]eventstore.Position{tenant: positions}, all)
		})
	}
	if err := relocate(nil); err == nil || !strings.Contains(err.Error(), "2 of 2 checkpoints stand on events that the log does not hold") {
		t.Fatal(err)
	}
	if got := w.one(`select count(*)::text from proj.live`); got != "3" {
		t.Fatal("a refused relocation left", got)
	}
	for range 2 {
		if err := relocate(map[eventstore.EventID]eventstore.Position{last[tenant][0]: at * 10}); err != nil {
			t.Fatal(err)
		}
	}

	head := w.add("a", 3) * 10
	w.run(func(c *runner.Config) { c.Store = spread{w.store} }, all...)
	for _, p := range all {
		w.await(p.Name, head)
	}
	if got := w.rows(); got != "a=6/3" {
		t.Error("sums:", got)
	}
	if got := w.one(`select string_agg(position::text, ' ' order by position) from trail_g2.trail`); got != "10 20 30" {
		t.Error("trail:", got)
	}
	if got := w.one(`select sum(events)::text from asked`); got != "3" {
		t.Error("the saga saw", got, "facts; want 3")
	}
}
