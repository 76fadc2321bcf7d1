package copylog_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"pgregory.net/rapid"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/copylog"
	"github.com/factum-platform/factum/eventstore/esdbstore"
	"github.com/factum-platform/factum/eventstore/esdbstore/esdbtest"
	"github.com/factum-platform/factum/eventstore/memstore"
	"github.com/factum-platform/factum/eventstore/pgstore"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const tenant eventstore.TenantID = "acme"

var errKilled = errors.New("killed")

// engine is a target with the least that the contract demands, which may die in an append.
type engine struct {
	eventstore.Log
	appends  int // that were carried out
	replayed int
	dieIn    int  // the number of the append that fails, from 1; 0 for none
	after    bool // it fails after it was carried out
}

// Append implements [eventstore.Log].
func (e *engine) Append(ctx context.Context, writes ...eventstore.Write) ([]eventstore.Appended, error) {
	if err := eventstore.Validate(eventstore.Caps{}, writes); err != nil {
		return nil, err
	}
	e.dieIn--
	if e.dieIn == 0 && !e.after {
		return nil, errKilled
	}
	out, err := e.Log.Append(ctx, writes...)
	if err != nil {
		return nil, err
	}
	e.appends++
	if out[0].Replayed {
		e.replayed++
	}
	if e.dieIn == 0 {
		return nil, errKilled
	}
	return out, nil
}

func proposed(n int, data string) eventstore.Proposed {
	return eventstore.Proposed{
		ID: eventstore.NewEventID(tenant, "tester", fmt.Sprint("command ", n), 0), Type: "thing.happened", Schema: uint16(n%3 + 1), Data: []byte(data),
		Meta: eventstore.Meta{Command: fmt.Sprint("command ", n), Correlation: "request", Actor: "tester", At: time.Date(2026, 1, 2, 3, 4, n%60, 678_901_000, time.UTC)},
	}
}

func stream(id string) eventstore.StreamID { return eventstore.StreamID{Kind: "doc", ID: id} }

// writer fills a log.
type writer struct {
	log      eventstore.Log
	n        int
	versions map[eventstore.StreamID]eventstore.Version
}

func newWriter(log eventstore.Log) *writer {
	return &writer{log: log, versions: map[eventstore.StreamID]eventstore.Version{}}
}

// write prepares a write of as many events.
func (w *writer) write(id string, events int, claims ...eventstore.Claim) eventstore.Write {
	out := eventstore.Write{Stream: stream(id), Expected: eventstore.At(w.versions[stream(id)]), Claims: claims}
	for range events {
		w.n++
		out.Events = append(out.Events, proposed(w.n, fmt.Sprintf(`{ "n":%d, "é": 1.0 }`, w.n))) // blanks and the zero must survive
	}
	return out
}

