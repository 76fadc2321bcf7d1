package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/bench/ratio"
	"github.com/factum-platform/factum/bench/site"
	"github.com/factum-platform/factum/projections/documents"
	"github.com/factum-platform/factum/projections/runner"
)

// rebuiltTables are those of the documents, and copied is the schema in which they are filled by COPY.
var rebuiltTables = []string{"files", "documents"}

const copied = "copied"

// rebuild sets building the documents of a tenant anew against COPY of the rows that it leads to into the same tables with the same indexes.
func (b *bench) rebuild() ratio.Figure {
	return ratio.Figure{
		Name: "rebuild", What: fmt.Sprintf("rebuild of documents, %s events, beside COPY of the resulting rows", ratio.Whole(b.events)), Unit: "events/s, rows/s", Bar: 0.25,
		Measure: func(ctx context.Context, rounds ratio.Rounds) (err error) {
			r, err := b.newRebuilding(ctx)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, r.apart.Close()) }()
			return rounds(func(ctx context.Context) (ours, theirs float64, err error) {
				built, err := r.build(ctx)
				if err != nil {
					return 0, 0, err
				}
				rows, took, err := r.copy(ctx)
				if err != nil {
					return 0, 0, err
				}
				r.times = append(r.times, [2]time.Duration{built, took})
				return float64(r.events) / built.Seconds(), float64(rows) / took.Seconds(), nil
			})
		},
	}
}

// rebuildTime sets the times of the same rounds against each other.
func (b *bench) rebuildTime() ratio.Figure {
	return ratio.Figure{
		Name: "rebuildtime", What: "the same as times: COPY of the rows beside the rebuild that makes them", Unit: "s",
		Measure: func(ctx context.Context, rounds ratio.Rounds) error {
			if b.rebuilt == nil {
				return &ratio.NotMeasuredError{Why: "it needs the figure rebuild"}
			}
			i := 0
			return rounds(func(context.Context) (ours, theirs float64, err error) {
				times := b.rebuilt.times[i]
				i++
				return times[1].Seconds(), times[0].Seconds(), nil
			})
		},
	}
}

// rebuilding is a tenant whose documents are built again and again.
type rebuilding struct {
	b        *bench
	apart    *site.Apart
	events   int
	operator *runner.Operator
	times    [][2]time.Duration // of building and of COPY, by round
}

// newRebuilding fills a log with what production writes.
func (b *bench) newRebuilding(ctx context.Context) (_ *rebuilding, err error) {
	if err := b.rested(); err != nil {
		return nil, err
	}
	r := &rebuilding{b: b}
	if r.apart, err = b.platform.NewApart(ctx, "rebuilt"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.apart.Close())
		}
	}()
	stamp, err := b.site.Stamp(ctx)
	if err != nil {
		return nil, err
	}
	b.Say("rebuild", "filling a log with %s events", ratio.Whole(b.events))
	begun := time.Now()
	if r.events, err = r.apart.Fill(ctx, b.events, &stamp); err != nil {
		return nil, err
	}
	b.Say("rebuild", "filled at %d events/s", int(float64(r.events)/time.Since(begun).Seconds()))
	if err := b.site.Vacuum(ctx, r.apart.Tenant.Database); err != nil {
		return nil, err
	}
	r.operator, err = runner.NewOperator(runner.Config{
		Store: r.apart.Store, Codec: b.platform.Codec, Pool: r.apart.Pool, Tenants: r.apart.Tenants,
		Projections: site.ReadModels(), Logger: slog.New(slog.DiscardHandler),
	})
	b.rebuilt = r
	return r, err
}

// build builds the next generation and returns how long that took, from the call to the promotion, without the comparison with the rows of
// the generation before: COPY compares nothing.
func (r *rebuilding) build(ctx context.Context) (time.Duration, error) {
	if err := r.b.site.Checkpoint(ctx); err != nil {
		return 0, err
	}
	var comparing time.Duration
	stage, since := "", time.Now()
	out, err := r.operator.Rebuild(ctx, "documents", r.apart.Tenant.Log, runner.RebuildOptions{Progress: func(p runner.Progress) {
		if p.Stage == stage {
			return
		}
		now := time.Now()
		if stage == "comparing" {
			comparing += now.Sub(since)
		}
		r.b.Say("rebuild", "%s after %.1f s", p.Stage, now.Sub(since).Seconds())
		stage, since = p.Stage, now
	}})
	if err != nil {
		return 0, err
	}
	if int(out.Events) < r.events || out.Resumed {
		return 0, fmt.Errorf("the rebuild has read %d of %d events", out.Events, r.events)
	}
	return out.Took - comparing, nil
}

// copy copies the rows of the live generation into empty tables and returns how many there are and how long that took.
func (r *rebuilding) copy(ctx context.Context) (rows int64, took time.Duration, err error) {
	conn, err := pgx.Connect(ctx, r.b.site.DSN(r.apart.Tenant.Database))
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	schema, err := site.LiveSchema(ctx, conn)
	if err != nil {
		return 0, 0, err
	}
	p := documents.Projection()
	if _, err := conn.Exec(ctx, `create schema `+copied+`; set search_path = `+copied+`; `+p.DDL+`; `+p.Indexes); err != nil {
		return 0, 0, fmt.Errorf("make the tables for COPY: %w", err)
	}
	files := make([]*os.File, len(rebuiltTables))
	defer func() {
		for _, f := range files {
			if f != nil {
				err = errors.Join(err, f.Close(), os.Remove(f.Name()))
			}
		}
	}()
	for i, table := range rebuiltTables {
		if files[i], err = os.CreateTemp(r.b.site.Folder(), "copy-"); err != nil {
			return 0, 0, err
		}
		if _, err := conn.PgConn().CopyTo(ctx, files[i], `copy `+schema+`.`+table+` to stdout (format binary)`); err != nil {
			return 0, 0, fmt.Errorf("read %s: %w", table, err)
		}
		if _, err := files[i].Seek(0, io.SeekStart); err != nil {
			return 0, 0, err
		}
	}
	if err := r.b.site.Checkpoint(ctx); err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	for i, table := range rebuiltTables {
		tag, err := conn.PgConn().CopyFrom(ctx, files[i], `copy `+copied+`.`+table+` from stdin (format binary)`)
		if err != nil {
			return 0, 0, fmt.Errorf("COPY %s: %w", table, err)
		}
		rows += tag.RowsAffected()
	}
	took = time.Since(begun)
	r.b.Say("rebuild", "COPY of %d rows took %.1f s", rows, took.Seconds())
	_, err = conn.Exec(ctx, `drop schema `+copied+` cascade`)
	return rows, took, err
}
