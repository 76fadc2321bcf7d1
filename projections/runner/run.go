package runner

import (
	"context"
	"sync"
	"time"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/tenants"
)

const (
	// patience is how long the work on a tenant may take before its worker is given to others.
	patience = 500 * time.Millisecond
	// sliceTimeout bounds one slice of one consumer.
	sliceTimeout = 15 * time.Second
	// markFor is how old the mark of a tenant at rest must be to be removed: more than a writer goes without marking and an append takes.
	markFor = 3 * time.Minute
)

// lookAt is how old a mark is when the log is asked for its end, unless that was seen since: once when the append that it was made for should
// show, once when the writer would mark anew, and before the mark is removed.
var lookAt = []time.Duration{5 * time.Second, 45 * time.Second, markFor}

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
			if r.mine(t) {
				r.queue.add(t, rung)
			}
		}
	})
	wg.Go(func() { r.sweeps(ctx) })
	for range workers + lingerers {
		wg.Go(func() {
			for {
				t, why, ok := r.queue.take()
				if !ok {
					return
				}
				r.take(ctx, t, why)
			}
		})
	}
	<-ctx.Done()
	r.queue.close()
	wg.Wait()
	return ctx.Err()
}

// Look lets the consumers of the tenant look at everything anew, also those that are halted or paused: somebody changed something about
// them. Call it when another process says so (see Config.Ring). With the platform all tenants look that are not at rest, because its database
// holds consumers of all logs. It never blocks.
func (r *Runner) Look(t eventstore.TenantID) {
	r.queue.add(t, operated)
	if t != eventstore.PlatformTenant {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for other := range r.consumers {
		r.queue.add(other, operated)
	}
}

// mine tells whether the tenant is this process's to work on.
func (r *Runner) mine(t eventstore.TenantID) bool {
	return r.config.Share == nil || r.config.Share.Mine(string(t))
}

// sweeps looks after tenants from time to time, and when the processes that share them have changed.
func (r *Runner) sweeps(ctx context.Context) {
	tick := time.NewTicker(r.config.SweepEvery)
	defer tick.Stop()
	known := r.config.Marks == nil // whether the tenants that this set of projections has never met are marked
	why := swept
	for {
		var changed <-chan struct{}
		if r.config.Share != nil {
			changed = r.config.Share.Changed() // before the tenants are read
		}
		if !known {
			if err := r.config.Marks.MarkAll(ctx, Group(r.config.Projections)); err != nil {
				r.warn(ctx, "tenants could not be marked for the projections of this binary; this is tried again", err)
			} else {
				known = true
			}
		}
		r.sweep(ctx, why)
		select {
		case <-tick.C:
			why = swept
		case <-changed:
			why = rung // a process that is gone may have appended and not rung
		case <-ctx.Done():
			return
		}
	}
}

func (r *Runner) warn(ctx context.Context, message string, err error) {
	if ctx.Err() == nil {
		r.config.Logger.Warn(message, "error", describe(err)) //nolint:sloglint // the callers' messages are constants
	}
}

// sweep queues the platform, the tenants that may have news and those that this process still remembers. A tenant that is marked by nobody
// is at rest: neither its log nor its database is asked.
func (r *Runner) sweep(ctx context.Context, why news) {
	r.queue.add(eventstore.PlatformTenant, why)
	var names []string
	var err error
	if r.config.Marks == nil {
		names, err = r.config.Tenants(ctx)
	} else {
		var list []tenants.Mark
		if list, err = r.config.Marks.Marked(ctx); err == nil {
			now := time.Now()
			marks := make(map[eventstore.TenantID]marked, len(list))
			for _, m := range list {
				marks[eventstore.TenantID(m.Tenant)] = marked{m, now.Add(-m.Age)}
				names = append(names, m.Tenant)
			}
			r.mu.Lock()
			r.marks = marks
			r.mu.Unlock()
		}
	}
	if err != nil {
		r.warn(ctx, "the tenants that may have news cannot be read; those whose bell was not heard wait", err)
	}
	for _, name := range names {
		if t := eventstore.TenantID(name); r.mine(t) {
			r.queue.add(t, why)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for t := range r.consumers { // what has become another process's, or is at rest, is to be forgotten
		r.queue.add(t, swept)
	}
}

// take works on the tenant that the queue gave.
func (r *Runner) take(ctx context.Context, t eventstore.TenantID, why news) {
	slice, cancel := context.WithCancel(ctx)
	defer cancel()
	begun := time.Now()
	late := time.AfterFunc(patience, func() {
		if !r.queue.linger(t) {
			cancel()
		}
	})
	more := r.work(ctx, slice, t, why)
	late.Stop()
	r.queue.done(t, more, time.Since(begun) < patience)
}

// work runs one slice of each consumer of the tenant and tells whether any has more to do. A tenant that is only looked after costs
// one query at most when nothing is new. run is the context of the whole runner, ctx that of this work.
func (r *Runner) work(run, ctx context.Context, t eventstore.TenantID, why news) (more bool) {
	if !r.mine(t) {
		r.forget(t)
		return false
	}
	w := r.consumersOf(t)
	for _, c := range w.list {
		if why == operated {
			c.loaded, c.rest = false, time.Time{}
		}
	}
	if why == swept && r.rests(ctx, t, w) {
		return false
	}
	begun := time.Now()
	var shared *page
	for _, c := range w.list {
		if ctx.Err() != nil {
			break
		}
		slice, cancel := context.WithTimeout(ctx, sliceTimeout)
		if c.slice(run, slice, &shared) {
			more = true
		}
		cancel()
		if c.gone {
			r.dismiss(ctx, t)
			return false
		}
	}
	if !more && w.running() {
		w.seen = begun
	}
	return more && run.Err() == nil
}

// dismiss forgets a tenant that has no database any more, and its mark. It comes back with the mark that it gets when it is placed again.
func (r *Runner) dismiss(ctx context.Context, t eventstore.TenantID) {
	r.forget(t)
	r.mu.Lock()
	m, known := r.marks[t]
	r.mu.Unlock()
	if !known {
		return
	}
	if err := r.config.Marks.Unmark(ctx, m.Mark); err != nil {
		r.warn(ctx, "the mark of a tenant that is gone cannot be removed; this is tried again", err)
	}
}

// rests tells whether nothing is to be done for a tenant that is only looked after. One that has been at rest for a while loses its mark and
// is forgotten; it comes back with its next mark.
func (r *Runner) rests(ctx context.Context, t eventstore.TenantID, w *consumed) bool {
	r.mu.Lock()
	m, known := r.marks[t]
	r.mu.Unlock()
	kept := r.config.Marks != nil && t != eventstore.PlatformTenant // marks are kept of it
	if kept && !known && (w.quiet() || w.idle()) {
		r.forget(t)
		return true
	}
	if !w.still() {
		return false
	}
	if !kept || m.due(w.seen) {
		ctx, cancel := context.WithTimeout(ctx, sliceTimeout)
		defer cancel()
		begun := time.Now()
		head, err := r.config.Store.Tenant(t).Head(ctx)
		if err != nil || !w.at(head) {
			return false // a slice will say what is wrong
		}
		w.seen = begun
	}
	// What was appended under the mark was appended before it was so old, and was seen.
	if !kept || !w.quiet() || w.seen.Before(m.from.Add(markFor)) {
		return true
	}
	if err := r.config.Marks.Unmark(ctx, m.Mark); err != nil {
		r.warn(ctx, "the mark of a tenant at rest cannot be removed; this is tried again", err)
		return true
	}
	r.forget(t)
	return true
}

// marked is a mark, and when it was made by this process's clock.
type marked struct {
	tenants.Mark
	from time.Time
}

// due tells whether the log is to be asked, whose end was last seen then.
func (m marked) due(seen time.Time) bool {
	now := time.Now()
	for _, age := range lookAt {
		if at := m.from.Add(age); seen.Before(at) && !now.Before(at) {
			return true
		}
	}
	return false
}

// consumed are the consumers of one tenant's log. Only the worker that has the tenant may use it.
type consumed struct {
	list []*consumer
	seen time.Time // when all were last known to be at the log's end
}

// running tells whether all consumers are loaded and none stands still.
func (w *consumed) running() bool {
	for _, c := range w.list {
		if !c.loaded || standing(c.standing.Load()) != running {
			return false
		}
	}
	return true
}

// quiet tells whether nothing is known that is left to do.
func (w *consumed) quiet() bool {
	for _, c := range w.list {
		if len(c.parked) > 0 || c.at.position != w.list[0].at.position {
			return false
		}
	}
	return w.running()
}

// idle tells whether nothing is known of any consumer.
func (w *consumed) idle() bool {
	for _, c := range w.list {
		if c.loaded || standing(c.standing.Load()) != running {
			return false
		}
	}
	return true
}

// still tells whether each consumer is loaded, or stands still until its time has come.
func (w *consumed) still() bool {
	for _, c := range w.list {
		if !c.loaded && !time.Now().Before(c.rest) {
			return false
		}
	}
	return true
}

// at tells whether the consumers that do not stand still are at the position.
func (w *consumed) at(head eventstore.Position) bool {
	for _, c := range w.list {
		if c.loaded && c.at.position != head {
			return false
		}
	}
	return true
}

// consumersOf returns the consumers of the tenant's log.
func (r *Runner) consumersOf(t eventstore.TenantID) *consumed {
	r.mu.Lock()
	defer r.mu.Unlock()
	w, known := r.consumers[t]
	if !known {
		w = &consumed{}
		for i := range r.config.Projections {
			if p := &r.config.Projections[i]; p.consumes(t) {
				w.list = append(w.list, &consumer{runner: r, projection: p, tenant: t, size: sliceEvents})
			}
		}
		r.consumers[t] = w
	}
	return w
}

// forget drops what is remembered of a tenant. Only its worker may call it.
func (r *Runner) forget(t eventstore.TenantID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.consumers, t)
}
