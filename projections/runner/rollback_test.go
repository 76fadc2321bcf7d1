package runner_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/projections/runner"
)

func TestRollback(t *testing.T) {
	w := newWorld(t)
	w.run(nil, sums())
	w.await("sums", w.add("a", 1))
	o := w.operator(sums())
	if _, err := o.Rollback(t.Context(), "sums", tenant, runner.RebuildOptions{}); err == nil || !strings.Contains(err.Error(), "kept for a day") {
		t.Fatal(err)
	}
	w.rebuild(o, runner.RebuildOptions{})
	w.add("bad", -1) // parked live, and so it is in the generation that comes back
	w.await("sums", w.add("a", 2))
	for i, want := range []string{"1 live, 2 retired", "1 retired, 2 live"} { // back and forth
		out, err := o.Rollback(t.Context(), "sums", tenant, runner.RebuildOptions{})
		if err != nil || out.Generation != i+1 {
			t.Fatalf("%+v, %v", out, err)
		}
		if got := w.rows() + "; " + w.states(); got != "a=3/2; "+want {
			t.Fatal(got)
		}
	}
	if got := w.one(`select string_agg(generation || ' ' || stream_id, ', ' order by generation) from proj.parked`); got != "1 bad, 2 bad" {
		t.Fatal(got)
	}
	w.await("sums", w.add("a", 4))
	if got := w.rows(); got != "a=7/3" {
		t.Fatal(got)
	}
}

func TestRollbackIsResumedAfterACrashAnywhere(t *testing.T) {
	w := newWorld(t)
	w.run(nil, sums())
	w.await("sums", w.add("a", 1))
	w.rebuild(w.operator(sums()), runner.RebuildOptions{})
	crashes := 0
	for n := 0; ; n++ {
		w.await("sums", w.add("a", 1)) // something to catch up with
		want, live := w.rows(), w.one(`select generation::text from proj.live`)
		dying, gone := w.mortal(n, sums())
		_, err := dying.Rollback(t.Context(), "sums", tenant, runner.RebuildOptions{})
		gone()
		if err == nil {
			break
		}
		crashes++
		if w.one(`select generation::text from proj.live`) == live {
			out, err := w.operator(sums()).Rollback(t.Context(), "sums", tenant, runner.RebuildOptions{})
			if err != nil || fmt.Sprint(out.Previous) != live || out.Generation != 3-out.Previous {
				t.Fatalf("killed before statement %d: %+v, %v", n, out, err)
			}
		}
		if got := w.rows(); got != want {
			t.Fatalf("killed before statement %d: %s, want %s", n, got, want)
		}
	}
	if crashes < 20 {
		t.Fatal(crashes, "crashes")
	}
}

// A rebuild does not go on with a generation that was being rolled back to: it is not one that was computed anew.
func TestRebuildAfterAHalfRollback(t *testing.T) {
	w := newWorld(t)
	w.run(nil, sums())
	w.await("sums", w.add("a", 1))
	o := w.operator(sums())
	w.rebuild(o, runner.RebuildOptions{})
	w.await("sums", w.add("a", 1))
	for n := 0; w.states() == "1 retired, 2 live"; n++ {
		dying, gone := w.mortal(n, sums())
		if _, err := dying.Rollback(t.Context(), "sums", tenant, runner.RebuildOptions{}); err == nil {
			t.Fatal("the crash came too late")
		}
		gone()
	}
	if got := w.states(); got != "1 building, 2 live" {
		t.Fatal(got)
	}
	if out := w.rebuild(o, runner.RebuildOptions{}); out.Resumed || out.Generation != 3 || out.Events != 2 {
		t.Fatalf("%+v", out)
	}
	if got := w.states(); got != "1 dropped, 2 retired, 3 live" {
		t.Fatal(got)
	}
}

func TestDropRetired(t *testing.T) {
	w := newWorld(t)
	w.run(nil, sums())
	w.await("sums", w.add("a", 1))
	o := w.operator(sums())
	// A reader that began before the promotion keeps what it reads.
	old, err := w.pool.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		t.Fatal(err)
	}
	read := func() (n int) {
		t.Helper()
		if err := old.QueryRow(t.Context(), `select count(*) from sums_g1.sums`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if read() != 1 {
		t.Fatal("the reader sees nothing")
	}
	w.rebuild(o, runner.RebuildOptions{})
	var early *runner.TooEarlyError
	if dropped, err := o.DropRetired(t.Context(), "sums", tenant, 1, time.Hour); dropped || !errors.As(err, &early) || time.Until(early.Until) < 55*time.Minute {
		t.Fatal(dropped, err)
	}
	done := make(chan error, 1)
	go func() {
		dropped, err := o.DropRetired(t.Context(), "sums", tenant, 1, 0)
		if err == nil && !dropped {
			err = errors.New("it was left")
		}
		done <- err
	}()
	for range 5 {
		select {
		case err := <-done:
			t.Fatal("it was dropped under a reader:", err)
		default:
		}
		if read() != 1 {
			t.Fatal("the reader sees something else")
		}
	}
	if err := old.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := w.states() + "; " + w.schemas(); got != "1 dropped, 2 live; sums_g2" {
		t.Fatal(got)
	}
	for generation := range 4 { // gone, live, and never there
		if dropped, err := o.DropRetired(t.Context(), "sums", tenant, generation, 0); dropped || err != nil {
			t.Fatal(generation, dropped, err)
		}
	}
	if out := w.rebuild(o, runner.RebuildOptions{}); out.Generation != 3 {
		t.Fatalf("%+v", out)
	}
}
