package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/factum-platform/factum/bench/ratio"
	"github.com/factum-platform/factum/bench/site"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/readmodel"
	"github.com/factum-platform/factum/projections/runner"
)

const (
	// noisyWriters append to the noisy tenant at once, each as fast as it can.
	noisyWriters = 8
	// lookEvery is the time between two looks for a row.
	lookEvery = 250 * time.Microsecond
	// visibleTimeout bounds the wait for a row.
	visibleTimeout = 30 * time.Second
)

// projector drives the read models of some tenants in this process, as factum serve does.
type projector struct {
	waiter *readmodel.Waiter
	stop   func() error
}

func (b *bench) project(ctx context.Context, of []site.Tenant) (*projector, error) {
	logs := make([]string, len(of))
	for i, t := range of {
		logs[i] = string(t.Log)
	}
	moves := &readmodel.Moves{}
	r, err := runner.New(runner.Config{
		Store: b.platform.Store, Codec: b.platform.Codec, Pool: b.platform.Databases.Pool, Moves: moves, Projections: site.ReadModels(),
		Tenants: func(context.Context) ([]string, error) { return logs, nil }, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(running) }()
	p := &projector{waiter: readmodel.NewWaiter(moves), stop: func() error {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			return fmt.Errorf("the projector ended by itself: %w", err)
		}
		return nil
	}}
	for _, t := range of { // until all are met
		head, err := b.platform.Store.Tenant(t.Log).Head(ctx)
		if err == nil {
			err = b.visible(ctx, p, t, head)
		}
		if err != nil {
			return nil, errors.Join(err, p.stop())
		}
	}
	return p, nil
}

// visible waits until the documents of the tenant show everything up to position.
func (b *bench) visible(ctx context.Context, p *projector, t site.Tenant, position eventstore.Position) error {
	ctx, cancel := context.WithTimeout(ctx, visibleTimeout)
	defer cancel()
	pool, err := b.platform.Databases.Pool(ctx, string(t.Log))
	if err != nil {
		return err
	}
	return p.waiter.Wait(ctx, pool, "documents", string(t.Log), uint64(position))
}

// noisyNeighbour sets the lag of quiet tenants beside one that appends as fast as it can against their lag alone. Lag is the time from the
// acknowledgement of an append until the read model of documents has it.
func (b *bench) noisyNeighbour() ratio.Figure {
	return ratio.Figure{
		Name: "noisy", What: fmt.Sprintf("p99 lag of %d quiet tenants beside a noisy one, over alone", b.quiet), Unit: "ms", Bar: 3, AtMost: true,
		Measure: func(ctx context.Context, rounds ratio.Rounds) error {
			if err := b.need(ctx, "noisy", b.quiet+1); err != nil {
				return err
			}
			if err := b.rested(); err != nil {
				return err
			}
			if err := b.site.Checkpoint(ctx); err != nil {
				return err
			}
			quiet := b.tenants[:b.quiet]
			return rounds(func(ctx context.Context) (ours, theirs float64, err error) {
				if theirs, _, err = b.lagOf(ctx, quiet, nil); err != nil {
					return 0, 0, err
				}
				noisy, err := b.platform.NewTenant(ctx, "Noisy "+uuid.NewString()) // without the backlog of an earlier round
				if err != nil {
					return 0, 0, err
				}
				ours, appended, err := b.lagOf(ctx, quiet, &noisy)
				b.Say("noisy", "the noisy tenant appended %s events/s", ratio.Whole(int(appended)))
				return ours, theirs, err
			})
		},
	}
}

