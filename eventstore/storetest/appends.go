package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/factum-platform/factum/eventstore"
)

func as[E error](err error) (E, bool) {
	var e E
	ok := errors.As(err, &e)
	return e, ok
}

func allOrNothing(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	first := write("doc", "a", eventstore.NoStream(), 3)
	out := mustAppend(t, l, first)
	if out[0].Version != 3 || out[0].Replayed {
		t.Fatalf("appended %+v; want version 3", out[0])
	}
	bad := write("doc", "a", eventstore.At(3), 3)
	bad.Events[2].ID = first.Events[0].ID // known already, so the whole append is refused
	_, err := l.Append(t.Context(), bad)
	wantError[*eventstore.ReusedKeyError](t, err)
	got := mustWhole(t, l)
	if len(got) != 3 {
		t.Fatalf("%d events are in the log; want 3", len(got))
	}
	for i, rec := range got {
		if rec.ID != first.Events[i].ID || rec.Version != eventstore.Version(i+1) || rec.Recorded.IsZero() {
			t.Errorf("event %d is %+v", i, rec)
		}
	}
}

func allStreamsOrNothing(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	mustAppend(t, l, write("doc", "b", eventstore.NoStream(), 1))
	_, err := l.Append(t.Context(),
		write("doc", "c", eventstore.NoStream(), 2), write("doc", "b", eventstore.NoStream(), 1), write("doc", "a", eventstore.NoStream(), 1))
	conflict := wantError[*eventstore.ConflictError](t, err)
	if conflict.Stream.ID != "b" || conflict.Actual != 1 {
		t.Errorf("the conflict is %v; want stream b at version 1", conflict)
	}
	if n := len(mustWhole(t, l)); n != 1 {
		t.Fatalf("%d events are in the log; want 1", n)
	}
	out := mustAppend(t, l,
		write("doc", "c", eventstore.NoStream(), 2), write("doc", "b", eventstore.At(1), 1), write("file", "a", eventstore.NoStream(), 3))
	if out[0].Version != 2 || out[1].Version != 2 || out[2].Version != 3 {
		t.Errorf("appended %+v; want versions 2, 2, 3", out)
	}
	if out[0].Position >= out[1].Position || out[1].Position >= out[2].Position {
		t.Errorf("positions %+v do not rise with the writes", out)
	}
}

func expectedVersions(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	type step struct {
		expected eventstore.Expected
		fits     bool
	}
	for version, steps := range [][]step{
		0: {{eventstore.Expected{}, false}, {eventstore.At(1), false}, {eventstore.StreamExists(), false}, {eventstore.At(0), true}},
		1: {{eventstore.Expected{}, false}, {eventstore.NoStream(), false}, {eventstore.At(2), false}, {eventstore.At(1 << 62), false}, {eventstore.At(1), true}},
		2: {{eventstore.NoStream(), false}, {eventstore.At(1), false}, {eventstore.At(3), false}, {eventstore.StreamExists(), true}},
		3: {{eventstore.At(3), true}},
	} {
		for _, step := range steps {
			w := write("doc", "a", step.expected, 1)
			out, err := l.Append(t.Context(), w)
			if step.fits {
				if err != nil || out[0].Version != eventstore.Version(version+1) {
					t.Fatalf("at version %d expecting %s: %+v, %v", version, step.expected, out, err)
				}
				continue
			}
			conflict := wantError[*eventstore.ConflictError](t, err)
			if conflict.Actual != eventstore.Version(version) || conflict.Stream != w.Stream || conflict.Expected != step.expected {
				t.Errorf("at version %d expecting %s: %v", version, step.expected, conflict)
			}
		}
	}
	if n := len(collect(t, l.ReadStream(t.Context(), eventstore.StreamID{Kind: "doc", ID: "a"}, 0))); n != 4 {
		t.Errorf("the stream has %d events; want 4", n)
	}
}

// together runs n functions at once and waits for them.
func together(n int, run func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			run(i)
		})
	}
	close(start)
	wg.Wait()
}

func oneWins(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	for round := range 8 {
		errs := make([]error, 8)
		together(len(errs), func(i int) {
			_, errs[i] = l.Append(t.Context(), write("doc", "a", eventstore.At(eventstore.Version(round)), 1))
		})
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
				continue
			}
			if c := wantError[*eventstore.ConflictError](t, err); c.Actual != eventstore.Version(round+1) {
				t.Errorf("conflict %v; want actual version %d", c, round+1)
			}
		}
		if won != 1 {
			t.Fatalf("round %d: %d of %d writers won; want 1", round, won, len(errs))
		}
	}
}

