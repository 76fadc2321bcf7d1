package process

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"

	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
	"github.com/factum-platform/factum/projections/runner"
)

// step is an event of a saga that counts: each asks for as many jobs as its number, and the one after "end" ends the instance.
type step struct {
	instance string
	jobs     int
	end      bool
}

type count struct {
	Steps int  `json:"steps"`
	Ended bool `json:"ended"`
}

var counting = Process[count, step]{
	Name:      "counting",
	Correlate: func(e step) (string, bool) { return e.instance, e.instance != "" },
	Initial:   func() count { return count{Steps: 100} },
	Evolve:    func(s count, e step) count { return count{s.Steps + 1, e.end} },
	React: func(s count, e step) (list []Job) {
		for range e.jobs {
			list = append(list, Job{"count", s.Steps, time.Time{}})
		}
		return list
	},
	Done: func(s count) bool { return s.Ended },
}

// inserted notes what is inserted.
type inserted []order

func (i *inserted) InsertTx(_ context.Context, _ pgx.Tx, list []river.JobArgs) error {
	for _, args := range list {
		*i = append(*i, args.(order))
	}
	return nil
}

func (i *inserted) LiveTx(context.Context, pgx.Tx, string) (keys []string, err error) {
	for _, o := range *i {
		keys = append(keys, o.Key)
	}
	return keys, nil
}

func facts(values ...any) (slice []runner.Fact) {
	for i, v := range values {
		slice = append(slice, runner.Fact{Recorded: eventstore.Recorded{Proposed: eventstore.Proposed{ID: eventstore.EventID{byte(i + 1)}, Type: "counted"}}, Value: v})
	}
	return slice
}

func TestAdvance(t *testing.T) {
	t.Parallel()
	pool := openPool(t, pgtest.Database(t, postgres.Migrations{Name: "saga", FS: Migrations()})+"&role=factum_app")
	apply := func(end error, of eventstore.TenantID, slice []runner.Fact) (got inserted, err error) {
		p := Projection(counting, &got)
		err = pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			return errors.Join(p.InTx(t.Context(), tx, of, slice), end)
		})
		return got, err
	}
	state := func() string {
		var text string
		err := pool.QueryRow(t.Context(), `select coalesce(string_agg(instance || ' ' || (state->>'steps'), ', ' order by instance), '') from saga.state`).Scan(&text)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	slice := facts(step{"a", 2, false}, step{"b", 1, false}, step{"", 7, false}, step{"a", 1, false}, step{"b", 0, true})
	const want = "102"

	killed := errors.New("killed")
	if got, err := apply(killed, tenant, slice); !errors.Is(err, killed) || len(got) != 4 {
		t.Fatalf("%d jobs, %v", len(got), err)
	}
	if got := state(); got != "" {
		t.Fatalf("a transaction that was rolled back left %s", got)
	}

	got, err := apply(nil, tenant, slice)
	if err != nil || len(got) != 4 {
		t.Fatalf("%d jobs, %v; want 4", len(got), err)
	}
	seen := map[string]bool{}
	for i, o := range got {
		seen[o.Key] = true
		if steps := []string{"101", "101", "101", "102"}[i]; string(o.Args) != steps || o.kind != "count" || o.Tenant != string(tenant) {
			t.Errorf("job %d: %+v", i, o)
		}
	}
	if len(seen) != 4 || !seen[es.Key("counting", string(tenant), "a", slice[0].ID.String(), "1")] {
		t.Errorf("the keys are %v", seen)
	}
	if got := state(); got != "a "+want {
		t.Errorf("kept %q; want a %s, and b is done", got, want)
	}

	if got, err := apply(nil, tenant, slice); err != nil || len(got) != 0 {
		t.Errorf("the same facts again led to %d jobs, %v", len(got), err)
	}
	if got, err := apply(nil, "other", slice); err != nil || len(got) != 4 {
		t.Errorf("another tenant's facts with these ids led to %d jobs, %v; want 4", len(got), err)
	}
	if _, err := apply(nil, tenant, facts("no step")); err == nil || !strings.Contains(err.Error(), "counting does not know counted") {
		t.Errorf("a fact of another kind: %v", err)
	}
	var kept int
	if err := pool.QueryRow(t.Context(), `select count(*) from saga.job`).Scan(&kept); err != nil || kept != 8 {
		t.Errorf("%d keys are kept, %v; want 8", kept, err)
	}
	if _, err := pool.Exec(t.Context(), `delete from saga.job`); err == nil || !strings.Contains(fmt.Sprint(err), "42501") {
		t.Errorf("the application forgets keys: %v", err)
	}
}