// lagOf returns the 99th percentile of the quiet tenants' lag in ms, and how many events the noisy one, if there is one, appended per second.
func (b *bench) lagOf(ctx context.Context, quiet []site.Tenant, noisy *site.Tenant) (p99, appended float64, err error) {
	watched := slices.Clone(quiet)
	if noisy != nil {
		watched = append(watched, *noisy)
	}
	p, err := b.project(ctx, watched)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	var lags site.Times
	begun := time.Now()
	warm := begun.Add(b.noisy / 3)
	window, end := context.WithTimeout(ctx, b.noisy*4/3)
	defer end()
	all, ctx := errgroup.WithContext(ctx)
	if noisy != nil {
		all.Go(func() (err error) {
			appended, err = b.flood(ctx, window, *noisy)
			return err
		})
	}
	all.Go(func() error {
		return site.Load(ctx, window, float64(len(quiet)), func(ctx context.Context, n int) error {
			t := quiet[n%len(quiet)]
			at, err := b.platform.Upload(ctx, t)
			if err != nil {
				return err
			}
			acknowledged := time.Now()
			if err := b.visible(ctx, p, t, at.Position); err != nil {
				return err
			}
			if acknowledged.After(warm) {
				lags.Add(time.Since(acknowledged))
			}
			return nil
		})
	})
	if err := all.Wait(); err != nil {
		return 0, 0, err
	}
	list := lags.All()
	if len(list) == 0 {
		return 0, 0, errors.New("no quiet tenant appended anything")
	}
	return milliseconds(ratio.Percentile(list, 0.99)), appended, nil
}

// flood appends uploads to the tenant as fast as it takes them, until the window ends.
func (b *bench) flood(ctx, window context.Context, t site.Tenant) (perSecond float64, err error) {
	begun := time.Now()
	counts := make([]int, noisyWriters)
	all, ctx := errgroup.WithContext(ctx)
	for i := range noisyWriters {
		all.Go(func() error {
			for window.Err() == nil {
				u, err := b.platform.Upload(ctx, t)
				if err != nil {
					return err
				}
				counts[i] += u.Events
			}
			return nil
		})
	}
	err = all.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / time.Since(begun).Seconds(), err
}

// latency measures the time from the call of an append until its row can be read, on an idle system. The projector is in this process, or
// in one of its own.
func (b *bench) latency(name string, across bool) ratio.Figure {
	allowed, where := 10.0, "in one process"
	if across {
		allowed, where = 50, "across two processes"
	}
	return ratio.Figure{
		Name: name, What: fmt.Sprintf("append to visible row, median, %s, over the %g ms allowed", where, allowed), Unit: "ms", Bar: 1, AtMost: true,
		Measure: func(ctx context.Context, rounds ratio.Rounds) (err error) {
			if err := b.need(ctx, name, 2); err != nil {
				return err
			}
			t := b.tenants[1]
			if across {
				err = b.served(ctx, name)
			} else {
				err = b.rested()
			}
			if err != nil {
				return err
			}
			if !across {
				p, err := b.project(ctx, b.tenants[:2])
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, p.stop()) }()
			}
			conn, err := pgx.Connect(ctx, b.site.DSN(t.Database))
			if err != nil {
				return err
			}
			defer conn.Close(context.WithoutCancel(ctx))
			if _, err := b.untilVisible(ctx, conn, t); err != nil { // the consumers are loaded after this
				return err
			}
			return rounds(func(ctx context.Context) (ours, theirs float64, err error) {
				times := make([]time.Duration, b.latencies)
				for i := range times {
					if times[i], err = b.untilVisible(ctx, conn, t); err != nil {
						return 0, 0, err
					}
					if err := site.Pass(ctx, 20*time.Millisecond); err != nil {
						return 0, 0, err
					}
				}
				return milliseconds(ratio.Median(times)), allowed, nil
			})
		},
	}
}

// untilVisible appends an upload and looks for its row until it is there.
func (b *bench) untilVisible(ctx context.Context, conn *pgx.Conn, t site.Tenant) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, visibleTimeout)
	defer cancel()
	schema, err := site.LiveSchema(ctx, conn)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	u, err := b.platform.Upload(ctx, t)
	if err != nil {
		return 0, err
	}
	for {
		var there bool
		err := conn.QueryRow(ctx, `select exists (select from `+schema+`.documents where id = $1)`, u.Document).Scan(&there)
		if err != nil {
			return 0, fmt.Errorf("look for the row: %w", err)
		}
		if there {
			return time.Since(begun), nil
		}
		if err := site.Pass(ctx, lookEvery); err != nil {
			return 0, fmt.Errorf("the row does not come: %w", err)
		}
	}
}