func (w *writer) append(ctx context.Context, writes ...eventstore.Write) error {
	out, err := w.log.Append(ctx, writes...)
	for i, a := range out {
		w.versions[writes[i].Stream] = a.Version
	}
	return err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func take(key string) eventstore.Claim { return eventstore.Claim{Scope: "name", Key: key} }
func give(key string) eventstore.Claim {
	return eventstore.Claim{Scope: "name", Key: key, Give: true}
}

// wantSame compares with package copylog and, so that nothing rests on its word alone, field by field.
func wantSame(t interface {
	Helper()
	Fatal(args ...any)
}, from, to eventstore.Log,
) copylog.Report {
	t.Helper()
	r, err := copylog.Compare(context.Background(), tenant, from, to, nil, nil)
	if err != nil || !r.Same() {
		t.Fatal(r, err)
	}
	here, there := dump(t, from), dump(t, to)
	if !slices.Equal(here, there) {
		t.Fatal("the copy differs:\n", strings.Join(here, "\n"), "\nand\n", strings.Join(there, "\n"))
	}
	return r
}

func dump(t interface {
	Helper()
	Fatal(args ...any)
}, log eventstore.Log,
) (lines []string) {
	t.Helper()
	for after := eventstore.Position(0); ; {
		b, err := log.Page(context.Background(), after, 7)
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range b.Events {
			lines = append(lines, fmt.Sprintf("%s %s@%d %s %s v%d %s %+v", rec.Tenant, rec.Stream, rec.Version, rec.ID, rec.Type, rec.Schema, rec.Data, rec.Meta))
		}
		if after = b.Through; b.Live {
			break
		}
	}
	for h, err := range log.Claims(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%+v", h))
	}
	return lines
}

// targets are the engines that a copy is made to.
func targets(t *testing.T) map[string]eventstore.Log {
	t.Helper()
	dsn := pgtest.Database(t, postgres.Migrations{Name: "es", FS: pgstore.Migrations()})
	pool, err := postgres.Open(t.Context(), dsn, 4)
	must(t, err)
	t.Cleanup(pool.Close)
	pg, err := pgstore.Open(t.Context(), pgstore.Config{Databases: one{pool}})
	must(t, err)
	t.Cleanup(func() { must(t, pg.Close()) })
	esdb, err := esdbstore.Open(t.Context(), esdbstore.Config{ConnectionString: esdbtest.Start(t, esdbtest.Options{}).ConnectionString()})
	must(t, err)
	t.Cleanup(func() { must(t, esdb.Close()) })
	return map[string]eventstore.Log{"memstore": memstore.New().Tenant(tenant), "pgstore": pg.Tenant(tenant), "esdbstore": esdb.Tenant(tenant)}
}

type one struct{ pool *pgxpool.Pool }

func (o one) Pool(context.Context, string) (*pgxpool.Pool, error) { return o.pool, nil }

func TestCopy(t *testing.T) {
	for name, target := range targets(t) {
		t.Run(name, func(t *testing.T) {
			source := memstore.New().Tenant(tenant)
			w := newWriter(source)
			must(t, w.append(t.Context(), w.write("a", 1, take("anna")), w.write("b", 2, take("bob"), take("\xff"))))
			must(t, w.append(t.Context(), w.write("a", 700)))
			must(t, w.append(t.Context(), w.write("a", 500)))
			must(t, w.append(t.Context(), w.write("b", 1, give("bob")), w.write("ä c", 1, take("bob"))))
			big := w.write("d", 20)
			for i := range big.Events {
				big.Events[i].Data = []byte(`"` + strings.Repeat("x", eventstore.MaxEventBytes-2) + `"`)
			}
			more := big
			more.Events = big.Events[10:]
			big.Events = big.Events[:10]
			must(t, w.append(t.Context(), big))
			more.Expected = eventstore.At(10)
			must(t, w.append(t.Context(), more))

			to := &engine{Log: target}
			var told []uint64
			got, err := copylog.Copy(t.Context(), tenant, source, to, func(events uint64, _ eventstore.Position) { told = append(told, events) })
			must(t, err)
			if want := (copylog.Copied{Found: 0, Added: 1225, Source: 1225}); got != want {
				t.Fatalf("%+v; want %+v", got, want)
			}
			if !slices.IsSorted(told) || told[len(told)-1] != 1225 {
				t.Error("progress:", told)
			}
			if to.appends != 27 { // a 1, b 2, a 500, 500 and 200, b 1, c 1, d 20 times 1 MiB
				t.Errorf("%d appends", to.appends)
			}
			r := wantSame(t, source, target)
			if r.Events != [2]uint64{1225, 1225} || r.Claims != [2]uint64{3, 3} || len(r.Sums[0]) != 64 {
				t.Errorf("%+v", r)
			}
			got, err = copylog.Copy(t.Context(), tenant, source, to, nil)
			if want := (copylog.Copied{Found: 1225, Source: 1225}); err != nil || got != want || to.appends != 27 {
				t.Fatalf("again: %+v %v, %d appends", got, err, to.appends)
			}

			// The way back: the source's own copy, grown since, with a value that has passed on and one that nobody holds any more.
			back := newWriter(target)
			back.n, back.versions = w.n, w.versions
			must(t, back.append(t.Context(), back.write("ä c", 1, give("bob"))))
			must(t, back.append(t.Context(), back.write("a", 1, take("bob"), give("anna"))))
			got, err = copylog.Copy(t.Context(), tenant, target, &engine{Log: source}, nil)
			if err != nil || got.Added != 2 {
				t.Fatalf("%+v %v", got, err)
			}
			wantSame(t, target, source)
		})
	}
}

// TestAKilledCopyGoesOn copies random logs into an engine that dies at a random append, before or after it is carried out, while the source
// grows between the attempts.
func TestAKilledCopyGoesOn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		source, target := memstore.New().Tenant(tenant), memstore.New().Tenant(tenant)
		w := newWriter(source)
		ids := rapid.SampledFrom([]string{"a", "b", "c"})
		grow := func() {
			for range rapid.IntRange(0, 12).Draw(t, "appends") {
				var writes []eventstore.Write
				if rapid.Bool().Draw(t, "many streams") {
					for _, id := range rapid.SliceOfNDistinct(ids, 1, 3, rapid.ID[string]).Draw(t, "streams") {
						writes = append(writes, w.write(id, rapid.IntRange(1, 3).Draw(t, "events")))
					}
				} else {
					claim := eventstore.Claim{
						Scope: rapid.SampledFrom([]string{"name", "number"}).Draw(t, "scope"),
						Key:   rapid.SampledFrom([]string{"k", "l", "\xff"}).Draw(t, "key"), Give: rapid.Bool().Draw(t, "give"),
					}
					writes = append(writes, w.write(ids.Draw(t, "stream"), rapid.IntRange(1, 3).Draw(t, "events"), claim))
				}
				var taken *eventstore.ClaimError
				if err := w.append(ctx, writes...); err != nil && !errors.As(err, &taken) {
					t.Fatal(err)
				}
			}
		}
		grow()
		for range rapid.IntRange(0, 4).Draw(t, "kills") {
			to := &engine{Log: target, dieIn: rapid.IntRange(1, 6).Draw(t, "die in"), after: rapid.Bool().Draw(t, "after")}
			if _, err := copylog.Copy(ctx, tenant, source, to, nil); err != nil && !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			if to.replayed > 0 {
				t.Fatal("an append was repeated although it could be read")
			}
			if rapid.Bool().Draw(t, "grows") {
				grow()
			}
		}
		if _, err := copylog.Copy(ctx, tenant, source, &engine{Log: target}, nil); err != nil {
			t.Fatal(err)
		}
		wantSame(t, source, target)
	})
}

