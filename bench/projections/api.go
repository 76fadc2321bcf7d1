package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/factum-platform/factum/bench/ratio"
	"github.com/factum-platform/factum/bench/site"
)

const (
	// zipfExponent is how much of the traffic the busiest tenants have.
	zipfExponent = 1.1
	// allowedConns is how many connections a thousand tenants may need.
	allowedConns = 200
	// sampleEvery is the time between two looks at the connections.
	sampleEvery = 50 * time.Millisecond
)

// order draws, for each request, which tenant it goes to. It is seeded: every round draws the same.
type order func(tenants int) func() int

// zipf lets the k-th busiest tenant have a share that falls with k to the power of 1.1.
func zipf(tenants int) func() int {
	source := rand.New(rand.NewPCG(1, 2))
	ranks := rand.NewZipf(source, zipfExponent, 1, uint64(tenants-1))
	return func() int { return int(ranks.Uint64()) }
}

// uniform lets all tenants have the same share.
func uniform(tenants int) func() int {
	source := rand.New(rand.NewPCG(3, 4))
	return func() int { return source.IntN(tenants) }
}

// one sends everything to one tenant.
func one(int) func() int { return func() int { return 0 } }

// traffic is a mix of requests: of 20, one uploads a small text, one deletes the oldest that was uploaded, the others list documents.
type traffic struct {
	b        *bench
	client   *site.Client
	mu       sync.Mutex
	uploaded []site.Document
	number   atomic.Int64
}

func (b *bench) newTraffic() *traffic { return &traffic{b: b, client: b.platform.NewClient(b.serving)} }

// request sends the n-th request of a load to a tenant.
func (t *traffic) request(ctx context.Context, n int, to site.Tenant) error {
	switch n % 20 {
	case 7:
		d, _, err := t.client.Upload(ctx, to, "measurement "+strconv.FormatInt(t.number.Add(1), 10))
		if err != nil {
			return err
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.uploaded = append(t.uploaded, d)
		return nil
	case 17:
		t.mu.Lock()
		i := slices.IndexFunc(t.uploaded, func(d site.Document) bool { return d.Tenant == to })
		if i < 0 && len(t.uploaded) > 0 {
			i = 0
		}
		if i >= 0 {
			d := t.uploaded[i]
			t.uploaded = slices.Delete(t.uploaded, i, i+1)
			t.mu.Unlock()
			_, err := t.client.Delete(ctx, d)
			return err
		}
		t.mu.Unlock()
	}
	_, err := t.client.Get(ctx, site.DocumentsPath(to), 0)
	return err
}

// median sends requests for a window and returns the median time of those after the warm-up, in ms.
func (t *traffic) median(ctx context.Context, to order) (float64, error) {
	draw := to(len(t.b.tenants))
	var times site.Times
	begun := time.Now()
	warm := begun.Add(t.b.window / 3)
	window, end := context.WithTimeout(ctx, t.b.window*4/3)
	defer end()
	targets := make([]site.Tenant, int(t.b.rate*(t.b.window*4/3).Seconds())+1)
	for i := range targets {
		targets[i] = t.b.tenants[draw()]
	}
	err := site.Load(ctx, window, t.b.rate, func(ctx context.Context, n int) error {
		sent := time.Now()
		if err := t.request(ctx, n, targets[n%len(targets)]); err != nil {
			return err
		}
		if sent.After(warm) {
			times.Add(time.Since(sent))
		}
		return nil
	})
	all := times.All()
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("no request was answered within %v", t.b.window)
	}
	if err != nil {
		return 0, err
	}
	median := milliseconds(ratio.Median(all))
	t.b.Say("traffic", "%d requests: a quarter within %.1f ms, half %.1f, three quarters %.1f, 99 of 100 %.1f", len(all),
		milliseconds(ratio.Percentile(all, 0.25)), median, milliseconds(ratio.Percentile(all, 0.75)), milliseconds(ratio.Percentile(all, 0.99)))
	return median, nil
}

// apiBesideOne sets the median of the API under traffic on all tenants against that under the same traffic on one of them.
func (b *bench) apiBesideOne(name string, to order, bar float64) ratio.Figure {
	what := map[string]string{"api": fmt.Sprintf("Zipf (s = %g) traffic", zipfExponent), "uniform": "uniform traffic"}[name]
	return ratio.Figure{
		Name: name, What: fmt.Sprintf("API median, %s on %s tenants, beside one tenant", what, ratio.Whole(b.options.tenants)), Unit: "ms", Bar: bar, AtMost: true,
		Measure: func(ctx context.Context, rounds ratio.Rounds) error {
			if err := b.served(ctx, name); err != nil {
				return err
			}
			t := b.newTraffic()
			defer t.client.Close()
			if _, err := t.median(ctx, one); err != nil { // connections are open and statements prepared after this
				return err
			}
			return rounds(func(ctx context.Context) (ours, theirs float64, err error) {
				if theirs, err = t.median(ctx, one); err != nil {
					return 0, 0, err
				}
				ours, err = t.median(ctx, to)
				return ours, theirs, err
			})
		},
	}
}

// connections counts the connections of factum serve to PostgreSQL while there is traffic on all tenants.
func (b *bench) connections() ratio.Figure {
	return ratio.Figure{
		Name: "conns", What: fmt.Sprintf("connections, Zipf traffic on %s tenants, over the %d allowed", ratio.Whole(b.options.tenants), allowedConns),
		Unit: "connections", Bar: 1, AtMost: true,
		Measure: func(ctx context.Context, rounds ratio.Rounds) error {
			if err := b.served(ctx, "conns"); err != nil {
				return err
			}
			t := b.newTraffic()
			defer t.client.Close()
			return rounds(func(ctx context.Context) (ours, theirs float64, err error) {
				most, err := b.mostConns(ctx, func(ctx context.Context) error {
					if err := b.touchAll(ctx, t.client); err != nil {
						return err
					}
					_, err := t.median(ctx, zipf)
					return err
				})
				return float64(most), allowedConns, err
			})
		},
	}
}

// touchAll asks every tenant once, so that Zipf's last ones have traffic too.
func (b *bench) touchAll(ctx context.Context, c *site.Client) error {
	window, end := context.WithCancel(ctx)
	defer end()
	return site.Load(ctx, window, 2*b.rate, func(ctx context.Context, n int) error {
		if n >= len(b.tenants) {
			end()
			return nil
		}
		_, err := c.Get(ctx, site.DocumentsPath(b.tenants[n]), 0)
		return err
	})
}

// mostConns looks again and again how many connections the server has while do runs, without those of this process that it knows.
func (b *bench) mostConns(ctx context.Context, do func(context.Context) error) (most int, err error) {
	all, ctx := errgroup.WithContext(ctx)
	done := make(chan struct{})
	all.Go(func() error {
		defer close(done)
		return do(ctx)
	})
	all.Go(func() error {
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		for {
			var n int
			if err := b.site.Admin().QueryRow(ctx, `select count(*) from pg_stat_activity where backend_type = 'client backend'`).Scan(&n); err != nil {
				return fmt.Errorf("count the connections: %w", err)
			}
			most = max(most, n-int(b.site.Admin().Stat().TotalConns())-int(b.platform.Pool.Stat().TotalConns()))
			select {
			case <-tick.C:
			case <-done:
				return nil
			}
		}
	})
	err = all.Wait()
	return most, err
}
