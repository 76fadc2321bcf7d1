package runner_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/factum-platform/factum/domain/projection"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/memstore"
	"github.com/factum-platform/factum/infra/tenants"
	"github.com/factum-platform/factum/projections/runner"
)

func (w *world) operator(projections ...runner.Projection) *runner.Operator {
	w.t.Helper()
	o, err := runner.NewOperator(w.config(nil, projections...))
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

// status is the one consumer of the projection.
func (w *world) status(o *runner.Operator, name string) runner.Status {
	w.t.Helper()
	list, err := o.Status(w.t.Context(), runner.Filter{Projection: name})
	if err != nil || len(list) != 1 {
		w.t.Fatal(list, err)
	}
	return list[0]
}

// becomes polls the one consumer of the projection until it is as it should be.
func (w *world) becomes(o *runner.Operator, name string, want func(runner.Status) bool) runner.Status {
	w.t.Helper()
	deadline := time.After(20 * time.Second)
	for tick := time.Tick(10 * time.Millisecond); ; {
		st := w.status(o, name)
		if want(st) {
			return st
		}
		select {
		case <-tick:
		case <-deadline:
			w.t.Fatalf("the consumer stays %+v", st)
		}
	}
}

// skip records that the projection passes over the event, as commands.SkipEvent does.
func (w *world) skip(name string, stream eventstore.StreamID, id eventstore.EventID) {
	w.t.Helper()
	w.sent++
	s := eventstore.StreamID{Kind: projection.Kind, ID: name}
	p, err := w.codec.Encode(w.t.Context(), tenant, s, eventstore.NewEventID(tenant, "operator", fmt.Sprint(w.sent), 0), projection.EventSkipped{
		Projection: name, StreamKind: stream.Kind, StreamID: stream.ID, EventID: id.String(), Reason: "a test wrote it", By: "operator", At: time.Now(),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	p.Meta = eventstore.Meta{Command: fmt.Sprint(w.sent), Actor: "operator"}
	if _, err := w.store.Tenant(tenant).Append(w.t.Context(), eventstore.Write{Stream: s, Expected: eventstore.NoStream(), Events: []eventstore.Proposed{p}}); err != nil {
		w.t.Fatal(err)
	}
}

var bad = eventstore.StreamID{Kind: "test", ID: "bad"}

// healing is sums whose code can be exchanged for one that can apply the poison.
func healing(heals *bool) runner.Projection {
	p := sums()
	apply := p.Apply
	p.Apply = func(w *runner.Writes, rec eventstore.Recorded, fact any) error {
		if n := fact.(added).N; n < 0 && *heals {
			fact = added{-n}
		}
		return apply(w, rec, fact)
	}
	return p
}

func TestAParkedStreamIsRetriedWhileItsRunnerGoesOn(t *testing.T) {
	w := newWorld(t)
	w.add("bad", 5)
	w.add("bad", -1)
	w.add("good", 1)
	w.run(nil, sums()) // the code that cannot apply it
	w.await("sums", w.add("bad", 7))
	heals := false
	o := w.operator(healing(&heals))

	st := w.status(o, "sums")
	if len(st.Parked) != 1 || st.Parked[0].Stream != bad || st.Parked[0].FromVersion != 2 || st.Parked[0].Attempts != 1 || st.Parked[0].At.IsZero() ||
		st.Parked[0].Error != "apply test.added: a negative number" || st.Activity != runner.ActivityRunning || st.LagEvents != 0 || st.Error != "" {
		t.Fatalf("%+v", st)
	}
	poison := st.Parked[0].Event

	err := o.Retry(t.Context(), "sums", tenant, bad)
	var still *runner.StillParkedError
	if !errors.As(err, &still) || still.Event != poison || still.Attempts != 2 || !strings.Contains(err.Error(), "stays parked") {
		t.Fatal(err)
	}
	if got := w.rows(); got != "bad=5/1 good=1/1" {
		t.Fatal("a retry that failed left", got)
	}
	if st := w.status(o, "sums"); len(st.Parked) != 1 || st.Parked[0].Attempts != 2 || st.Parked[0].FromVersion != 2 {
		t.Fatalf("%+v", st)
	}

	heals = true
	if err := o.Retry(t.Context(), "sums", tenant, bad); err != nil {
		t.Fatal(err)
	}
	if got := w.rows(); got != "bad=13/3 good=1/1" {
		t.Fatal(got)
	}
	w.await("sums", w.add("bad", 2)) // the runner has heard of it
	if got := w.rows(); got != "bad=15/4 good=1/1" {
		t.Fatal(got)
	}
	var gone *runner.NotParkedError
	if err := o.Retry(t.Context(), "sums", tenant, bad); !errors.As(err, &gone) {
		t.Fatal(err)
	}
}

// TestRetriesRaceWithTheRunner: what the runner moves over while a stream is retried is applied once, by the one or by the other.
func TestRetriesRaceWithTheRunner(t *testing.T) {
	w := newWorld(t)
	w.add("bad", -1)
	w.run(nil, sums())
	w.await("sums", w.add("bad", 1))
	heals := true
	o := w.operator(healing(&heals))
	done := make(chan error, 1)
	go func() { done <- o.Retry(t.Context(), "sums", tenant, bad) }()
	var last eventstore.Position
	for range 200 {
		last = w.add("bad", 1)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	w.await("sums", last)
	if got := w.rows(); got != "bad=202/202" {
		t.Fatal(got)
	}
}

func TestASkippedEventIsPassedOverAndItsStreamGoesOn(t *testing.T) {
	w := newWorld(t)
	w.add("bad", 5)
	w.add("bad", -1)
	w.run(nil, sums())
	w.await("sums", w.add("bad", 7))
	o := w.operator(sums())
	w.skip("sums", bad, w.status(o, "sums").Parked[0].Event)
	if err := o.Retry(t.Context(), "sums", tenant, bad); err != nil {
		t.Fatal(err)
	}
	w.await("sums", w.add("bad", 1))
	if got := w.rows(); got != "bad=13/3" {
		t.Fatal(got)
	}
}

// TestAnEventIsSkippedBeforeItIsMet: a running consumer learns of it when it meets the event.
func TestAnEventIsSkippedBeforeItIsMet(t *testing.T) {
	w := newWorld(t)
	first := w.add("a", 1)
	w.run(nil, sums())
	w.await("sums", first)
	w.skip("sums", bad, eventstore.NewEventID(tenant, "a", fmt.Sprint(w.sent+2), 0)) // the id that the next event of add will have
	w.add("bad", -1)
	w.await("sums", w.add("bad", 2))
	if got := w.rows(); got != "a=1/1 bad=2/1" {
		t.Fatal(got)
	}
	if got := w.one(`select count(*)::text from proj.parked`); got != "0" {
		t.Fatal("parked:", got)
	}
}

func TestASkipHealsAHaltedConsumer(t *testing.T) {
	w := newWorld(t)
	strict := sums()
	strict.Halt = true
	good := w.add("a", 1)
	w.add("bad", -1)
	last := w.add("a", 2)
	w.run(nil, strict)
	w.await("sums", good)
	o := w.operator(strict)
	st := w.becomes(o, "sums", func(st runner.Status) bool { return st.Activity == runner.ActivityHalted })
	if st.Position != good || st.Head != last || st.LagEvents != 2 || st.Lag <= 0 || !strings.Contains(st.Error, "cannot apply event") {
		t.Fatalf("%+v", st)
	}
	var id eventstore.EventID
	for rec, err := range w.store.Tenant(tenant).ReadStream(t.Context(), bad, 1) {
		if err != nil {
			t.Fatal(err)
		}
		id = rec.ID
	}
	w.skip("sums", bad, id)
	if err := o.Retry(t.Context(), "sums", tenant, eventstore.StreamID{}); err != nil {
		t.Fatal(err)
	}
	w.await("sums", last)
	if got := w.rows(); got != "a=3/2" {
		t.Fatal(got)
	}
	w.becomes(o, "sums", func(st runner.Status) bool { return st.Activity == runner.ActivityRunning && st.Error == "" })
}

func TestAPausedConsumerWaitsForItsOperator(t *testing.T) {
	w := newWorld(t)
	w.run(nil, sums())
	first := w.add("a", 1)
	w.await("sums", first)
	o := w.operator(sums())
	if err := o.Pause(t.Context(), "sums", tenant, "ada"); err != nil {
		t.Fatal(err)
	}
	last := w.add("a", 2)
	st := w.status(o, "sums")
	if st.Activity != runner.ActivityPaused || st.PausedBy != "ada" || st.PausedAt.IsZero() || st.Position != first || st.LagEvents != 1 {
		t.Fatalf("%+v", st)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := w.waiter.Wait(ctx, w.pool, "sums", string(tenant), uint64(last)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal("a paused consumer moved:", err)
	}
	if err := o.Resume(t.Context(), "sums", tenant); err != nil {
		t.Fatal(err)
	}
	w.await("sums", last)
	if st := w.status(o, "sums"); st.Activity != runner.ActivityRunning || st.PausedBy != "" {
		t.Fatalf("%+v", st)
	}
}

// TestAPauseHoldsWithoutARing: the writer finds out at its next move, and looks again by itself.
func TestAPauseHoldsWithoutARing(t *testing.T) {
	w := newWorld(t)
	w.run(func(c *runner.Config) { c.LookEvery = 50 * time.Millisecond }, sums())
	first := w.add("a", 1)
	w.await("sums", first)
	o, err := runner.NewOperator(w.config(func(c *runner.Config) { c.Ring = nil }, sums()))
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Pause(t.Context(), "sums", tenant, "ada"); err != nil {
		t.Fatal(err)
	}
	last := w.add("a", 2)
	if st := w.status(o, "sums"); st.Position != first {
		t.Fatalf("%+v", st)
	}
	if err := o.Resume(t.Context(), "sums", tenant); err != nil {
		t.Fatal(err)
	}
	w.await("sums", last)
}

func TestAHaltedConsumerIsHealedWithoutARestart(t *testing.T) {
	t.Run("by a log that is restored", func(t *testing.T) {
		w := newWorld(t)
		store := &exchanged{Store: w.store}
		store.now.Store(w.store)
		w.run(func(c *runner.Config) { c.Store, c.LookEvery = store, 50*time.Millisecond }, sums())
		w.await("sums", w.add("a", 1))
		older := memstore.New()
		store.now.Store(older)
		w.store.Bell().Ring(tenant)
		awaitText(t, w, `select coalesce(max(error), '') from proj.checkpoint`, "restored from an older backup")
		store.now.Store(w.store)
		awaitText(t, w, `select coalesce(max(error), 'none') from proj.checkpoint`, "none")
		w.await("sums", w.add("a", 2))
		if got := w.rows(); got != "a=3/2" {
			t.Fatal(got)
		}
	})
	t.Run("by a table that is put back", func(t *testing.T) {
		w := newWorld(t)
		w.run(func(c *runner.Config) { c.LookEvery = 50 * time.Millisecond }, sums())
		w.await("sums", w.add("a", 1))
		w.exec(`alter table sums_g1.sums rename to gone`)
		last := w.add("a", 2)
		awaitText(t, w, `select coalesce(max(error), '') from proj.checkpoint`, "42P01")
		w.exec(`alter table sums_g1.gone rename to sums`)
		w.await("sums", last)
		if got := w.rows(); got != "a=3/2" {
			t.Fatal(got)
		}
	})
	t.Run("by another generation", func(t *testing.T) {
		w := newWorld(t)
		stop := w.run(nil, sums())
		w.await("sums", w.add("a", 1))
		stop()
		newer := sums()
		newer.Version = 2
		w.run(nil, newer)
		awaitText(t, w, `select coalesce(max(error), '') from proj.checkpoint`, "has version 1, this binary writes version 2")
		w.exec(`update proj.checkpoint set version = 2`)
		w.exec(`update proj.live set version = 2`) // stands for a promotion
		if err := w.operator(newer).Retry(t.Context(), "sums", tenant, eventstore.StreamID{}); err != nil {
			t.Fatal(err)
		}
		w.await("sums", w.add("a", 2))
	})
}

func TestStatusIsTolerant(t *testing.T) {
	w := newWorld(t)
	w.run(nil, sums())
	w.await("sums", w.add("a", 1))
	everywhere := runner.Projection{
		Name: "everywhere", Version: 1, Home: runner.PlatformHome, Apply: func(*runner.Writes, eventstore.Recorded, any) error { return nil },
	}
	o, err := runner.NewOperator(w.config(func(c *runner.Config) {
		c.Tenants = func(context.Context) ([]string, error) { return []string{string(tenant), "gone"}, nil }
		c.Pool = func(_ context.Context, t string) (*pgxpool.Pool, error) {
			if t == "gone" {
				return nil, errors.New("the server is away")
			}
			return w.pool, nil
		}
	}, sums(), everywhere))
	if err != nil {
		t.Fatal(err)
	}
	list, err := o.Status(t.Context(), runner.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, st := range list {
		got = append(got, fmt.Sprintf("%s/%s g%d %s %s %q", st.Projection, st.Tenant, st.Generation, st.State, st.Activity, st.Error))
	}
	want := []string{
		`everywhere/gone g0  unbuilt ""`, `everywhere/platform g0  unbuilt ""`, `everywhere/t1 g0  unbuilt ""`,
		`sums/gone g0  unknown "the server is away"`, `sums/t1 g1 live running ""`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestOperatorsAreToldWhatIsUnknown(t *testing.T) {
	w := newWorld(t)
	o := w.operator(sums())
	acts := map[string]func(name string, t eventstore.TenantID) error{
		"pause":  func(name string, on eventstore.TenantID) error { return o.Pause(t.Context(), name, on, "ada") },
		"resume": func(name string, on eventstore.TenantID) error { return o.Resume(t.Context(), name, on) },
		"retry":  func(name string, on eventstore.TenantID) error { return o.Retry(t.Context(), name, on, bad) },
		"status": func(name string, on eventstore.TenantID) error {
			_, err := o.Status(t.Context(), runner.Filter{Projection: name, Tenant: on})
			return err
		},
	}
	for what, act := range acts {
		var unknown *runner.UnknownProjectionError
		if err := act("nothing", tenant); !errors.As(err, &unknown) || !strings.Contains(err.Error(), "there are sums") {
			t.Errorf("%s of an unknown projection: %v", what, err)
		}
		if err := act("sums", "nobody"); !errors.Is(err, tenants.ErrUnknownTenant) {
			t.Errorf("%s of an unknown tenant: %v", what, err)
		}
		if err := act("sums", eventstore.PlatformTenant); what != "status" && err == nil {
			t.Errorf("%s of a log that it does not consume: %v", what, err)
		}
	}
}

func TestMetricsSayWhatStandsStill(t *testing.T) {
	w := newWorld(t)
	metrics := prometheus.NewRegistry()
	strict := sums()
	strict.Name, strict.Halt = "strict", true
	w.add("bad", -1)
	last := w.add("a", 1)
	w.run(func(c *runner.Config) { c.Registerer = metrics }, sums(), strict)
	w.await("sums", last)
	o := w.operator(sums(), strict)
	w.becomes(o, "strict", func(st runner.Status) bool { return st.Activity == runner.ActivityHalted })
	if err := o.Pause(t.Context(), "sums", tenant, "ada"); err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{
		"factum_projection_parked": 1, "factum_projection_halted": 1, "factum_projection_paused": 1, "factum_projection_lag_events": 2, // of both in all
	}
	deadline := time.After(20 * time.Second)
	for tick := time.Tick(10 * time.Millisecond); ; {
		got := map[string]float64{}
		for name := range want {
			got[name] = metric(t, metrics, name)
		}
		if maps.Equal(got, want) && metric(t, metrics, "factum_projection_lag_seconds") > 0 {
			return
		}
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("measured %v; want %v and a lag in seconds", got, want)
		}
	}
}
