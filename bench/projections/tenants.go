package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/bench/ratio"
	"github.com/factum-platform/factum/bench/site"
)

const (
	// firstEvents are in every tenant's log before anything is measured: 20 documents, so that lists are of one length.
	firstEvents = 60
	// servedTimeout bounds the wait until a process serves every tenant.
	servedTimeout = 5 * time.Minute
)

// create sets the making of a tenant's database, by what the API calls, against a bare CREATE DATABASE from the same template. All tenants of
// the later figures are made here; the pairs are spread over them.
func (b *bench) create() ratio.Figure {
	return ratio.Figure{
		Name: "create", What: fmt.Sprintf("making %s tenants' databases beside bare CREATE DATABASE", ratio.Whole(b.options.tenants)), Unit: "ms", Bar: 1.5, AtMost: true,
		Measure: func(ctx context.Context, rounds ratio.Rounds) error {
			if err := b.site.Checkpoint(ctx); err != nil {
				return err
			}
			each := max(1, b.options.tenants/b.Rounds)
			return rounds(func(ctx context.Context) (ours, theirs float64, err error) {
				if err := b.need(ctx, "create", len(b.tenants)+max(0, each-b.pairs)); err != nil {
					return 0, 0, err
				}
				var times [2][]time.Duration
				for range b.pairs {
					bare, err := b.bareDatabase(ctx)
					if err != nil {
						return 0, 0, err
					}
					if err := b.need(ctx, "create", len(b.tenants)+1); err != nil {
						return 0, 0, err
					}
					times[0], times[1] = append(times[0], b.timed), append(times[1], bare)
				}
				return milliseconds(ratio.Median(times[0])), milliseconds(ratio.Median(times[1])), nil
			})
		},
	}
}

// bareDatabase times one CREATE DATABASE. The database stays: DROP DATABASE would make a checkpoint.
func (b *bench) bareDatabase(ctx context.Context) (time.Duration, error) {
	b.bare++
	begun := time.Now()
	if _, err := b.site.Admin().Exec(ctx, fmt.Sprintf("create database bare_%d template %s", b.bare, site.Template)); err != nil {
		return 0, fmt.Errorf("create a bare database: %w", err)
	}
	return time.Since(begun), nil
}

// need makes tenants until there are n, each with some documents.
func (b *bench) need(ctx context.Context, figure string, n int) error {
	for told := time.Now(); len(b.tenants) < n; {
		t, err := b.platform.NewTenant(ctx, fmt.Sprintf("Plant %d", len(b.tenants)+1))
		if err != nil {
			return err
		}
		if _, err := b.platform.Fill(ctx, t, firstEvents, nil, nil); err != nil {
			return err
		}
		b.tenants = append(b.tenants, t)
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			b.Say(figure, "%d of %d tenants", len(b.tenants), n)
		}
	}
	return nil
}

// served starts factum serve with all roles over all tenants, unless it runs, and waits until it has met each of them.
func (b *bench) served(ctx context.Context, figure string) error {
	if err := b.need(ctx, figure, b.options.tenants); err != nil || b.serving != nil {
		return err
	}
	if err := b.open(ctx); err != nil { // without connections to tenants' databases from here
		return err
	}
	b.Say(figure, "starting factum serve and waiting until it has met %d tenants", len(b.tenants))
	var err error
	if b.serving, err = b.site.Serve(ctx); err != nil {
		return err
	}
	c := b.platform.NewClient(b.serving)
	defer c.Close()
	bounded, cancel := context.WithTimeout(ctx, servedTimeout)
	defer cancel()
	all, meeting := errgroup.WithContext(bounded)
	all.SetLimit(4)
	for _, t := range b.tenants {
		all.Go(func() error {
			for {
				_, err := c.Get(meeting, site.DocumentsPath(t), firstEvents)
				var status *site.StatusError
				if err == nil || meeting.Err() != nil || !errors.As(err, &status) {
					return err
				}
				if err := site.Pass(meeting, 100*time.Millisecond); err != nil {
					return fmt.Errorf("tenant %s is not served: %w", t.ID, status)
				}
			}
		})
	}
	if err := all.Wait(); err != nil {
		return err
	}
	return b.site.Checkpoint(ctx)
}

