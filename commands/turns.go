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
	users int // who hold it or wait for it
}

// take waits for the turn at the streams of all steps; done must be called then. Errors: a stream that occurs twice, or the
// context's.
func (t *turns) take(ctx context.Context, tenant eventstore.TenantID, steps []Step) (done func(), err error) {
	streams := make([]eventstore.StreamID, len(steps))
	for i, s := range steps {
		streams[i] = s.stream()
	}
	// Everybody takes them in one order: two commands never wait for each other.
	slices.SortFunc(streams, func(a, b eventstore.StreamID) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID))
	})
	var held []func()
	done = func() {
		for _, leave := range slices.Backward(held) {
			leave()
		}
	}
	for i, s := range streams {
		if i > 0 && streams[i-1] == s {
			done()
			return nil, fmt.Errorf("commands: stream %s occurs twice in one command; make it one step", s)
		}
		leave, err := t.enter(ctx, place{tenant, s})
		if err != nil {
			done()
			return nil, fmt.Errorf("commands: wait for the turn at %s: %w", s, err)
		}
		held = append(held, leave)
	}
	return done, nil
}

func (t *turns) enter(ctx context.Context, p place) (leave func(), err error) {
	t.mu.Lock()
	if t.places == nil {
		t.places = map[place]*turn{}
	}
	at, ok := t.places[p]
	if !ok {
		at = &turn{lock: semaphore.NewWeighted(1)}
		t.places[p] = at
	}
	at.users++
	t.mu.Unlock()
	forget := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if at.users--; at.users == 0 {
			delete(t.places, p)
		}
	}
	if err := at.lock.Acquire(ctx, 1); err != nil {
		forget()
		return nil, err
	}
	return func() {
		at.lock.Release(1)
		forget()
	}, nil
}
