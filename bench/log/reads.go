package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/factum-platform/factum/bench/ratio"
	"github.com/factum-platform/factum/eventstore"
)

// replayBesideScan sets what a projection does when it is computed again, Follow from the beginning until live, against one query
// that pgx scans into the same Go values.
func (s *server) replayBesideScan() ratio.Figure {
	return ratio.Figure{
		Name: "replay", What: fmt.Sprintf("replay of %s events beside a bare scan of the rows", ratio.Whole(s.replay)), Unit: "events/s", Bar: 0.8,
		Measure: func(ctx context.Context, rounds ratio.Rounds) (err error) {
			l, err := s.openLogs(ctx, 1)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, l.close()) }()
			if err := s.fill(ctx, "replay", l, 0, s.replay); err != nil {
				return err
			}
			both := func(ctx context.Context) (ours, theirs float64, err error) {
				var rates [2]float64
				for side, read := range []func(context.Context, int) error{l.scan, l.follow} {
					runtime.GC() // neither pays for the other's garbage
					begun := time.Now()
					if err := read(ctx, s.replay); err != nil {
						return 0, 0, err
					}
					rates[side] = float64(s.replay) / time.Since(begun).Seconds()
				}
				return rates[1], rates[0], nil
			}
			if _, _, err := both(ctx); err != nil { // reads what the fill left to be read into memory
				return err
			}
			return rounds(both)
		},
	}
}

// scan reads the first tenant's rows without the engine.
func (l *logs) scan(ctx context.Context, events int) error {
	tenant := l.names[0]
	rows, err := l.pools[string(tenant)].Query(ctx,
		`select pos, kind, id, version, event_id, type, schema, data, meta, recorded_at from es.events order by pos`)
	if err != nil {
		return fmt.Errorf("scan the rows: %w", err)
	}
	n := 0
	rec := eventstore.Recorded{Tenant: tenant}
	_, err = pgx.ForEachRow(rows, []any{
		&rec.Position, &rec.Stream.Kind, &rec.Stream.ID, &rec.Version, &rec.ID, &rec.Type, &rec.Schema, &rec.Data, &rec.Meta, &rec.Recorded,
	}, func() error {
		n++
		if rec.Position != eventstore.Position(n) || rec.Meta.Command != rec.ID.String() {
			return fmt.Errorf("row %d is not what was appended: position %d, command %q", n, rec.Position, rec.Meta.Command)
		}
		rec.Meta = eventstore.Meta{}
		return nil
	})
	if err == nil && n != events {
		err = fmt.Errorf("there are %d of %d", n, events)
	}
	if err != nil {
		return fmt.Errorf("scan the rows: %w", err)
	}
	return nil
}

// follow reads the first tenant's log until it is live.
func (l *logs) follow(ctx context.Context, events int) error {
	n := 0
	for batch, err := range l.store.Tenant(l.names[0]).Follow(ctx, 0) {
		if err != nil {
			return fmt.Errorf("follow the log: %w", err)
		}
		for _, rec := range batch.Events {
			n++
			if rec.Position != eventstore.Position(n) || rec.Meta.Command != rec.ID.String() {
				return fmt.Errorf("event %d is not what was appended: position %d, command %q", n, rec.Position, rec.Meta.Command)
			}
		}
		if batch.Live {
			break
		}
	}
	if n != events {
		return fmt.Errorf("follow the log: it was live after %d of %d events", n, events)
	}
	return nil
}

// largeBesideSmall sets a lone writer's median latency on a large log against that on a small one. The two take turns in short blocks.
func (s *server) largeBesideSmall() ratio.Figure {
	return ratio.Figure{
		Name: "size", What: fmt.Sprintf("a lone writer's p50 at %s events beside that at %s", ratio.Whole(s.large), ratio.Whole(s.small)), Unit: "µs", Bar: 1.2, AtMost: true,
		Measure: func(ctx context.Context, rounds ratio.Rounds) (err error) {
			l, err := s.openLogs(ctx, 2)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, l.close()) }()
			for i, events := range []int{s.small, s.large} {
				if err := s.fill(ctx, "size", l, i, events); err != nil {
					return err
				}
			}
			w, err := l.newWriters(ctx, 2)
			if err != nil {
				return err
			}
			small := func(ctx context.Context) error { return w[0].append(ctx, 1) }
			large := func(ctx context.Context) error { return w[1].append(ctx, 1) }
			return rounds(func(ctx context.Context) (ours, theirs float64, err error) { return s.medians(ctx, large, small) })
		},
	}
}

// fill appends so many events, 10 to a stream, to the log of the i-th tenant, and leaves it vacuumed and with a checkpoint behind it.
func (s *server) fill(ctx context.Context, figure string, l *logs, i, events int) error {
	tenant := l.names[i]
	s.say(figure, "filling a log with %s events", ratio.Whole(events))
	const streams, perAppend = 50, 500
	if events%perAppend != 0 {
		return fmt.Errorf("fill: %d events are no multiple of %d", events, perAppend)
	}
	// Several fillers, because one would wait for the server and the server for it.
	const fillers = 3
	each := events / perAppend
	turns := make(chan struct{}, each)
	for range each {
		turns <- struct{}{}
	}
	close(turns)
	all, filling := errgroup.WithContext(ctx)
	for range fillers {
		w := newWriter(l.store.Tenant(tenant))
		all.Go(func() error {
			for range turns {
				writes := make([]eventstore.Write, streams)
				for i := range writes {
					writes[i] = eventstore.Write{Stream: eventstore.StreamID{Kind: kind, ID: w.id().String()}, Expected: eventstore.NoStream()}
					for range perAppend / streams {
						writes[i].Events = append(writes[i].Events, proposed(w.id()))
					}
				}
				if _, err := w.log.Append(filling, writes...); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		return fmt.Errorf("fill the log of %s: %w", tenant, err)
	}
	head, err := l.store.Tenant(tenant).Head(ctx)
	if err == nil && head != eventstore.Position(events) {
		err = fmt.Errorf("it ends at position %d and not %d", head, events)
	}
	if err != nil {
		return fmt.Errorf("fill the log of %s: %w", tenant, err)
	}
	// Else autovacuum would begin to do it in the middle of the rounds.
	conn, err := pgx.Connect(ctx, s.dsn(string(tenant), ""))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "vacuum (analyze)"); err != nil {
		return fmt.Errorf("vacuum the log of %s: %w", tenant, err)
	}
	return s.checkpoint(ctx)
}
