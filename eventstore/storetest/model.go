package storetest

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/factum-platform/factum/eventstore"
)

var runs atomic.Uint64

// RunModel does random appends, claims, repetitions and reads to both stores and wants the same answers, errors and logs. What the
// engine's Caps leave out is not asked of it; without Gapless its positions are compared by their order. The model must be able to do
// everything. Both must be empty.
func RunModel(t *testing.T, model, engine eventstore.Store) {
	t.Helper()
	rapid.Check(t, func(t *rapid.T) {
		m := machine{
			ctx: context.Background(), run: runs.Add(1), caps: engine.Caps(), model: model.Tenant(alpha), engine: engine.Tenant(alpha),
		}
		var err error // stores are shared by all runs; names of streams and claims are the run's own
		if m.start, err = m.model.Head(m.ctx); err != nil {
			t.Fatal(err)
		}
		if m.engineStart, err = m.engine.Head(m.ctx); err != nil {
			t.Fatal(err)
		}
		t.Repeat(map[string]func(*rapid.T){
			"append": m.append, "repeat": m.repeat, "reuse": m.reuse, "read": m.read, "page": m.page,
		})
		m.compareLogs(t)
	})
}

type machine struct {
	ctx                context.Context
	run                uint64
	caps               eventstore.Caps
	start, engineStart eventstore.Position
	model, engine      eventstore.Log
	past               [][]eventstore.Write
	// positions maps the model's positions to the engine's: by order where the engine's have gaps.
	positions map[eventstore.Position]eventstore.Position
}

// at is the engine's position for the model's; seen is what the engine says it is. The first sight decides.
func (m *machine) at(model, seen eventstore.Position) eventstore.Position {
	if m.caps.Gapless {
		return model
	}
	if m.positions == nil {
		m.positions = map[eventstore.Position]eventstore.Position{}
	}
	if known, ok := m.positions[model]; ok {
		return known
	}
	m.positions[model] = seen
	return seen
}

// translate gives the model's events the positions that the engine has for them.
func (m *machine) translate(model, engine []eventstore.Recorded) {
	for i := range model {
		if i < len(engine) {
			model[i].Position = m.at(model[i].Position, engine[i].Position)
		}
	}
}

func (m *machine) stream(t *rapid.T) eventstore.StreamID {
	return eventstore.StreamID{
		Kind: rapid.SampledFrom([]string{"doc", "file"}).Draw(t, "kind"),
		ID:   fmt.Sprintf("%d %s", m.run, rapid.SampledFrom([]string{"a", "B", "ä"}).Draw(t, "id")),
	}
}

func (m *machine) append(t *rapid.T) {
	var writes []eventstore.Write
	most := 1
	if m.caps.MultiStream {
		most = 3
	}
	for range rapid.IntRange(1, most).Draw(t, "writes") {
		w := eventstore.Write{Stream: m.stream(t), Events: events(rapid.IntRange(1, 3).Draw(t, "events"))}
		switch rapid.IntRange(0, 5).Draw(t, "expected") {
		case 0:
			w.Expected = eventstore.NoStream()
		case 1:
			w.Expected = eventstore.StreamExists()
		case 2:
			w.Expected = eventstore.At(eventstore.Version(rapid.IntRange(0, 9).Draw(t, "version")))
		case 3:
			w.Expected = eventstore.Expected{}
		default: // mostly what fits
			v := eventstore.Version(0)
			for rec, err := range m.model.ReadStream(m.ctx, w.Stream, 0) {
				if err != nil {
					t.Fatal(err)
				}
				v = rec.Version
			}
			w.Expected = eventstore.At(v)
		}
		claims := 0
		if m.caps.AtomicClaim {
			claims = 2
		}
		for range rapid.IntRange(0, claims).Draw(t, "claims") {
			w.Claims = append(w.Claims, eventstore.Claim{
				Scope: fmt.Sprintf("scope %d", m.run), Key: rapid.SampledFrom([]string{"k", "l", "\xff"}).Draw(t, "key"), Give: rapid.Bool().Draw(t, "give"),
			})
		}
		writes = append(writes, w)
	}
	m.both(t, writes)
	m.past = append(m.past, writes)
}

func (m *machine) repeat(t *rapid.T) {
	if len(m.past) == 0 {
		return // nothing to repeat yet
	}
	m.both(t, rapid.SampledFrom(m.past).Draw(t, "past"))
}