// changed is a log in which one event or claim is another than it was, or missing.
type changed struct {
	eventstore.Log
	event func(*eventstore.Recorded)
	drop  eventstore.Position
	claim func(*eventstore.Held)
}

// Page implements [eventstore.Log].
func (c changed) Page(ctx context.Context, after eventstore.Position, limit int) (eventstore.Batch, error) {
	b, err := c.Log.Page(ctx, after, limit)
	b.Events = slices.DeleteFunc(b.Events, func(rec eventstore.Recorded) bool { return rec.Position == c.drop })
	for i := range b.Events {
		if b.Events[i].Position == 2 && c.event != nil {
			c.event(&b.Events[i])
		}
	}
	return b, err
}

// Claims implements [eventstore.Log].
func (c changed) Claims(ctx context.Context) iter.Seq2[eventstore.Held, error] {
	return func(yield func(eventstore.Held, error) bool) {
		for h, err := range c.Log.Claims(ctx) {
			if c.claim != nil {
				c.claim(&h)
			}
			if !yield(h, err) {
				return
			}
		}
	}
}

func TestADifferentTargetIsNamedAndLeftAlone(t *testing.T) {
	source, copied := memstore.New().Tenant(tenant), memstore.New().Tenant(tenant)
	w := newWriter(source)
	must(t, w.append(t.Context(), w.write("a", 2, take("anna"))))
	must(t, w.append(t.Context(), w.write("b", 1)))
	if _, err := copylog.Copy(t.Context(), tenant, source, copied, nil); err != nil {
		t.Fatal(err)
	}
	before := dump(t, copied)
	for name, tc := range map[string]struct {
		target changed
		want   string
		// onlyCompared differences are not among the events, so that a copy has nothing to append that would show them
		onlyCompared bool
	}{
		"id":           {changed{event: func(r *eventstore.Recorded) { r.ID[3] ^= 1 }}, "event 2 is thing.happened", false},
		"stream":       {changed{event: func(r *eventstore.Recorded) { r.Stream.ID = "z" }}, "event 2 has stream and version doc-a@2 in the source and doc-z@2 in the target", false},
		"version":      {changed{event: func(r *eventstore.Recorded) { r.Version = 7 }}, "doc-a@7", false},
		"type":         {changed{event: func(r *eventstore.Recorded) { r.Type = "other" }}, "event 2 has type thing.happened v3 in the source and other v3", false},
		"schema":       {changed{event: func(r *eventstore.Recorded) { r.Schema = 9 }}, "thing.happened v9", false},
		"data":         {changed{event: func(r *eventstore.Recorded) { r.Data = []byte(`{}`) }}, "holds other data: 20 bytes in the source and 2 in the target", false},
		"time":         {changed{event: func(r *eventstore.Recorded) { r.Meta.At = r.Meta.At.Add(1) }}, "other metadata", false},
		"actor":        {changed{event: func(r *eventstore.Recorded) { r.Meta.Actor = "mallory" }}, "other metadata", false},
		"missing":      {changed{drop: 1}, "event 1 is thing.happened", false},
		"missing last": {changed{drop: 3}, "event 3 of the source, thing.happened", true},
		"claim":        {changed{claim: func(h *eventstore.Held) { h.Key = "berta" }}, "claim 1 is held by stream doc-a (name) in the source and by nobody in the target", true},
		"holder":       {changed{claim: func(h *eventstore.Held) { h.Stream.ID = "b" }}, "claim 1 is held by stream doc-a (name) in the source and by stream doc-b (name)", true},
	} {
		t.Run(name, func(t *testing.T) {
			tc.target.Log = copied
			r, err := copylog.Compare(t.Context(), tenant, source, tc.target, nil, nil)
			if err != nil || r.Same() || r.Difference == nil || !strings.Contains(r.Difference.Error(), tc.want) || r.Sums[0] == r.Sums[1] {
				t.Errorf("compared: %+v %v", r, err)
			}
			if tc.onlyCompared {
				return
			}
			to := &engine{Log: tc.target}
			var different *copylog.DifferenceError
			if _, err := copylog.Copy(t.Context(), tenant, source, to, nil); !errors.As(err, &different) || !strings.Contains(err.Error(), tc.want) || to.appends > 0 {
				t.Errorf("copied: %v, %d appends", err, to.appends)
			}
		})
	}
	t.Run("longer", func(t *testing.T) {
		short := memstore.New().Tenant(tenant)
		var different *copylog.DifferenceError
		if _, err := copylog.Copy(t.Context(), tenant, short, copied, nil); !errors.As(err, &different) || !strings.Contains(err.Error(), "event 1 of the target") {
			t.Error(err)
		}
		r, err := copylog.Compare(t.Context(), tenant, short, copied, nil, nil)
		if err != nil || r.Same() || r.Events != [2]uint64{0, 3} {
			t.Errorf("%+v %v", r, err)
		}
	})
	if after := dump(t, copied); !slices.Equal(before, after) {
		t.Error("the target was changed:", after)
	}
}