func replays(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	for name, expected := range map[string]eventstore.Expected{"none": eventstore.NoStream(), "exact": eventstore.At(1), "exists": eventstore.StreamExists()} {
		if name != "none" {
			mustAppend(t, l, write("doc", name, eventstore.NoStream(), 1))
		}
		w := write("doc", name, expected, 2)
		first := mustAppend(t, l, w)
		mustAppend(t, l, write("doc", name, eventstore.At(first[0].Version), 1)) // the stream has moved on since
		before := mustWhole(t, l)
		for i := range w.Events {
			w.Events[i].Data = []byte(`"sealed anew"`) // fresh nonces: payloads are not compared
			w.Events[i].Meta.At = w.Events[i].Meta.At.Add(time.Hour)
		}
		again := mustAppend(t, l, w)
		if !again[0].Replayed || again[0].Version != first[0].Version || again[0].Position != first[0].Position {
			t.Errorf("%s: repeated: %+v; want a replay of %+v", name, again[0], first[0])
		}
		if d := differ(mustWhole(t, l), before); d != "" {
			t.Errorf("%s: the replay changed the log: %s", name, d)
		}
	}
}

func replaysManyStreams(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	writes := []eventstore.Write{write("doc", "b", eventstore.NoStream(), 2), write("doc", "a", eventstore.NoStream(), 1)}
	first := mustAppend(t, l, writes...)
	again := mustAppend(t, l, writes...)
	for i := range first {
		first[i].Replayed = true
		if again[i] != first[i] {
			t.Errorf("write %d: %+v; want %+v", i, again[i], first[i])
		}
	}
	_, err := l.Append(t.Context(), writes[0], write("doc", "c", eventstore.NoStream(), 1)) // half of it is new
	wantError[*eventstore.ReusedKeyError](t, err)
	if n := len(mustWhole(t, l)); n != 3 {
		t.Errorf("%d events are in the log; want 3", n)
	}
}

func replaysAtOnce(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	for round := range 8 {
		w := write("doc", fmt.Sprint(round), eventstore.NoStream(), 2)
		outs, errs := make([][]eventstore.Appended, 8), make([]error, 8)
		together(len(errs), func(i int) { outs[i], errs[i] = l.Append(t.Context(), w) })
		fresh := 0
		for i, err := range errs {
			if err != nil || outs[i][0].Version != 2 {
				t.Fatalf("%+v, %v; want version 2", outs[i], err)
			}
			if !outs[i][0].Replayed {
				fresh++
			}
		}
		if fresh != 1 {
			t.Fatalf("%d of the repetitions wrote; want 1", fresh)
		}
	}
	if n := len(mustWhole(t, l)); n != 16 {
		t.Errorf("%d events are in the log; want 16", n)
	}
}

func reusedKeys(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	first := write("doc", "a", eventstore.NoStream(), 1)
	mustAppend(t, l, first)
	elsewhere := first
	elsewhere.Stream.ID = "b"
	_, err := l.Append(t.Context(), elsewhere)
	wantError[*eventstore.ReusedKeyError](t, err)
	for _, expected := range []eventstore.Expected{eventstore.NoStream(), eventstore.At(1), eventstore.StreamExists()} {
		other := write("doc", "a", expected, 1)
		other.Events[0].ID, other.Events[0].Type = first.Events[0].ID, "thing.undone"
		_, err = l.Append(t.Context(), other)
		wantError[*eventstore.ReusedKeyError](t, err)
	}
	if n := len(mustWhole(t, l)); n != 1 {
		t.Errorf("%d events are in the log; want 1", n)
	}
	mustAppend(t, s.Tenant(beta), elsewhere) // another tenant's log knows nothing of it
}