// rested stops factum serve, if it runs.
func (b *bench) rested() error {
	if b.serving == nil {
		return nil
	}
	err := b.serving.Stop()
	b.serving = nil
	return err
}

// rest is what was used in a window without requests.
type rest struct{ serving, postgres, window time.Duration }

// idleCPU measures the processor time of a process that serves and projects for all tenants, while nobody asks anything.
func (b *bench) idleCPU() ratio.Figure {
	return ratio.Figure{
		Name: "idle", What: fmt.Sprintf("CPU of factum serve, %s tenants at rest", ratio.Whole(b.options.tenants)), Unit: "s", Bar: 0.02, AtMost: true, Percent: true,
		Measure: func(ctx context.Context, rounds ratio.Rounds) error {
			if err := b.atRest(ctx, "idle"); err != nil {
				return err
			}
			return rounds(func(ctx context.Context) (ours, theirs float64, err error) {
				r, err := b.measureRest(ctx)
				b.rests = append(b.rests, r)
				return r.serving.Seconds(), r.window.Seconds(), err
			})
		},
	}
}

// idlePostgres is what the server used meanwhile.
func (b *bench) idlePostgres() ratio.Figure {
	return ratio.Figure{
		Name: "idlepg", What: "CPU of PostgreSQL meanwhile, its autovacuum included", Unit: "s", AtMost: true, Percent: true,
		Measure: func(ctx context.Context, rounds ratio.Rounds) error {
			if len(b.rests) == 0 {
				if err := b.atRest(ctx, "idlepg"); err != nil {
					return err
				}
			}
			return rounds(func(ctx context.Context) (ours, theirs float64, err error) {
				if len(b.rests) == 0 {
					r, err := b.measureRest(ctx)
					return r.postgres.Seconds(), r.window.Seconds(), err
				}
				r := b.rests[0]
				b.rests = append(b.rests[1:], r)
				return r.postgres.Seconds(), r.window.Seconds(), nil
			})
		},
	}
}

func (b *bench) measureRest(ctx context.Context) (r rest, err error) {
	var before, after rest
	begun := time.Now()
	for i, at := range []*rest{&before, &after} {
		if i == 1 {
			if err := site.Pass(ctx, b.idle); err != nil {
				return r, err
			}
			r.window = time.Since(begun)
		}
		if at.serving, err = site.CPU(b.serving.PID); err != nil {
			return r, err
		}
		if at.postgres, err = b.site.PostgresCPU(); err != nil {
			return r, err
		}
	}
	r.serving, r.postgres = after.serving-before.serving, after.postgres-before.postgres
	return r, nil
}

// atRest waits until no tenant has news: what was appended is applied, and the marks of that are gone.
func (b *bench) atRest(ctx context.Context, figure string) error {
	if err := b.served(ctx, figure); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, b.site.DSN("factum"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	begun := time.Now()
	for told := begun; ; {
		var marked int
		if err := conn.QueryRow(ctx, `select count(*) from placement.activity`).Scan(&marked); err != nil {
			return fmt.Errorf("count the tenants that may have news: %w", err)
		}
		waited := time.Since(begun)
		if marked == 0 || waited > b.rest {
			b.facts = append(b.facts, ratio.Fact{Name: "rest", Value: fmt.Sprintf("idle is measured %d s after the last append, with %d of %d tenants still marked as having news",
				int(waited.Seconds()), marked, len(b.tenants))})
			return nil
		}
		if time.Since(told) > 20*time.Second {
			told = time.Now()
			b.Say(figure, "waiting for rest: %d of %d tenants are still looked after", marked, len(b.tenants))
		}
		if err := site.Pass(ctx, time.Second); err != nil {
			return err
		}
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
