package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/factum-platform/factum/bench/site"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/readmodel"
)

const (
	projectors = 4
	// settleLimit bounds the wait, after the last kill, until everything is applied and every file is stamped.
	settleLimit = 5 * time.Minute
)

// projectors lets processes that only project be killed again and again, under uploads to several tenants, and compares afterwards.
func (s *soak) projectors(ctx context.Context) (err error) {
	tenants := make([]site.Tenant, s.tenants)
	for i := range tenants {
		if tenants[i], err = s.platform.NewTenant(ctx, fmt.Sprintf("Plant %d", i+1)); err != nil {
			return err
		}
	}
	serving, err := s.site.Serve(ctx, "--roles", "api,worker")
	if err != nil {
		return err
	}
	stopped := false
	defer func() {
		if !stopped {
			err = errors.Join(err, serving.Stop())
		}
	}()
	k := &killers{s: s, random: rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))}
	w := &writers{client: s.platform.NewClient(serving), tenants: tenants}
	defer w.client.Close()
	s.say("kill", "%d projectors are killed at random for %v, under %g uploads per second to %d tenants", projectors, s.during, s.rate, len(tenants))
	window, end := context.WithTimeout(ctx, s.during)
	defer end()
	all, running := errgroup.WithContext(ctx)
	survivors := make([]*site.Process, projectors)
	for i := range survivors {
		all.Go(func() (err error) {
			survivors[i], err = k.lives(running, window)
			return err
		})
	}
	defer func() {
		for _, p := range survivors {
			if p != nil {
				p.Kill()
			}
		}
	}()
	all.Go(func() error {
		// The projectors are started one after the other at first; until one runs, nobody knows the tenants.
		if err := s.await(running, "kill", settleLimit, func(ctx context.Context) (string, error) { return s.unmet(ctx, tenants) }); err != nil {
			return err
		}
		return site.Load(running, window, s.rate, w.request)
	})
	if err := all.Wait(); err != nil {
		return err
	}
	s.say("settle", "%d kills, %d uploads; waiting until everything is applied and every file has its time-stamp", k.kills.Load(), w.uploads.Load())
	if err := s.await(ctx, "settle", settleLimit, func(ctx context.Context) (string, error) { return s.unsettled(ctx, tenants) }); err != nil {
		return err
	}
	for i, p := range survivors {
		survivors[i] = nil
		if err := p.Stop(); err != nil {
			return err
		}
	}
	stopped = true
	if err := serving.Stop(); err != nil {
		return err
	}
	s.say("compare", "computing every read model again from the logs")
	c, err := s.compare(ctx, tenants)
	if err != nil {
		return err
	}
	s.found("kills of projectors", "%d", k.kills.Load())
	s.found("uploads", "%d, of them %d not visible within 2 s, %d refused", w.uploads.Load(), w.pending.Load(), w.failures.count)
	s.found("events", "%d in %d logs", c.events, len(tenants)+1)
	s.found("compared", "%d tables with %d rows", c.tables, c.rows)
	s.found("files", "%d, each stamped exactly once but for %d", c.files, c.stamps.count)
	s.found("differences", "%s", &c.differences)
	switch {
	case c.differences.count > 0 || c.stamps.count > 0:
		return errors.New("what was applied under the kills is not what the logs say")
	case w.failures.count > 0:
		return fmt.Errorf("uploads were refused: %s", &w.failures)
	}
	return nil
}

// killers kill projectors.
type killers struct {
	s      *soak
	kills  atomic.Int64
	mu     sync.Mutex
	random *rand.Rand
}

// lives starts a projector, kills it after a random time, starts the next, until the window ends. It answers the last one, which lives.
func (k *killers) lives(ctx, window context.Context) (*site.Process, error) {
	for {
		p, err := k.s.site.Serve(ctx, "--roles", "projector")
		if err != nil {
			return nil, err
		}
		k.mu.Lock()
		life := time.Duration(k.random.Int64N(int64(k.s.lifetime)))
		k.mu.Unlock()
		timer := time.NewTimer(life)
		select {
		case <-timer.C:
			p.Kill()
			k.kills.Add(1)
		case <-p.Ended():
			timer.Stop()
			return nil, fmt.Errorf("a projector ended by itself: %w", p.Stop())
		case <-window.Done():
			timer.Stop()
			return p, nil
		}
	}
}

// writers upload to all tenants in turn.
type writers struct {
	client  *site.Client
	tenants []site.Tenant
	uploads atomic.Int64
	pending atomic.Int64 // acknowledged, and not visible within the time that an answer waits

	mu       sync.Mutex
	failures trouble
	uploaded []site.Document
}

// request uploads, of five times once the content of another document, and deletes a document one time in ten.
func (w *writers) request(ctx context.Context, n int) error {
	t := w.tenants[n%len(w.tenants)]
	content := strconv.Itoa(n)
	if n%5 == 4 {
		content = strconv.Itoa(n - len(w.tenants))
	}
	d, a, err := w.client.Upload(ctx, t, "written under kills "+content)
	if err == nil && a.Pending != "" {
		w.pending.Add(1)
	}
	if err == nil {
		w.uploads.Add(1)
		w.mu.Lock()
		w.uploaded = append(w.uploaded, d)
		var gone *site.Document
		if n%10 == 9 {
			gone, w.uploaded = &w.uploaded[0], w.uploaded[1:]
		}
		w.mu.Unlock()
		if gone != nil {
			_, err = w.client.Delete(ctx, *gone)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.failures.add(err.Error())
	}
	return nil
}

// unmet says which tenant the directory does not show yet.
func (s *soak) unmet(ctx context.Context, tenants []site.Tenant) (string, error) {
	var met int
	_, err := readmodel.Read(ctx, s.platform.Pool, "directory", string(eventstore.PlatformTenant), 0, func(tx readmodel.Tx, schema string) error {
		return tx.QueryRow(ctx, `select count(*) from `+schema+`.tenants where provisioned`).Scan(&met)
	})
	if errors.Is(err, readmodel.ErrNotBuilt) || err == nil && met < len(tenants) {
		return fmt.Sprintf("the directory shows %d of %d tenants", met, len(tenants)), nil
	}
	return "", err
}

// unsettled says what is left to be done, "" when nothing is.
func (s *soak) unsettled(ctx context.Context, tenants []site.Tenant) (string, error) {
	behind, err := s.behind(ctx, tenants)
	if err != nil || behind != "" {
		return behind, err
	}
	var jobs int
	err = s.platform.Pool.QueryRow(ctx, `select count(*) from river.river_job where finalized_at is null and kind = 'tsa.stamp'`).Scan(&jobs)
	if err != nil {
		return "", err
	}
	if jobs > 0 {
		return fmt.Sprintf("%d files have no time-stamp", jobs), nil
	}
	return s.behind(ctx, tenants) // a job that has just ended has written an event
}
