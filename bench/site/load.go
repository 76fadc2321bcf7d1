package site

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// inFlight bounds the calls of a load that run at once; beyond it the load waits.
const inFlight = 512

// Load calls do at a steady rate per second, each call in a goroutine of its own, until window ends; then it waits for the calls that run.
// What is late is made up for. The first error ends it, and ctx those calls. n counts from 0.
func Load(ctx, window context.Context, rate float64, do func(ctx context.Context, n int) error) error {
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(inFlight)
	begun, interval := time.Now(), time.Duration(float64(time.Second)/rate)
	for n := 0; ; n++ {
		if !until(window, begun.Add(time.Duration(n)*interval)) || ctx.Err() != nil {
			return all.Wait()
		}
		all.Go(func() error { return do(ctx, n) })
	}
}

// until waits for a time; false when ctx ended.
func until(ctx context.Context, t time.Time) bool {
	d := time.Until(t)
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Pass lets time go by. Error: the context's.
func Pass(ctx context.Context, d time.Duration) error {
	until(ctx, time.Now().Add(d))
	return ctx.Err()
}

// Times collects durations. It is safe for concurrent use.
type Times struct {
	mu  sync.Mutex
	all []time.Duration
}

// Add adds one.
func (t *Times) Add(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, d)
}

// All returns a copy of all that were added.
func (t *Times) All() []time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]time.Duration(nil), t.all...)
}