func malformed(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	change := func(f func(w *eventstore.Write)) []eventstore.Write {
		w := write("doc", "a", eventstore.NoStream(), 2)
		f(&w)
		return []eventstore.Write{w}
	}
	twice := write("doc", "a", eventstore.NoStream(), 1)
	for name, writes := range map[string][]eventstore.Write{
		"no write":       nil,
		"no events":      change(func(w *eventstore.Write) { w.Events = nil }),
		"no id":          change(func(w *eventstore.Write) { w.Events[0].ID = eventstore.EventID{} }),
		"one id twice":   change(func(w *eventstore.Write) { w.Events[0].ID = w.Events[1].ID }),
		"no type":        change(func(w *eventstore.Write) { w.Events[1].Type = "" }),
		"no schema":      change(func(w *eventstore.Write) { w.Events[0].Schema = 0 }),
		"no data":        change(func(w *eventstore.Write) { w.Events[0].Data = nil }),
		"no JSON":        change(func(w *eventstore.Write) { w.Events[0].Data = []byte(`{"a":}`) }),
		"no UTF-8":       change(func(w *eventstore.Write) { w.Events[0].Data = []byte("\"\xff\"") }),
		"a NUL actor":    change(func(w *eventstore.Write) { w.Events[0].Meta.Actor = "a\x00b" }),
		"no kind":        change(func(w *eventstore.Write) { w.Stream.Kind = "" }),
		"a bad kind":     change(func(w *eventstore.Write) { w.Stream.Kind = "doc-file" }),
		"no stream id":   change(func(w *eventstore.Write) { w.Stream.ID = "" }),
		"a NUL stream":   change(func(w *eventstore.Write) { w.Stream.ID = "a\x00" }),
		"a long stream":  change(func(w *eventstore.Write) { w.Stream.ID = strings.Repeat("x", 257) }),
		"an empty claim": change(func(w *eventstore.Write) { w.Claims = []eventstore.Claim{{Scope: "s"}} }),
		"a stream twice": {twice, twice},
	} {
		_, err := l.Append(t.Context(), writes...)
		if _, ok := as[*eventstore.InvalidError](err); !ok {
			t.Errorf("%s: got error %v; want *eventstore.InvalidError", name, err)
		}
	}
	for _, id := range []eventstore.TenantID{"", "Alpha", "a-b", "$a", eventstore.TenantID(strings.Repeat("a", 33))} {
		_, err := s.Tenant(id).Append(t.Context(), write("doc", "a", eventstore.NoStream(), 1))
		wantError[*eventstore.InvalidError](t, err)
		_, err = s.Tenant(id).Head(t.Context())
		wantError[*eventstore.InvalidError](t, err)
	}
	if head, err := l.Head(t.Context()); err != nil || head != 0 {
		t.Errorf("head %d, %v; want an empty log", head, err)
	}
}

func adjacent(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	together(6, func(i int) {
		for j := range 5 {
			_, err := l.Append(t.Context(),
				write("doc", fmt.Sprintf("%d %d", i, j), eventstore.NoStream(), 3), write("file", fmt.Sprintf("%d %d", i, j), eventstore.NoStream(), 2))
			if err != nil {
				t.Error(err)
			}
		}
	})
	log := mustWhole(t, l)
	if len(log) != 6*5*5 {
		t.Fatalf("%d events are in the log; want %d", len(log), 6*5*5)
	}
	for i := 0; i < len(log); i += 5 {
		part := log[i : i+5]
		for j, want := range []string{"doc1", "doc2", "doc3", "file1", "file2"} {
			if got := fmt.Sprint(part[j].Stream.Kind, part[j].Version); got != want || part[j].Stream.ID != part[0].Stream.ID {
				t.Fatalf("event %d is %s of %s; want %s of %s", i+j, got, part[j].Stream, want, part[0].Stream)
			}
		}
	}
}

func cancelledAppend(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	for i := range 30 {
		w := write("doc", fmt.Sprint(i), eventstore.NoStream(), 2)
		ctx, cancel := context.WithTimeout(t.Context(), rand.N(3*time.Millisecond))
		_, first := l.Append(ctx, w)
		cancel()
		out, err := l.Append(t.Context(), w)
		if err != nil || out[0].Version != 2 || first == nil && !out[0].Replayed {
			t.Fatalf("after %v: %+v, %v; want version 2", first, out, err)
		}
		if n := len(collect(t, l.ReadStream(t.Context(), w.Stream, 1))); n != 2 {
			t.Fatalf("the stream has %d events; want 2", n)
		}
	}
}

func crossing(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	mustAppend(t, l, write("doc", "a", eventstore.NoStream(), 1), write("doc", "b", eventstore.NoStream(), 1), write("doc", "c", eventstore.NoStream(), 1))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	together(8, func(i int) {
		ids := []string{"a", "b", "c"}
		for range 10 {
			rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
			var writes []eventstore.Write
			for j, id := range ids {
				mine := eventstore.Claim{Scope: "name", Key: fmt.Sprintf("%d %s", i, id), Give: j == 0}
				writes = append(writes, write("doc", id, eventstore.StreamExists(), 1, mine))
			}
			if _, err := l.Append(ctx, writes...); err != nil {
				t.Error(err)
			}
		}
	})
	for _, id := range []string{"a", "b", "c"} {
		if n := len(collect(t, l.ReadStream(t.Context(), eventstore.StreamID{Kind: "doc", ID: id}, 1))); n != 81 {
			t.Errorf("stream %s has %d events; want 81", id, n)
		}
	}
}

