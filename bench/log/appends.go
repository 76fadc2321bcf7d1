package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/bench/ratio"
)

// besidePgbench sets single-event appends against pgbench, which inserts the same row into one table with one index.
func (s *server) besidePgbench(name string, writers, tenants int, bar float64) ratio.Figure {
	return ratio.Figure{
		Name: name, What: fmt.Sprintf("%d writers on %s beside pgbench", writers, plural(tenants, "tenant")), Unit: "appends/s", Bar: bar,
		Measure: func(ctx context.Context, rounds ratio.Rounds) (err error) {
			l, err := s.openLogs(ctx, tenants)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, l.close()) }()
			all, err := s.ready(ctx, l, writers)
			if err != nil {
				return err
			}
			return rounds(func(ctx context.Context) (ours, theirs float64, err error) {
				if theirs, err = s.pgbench(ctx, bare, insertScript, eventVariables(), ""); err != nil {
					return 0, 0, err
				}
				ours, err = s.appendsPerSecond(ctx, all, nil)
				return ours, theirs, err
			})
		},
	}
}

// ready makes writers, and a checkpoint so that every figure begins alike.
func (s *server) ready(ctx context.Context, l *logs, writers int) ([]*writer, error) {
	if err := s.checkpoint(ctx); err != nil {
		return nil, err
	}
	return l.newWriters(ctx, writers)
}

func plural(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}

// batchEvents is how many events one append has in batchBesideCopy.
const batchEvents = 100

// batchBesideCopy sets appends of 100 events against COPY of 100 rows into a table with the same columns and indexes, one client each.
func (s *server) batchBesideCopy() ratio.Figure {
	return ratio.Figure{
		Name: "batch", What: fmt.Sprintf("appends of %d events beside COPY, one client", batchEvents), Unit: "events/s", Bar: 0.5,
		Measure: func(ctx context.Context, rounds ratio.Rounds) (err error) {
			l, err := s.openLogs(ctx, 1)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, l.close()) }()
			writers, err := s.ready(ctx, l, 1)
			if err != nil {
				return err
			}
			w, c := writers[0], newCopier(s)
			if err := c.copyBatch(ctx); err != nil {
				return err
			}
			return rounds(func(ctx context.Context) (ours, theirs float64, err error) {
				if theirs, err = s.perSecond(ctx, c.copyBatch); err != nil {
					return 0, 0, err
				}
				ours, err = s.perSecond(ctx, func(ctx context.Context) error { return w.append(ctx, batchEvents) })
				return ours * batchEvents, theirs * batchEvents, err
			})
		},
	}
}

// perSecond calls do again and again for half a window and returns how often it could in a second.
func (s *server) perSecond(ctx context.Context, do func(context.Context) error) (float64, error) {
	begun := time.Now()
	for n := 1; ; n++ {
		if err := do(ctx); err != nil {
			return 0, err
		}
		if took := time.Since(begun); took > s.window/2 {
			return float64(n) / took.Seconds(), nil
		}
	}
}

// copier writes rows like events into the table "same".
type copier struct {
	s       *server
	w       *writer // draws ids
	meta    []byte
	stream  string
	version int64
	pos     int64
	rows    [][]any
}

func newCopier(s *server) *copier {
	c := &copier{s: s, w: newWriter(nil), meta: metaOf(sampleEvent().Meta), rows: make([][]any, batchEvents)}
	for i := range c.rows {
		c.rows[i] = make([]any, 9)
	}
	return c
}

// copyBatch copies a batch, in a transaction of its own. Each stream gets as many rows as one of the log.
func (c *copier) copyBatch(ctx context.Context) error {
	if c.version%(perStream*batchEvents) == 0 {
		c.stream, c.version = c.w.id().String(), 0
	}
	for _, row := range c.rows {
		c.pos++
		c.version++
		copy(row, []any{c.pos, kind, c.stream, c.version, [16]byte(c.w.id()), eventType, int32(1), payload, c.meta})
	}
	_, err := c.s.bare.CopyFrom(ctx, pgx.Identifier{"same"},
		[]string{"pos", "kind", "id", "version", "event_id", "type", "schema", "data", "meta"}, pgx.CopyFromRows(c.rows))
	return err
}

// loneBesideInsert sets the median latency of a lone writer's append against that of one INSERT … RETURNING of the same row. The two
// take turns in short blocks.
func (s *server) loneBesideInsert() ratio.Figure {
	return ratio.Figure{
		Name: "lone", What: "a lone writer's p50 beside one INSERT … RETURNING", Unit: "µs", Bar: 1.8, AtMost: true,
		Measure: func(ctx context.Context, rounds ratio.Rounds) (err error) {
			l, err := s.openLogs(ctx, 1)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, l.close()) }()
			writers, err := s.ready(ctx, l, 1)
			if err != nil {
				return err
			}
			w, meta := writers[0], metaOf(sampleEvent().Meta)
			stream, version := w.id().String(), int64(0)
			insert := func(ctx context.Context) error {
				version++
				var pos int64
				return s.bare.QueryRow(ctx, `insert into one (kind, id, version, event_id, type, schema, data, meta)
					values ($1, $2, $3, $4, $5, $6, $7, $8) returning pos`, kind, stream, version, [16]byte(w.id()), eventType, int32(1), payload, meta).Scan(&pos)
			}
			appendOne := func(ctx context.Context) error { return w.append(ctx, 1) }
			if _, _, err := s.medians(ctx, appendOne, insert); err != nil { // statements are prepared and caches are warm after this
				return err
			}
			return rounds(func(ctx context.Context) (ours, theirs float64, err error) { return s.medians(ctx, appendOne, insert) })
		},
	}
}

// block is how many calls of one side medians makes before it turns to the other.
const block = 20

// medians calls both in turns and returns their median latencies in µs.
func (s *server) medians(ctx context.Context, a, b func(context.Context) error) (ofA, ofB float64, err error) {
	var times [2][]time.Duration
	for len(times[1]) < s.latencies {
		for side, do := range []func(context.Context) error{a, b} {
			for range block {
				begun := time.Now()
				if err := do(ctx); err != nil {
					return 0, 0, err
				}
				times[side] = append(times[side], time.Since(begun))
			}
		}
	}
	return float64(ratio.Median(times[0])) / 1000, float64(ratio.Median(times[1])) / 1000, nil
}
