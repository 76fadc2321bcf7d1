package runner_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/readmodel"
	"github.com/factum-platform/factum/projections/runner"
)

// board counts the events of every tenant, in the platform's database.
func board() runner.Projection {
	return runner.Projection{
		Name: "board", Version: 1, Home: runner.PlatformHome, Types: []string{"test.added"},
		DDL: `create table board (tenant text, stream text, version bigint, n bigint not null, primary key (tenant, stream, version))`,
		Apply: func(w *runner.Writes, rec eventstore.Recorded, fact any) error {
			w.Exec(`insert into `+w.Table("board")+` values ($1, $2, $3, $4) on conflict do nothing`, string(rec.Tenant), rec.Stream.ID, int64(rec.Version), fact.(added).N)
			return nil
		},
	}
}

// says appends to the log of any tenant.
func (w *world) says(t eventstore.TenantID, n int) eventstore.Position {
	w.t.Helper()
	log := w.store.Tenant(t)
	s := eventstore.StreamID{Kind: "test", ID: "s"}
	version := eventstore.Version(0)
	for rec, err := range log.ReadStream(w.t.Context(), s, 1) {
		if err != nil {
			w.t.Fatal(err)
		}
		version = rec.Version
	}
	out, err := log.Append(w.t.Context(), eventstore.Write{Stream: s, Expected: eventstore.At(version), Events: []eventstore.Proposed{{
		ID: eventstore.NewEventID(t, "a", fmt.Sprint(version), 0), Type: "test.added", Schema: 1, Data: fmt.Appendf(nil, `{"n":%d}`, n),
		Meta: eventstore.Meta{Command: fmt.Sprint(version), Actor: "a"},
	}}})
	if err != nil {
		w.t.Fatal(err)
	}
	return out[0].Position
}

// TestRebuildOfAllLogs: a read model of the platform has a checkpoint for each log. Tenants that appear while it is built are not lost, whether
// the live generation has met them before the promotion or after.
func TestRebuildOfAllLogs(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	names := []string{"t1", "t2", "t3"}
	appear := func(name string) {
		mu.Lock()
		defer mu.Unlock()
		names = append(names, name)
	}
	change := func(c *runner.Config) {
		c.Tenants = func(context.Context) ([]string, error) {
			mu.Lock()
			defer mu.Unlock()
			return append([]string(nil), names...), nil
		}
	}
	w.run(change, board())
	await := func(log eventstore.TenantID, position eventstore.Position) {
		t.Helper()
		if err := w.waiter.Wait(t.Context(), w.pool, "board", string(log), uint64(position)); err != nil {
			t.Fatal(err)
		}
	}
	events := 0
	for _, log := range []eventstore.TenantID{"platform", "t1", "t2", "t3"} {
		for i := range 5 {
			events++
			position := w.says(log, i)
			if i == 4 {
				await(log, position)
			}
		}
	}
	o, err := runner.NewOperator(w.config(change, board()))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	out, err := o.Rebuild(t.Context(), "board", eventstore.PlatformTenant, runner.RebuildOptions{
		Parallel: 3,
		Progress: func(p runner.Progress) {
			if seen[p.Stage] {
				return
			}
			seen[p.Stage] = true
			switch p.Stage { // a tenant appears in the middle of each
			case "building", "indexing", "comparing", "promoting":
				fresh := "new" + p.Stage
				appear(fresh)
				events++
				w.says(eventstore.TenantID(fresh), 1)
			}
		},
		Retiring: func(ctx context.Context, _ string, _ eventstore.TenantID, _ int) error {
			appear("newlast") // nobody but the live generation has met it when this returns
			events++
			await("newlast", w.says("newlast", 1))
			return nil
		},
	})
	if err != nil || out.Generation != 2 || !out.Compared.Same() || out.Compared.Skipped != "" {
		t.Fatalf("%+v, %v", out, err)
	}
	for _, log := range []eventstore.TenantID{"platform", "t1", "newbuilding", "newindexing", "newcomparing", "newpromoting", "newlast"} {
		events++
		await(log, w.says(log, 9))
	}
	var rows int
	_, err = readmodel.Read(t.Context(), w.pool, "board", "", 0, func(tx readmodel.Tx, schema string) error {
		return tx.QueryRow(t.Context(), `select count(*) from `+schema+`.board`).Scan(&rows)
	})
	if err != nil || rows != events {
		t.Fatalf("%d rows, %d events, %v", rows, events, err)
	}
	if got := w.one(`select count(*) || ' ' || count(*) filter (where state = 'live') from proj.checkpoint where generation = 2`); got != "9 9" {
		t.Fatal("checkpoints:", got)
	}
}