func exactBytes(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	w := write("doc", "a", eventstore.NoStream(), 0)
	for _, data := range []string{
		`{}`, `[]`, `null`, `""`, `0`, ` { "b" : 1 ,  "a" : 2 } `, "{\n\t\"b\": 1.0e+2,\r\n\"b\": 2}\n", `{"z":1,"a":{"y":1,"b":2}}`,
		`{"n":1.10,"big":123456789012345678901234567890.000}`, `{"html":"<a href=\"&\">\u003c"}`, `{"u":"Grüße 漢字 🙂 \u00e9 \ud83d\ude42"}`,
		`{"é":1,"é":2}`, `{"nul":"\u0000","lone":"\ud800","del":"` + "\u007f\u2028" + `"}`,
	} {
		e := events(1)[0]
		e.Data, e.Schema = []byte(data), 65535
		e.Type = "thing.größe"
		e.Meta = eventstore.Meta{Command: `"quoted" <&>`, Correlation: "漢字", Actor: "🙂", At: time.Date(2026, 7, 1, 12, 0, 0, 123_456_789, time.FixedZone("x", 7200))}
		w.Events = append(w.Events, e)
	}
	mustAppend(t, l, w)
	want := make([]eventstore.Recorded, len(w.Events))
	for i, e := range w.Events {
		e.Meta.At = e.Meta.At.UTC()
		want[i] = eventstore.Recorded{Tenant: alpha, Stream: w.Stream, Version: eventstore.Version(i + 1), Proposed: e}
	}
	got := mustWhole(t, l)
	for i := range got {
		want[i].Position = got[i].Position
	}
	if d := differ(got, want); d != "" {
		t.Error("page:", d)
	}
	clear(got[5].Data) // a reader may change what it got
	if d := differ(collect(t, l.ReadStream(t.Context(), w.Stream, 1)), want); d != "" {
		t.Error("stream:", d)
	}
}

func sizes(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	large := write("doc", "a", eventstore.NoStream(), 1)
	large.Events[0].Data = append(append([]byte{'"'}, bytes.Repeat([]byte("x"), eventstore.MaxEventBytes-2)...), '"')
	mustAppend(t, l, large)
	if got := mustWhole(t, l); !bytes.Equal(got[0].Data, large.Events[0].Data) {
		t.Error("an event of 1 MiB came back changed")
	}
	over := write("doc", "b", eventstore.NoStream(), 1)
	over.Events[0].Data = append(large.Events[0].Data, ' ')
	_, err := l.Append(t.Context(), over)
	wantError[*eventstore.InvalidError](t, err)
	if out := mustAppend(t, l, write("doc", "c", eventstore.NoStream(), eventstore.MaxAppendEvents)); out[0].Version != eventstore.MaxAppendEvents {
		t.Errorf("%+v; want version %d", out[0], eventstore.MaxAppendEvents)
	}
	_, err = l.Append(t.Context(), write("doc", "d", eventstore.NoStream(), eventstore.MaxAppendEvents+1))
	wantError[*eventstore.InvalidError](t, err)
	heavy := write("doc", "e", eventstore.NoStream(), eventstore.MaxAppendBytes/eventstore.MaxEventBytes+1)
	for i := range heavy.Events {
		heavy.Events[i].Data = large.Events[0].Data
	}
	_, err = l.Append(t.Context(), heavy)
	wantError[*eventstore.InvalidError](t, err)
}

func unicodeStreams(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	ids := []string{"a", "A", "a ", " a", "ä", "a\u0308", "漢字", "🙂", "a-b-c", "'; drop table x; --", "%_\\", "\n\t", "..", "/", strings.Repeat("ü", 128)}
	for i, id := range ids {
		mustAppend(t, l, write("doc", id, eventstore.NoStream(), i+1))
	}
	mustAppend(t, l, write("docs", "a", eventstore.NoStream(), 1))
	for i, id := range ids {
		got := collect(t, l.ReadStream(t.Context(), eventstore.StreamID{Kind: "doc", ID: id}, 1))
		if len(got) != i+1 || got[0].Stream.ID != id {
			t.Errorf("stream %q has %d events; want %d", id, len(got), i+1)
		}
	}
}

func gapless(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	used := write("doc", "used", eventstore.NoStream(), 1)
	mustAppend(t, l, used)
	together(4, func(i int) {
		for j := range 10 {
			id := fmt.Sprintf("%d %d", i, j)
			if _, err := l.Append(t.Context(), write("doc", id, eventstore.NoStream(), 1+j%3)); err != nil {
				t.Error(err)
			}
			if _, err := l.Append(t.Context(), write("doc", id, eventstore.NoStream(), 1)); err == nil { // draws no position
				t.Error("a conflict was no error")
			}
			reused := write("doc", id+" other", eventstore.NoStream(), 2)
			reused.Events[1].ID = used.Events[0].ID
			if _, err := l.Append(t.Context(), reused); err == nil { // returns the positions that it drew
				t.Error("a reused id was no error")
			}
		}
	})
	log := mustWhole(t, l)
	for i, rec := range log {
		if rec.Position != eventstore.Position(i+1) {
			t.Fatalf("event %d is at position %d", i+1, rec.Position)
		}
	}
	if head, err := l.Head(t.Context()); err != nil || head != eventstore.Position(len(log)) || len(log) != 1+4*19 {
		t.Errorf("head %d, %v with %d events; want %d", head, err, len(log), 1+4*19)
	}
}