// reuse takes ids of an earlier append, elsewhere or for another type.
func (m *machine) reuse(t *rapid.T) {
	if len(m.past) == 0 {
		return // nothing to reuse yet
	}
	w := rapid.SampledFrom(m.past).Draw(t, "past")[0]
	w.Events = append(w.Events[:0:0], w.Events...)
	w.Expected = eventstore.StreamExists()
	if rapid.Bool().Draw(t, "elsewhere") {
		w.Stream = m.stream(t)
	} else {
		w.Events[len(w.Events)-1].Type = "thing.undone"
	}
	if rapid.Bool().Draw(t, "longer") {
		w.Events = append(w.Events, events(1)...)
	}
	m.both(t, []eventstore.Write{w})
}

func (m *machine) both(t *rapid.T, writes []eventstore.Write) {
	want, wantErr := m.model.Append(m.ctx, writes...)
	got, gotErr := m.engine.Append(m.ctx, writes...)
	if fmt.Sprintf("%T", gotErr) != fmt.Sprintf("%T", wantErr) {
		t.Fatalf("append answers %v; the model %v", gotErr, wantErr)
	}
	if c, ok := as[*eventstore.ConflictError](wantErr); ok && *c != *gotErr.(*eventstore.ConflictError) { //nolint:errorlint // same type, as just checked
		t.Fatalf("append answers %v; the model %v", gotErr, wantErr)
	}
	for i := range want {
		want[i].Position = m.at(want[i].Position, got[i].Position)
		if got[i] != want[i] {
			t.Fatalf("append answers %+v; the model %+v", got, want)
		}
	}
}

func (m *machine) read(t *rapid.T) {
	stream, from := m.stream(t), eventstore.Version(rapid.IntRange(0, 9).Draw(t, "from"))
	var both [2][]eventstore.Recorded
	for i, l := range []eventstore.Log{m.engine, m.model} {
		for rec, err := range l.ReadStream(m.ctx, stream, from) {
			if err != nil {
				t.Fatal(err)
			}
			both[i] = append(both[i], rec)
		}
	}
	m.translate(both[1], both[0])
	if d := differ(both[0], both[1]); d != "" {
		t.Fatal(d)
	}
}

func (m *machine) page(t *rapid.T) {
	after := m.start + eventstore.Position(rapid.IntRange(0, 20).Draw(t, "after"))
	engineAfter := after
	if !m.caps.Gapless {
		if engine, known := m.positions[after]; known {
			engineAfter = engine
		} else {
			after, engineAfter = m.start, m.engineStart
		}
	}
	limit := rapid.IntRange(1, 9).Draw(t, "limit")
	want, err := m.model.Page(m.ctx, after, limit)
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.fill(engineAfter, limit)
	if err != nil {
		t.Fatal(err)
	}
	m.translate(want.Events, got.Events)
	if m.caps.Gapless && got.Through != want.Through {
		t.Fatalf("page through %d; the model through %d", got.Through, want.Through)
	}
	if d := differ(got.Events, want.Events); d != "" || got.Live != want.Live {
		t.Fatalf("page through %d, live %v; the model through %d, live %v %s", got.Through, got.Live, want.Through, want.Live, d)
	}
}

// fill reads pages of the engine until limit events are there or it says that nothing follows: a page may end earlier.
func (m *machine) fill(after eventstore.Position, limit int) (eventstore.Batch, error) {
	var all eventstore.Batch
	for {
		b, err := m.engine.Page(m.ctx, after, limit-len(all.Events))
		if err != nil {
			return b, err
		}
		all.Events, all.Through, all.Live = append(all.Events, b.Events...), b.Through, b.Live
		if all.Live || len(all.Events) >= limit {
			return all, nil
		}
		if len(b.Events) == 0 {
			return b, fmt.Errorf("an empty page after %d is not live", after)
		}
		after = b.Through
	}
}

func (m *machine) compareLogs(t *rapid.T) {
	want, err := whole(m.ctx, m.model, m.start, 500)
	if err != nil {
		t.Fatal(err)
	}
	got, err := whole(m.ctx, m.engine, m.engineStart, 7)
	if err != nil {
		t.Fatal(err)
	}
	m.translate(want, got)
	if d := differ(got, want); d != "" {
		t.Fatal(d)
	}
}
