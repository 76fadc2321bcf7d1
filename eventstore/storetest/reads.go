package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/factum-platform/factum/eventstore"
)

// fill appends n events, in appends of 1 to 5 to a few streams.
func fill(t *testing.T, l eventstore.Log, n int) {
	t.Helper()
	versions := map[string]eventstore.Version{}
	for n > 0 {
		id := fmt.Sprint(rand.N(7))
		size := min(n, 1+rand.N(5))
		versions[id] = mustAppend(t, l, write("doc", id, eventstore.At(versions[id]), size))[0].Version
		n -= size
	}
}

func pages(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	if b, err := l.Page(t.Context(), 0, 1); err != nil || len(b.Events) != 0 || b.Through != 0 || !b.Live {
		t.Fatalf("of an empty log: %+v, %v", b, err)
	}
	fill(t, l, 60)
	log := mustWhole(t, l)
	if len(log) != 60 {
		t.Fatalf("%d events are in the log; want 60", len(log))
	}
	head, err := l.Head(t.Context())
	if err != nil || head != log[len(log)-1].Position {
		t.Fatalf("head %d, %v; want %d", head, err, log[len(log)-1].Position)
	}
	for from := 0; from <= len(log); from++ {
		after := eventstore.Position(0)
		if from > 0 {
			after = log[from-1].Position
		}
		for _, limit := range []int{1, 2, 3, 7, 500} {
			got, err := whole(t.Context(), l, after, limit)
			if err != nil {
				t.Fatal(err)
			}
			if d := differ(got, log[from:]); d != "" {
				t.Fatalf("from %d by %d: %s", after, limit, d)
			}
			b, err := l.Page(t.Context(), after, limit)
			if err != nil || b.Live != (len(b.Events) == len(log)-from) {
				t.Fatalf("from %d by %d: live %v with %d of %d events, %v", after, limit, b.Live, len(b.Events), len(log)-from, err)
			}
		}
	}
	if b, err := l.Page(t.Context(), head+10, 10); err != nil || len(b.Events) != 0 || b.Through != head+10 || !b.Live {
		t.Errorf("beyond the head: %+v, %v", b, err)
	}
	for _, limit := range []int{-1, 0, eventstore.MaxPageEvents + 1} {
		_, err := l.Page(t.Context(), 0, limit)
		wantError[*eventstore.InvalidError](t, err)
	}
}

func largePages(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	const n = 18
	large := make([]byte, 0, eventstore.MaxEventBytes)
	for large = append(large, '"'); len(large) < eventstore.MaxEventBytes-20; {
		large = strconv.AppendUint(large, rand.Uint64(), 36)
	}
	large = append(large, '"')
	stream := eventstore.StreamID{Kind: "doc", ID: "a"}
	for v := range eventstore.Version(n / 6) {
		w := write("doc", "a", eventstore.At(6*v), 6)
		for i := range w.Events {
			w.Events[i].Data = large
		}
		mustAppend(t, l, w)
	}
	log := mustWhole(t, l)
	if len(log) != n {
		t.Fatalf("the pages held %d events; want %d", len(log), n)
	}
	if d := differ(collect(t, l.ReadStream(t.Context(), stream, 0)), log); d != "" {
		t.Error("stream:", d)
	}
	b, err := l.Page(t.Context(), 0, 500)
	if err != nil || b.Live != (len(b.Events) == n) {
		t.Errorf("live %v with %d of %d events, %v", b.Live, len(b.Events), n, err)
	}
}

func readStream(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	stream := eventstore.StreamID{Kind: "doc", ID: "a"}
	if got := collect(t, l.ReadStream(t.Context(), stream, 0)); len(got) != 0 {
		t.Fatalf("a stream that does not exist has %d events", len(got))
	}
	mustAppend(t, l, write("doc", "a", eventstore.NoStream(), 500))
	mustAppend(t, l, write("doc", "b", eventstore.NoStream(), 3))
	mustAppend(t, l, write("doc", "a", eventstore.At(500), 510))
	for _, from := range []eventstore.Version{0, 1, 2, 500, 501, 1000, 1009, 1010, 1011, 5000} {
		got := collect(t, l.ReadStream(t.Context(), stream, from))
		want := 1010 - int(max(from, 1)) + 1
		if len(got) != max(want, 0) {
			t.Fatalf("from %d: %d events; want %d", from, len(got), want)
		}
		for i, rec := range got {
			if rec.Version != max(from, 1)+eventstore.Version(i) || rec.Stream != stream {
				t.Fatalf("from %d: event %d is %s@%d", from, i, rec.Stream, rec.Version)
			}
		}
	}
	seen := 0
	for _, err := range l.ReadStream(t.Context(), stream, 1) {
		if err != nil {
			t.Fatal(err)
		}
		if seen++; seen == 3 {
			break
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range l.ReadStream(ctx, stream, 1) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("with a cancelled context: %v", err)
		}
	}
	for _, err := range l.ReadStream(t.Context(), eventstore.StreamID{Kind: "doc", ID: "\x00"}, 1) {
		wantError[*eventstore.InvalidError](t, err)
	}
}
