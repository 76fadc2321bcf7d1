// Package tail is the loop behind Follow for engines that read pages: wait for the bell or a second, read a page, yield it.
package tail

import (
	"context"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/factum-platform/factum/eventstore"
)

const (
	// poll bounds how late a reader is when no bell reaches it: another process may have written.
	poll = time.Second
	// minPause and maxPause bound the jittered wait after a failure.
	minPause = 100 * time.Millisecond
	maxPause = 5 * time.Second
)

// Source is what the loop reads from.
type Source struct {
	Tenant eventstore.TenantID
	Bell   *eventstore.Bell
	// Page returns the events after the position; an empty batch must be Live.
	Page func(ctx context.Context, after eventstore.Position) (eventstore.Batch, error)
	// Closed ends when the store is closed.
	Closed context.Context
	// Transient tells which errors of Page are worth another attempt; the others end the loop.
	Transient func(error) bool
}

// Follow implements the contract's Log.Follow. The last item carries the error that ended it, the context's included.
func (s Source) Follow(ctx context.Context, after eventstore.Position) iter.Seq2[eventstore.Batch, error] {
	return func(yield func(eventstore.Batch, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stop := context.AfterFunc(s.Closed, cancel)
		defer stop()
		heard := s.Bell.Listen() // before the first page, so that no ring between page and wait is lost
		defer heard.Close()
		live := false
		failures := 0
		for {
			batch, err := s.Page(ctx, after)
			switch {
			case s.Closed.Err() != nil:
				yield(eventstore.Batch{}, eventstore.ErrClosed)
				return
			case ctx.Err() != nil:
				yield(eventstore.Batch{}, ctx.Err())
				return
			case err != nil && !s.Transient(err):
				yield(eventstore.Batch{}, err)
				return
			case err != nil:
				pause(ctx, failures)
				failures++
				continue
			}
			failures = 0
			if len(batch.Events) > 0 || batch.Live && !live {
				if !yield(batch, nil) {
					return
				}
			}
			after, live = batch.Through, batch.Live
			if live {
				s.await(ctx, heard)
			}
		}
	}
}

// await returns when the tenant's bell rings, the poll is due or the context ends.
func (s Source) await(ctx context.Context, heard *eventstore.Listener) {
	ctx, cancel := context.WithTimeout(ctx, poll)
	defer cancel()
	for {
		if t, err := heard.Next(ctx); err != nil || t == s.Tenant {
			return
		}
	}
}

func pause(ctx context.Context, failures int) {
	due := time.NewTimer(Pause(failures))
	defer due.Stop()
	select {
	case <-due.C:
	case <-ctx.Done():
	}
}

// Pause is how long to wait before the next attempt after so many earlier failures: random, from 0.1 s up to a bound that doubles to 5 s.
func Pause(failures int) time.Duration {
	bound := maxPause
	if failures < 5 {
		bound = min(maxPause, minPause<<(failures+1))
	}
	return minPause + rand.N(bound-minPause+1)
}