// busy is a source that somebody writes to while it is read.
type busy struct {
	eventstore.Log
	w *writer
}

// Claims implements [eventstore.Log].
func (b busy) Claims(ctx context.Context) iter.Seq2[eventstore.Held, error] {
	if err := b.w.append(ctx, b.w.write("late", 1)); err != nil {
		panic(err)
	}
	return b.Log.Claims(ctx)
}

func TestASourceThatMovesIsNoticed(t *testing.T) {
	source, target := memstore.New().Tenant(tenant), memstore.New().Tenant(tenant)
	w := newWriter(source)
	must(t, w.append(t.Context(), w.write("a", 2)))
	var moved *copylog.MovedError
	got, err := copylog.Copy(t.Context(), tenant, busy{source, w}, target, nil)
	if !errors.As(err, &moved) || moved.From != 2 || moved.To != 3 || got.Added != 2 {
		t.Fatalf("%+v %v", got, err)
	}
	if _, err := copylog.Copy(t.Context(), tenant, source, target, nil); err != nil {
		t.Fatal(err)
	}
	wantSame(t, source, target)
	if _, err := copylog.Compare(t.Context(), tenant, busy{source, w}, target, nil, nil); !errors.As(err, &moved) {
		t.Fatal(err)
	}
}

func TestComparedPairsSayWhereEventsLie(t *testing.T) {
	source, target := memstore.New().Tenant(tenant), memstore.New().Tenant(tenant)
	w := newWriter(source)
	must(t, w.append(t.Context(), w.write("a", 3)))
	if _, err := copylog.Copy(t.Context(), tenant, source, target, nil); err != nil {
		t.Fatal(err)
	}
	var pairs []eventstore.Position
	_, err := copylog.Compare(t.Context(), tenant, source, target, func(here, there eventstore.Recorded) {
		if here.ID != there.ID {
			t.Error(here, there)
		}
		pairs = append(pairs, there.Position)
	}, nil)
	if err != nil || !slices.Equal(pairs, []eventstore.Position{1, 2, 3}) {
		t.Fatal(pairs, err)
	}
}
