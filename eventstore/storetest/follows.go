package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/factum-platform/factum/eventstore"
)

// follow reads until it has n events and is live, or fails.
func follow(ctx context.Context, l eventstore.Log, after eventstore.Position, n int, pause func()) ([]eventstore.Recorded, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var got []eventstore.Recorded
	for b, err := range l.Follow(ctx, after) {
		if err != nil {
			return got, fmt.Errorf("after %d of %d events: %w", len(got), n, err)
		}
		if len(b.Events) == 0 && !b.Live {
			return got, errors.New("a batch that is empty and not live")
		}
		for _, rec := range b.Events {
			if rec.Position <= after {
				return got, fmt.Errorf("position %d came after %d", rec.Position, after)
			}
			after = rec.Position
		}
		if b.Through < after {
			return got, fmt.Errorf("a batch through %d has an event at %d", b.Through, after)
		}
		got = append(got, b.Events...)
		if len(got) >= n && b.Live {
			return got, nil
		}
		pause()
	}
	return got, errors.New("it ended without an error")
}

func followUnderLoad(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	const writers, appends = 4, 40
	fill(t, l, 20)
	before := mustWhole(t, l)
	starts := []int{0, 0, 7, 20}
	got, errs := make([][]eventstore.Recorded, len(starts)), make([]error, len(starts))
	together(writers+len(starts), func(i int) {
		if i < writers {
			for j := range appends {
				if _, err := l.Append(t.Context(), write("file", fmt.Sprintf("%d %d", i, j), eventstore.NoStream(), 1+j%2)); err != nil {
					t.Error(err)
				}
			}
			return
		}
		i -= writers
		after := eventstore.Position(0)
		if starts[i] > 0 {
			after = before[starts[i]-1].Position
		}
		got[i], errs[i] = follow(t.Context(), l, after, 20+writers*appends*3/2-starts[i], func() {})
	})
	log := mustWhole(t, l)
	for i, from := range starts {
		if errs[i] != nil {
			t.Errorf("follower %d: %v", i, errs[i])
			continue
		}
		if d := differ(got[i], log[from:]); d != "" {
			t.Errorf("follower %d: %s", i, d)
		}
	}
}

func slowFollower(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	fill(t, l, 5)
	steps, done := make(chan struct{}), make(chan error, 1)
	var got []eventstore.Recorded
	go func() {
		var err error
		got, err = follow(t.Context(), l, 0, 1205, func() { <-steps })
		done <- err
	}()
	for v := range eventstore.Version(12) { // the follower sits in its loop body; nobody waits for it
		mustAppend(t, l, write("file", "a", eventstore.At(100*v), 100))
	}
	close(steps)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if d := differ(got, mustWhole(t, l)); d != "" {
		t.Error(d)
	}
}

func live(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for n := range 2 { // of an empty log, then of a long one
		if n == 1 {
			mustAppend(t, l, write("doc", "a", eventstore.NoStream(), 1000))
			mustAppend(t, l, write("doc", "a", eventstore.At(1000), 600))
		}
		head, err := l.Head(ctx)
		if err != nil {
			t.Fatal(err)
		}
		batches := 0
		for b, err := range l.Follow(ctx, 0) {
			if err != nil {
				t.Fatal(err)
			}
			batches++
			if b.Live != (b.Through >= head) {
				t.Errorf("batch through %d of %d: live %v", b.Through, head, b.Live)
			}
			if b.Live {
				break
			}
		}
		if n == 1 && batches < 2 {
			t.Errorf("%d batches; want several", batches)
		}
		for b, err := range l.Follow(ctx, head) { // nothing to read: live is said at once, with an empty batch
			if err != nil || !b.Live || len(b.Events) != 0 || b.Through != head {
				t.Errorf("at the head: %+v, %v", b, err)
			}
			break
		}
	}
}

func followEnds(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	fill(t, l, 3)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for b, err := range l.Follow(ctx, 0) {
		last = err
		if b.Live {
			cancel() // while it waits for more
		}
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("it ended with %v; want context.Canceled", last)
	}
	short, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	for _, err := range l.Follow(short, 0) {
		last = err
	}
	if !errors.Is(last, context.DeadlineExceeded) {
		t.Errorf("it ended with %v; want context.DeadlineExceeded", last)
	}
	for _, err := range s.Tenant("Not-A-Tenant").Follow(t.Context(), 0) {
		wantError[*eventstore.InvalidError](t, err)
	}
}

func closed(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	fill(t, l, 3)
	var last error
	for b, err := range l.Follow(t.Context(), 0) {
		last = err
		if b.Live {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !errors.Is(last, eventstore.ErrClosed) {
		t.Errorf("following ended with %v", last)
	}
	_, last = l.Append(t.Context(), write("doc", "x", eventstore.NoStream(), 1))
	if !errors.Is(last, eventstore.ErrClosed) {
		t.Errorf("append answered %v", last)
	}
	if _, last = l.Head(t.Context()); !errors.Is(last, eventstore.ErrClosed) {
		t.Errorf("head answered %v", last)
	}
	if _, last = l.Page(t.Context(), 0, 1); !errors.Is(last, eventstore.ErrClosed) {
		t.Errorf("page answered %v", last)
	}
	for _, last = range l.ReadStream(t.Context(), eventstore.StreamID{Kind: "doc", ID: "0"}, 0) {
		if !errors.Is(last, eventstore.ErrClosed) {
			t.Errorf("read answered %v", last)
		}
	}
}

func tenantsApart(t *testing.T, s eventstore.Store) {
	quiet, noisy := s.Tenant(beta), s.Tenant(alpha)
	ctx, stop := context.WithCancel(t.Context())
	var noise sync.WaitGroup
	noise.Go(func() {
		for ctx.Err() == nil {
			if _, err := noisy.Append(ctx, write("doc", "a", eventstore.NoStream(), 1)); err == nil && ctx.Err() == nil {
				continue // the first time; then it is a conflict without end
			}
		}
	})
	fill(t, quiet, 10)
	got, err := follow(t.Context(), quiet, 0, 10, func() {})
	stop()
	noise.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if d := differ(got, mustWhole(t, quiet)); d != "" {
		t.Error(d)
	}
	for _, rec := range got {
		if rec.Tenant != beta {
			t.Errorf("tenant beta's log holds an event of %s", rec.Tenant)
		}
	}
	if n := len(mustWhole(t, noisy)); n > 1 {
		t.Errorf("tenant alpha's log has %d events; want 1", n)
	}
}

func bellRings(t *testing.T, s eventstore.Store) {
	heard := s.Bell().Listen()
	defer heard.Close()
	mustAppend(t, s.Tenant(beta), write("doc", "a", eventstore.NoStream(), 1))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if tenant, err := heard.Next(ctx); err != nil || tenant != beta {
		t.Errorf("the bell rang for %q, %v; want beta", tenant, err)
	}
}
