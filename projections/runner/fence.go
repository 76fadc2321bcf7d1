package runner

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/factum-platform/factum/eventstore"
)

const (
	// fenceTime bounds how long the live writer is kept waiting while the new generation makes up for what the live one has applied since.
	fenceTime = 250 * time.Millisecond
	// fenceTries is how often that is tried before a rebuild gives up: each time there is less to make up for.
	fenceTries = 20
	// aheadFor is how long a live generation is waited for that is behind one which an earlier call has built.
	aheadFor = 10 * time.Second
)

// errTooFar says that the live generation moved too far meanwhile; nothing was changed.
var errTooFar = errors.New("the live generation is written faster than the new one can follow")

// toLive is how far each log must be fed to be where the live generation is. Logs that it has not begun are left for later, so that the two
// can be compared.
func (b *building) toLive(ctx context.Context) (map[eventstore.TenantID]eventstore.Position, error) {
	if b.live == 0 {
		return b.toHead(ctx)
	}
	marks, err := b.marks(ctx)
	if err != nil {
		return nil, err
	}
	targets := map[eventstore.TenantID]eventstore.Position{}
	for t, m := range marks {
		targets[t] = m.position
	}
	return targets, b.consume(ctx, slices.Collect(maps.Keys(marks))...)
}

// toHead is how far the logs go.
func (b *building) toHead(ctx context.Context) (map[eventstore.TenantID]eventstore.Position, error) {
	if err := b.load(ctx); err != nil { // tenants that have appeared since
		return nil, err
	}
	logs := slices.Sorted(maps.Keys(b.feeds))
	heads := make([]eventstore.Position, len(logs))
	err := b.each(ctx, logs, func(ctx context.Context, i int) (err error) {
		if heads[i], err = b.o.config.Store.Tenant(logs[i]).Head(ctx); err != nil {
			return b.failed("read the head of the log of "+string(logs[i]), err)
		}
		return nil
	})
	targets := map[eventstore.TenantID]eventstore.Position{}
	for i, t := range logs {
		targets[t] = heads[i]
	}
	return targets, err
}

// catchUp feeds the logs up to the targets, several at once if that is wanted.
func (b *building) catchUp(ctx context.Context, targets func(context.Context) (map[eventstore.TenantID]eventstore.Position, error)) error {
	to, err := targets(ctx)
	if err != nil {
		return err
	}
	b.heads(to)
	logs := slices.Sorted(maps.Keys(to))
	return b.each(ctx, logs, func(ctx context.Context, i int) error { return b.feeds[logs[i]].to(ctx, to[logs[i]], time.Time{}) })
}

// each calls fn for each log, for as many at once as are wanted, until the first error.
func (b *building) each(ctx context.Context, logs []eventstore.TenantID, fn func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(1, b.opt.Parallel))
	for i := range logs {
		group.Go(func() error { return fn(ctx, i) })
	}
	return group.Wait()
}

// fence stops the writers of the live generation, brings the new one exactly as far, and calls fn in the transaction that stops them: for
// milliseconds in all. Readers are not concerned. fn may be called again after it has answered errTooFar.
func (b *building) fence(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx, marks map[eventstore.TenantID]checkpoint) error) error {
	for range fenceTries {
		err := b.fenceOnce(ctx, fn)
		var pg *pgconn.PgError
		locked := errors.As(err, &pg) && pg.Code == "55P03" // the writer's own transaction takes long
		if err != nil && !locked && !errors.Is(err, errTooFar) {
			return b.failed("stop the live writer for a moment", err)
		}
		if err == nil {
			return nil
		}
		if err := b.catchUp(ctx, b.toLive); err != nil {
			return err
		}
	}
	return b.failed("stop the live writer for a moment", errTooFar)
}

func (b *building) fenceOnce(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx, marks map[eventstore.TenantID]checkpoint) error) error {
	var stopped time.Time
	err := b.turn(ctx, func(tx pgx.Tx) error {
		marks, err := b.marksOf(ctx, tx, "for update")
		if err != nil {
			return err
		}
		stopped = time.Now()
		if err := b.consume(ctx, slices.Collect(maps.Keys(marks))...); err != nil {
			return err
		}
		b.vacant = nil
		for _, t := range slices.Sorted(maps.Keys(marks)) {
			f, m := b.feeds[t], marks[t]
			if err := f.to(ctx, m.position, stopped.Add(fenceTime)); err != nil {
				return err
			}
			if f.at.position < m.position || f.at.position == m.position && f.at.last != m.last {
				b.vacant = append(b.vacant, t)
			}
		}
		return fn(ctx, tx, marks)
	})
	if !stopped.IsZero() {
		b.fenced = max(b.fenced, time.Since(stopped))
	}
	return err
}

// promote makes the generation the live one.
func (b *building) promote(ctx context.Context) error {
	b.stage("promoting")
	err := b.fence(ctx, func(ctx context.Context, tx pgx.Tx, _ map[eventstore.TenantID]checkpoint) error {
		if err := b.lost(); err != nil {
			return err
		}
		live := b.live
		if err := b.pointer(ctx, tx); err != nil {
			return err
		}
		if live != b.live {
			b.live = live
			return b.failed("promote "+b.schema(b.fresh), errMovedAway)
		}
		if live == 0 {
			return b.first(ctx, tx)
		}
		for _, t := range b.vacant { // what the live generation has applied there is no fact any more
			_, err := tx.Exec(ctx, `update proj.checkpoint set position = 0, last_event = null where projection = $1 and generation = $2 and tenant = $3`,
				b.p.Name, live, string(t))
			if err != nil {
				return err
			}
		}
		var epoch *int64
		if err := tx.QueryRow(ctx, `select proj.promote($1, $2)`, b.p.Name, b.fresh).Scan(&epoch); err != nil {
			return err
		}
		if epoch == nil {
			return errTooFar
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w; the live generation was not changed", err)
	}
	b.o.touch(ctx, b.home)
	b.o.config.Logger.Info("projection promoted a generation", "projection", b.p.Name, "tenant", b.home, "generation", b.fresh, "previous", b.live)
	return nil
}

// first makes the generation the live one of a database that has none.
func (b *building) first(ctx context.Context, tx pgx.Tx) error {
	tag, err := tx.Exec(ctx, `update proj.checkpoint set state = 'live' where projection = $1 and generation = $2 and state = 'building'`, b.p.Name, b.fresh)
	if err == nil && tag.RowsAffected() == 0 {
		err = errMovedAway
	}
	if err == nil {
		_, err = tx.Exec(ctx, `insert into proj.live (projection, generation, version) values ($1, $2, $3)`, b.p.Name, b.fresh, b.p.Version)
	}
	return err
}

// lost refuses a promotion after which facts would be gone that the live generation shows, unless that is accepted.
func (b *building) lost() error {
	if len(b.vacant) == 0 || b.opt.AcceptDifferences {
		return nil
	}
	var logs []string
	for _, t := range b.vacant {
		logs = append(logs, string(t))
	}
	b.compared.Skipped = "the live generation stands on an event that the log of " + strings.Join(logs, ", ") +
		" does not hold: the log was restored from an older backup than its read models"
	return b.differs()
}
