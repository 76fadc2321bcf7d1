package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/factum-platform/factum/eventstore"
)

// cancelledCalls: no call goes on when its context has ended.
func cancelledCalls(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	fill(t, l, 3)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range map[string]func() error{
		"Append": func() error {
			_, err := l.Append(ctx, write("doc", "cancelled", eventstore.NoStream(), 1))
			return err
		},
		"Page": func() error {
			_, err := l.Page(ctx, 0, 10)
			return err
		},
		"Head": func() error {
			_, err := l.Head(ctx)
			return err
		},
		"ReadStream": func() error { return lastError(l.ReadStream(ctx, eventstore.StreamID{Kind: "doc", ID: "0"}, 0)) },
		"Claims":     func() error { return lastError(l.Claims(ctx)) },
		"Follow":     func() error { return lastError(l.Follow(ctx, 0)) },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s answers %v; want context.Canceled", name, err)
		}
	}
	if n := len(mustWhole(t, l)); n != 3 {
		t.Errorf("%d events are in the log; want 3: an append whose context has ended is not sent", n)
	}
}

func lastError[V any](seq iter.Seq2[V, error]) (last error) {
	for _, last = range seq {
		if last != nil {
			break
		}
	}
	return last
}

// badInput: whatever cannot be stored is refused with a typed error before anything is written.
func badInput(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	for name, spoil := range map[string]func(w *eventstore.Write){
		"no events":            func(w *eventstore.Write) { w.Events = nil },
		"no event id":          func(w *eventstore.Write) { w.Events[1].ID = eventstore.EventID{} },
		"one id twice":         func(w *eventstore.Write) { w.Events[1].ID = w.Events[0].ID },
		"no type":              func(w *eventstore.Write) { w.Events[1].Type = "" },
		"a type with NUL":      func(w *eventstore.Write) { w.Events[1].Type = "a\x00b" },
		"a long type":          func(w *eventstore.Write) { w.Events[1].Type = strings.Repeat("t", 257) },
		"schema 0":             func(w *eventstore.Write) { w.Events[1].Schema = 0 },
		"no data":              func(w *eventstore.Write) { w.Events[1].Data = nil },
		"data that ends early": func(w *eventstore.Write) { w.Events[1].Data = []byte(`{"a":`) },
		"two values":           func(w *eventstore.Write) { w.Events[1].Data = []byte(`{} {}`) },
		"no UTF-8":             func(w *eventstore.Write) { w.Events[1].Data = []byte("\"\xff\"") },
		"too much data": func(w *eventstore.Write) {
			w.Events[1].Data = append(append([]byte{'"'}, bytes.Repeat([]byte("x"), eventstore.MaxEventBytes)...), '"')
		},
		"a long command":   func(w *eventstore.Write) { w.Events[1].Meta.Command = strings.Repeat("c", 1025) },
		"an actor of NUL":  func(w *eventstore.Write) { w.Events[1].Meta.Actor = "\x00" },
		"the year 0":       func(w *eventstore.Write) { w.Events[1].Meta.At = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC) },
		"the year 10000":   func(w *eventstore.Write) { w.Events[1].Meta.At = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"no kind":          func(w *eventstore.Write) { w.Stream.Kind = "" },
		"a kind with dash": func(w *eventstore.Write) { w.Stream.Kind = "a-b" },
		"no stream id":     func(w *eventstore.Write) { w.Stream.ID = "" },
		"a long stream id": func(w *eventstore.Write) { w.Stream.ID = strings.Repeat("x", 257) },
		"a stream of NUL":  func(w *eventstore.Write) { w.Stream.ID = "\x00" },
		"no claim scope":   func(w *eventstore.Write) { w.Claims = []eventstore.Claim{{Key: "k"}} },
		"no claim key":     func(w *eventstore.Write) { w.Claims = []eventstore.Claim{{Scope: "s"}} },
		"a long claim key": func(w *eventstore.Write) { w.Claims = []eventstore.Claim{{Scope: "s", Key: strings.Repeat("k", 257)}} },
	} {
		w := write("doc", "bad", eventstore.NoStream(), 2)
		spoil(&w)
		_, err := l.Append(t.Context(), w)
		if _, ok := as[*eventstore.InvalidError](err); !ok {
			t.Errorf("%s: %v; want an InvalidError", name, err)
		}
	}
	for _, limit := range []int{-1, 0, eventstore.MaxPageEvents + 1} {
		_, err := l.Page(t.Context(), 0, limit)
		if _, ok := as[*eventstore.InvalidError](err); !ok {
			t.Errorf("a page of %d: %v; want an InvalidError", limit, err)
		}
	}
	for _, tenant := range []eventstore.TenantID{"", "Alpha", "a-b", "a b", "$a", eventstore.TenantID(strings.Repeat("a", 33))} {
		_, err := s.Tenant(tenant).Append(t.Context(), write("doc", "a", eventstore.NoStream(), 1))
		if _, ok := as[*eventstore.InvalidError](err); !ok {
			t.Errorf("tenant %q: %v; want an InvalidError", tenant, err)
		}
	}
	if head, err := l.Head(t.Context()); err != nil || head != 0 {
		t.Errorf("the head is %d, %v; want an empty log", head, err)
	}
}

