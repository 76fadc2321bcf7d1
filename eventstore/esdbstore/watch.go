package esdbstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/internal/tail"
)

const (
	// stuckAfter is how long events of a tenant may go without any link being made before the store is unhealthy.
	stuckAfter = 30 * time.Second
	// watchEvery is how often the store looks.
	watchEvery = 10 * time.Second
)

// watch knows how far each tenant's log goes, by this store's appends and by the doorbell, and how long $by_category has not followed.
type watch struct {
	now func() time.Time

	mu      sync.Mutex
	tenants map[eventstore.TenantID]*watched
}

type watched struct {
	head    eventstore.Position // the log goes at least so far
	checked eventstore.Position // the links were once seen to go so far
	since   time.Time           // of the last link, or of the first event beyond checked
	alarmed bool
}

func (w *watch) tenant(t eventstore.TenantID) *watched {
	s := w.tenants[t]
	if s == nil {
		s = &watched{}
		w.tenants[t] = s
	}
	return s
}

// committed notes that the log has an event at p.
func (w *watch) committed(t eventstore.TenantID, p eventstore.Position) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.tenant(t)
	if p <= s.head {
		return
	}
	if s.head <= s.checked {
		s.since = w.now()
	}
	s.head = p
}

// linked notes that $by_category made a link.
func (w *watch) linked(t eventstore.TenantID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.tenant(t)
	s.since, s.alarmed = w.now(), false
}

// head is how far the log goes at least.
func (w *watch) head(t eventstore.TenantID) eventstore.Position {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.tenants[t]; s != nil {
		return s.head
	}
	return 0
}

// suspects returns the tenants that may have events whose links do not come: the links were not looked at since.
func (w *watch) suspects() []eventstore.TenantID {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []eventstore.TenantID
	for t, s := range w.tenants {
		if s.head > s.checked && w.now().Sub(s.since) > stuckAfter {
			out = append(out, t)
		}
	}
	slices.Sort(out)
	return out
}

// cleared notes how far the links go, and tells whether that is far enough.
func (w *watch) cleared(t eventstore.TenantID, reached eventstore.Position) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.tenant(t)
	if reached < s.head {
		return false
	}
	s.checked, s.alarmed = s.head, false
	return true
}

// alarm tells whether this is the first alarm since the links last moved.
func (w *watch) alarm(t eventstore.TenantID) (since time.Time, first bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.tenant(t)
	first, s.alarmed = !s.alarmed, true
	return s.since, first
}

// Stuck is the number of tenants whose links stood still when the store last looked, which it does every 10 s: for a gauge.
func (s *Store) Stuck() int { return s.watch.alarms() }

func (w *watch) alarms() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, s := range w.tenants {
		if s.alarmed {
			n++
		}
	}
	return n
}

// StuckError says that $by_category has made no link for a tenant's new events for more than 30 s: readers of its log stand still.
type StuckError struct {
	Tenant eventstore.TenantID
	Since  time.Time
}

// Error implements error.
func (e *StuckError) Error() string {
	return fmt.Sprintf("esdbstore: $by_category has made no link for new events of tenant %s since %s; restart the projection $by_category on the server",
		e.Tenant, e.Since.UTC().Format(time.RFC3339))
}

// Healthy answers a *[StuckError] for each tenant whose readers stand still because the server does not link its new events, and the
// failure when the server does not answer.
func (s *Store) Healthy(ctx context.Context) (err error) {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer func() { err = end(err) }()
	if _, _, err := s.client.read(ctx, probeCategory, span{last: true, count: 1}); err != nil {
		return err
	}
	var all []error
	for _, t := range s.watch.suspects() {
		links, _, err := s.client.read(ctx, categoryOf(t), span{last: true, count: 1})
		if err != nil {
			return err
		}
		reached := eventstore.Position(0)
		if len(links) == 1 && !links[0].lost {
			reached = eventstore.Position(links[0].position)
		}
		if s.watch.cleared(t, reached) {
			continue
		}
		stuck := &StuckError{Tenant: t}
		var first bool
		if stuck.Since, first = s.watch.alarm(t); first {
			s.config.Logger.Error("esdbstore: the log stands still for its readers; restart the projection $by_category on the server", "tenant", t, "since", stuck.Since)
		}
		all = append(all, stuck)
	}
	return errors.Join(all...)
}

// doorbell rings when links are made. It needs the right to read $all; without it, readers notice new events by looking each second. tried
// is called when the first subscription stands or has failed.
func (s *Store) doorbell(ctx context.Context, tried func()) {
	for failures := 0; ; failures++ {
		err := s.client.subscribe(ctx, doorbellStreams, func() {
			failures = 0
			for _, t := range s.tenants() { // links may have been made meanwhile
				s.bell.Ring(t)
			}
			tried()
		}, func(r record) {
			t, category := parseDoorbell(r.stream)
			if !category {
				s.watch.committed(t, eventstore.Position(r.position))
				return
			}
			s.watch.linked(t)
			s.bell.Ring(t)
		})
		tried()
		if ctx.Err() != nil {
			return
		}
		level := slog.LevelWarn
		if failures > 0 {
			level = slog.LevelDebug // it was said before
		}
		s.config.Logger.Log(ctx, level, "esdbstore: the subscription to $all ended; readers look each second until it is back", "error", err)
		wait(ctx, tail.Pause(failures))
	}
}

// housekeeping watches $by_category and sweeps claims.
func (s *Store) housekeeping(ctx context.Context) {
	watching, sweeping := time.NewTicker(watchEvery), time.NewTicker(sweepEvery)
	defer watching.Stop()
	defer sweeping.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-watching.C:
			if len(s.watch.suspects()) > 0 {
				if err := s.Healthy(ctx); err != nil && ctx.Err() == nil {
					s.config.Logger.Debug("esdbstore: unhealthy", "error", err)
				}
			}
		case <-sweeping.C:
			for _, t := range s.claimants() {
				if err := s.Sweep(ctx, t); err != nil && ctx.Err() == nil {
					s.config.Logger.Warn("esdbstore: sweep the claims; the next sweep tries again", "tenant", t, "error", err)
				}
			}
		}
	}
}
