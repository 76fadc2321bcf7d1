package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/projections/runner"
)

// building are read models of a tenant that are built in a database where nobody reads them yet.
type building struct {
	log    eventstore.Log
	tenant eventstore.TenantID
	target *pgxpool.Pool
	names  []string
	stop   func() error // may be called again
}

// build starts to build the tenant's read models at the target, or goes on with it, and follows the log from then on.
func (m *tenantMove) build(ctx context.Context) (*building, error) {
	b := &building{log: m.store.Tenant(m.log), tenant: m.log, target: m.target}
	var projections []runner.Projection
	for _, p := range readModels() {
		if p.Home == runner.TenantHome {
			projections, b.names = append(projections, p), append(b.names, p.Name)
		}
	}
	if err := anew(ctx, m.target); err != nil {
		return nil, fmt.Errorf("prepare the read models at %s: %w", m.to.Place(), err)
	}
	r, err := runner.New(runner.Config{
		Store: m.store, Codec: m.codec, Projections: projections, Logger: m.live.log,
		Pool:    func(context.Context, string) (*pgxpool.Pool, error) { return m.target, nil },
		Tenants: func(context.Context) ([]string, error) { return []string{string(m.log)}, nil },
	})
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- r.Run(running) }()
	b.stop = sync.OnceValue(func() error {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	})
	return b, nil
}

// anew lets go of what an earlier attempt left: nobody is paused there, and what could not be applied is tried again from the beginning.
func anew(ctx context.Context, target *pgxpool.Pool) error {
	if _, err := target.Exec(ctx, `delete from proj.paused`); err != nil {
		return err
	}
	var failed bool
	err := target.QueryRow(ctx, `select exists (select from proj.parked) or exists (select from proj.checkpoint where error is not null)`).Scan(&failed)
	if err != nil || !failed {
		return err
	}
	_, err = target.Exec(ctx, `with a as (delete from proj.parked), b as (delete from proj.checkpoint) delete from proj.live`)
	return err
}

// await waits until the read models have come to the head that the log has now.
func (b *building) await(ctx context.Context, meter *meter) error {
	head, err := b.log.Head(ctx)
	if err != nil {
		return err
	}
	done := meter.begin("read models of "+string(b.tenant), head)
	defer done()
	return b.to(ctx, head, 10*lookEvery, func(at eventstore.Position) { meter.progress(uint64(at), at) })
}

// reach is await for a position, while writers wait.
func (b *building) reach(ctx context.Context, head eventstore.Position) error {
	return b.to(ctx, head, lookEvery, func(eventstore.Position) {})
}

func (b *building) to(ctx context.Context, head eventstore.Position, every time.Duration, progress func(eventstore.Position)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last eventstore.Position
	moved := time.Now()
	for {
		at, built, err := b.position(ctx)
		if err != nil {
			return err
		}
		if built && at >= head {
			return nil
		}
		if at > last {
			last, moved = at, time.Now()
			progress(at)
		}
		if time.Since(moved) > buildStill {
			return fmt.Errorf("the read models of %s stay at position %d of %d; see this command's log", b.tenant, at, head)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// position is how far the slowest read model is, and whether all are there. One that cannot be built whole is an error.
func (b *building) position(ctx context.Context) (at eventstore.Position, built bool, err error) {
	var projection, kind, stream, reason string
	err = b.target.QueryRow(ctx, `select projection, kind, stream_id, error from proj.parked order by at limit 1`).Scan(&projection, &kind, &stream, &reason)
	if err == nil {
		return 0, false, fmt.Errorf("the read model %s cannot apply an event of stream %s-%s (%s), and is not carried over with a gap; mend it, or skip the event with 'factum projections skip'",
			projection, kind, stream, reason)
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return 0, false, err
	}
	err = b.target.QueryRow(ctx, `select projection, error from proj.checkpoint where error is not null and not waits limit 1`).Scan(&projection, &reason)
	if err == nil {
		return 0, false, fmt.Errorf("the read model %s cannot be built: %s", projection, reason)
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return 0, false, err
	}
	var n int
	err = b.target.QueryRow(ctx, `select count(*), coalesce(min(c.position), 0) from proj.live l join proj.checkpoint c using (projection, generation)
		where c.tenant = $1 and l.projection = any($2)`, string(b.tenant), b.names).Scan(&n, &at)
	return at, n == len(b.names), err
}