// exactMeta: metadata come back as they were given, to the nanosecond and to the last byte.
func exactMeta(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	w := write("doc", "a", eventstore.NoStream(), 0)
	long := strings.Repeat("ü", 512)
	for _, meta := range []eventstore.Meta{
		{},
		{Command: long, Correlation: long, Causation: long, Actor: long, At: time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC)},
		{Command: `{"command":"x"}`, Correlation: "\n\t\"\\", Causation: "</script>&\u2028", Actor: "a\u0308", At: time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)},
		{Actor: `","at":"`, At: time.Date(2024, 2, 29, 12, 0, 0, 123_000_000, time.FixedZone("x", -3600))},
	} {
		if meta.At.IsZero() {
			meta.At = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
		}
		e := events(1)[0]
		e.Meta = meta
		w.Events = append(w.Events, e)
	}
	mustAppend(t, l, w)
	for name, got := range map[string][]eventstore.Recorded{"page": mustWhole(t, l), "stream": collect(t, l.ReadStream(t.Context(), w.Stream, 0))} {
		want := make([]eventstore.Recorded, len(w.Events))
		for i, e := range w.Events {
			e.Meta.At = e.Meta.At.UTC()
			want[i] = eventstore.Recorded{Tenant: alpha, Stream: w.Stream, Version: eventstore.Version(i + 1), Proposed: e}
			if i < len(got) {
				want[i].Position = got[i].Position
			}
		}
		if d := differ(got, want); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// backPressure: what is appended, and can be read, while the loop body runs comes with the next batch, all of it: the engine fetched
// nothing ahead. An engine that fetched ahead would hand out a batch that is older than the end of the loop body.
func backPressure(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	mustAppend(t, l, write("doc", "a", eventstore.NoStream(), 1))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	next := eventstore.Version(1)
	batches := 0
	for b, err := range l.Follow(ctx, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Events) == 0 {
			continue
		}
		if last := b.Events[len(b.Events)-1].Version; last != next {
			t.Fatalf("a batch ends at version %d; %d events were there when the loop body returned", last, next)
		}
		if batches++; batches == 5 {
			return
		}
		for range 3 {
			mustAppend(t, l, write("doc", "a", eventstore.At(next), 1))
			next++
		}
		for seen := 0; seen < int(next); { // some engines show events a moment later
			log, err := whole(ctx, l, 0, 500)
			if err != nil {
				t.Fatal(err)
			}
			seen = len(log)
		}
	}
}

// cutConnections breaks connections under writers and readers. What fails is repeated with the same ids until it is acknowledged; then
// every append is in the log once, and readers that tail it saw each event once, in order.
func cutConnections(t *testing.T, s eventstore.Store, cut func(*testing.T)) {
	l := s.Tenant(alpha)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	const writers, appends = 8, 60
	var repeated atomic.Int64
	due := make(chan struct{}, appends) // of the next cut; closed when all is written
	go func() {
		defer close(due)
		together(writers, func(i int) {
			for j := range appends {
				if i == 0 && j%20 == 10 {
					due <- struct{}{}
				}
				w := write("doc", fmt.Sprintf("%d %d", i, j), eventstore.NoStream(), 2)
				_, err := l.Append(ctx, w)
				for transient(ctx, err) {
					repeated.Add(1)
					_, err = l.Append(ctx, w)
				}
				if err != nil {
					t.Errorf("writer %d: %v", i, err)
					return
				}
			}
		})
	}()
	tails := make([][]eventstore.Recorded, 2)
	errs := make(chan error, len(tails))
	for i := range tails {
		go func() {
			var err error
			tails[i], err = follow(ctx, l, 0, 2*writers*appends, func() {})
			errs <- err
		}()
	}
	cuts := 0
	for range due {
		cut(t)
		cuts++
	}
	for range tails {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	log, err := whole(ctx, l, 0, 500)
	for transient(ctx, err) { // a connection that was cut while it was idle
		log, err = whole(ctx, l, 0, 500)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(log) != 2*writers*appends || cuts < 3 {
		t.Fatalf("%d events after %d cuts; want %d", len(log), cuts, 2*writers*appends)
	}
	for i, tail := range tails {
		if d := differ(tail, log); d != "" {
			t.Errorf("tail %d: %s", i, d)
		}
	}
	t.Logf("%d cuts, %d appends were repeated", cuts, repeated.Load())
}
