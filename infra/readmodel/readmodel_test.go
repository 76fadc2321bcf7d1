package readmodel

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/infra/notify"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// open makes a database with the part of the schema "proj" that this package reads: two generations, of which the first is live.
func open(t *testing.T) *pgxpool.Pool {
	t.Helper()
	sql := `-- +goose Up
create schema proj;
create table proj.live (projection text primary key, generation int not null);
create table proj.checkpoint (projection text, generation int, tenant text, position bigint, primary key (projection, generation, tenant));
insert into proj.live values ('things', 1);
insert into proj.checkpoint values ('things', 1, 't1', 5), ('things', 2, 't1', 9);
`
	pool, err := postgres.Open(t.Context(), pgtest.Database(t, postgres.Migrations{
		Name: "readmodeltest", FS: fstest.MapFS{"00001_proj.sql": {Data: []byte(sql)}},
	}), 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func TestPositionIsTheLiveGenerations(t *testing.T) {
	pool := open(t)
	for tenant, want := range map[string]uint64{"t1": 5, "unknown": 0} {
		if got, err := Position(t.Context(), pool, "things", tenant); err != nil || got != want {
			t.Errorf("%s: got %d, %v; want %d", tenant, got, err, want)
		}
	}
}

func TestReadStaysWithOneGenerationAndWritesNothing(t *testing.T) {
	pool := open(t)
	at, err := Read(t.Context(), pool, "things", "t1", 5, func(tx Tx, schema string) error {
		if schema != "things_g1" {
			t.Errorf("schema %s", schema)
		}
		if _, err := pool.Exec(t.Context(), `update proj.live set generation = 2`); err != nil {
			return err
		}
		var generation int
		if err := tx.QueryRow(t.Context(), `select generation from proj.live`).Scan(&generation); err != nil {
			return err
		}
		if generation != 1 {
			t.Error("a promotion was seen in the middle of a read")
		}
		var gone string
		if err := tx.QueryRow(t.Context(), `delete from proj.live returning projection`).Scan(&gone); err == nil {
			t.Error("a query could write")
		}
		return nil
	})
	if err == nil || at != 5 {
		t.Error(at, "a transaction with a failed statement was reported as good")
	}
	none := func(Tx, string) error {
		t.Error("called without a generation that is so far")
		return nil
	}
	if _, err := Read(t.Context(), pool, "nothing", "t1", 0, none); !errors.Is(err, ErrNotBuilt) {
		t.Error(err)
	}
	if at, err := Read(t.Context(), pool, "things", "t1", 10, none); !errors.Is(err, ErrBehind) || at != 9 {
		t.Error(at, err)
	}
	if at, err := Read(t.Context(), pool, "things", "t2", 0, func(Tx, string) error { return nil }); err != nil || at != 0 {
		t.Error(at, err)
	}
	own := errors.New("own")
	if _, err := Read(t.Context(), pool, "things", "t1", 0, func(Tx, string) error { return own }); !errors.Is(err, own) {
		t.Error(err)
	}
	if in := pool.Stat(); in.AcquiredConns() > 0 || in.TotalConns() > 2 {
		t.Error("reads keep or lose connections", in.AcquiredConns(), in.TotalConns())
	}
}

func TestWaitReturnsAtOnceWhenItIsThere(t *testing.T) {
	if err := NewWaiter(nil).Wait(t.Context(), open(t), "things", "t1", 5); err != nil {
		t.Fatal(err)
	}
}

func TestWaitIsWokenBySignal(t *testing.T) {
	pool := open(t)
	var moves Moves
	done := make(chan error, 1)
	go func() { done <- NewWaiter(&moves).Wait(t.Context(), pool, "things", "t1", 6) }()
	// The checkpoint in the database never moves, so nothing but the signal can end the wait.
	for tick := time.Tick(time.Millisecond); ; {
		moves.Announce("things", "t1", 5)     // not far enough
		moves.Announce("things", "other", 99) // another log
		select {
		case err := <-done:
			t.Fatal("it did not wait:", err)
		case <-tick:
		}
		moves.mu.Lock()
		waits := len(moves.waiting) == 1
		moves.mu.Unlock()
		if waits {
			break
		}
	}
	moves.Announce("things", "t1", 7)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(moves.waiting) != 0 {
		t.Fatal("the waiter was not forgotten")
	}
}

// TestWaitIsWokenByAnotherProcess: what one process announces ends the wait in another, before its poll would.
func TestWaitIsWokenByAnotherProcess(t *testing.T) {
	pool := open(t)
	var here, there Moves
	hear := make(chan notify.Hint, 1)
	there.Share(func(h notify.Hint) { hear <- h }, nil)
	here.Share(func(notify.Hint) { t.Error("what was heard is told again") }, func() bool { return true })
	done := make(chan error, 1)
	go func() { done <- NewWaiter(&here).Wait(t.Context(), pool, "things", "t1", 6) }()
	// The checkpoint in the database never moves, so nothing but the signal can end the wait.
	for {
		there.Announce("things", "t1", 7)
		here.Hear(notify.Hint{Key: "things", Value: "7"})
		here.Hear(notify.Hint{Key: "things/t1", Value: "x"})
		here.Hear(<-hear)
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		case <-time.After(time.Millisecond): // it may not wait yet
		}
	}
}

func TestWaitIsWokenByPoll(t *testing.T) {
	pool := open(t)
	done := make(chan error, 1)
	go func() { done <- NewWaiter(nil).Wait(t.Context(), pool, "things", "t1", 6) }()
	if _, err := pool.Exec(t.Context(), `update proj.checkpoint set position = 6 where generation = 1`); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	pool := open(t)
	var moves Moves
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Millisecond)
	defer cancel()
	if err := NewWaiter(&moves).Wait(ctx, pool, "things", "t1", 6); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if len(moves.waiting) != 0 {
		t.Fatal("the waiter was not forgotten")
	}
}

