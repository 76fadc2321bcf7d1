// Package measured counts and times what is done with a log, whatever its engine.
package measured

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/factum-platform/factum/eventstore"
)

// Store is a store whose appends are measured. The metrics, without a tenant's name in them so that their number is bounded:
//
//   - factum_append_seconds{outcome}: how long an append took, the wait for its turn included. The outcomes are done, replayed,
//     conflict, claimed, reused, invalid, unavailable, cancelled and failed; its count is the number of appends.
//   - factum_appended_events_total: events that were written.
type Store struct {
	eventstore.Store
	seconds *prometheus.HistogramVec
	events  prometheus.Counter
}

// Wrap registers the metrics and returns s with its appends measured. It panics when r has metrics of these names already.
func Wrap(s eventstore.Store, r prometheus.Registerer) *Store {
	m := &Store{
		Store: s,
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "factum_append_seconds", Help: "Duration of appends to logs by outcome, the wait for their turn included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14), // 0.5 ms to 4 s
		}, []string{"outcome"}),
		events: prometheus.NewCounter(prometheus.CounterOpts{Name: "factum_appended_events_total", Help: "Events written to logs."}),
	}
	r.MustRegister(m.seconds, m.events)
	return m
}

// Tenant implements [eventstore.Store].
func (s *Store) Tenant(t eventstore.TenantID) eventstore.Log { return log{s.Store.Tenant(t), s} }

type log struct {
	eventstore.Log
	store *Store
}

// Append implements [eventstore.Log].
func (l log) Append(ctx context.Context, writes ...eventstore.Write) ([]eventstore.Appended, error) {
	began := time.Now()
	out, err := l.Log.Append(ctx, writes...)
	l.store.seconds.WithLabelValues(outcome(out, err)).Observe(time.Since(began).Seconds())
	if err == nil && !out[0].Replayed {
		for _, w := range writes {
			l.store.events.Add(float64(len(w.Events)))
		}
	}
	return out, err
}

func outcome(out []eventstore.Appended, err error) string {
	var (
		conflict    *eventstore.ConflictError
		claimed     *eventstore.ClaimError
		reused      *eventstore.ReusedKeyError
		invalid     *eventstore.InvalidError
		unavailable *eventstore.UnavailableError
	)
	switch {
	case err == nil && out[0].Replayed:
		return "replayed"
	case err == nil:
		return "done"
	case errors.As(err, &conflict):
		return "conflict"
	case errors.As(err, &claimed):
		return "claimed"
	case errors.As(err, &reused):
		return "reused"
	case errors.As(err, &invalid):
		return "invalid"
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return "cancelled"
	case errors.As(err, &unavailable):
		return "unavailable"
	default:
		return "failed"
	}
}
