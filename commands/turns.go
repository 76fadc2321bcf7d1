package commands

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/factum-platform/factum/eventstore"
)

// turns lets the commands of one process that meet at a stream work one after the other. It knows only streams that somebody
// works on or waits for. The zero value is ready; it is safe for concurrent use.
type turns struct {
	mu     sync.Mutex
	places map[place]*turn
}

type place struct {
	tenant eventstore.TenantID
	stream eventstore.StreamID
}

type turn struct {
	lock  *semaphore.Weighted
	users int    // who hold it, wait for it or watch it
	ended uint64 // turns that ended while it was known
}

// take waits for the turn at the streams of all steps, and lets them forget what they have loaded before another's turn; done must be called
// then. Errors: a stream that occurs twice, or the context's.
func (t *turns) take(ctx context.Context, tenant eventstore.TenantID, steps []Step) (done func(), err error) {
	// Everybody takes them in one order: two commands never wait for each other.
	steps = slices.SortedFunc(slices.Values(steps), func(a, b Step) int {
		return cmp.Or(cmp.Compare(a.stream().Kind, b.stream().Kind), cmp.Compare(a.stream().ID, b.stream().ID))
	})
	var held []func()
	done = func() {
		for _, leave := range slices.Backward(held) {
			leave()
		}
	}
	for i, step := range steps {
		s := step.stream()
		if i > 0 && steps[i-1].stream() == s {
			done()
			return nil, fmt.Errorf("commands: stream %s occurs twice in one command; make it one step", s)
		}
		ended, leave, err := t.enter(ctx, place{tenant, s})
		if err != nil {
			done()
			return nil, fmt.Errorf("commands: wait for the turn at %s: %w", s, err)
		}
		step.keepAhead(ended)
		held = append(held, leave)
	}
	return done, nil
}

func (t *turns) enter(ctx context.Context, p place) (ended uint64, leave func(), err error) {
	at, forget := t.use(p)
	if err := at.lock.Acquire(ctx, 1); err != nil {
		forget()
		return 0, nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return at.ended, func() {
		t.mu.Lock()
		at.ended++
		t.mu.Unlock()
		at.lock.Release(1)
		forget()
	}, nil
}

// watch tells how many turns have ended at the stream; the count goes on at least until forget is called.
func (t *turns) watch(tenant eventstore.TenantID, s eventstore.StreamID) (ended uint64, forget func()) {
	at, forget := t.use(place{tenant, s})
	t.mu.Lock()
	defer t.mu.Unlock()
	return at.ended, forget
}

func (t *turns) use(p place) (at *turn, forget func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.places == nil {
		t.places = map[place]*turn{}
	}
	at, ok := t.places[p]
	if !ok {
		at = &turn{lock: semaphore.NewWeighted(1)}
		t.places[p] = at
	}
	at.users++
	return at, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if at.users--; at.users == 0 {
			delete(t.places, p)
		}
	}
}
