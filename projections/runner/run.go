package runner

import (
	"context"
	"sync"
	"time"

	"github.com/factum-platform/factum/eventstore"
)

const (
	// workers is how many tenants are worked on at once.
	workers = 8
	// sweepEvery is how often every tenant is looked after, because a ring can be lost and tenants appear.
	sweepEvery = 5 * time.Second
)

// Run drives the projections until ctx ends; then everything is stopped and it returns ctx's error. It is called once.
func (r *Runner) Run(ctx context.Context) error {
	heard := r.config.Store.Bell().Listen() // before the first sweep, so that no event falls between the two
	defer heard.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			t, err := heard.Next(ctx)
			if err != nil {
				return // the context ended
			}
			r.queue.add(t, true)
		}
	})
	wg.Go(func() { r.sweep(ctx) })
	for range workers {
		wg.Go(func() {
			for {
				t, rung, ok := r.queue.take()
				if !ok {
					return
				}
				r.queue.done(t, r.work(ctx, t, rung))
			}
		})
	}
	<-ctx.Done()
	r.queue.close()
	wg.Wait()
	return ctx.Err()
}

// sweep marks every tenant from time to time.
func (r *Runner) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		r.queue.add(eventstore.PlatformTenant, false)
		tenants, err := r.config.Tenants(ctx)
		if err != nil && ctx.Err() == nil {
			r.config.Logger.Warn("the list of tenants cannot be read; projections of new tenants wait", "error", describe(err))
		}
		for _, t := range tenants {
			r.queue.add(eventstore.TenantID(t), false)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// work runs one slice of each consumer of the tenant and tells whether any has more to do. A tenant that is only looked after costs
// one query when nothing is new.
func (r *Runner) work(ctx context.Context, t eventstore.TenantID, rung bool) (more bool) {
	consumers := r.consumersOf(t)
	if !rung && allLoaded(consumers) {
		head, err := r.config.Store.Tenant(t).Head(ctx)
		if err == nil && allAt(consumers, head) {
			return false
		}
	}
	var shared *page
	for _, c := range consumers {
		if ctx.Err() != nil {
			return false
		}
		if c.slice(ctx, &shared) {
			more = true
		}
	}
	return more
}

func allLoaded(list []*consumer) bool {
	for _, c := range list {
		if !c.loaded && !c.halted {
			return false
		}
	}
	return true
}

func allAt(list []*consumer, head eventstore.Position) bool {
	for _, c := range list {
		if !c.halted && c.at.position != head {
			return false
		}
	}
	return true
}

// consumersOf returns the consumers of the tenant's log.
func (r *Runner) consumersOf(t eventstore.TenantID) []*consumer {
	r.mu.Lock()
	defer r.mu.Unlock()
	list, known := r.consumers[t]
	if !known {
		for i := range r.config.Projections {
			if p := &r.config.Projections[i]; p.consumes(t) {
				list = append(list, &consumer{runner: r, projection: p, tenant: t, size: sliceEvents})
			}
		}
		r.consumers[t] = list
	}
	return list
}
