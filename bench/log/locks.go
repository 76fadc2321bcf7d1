package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/factum-platform/factum/bench/ratio"
)

const (
	// sampleEvery is the time between two looks at what the backends wait for.
	sampleEvery = 5 * time.Millisecond
	// sampleSQL counts the tenants' backends that run a statement, and those among them that wait for a heavyweight lock.
	sampleSQL = `select count(*) filter (where a.wait_event_type = 'Lock'), count(*) from pg_stat_activity a
		where a.state = 'active' and a.backend_type = 'client backend' and a.datname like 'tenant%'`
)

// lockWaits measures the share of the backends' time that goes to waiting for heavyweight locks while as many writers append as pgbench has clients.
func (s *server) lockWaits(name string, tenants int) ratio.Figure {
	return ratio.Figure{
		Name: name, What: fmt.Sprintf("backend time waiting for locks, %d writers on %s", s.clients, plural(tenants, "tenant")),
		Unit: "samples", Bar: 0.05, AtMost: true, Percent: true,
		Measure: func(ctx context.Context, rounds ratio.Rounds) (err error) {
			l, err := s.openLogs(ctx, tenants)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, l.close()) }()
			writers, err := s.ready(ctx, l, s.clients)
			if err != nil {
				return err
			}
			return rounds(func(ctx context.Context) (waiting, active float64, err error) {
				_, err = s.appendsPerSecond(ctx, writers, func(window context.Context) error {
					waiting, active, err = s.sample(ctx, window)
					return err
				})
				return waiting, active, err
			})
		},
	}
}

// sample looks again and again until the window ends, and until some backend was seen at work.
func (s *server) sample(ctx, window context.Context) (waiting, active float64, err error) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-window.Done():
			if active > 0 || ctx.Err() != nil {
				return waiting, active, ctx.Err()
			}
		}
		var w, a int
		if err := s.admin.QueryRow(ctx, sampleSQL).Scan(&w, &a); err != nil {
			return 0, 0, fmt.Errorf("look at pg_stat_activity: %w", err)
		}
		waiting, active = waiting+float64(w), active+float64(a)
	}
}