// TestAQueryIsAnsweredByTheLiveGeneration promotes, drops and goes behind what was read before.
func TestAQueryIsAnsweredByTheLiveGeneration(t *testing.T) {
	pool := open(t)
	var guesses Guesses
	exec := func(sql string) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(`create schema things_g1; create table things_g1.t as select 1 as n; create schema things_g2; create table things_g2.t as select 2 as n`)
	read := func(atLeast uint64) (answers []int, at uint64, err error) {
		var head int
		at, err = guesses.Ask(t.Context(), pool, "things", "t1", atLeast, func(schema string) Query {
			return Query{
				Head: `select n from ` + schema + `.t`, Into: []any{&head},
				Columns: "n", From: schema + ".t",
				Row: func(row pgx.CollectableRow) error {
					var n int
					err := row.Scan(&n)
					answers = append(answers, head, n)
					return err
				},
			}
		}, func(b *pgx.Batch) {
			b.Queue(`select 7`).QueryRow(func(row pgx.Row) error {
				var n int
				err := row.Scan(&n)
				answers = append(answers, n)
				return err
			})
		})
		return answers, at, err
	}
	wants := func(when string, answer int, position uint64) {
		t.Helper()
		got, at, err := read(0)
		if err != nil || at != position || !slices.Equal(got, []int{answer, answer, 7}) {
			t.Errorf("%s: %v at %d, %v; want twice %d and 7 at %d", when, got, at, err, answer, position)
		}
	}
	wants("first", 1, 5)
	wants("guessed", 1, 5)
	exec(`update proj.live set generation = 2`)
	wants("promoted", 2, 9)
	wants("guessed anew", 2, 9)
	exec(`update proj.live set generation = 1; drop schema things_g2 cascade`)
	wants("rolled back and dropped", 1, 5)
	if got, at, err := read(6); !errors.Is(err, ErrBehind) || at != 5 {
		t.Error(got, at, err)
	}
	exec(`drop table things_g1.t`)
	if got, _, err := read(0); err == nil {
		t.Error("there is no table, and the answer was", got)
	}
	exec(`create table things_g1.t as select 3 as n`)
	wants("after a failure", 3, 5)
	exec(`delete from proj.live`)
	if got, _, err := read(0); !errors.Is(err, ErrNotBuilt) || got != nil {
		t.Error(got, err)
	}
	if in := pool.Stat(); in.AcquiredConns() > 0 {
		t.Error("reads keep connections", in.AcquiredConns())
	}
}

// ending ends a context when a batch was read.
type ending struct{ end context.CancelFunc }

func (ending) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}
func (ending) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (e ending) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)   { e.end() }
func (ending) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (ending) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TestAQueryThatWasNotAnsweredIsAFailure ends the context when the answers of another generation were passed over: that must not look like an
// answer without rows.
func TestAQueryThatWasNotAnsweredIsAFailure(t *testing.T) {
	plain := open(t)
	if _, err := plain.Exec(t.Context(), `create schema things_g1; create table things_g1.t (n int); create schema things_g2; create table things_g2.t (n int)`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c := plain.Config()
	c.ConnConfig.Tracer = ending{end: cancel}
	pool, err := pgxpool.NewWithConfig(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var guesses Guesses
	guesses.live.Store(guess{"things", "t1"}, 2) // the first is live
	if _, err := guesses.Ask(ctx, pool, "things", "t1", 0, func(schema string) Query {
		return Query{Columns: "n", From: schema + ".t", Row: func(pgx.CollectableRow) error { return errors.New("there is none") }}
	}, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestTheRowsOfAQueryAreAList has a head with and without rows, parts, an order, and parameters.
func TestTheRowsOfAQueryAreAList(t *testing.T) {
	pool := open(t)
	if _, err := pool.Exec(t.Context(), `create schema things_g1; create table things_g1.t as select n, 'v' || n as v from generate_series(1, 30) n`); err != nil {
		t.Fatal(err)
	}
	var guesses Guesses
	for _, c := range []struct {
		least, limit, offset, total int
		want                        []int
	}{
		{0, 3, 0, 30, []int{30, 29, 28}}, {0, 3, 28, 30, []int{2, 1}}, {0, 3, 30, 30, nil}, {29, 10, 0, 1, []int{30}}, {30, 10, 0, 0, nil},
	} {
		var total, twice int
		var got []int
		at, err := guesses.Ask(t.Context(), pool, "things", "t1", 0, func(schema string) Query {
			return Query{
				Head: `select count(*), 2 * count(*) from ` + schema + `.t where n > $1`, Into: []any{&total, &twice},
				Columns: "v, n", From: schema + ".t where n > $1", Order: "length(v) desc, v desc", Limit: fmt.Sprint(c.limit, " offset ", c.offset),
				Args: []any{c.least}, Row: func(row pgx.CollectableRow) error {
					var v string
					var n int
					err := row.Scan(&v, &n)
					if v != fmt.Sprint("v", n) {
						t.Error(v, n)
					}
					got = append(got, n)
					return err
				},
			}
		}, nil)
		if err != nil || at != 5 || total != c.total || twice != 2*c.total || !slices.Equal(got, c.want) {
			t.Errorf("%+v: got %v of %d at %d, %v", c, got, total, at, err)
		}
	}
}
