package runner

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
)

// loadSQL reads the live generation and the consumer's checkpoint in it, if all of it is there.
const loadSQL = `select l.generation, l.version, c.position, c.last_event, c.revision, c.error is not null,
	exists (select from proj.paused p where p.projection = l.projection and p.tenant = c.tenant)
	from proj.live l join proj.checkpoint c on c.projection = l.projection and c.generation = l.generation and c.tenant = $2 and c.state = 'live'
	where l.projection = $1 and ($3 or to_regnamespace(l.projection || '_g' || l.generation) is not null and exists
		(select from proj.checkpoint r where r.projection = l.projection and r.generation = l.generation and r.tenant = $4))`

// load finds the live generation and the consumer's checkpoint in it, and makes what is missing. Without a pointer, a schema or the
// root's checkpoint (somebody removed them, or this is the first time) a new generation begins at the start of the log.
func (c *consumer) load(ctx context.Context) error {
	pool, err := c.pool(ctx)
	if err != nil {
		return err
	}
	whole, err := c.find(ctx, pool)
	if err == nil && !whole {
		err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return c.make(ctx, tx) })
		if err == nil {
			whole, err = c.find(ctx, pool)
		}
		if err == nil && !whole {
			err = errors.New("the live generation is being changed")
		}
	}
	if err == nil {
		c.skipped, err = skippedEvents(ctx, c.runner.config.Store.Tenant(c.tenant), c.runner.codec, c.projection.Name)
	}
	if err != nil {
		return fmt.Errorf("runner: load %s of %s: %w", c.projection.Name, c.tenant, err)
	}
	c.loaded = true
	c.parkedStreams.Store(int64(len(c.parked)))
	return nil
}

// find reads what is there and tells whether it is whole. The parked streams are read after the checkpoint: what changes them in between
// raises its revision or moves it, and then the writer finds out at its next move.
func (c *consumer) find(ctx context.Context, pool *pgxpool.Pool) (whole bool, err error) {
	p := c.projection
	at := checkpoint{state: stateLive}
	var version int
	var last *[16]byte
	var blamed, paused bool
	err = pool.QueryRow(ctx, loadSQL, p.Name, string(c.tenant), p.Effects, string(p.root(c.tenant))).
		Scan(&at.generation, &version, &at.position, &last, &at.revision, &blamed, &paused)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := c.sameVersion(version); err != nil {
		return false, err
	}
	if last != nil {
		at.last = *last
	}
	parked := map[eventstore.StreamID]bool{}
	rows, err := pool.Query(ctx, `select kind, stream_id from proj.parked where projection = $1 and generation = $2 and tenant = $3`,
		p.Name, at.generation, string(c.tenant))
	if err != nil {
		return false, err
	}
	var s eventstore.StreamID
	if _, err := pgx.ForEachRow(rows, []any{&s.Kind, &s.ID}, func() error { parked[s] = true; return nil }); err != nil {
		return false, err
	}
	c.at, c.parked, c.blamed, c.paused, c.types = at, parked, blamed, paused, nil
	return true, nil
}

// make makes the live generation and the consumer's checkpoint, as far as they are missing.
func (c *consumer) make(ctx context.Context, tx pgx.Tx) error {
	// Several runners may meet a new database at once: they take turns.
	if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock(hashtextextended('factum.proj.' || $1, 0))`, c.projection.Name); err != nil {
		return err
	}
	generation, err := c.liveGeneration(ctx, tx)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `insert into proj.checkpoint (projection, generation, tenant, state, version) values ($1, $2, $3, 'live', $4) on conflict do nothing`,
		c.projection.Name, generation, string(c.tenant), c.projection.Version)
	return err
}

// sameVersion halts on a live generation that another version of the projection's code wrote, which this one would garble.
func (c *consumer) sameVersion(live int) error {
	if live == c.projection.Version {
		return nil
	}
	remedy := fmt.Sprintf("queries go on with what is there; build version %d beside it with 'factum projections rebuild %s'", c.projection.Version, c.projection.Name)
	if c.projection.Effects {
		remedy = "deploy a binary that has that version"
	}
	return &haltError{fmt.Sprintf("the live generation of %s has version %d, this binary writes version %d; %s", c.projection.Name, live, c.projection.Version, remedy)}
}

// liveGeneration returns the generation that queries read. It makes a new one when there is none that is whole.
func (c *consumer) liveGeneration(ctx context.Context, tx pgx.Tx) (int, error) {
	p := c.projection
	var generation, version int
	err := tx.QueryRow(ctx, `select generation, version from proj.live where projection = $1`, p.Name).Scan(&generation, &version)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return c.newGeneration(ctx, tx)
	case err != nil:
		return 0, err
	}
	if err := c.sameVersion(version); err != nil || p.Effects {
		return generation, err
	}
	var whole bool
	err = tx.QueryRow(ctx, `select to_regnamespace($1) is not null and exists
		(select from proj.checkpoint where projection = $2 and generation = $3 and tenant = $4)`,
		fmt.Sprintf("%s_g%d", p.Name, generation), p.Name, generation, string(p.root(c.tenant))).Scan(&whole)
	if err != nil || whole {
		return generation, err
	}
	return c.newGeneration(ctx, tx)
}

// newGeneration makes an empty generation the live one and drops what is left of earlier ones. Its number was never used before.
func (c *consumer) newGeneration(ctx context.Context, tx pgx.Tx) (int, error) {
	p := c.projection
	rows, err := tx.Query(ctx, `select nspname::text from pg_namespace where nspname ~ ('^' || $1 || '_g[0-9]+$')`, p.Name)
	if err != nil {
		return 0, err
	}
	old, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return 0, err
	}
	var generation int
	if err := tx.QueryRow(ctx, `select coalesce(max(generation), 0) from proj.checkpoint where projection = $1`, p.Name).Scan(&generation); err != nil {
		return 0, err
	}
	for _, schema := range old {
		n, err := strconv.Atoi(strings.TrimPrefix(schema, p.Name+"_g"))
		if err != nil {
			return 0, fmt.Errorf("schema %s: %w", schema, err)
		}
		generation = max(generation, n)
		if _, err := tx.Exec(ctx, `drop schema `+schema+` cascade`); err != nil {
			return 0, err
		}
	}
	generation++
	for _, table := range []string{"parked", "checkpoint"} { // of generations whose rows are gone
		if _, err := tx.Exec(ctx, `delete from proj.`+table+` where projection = $1`, p.Name); err != nil {
			return 0, err
		}
	}
	if !p.Effects {
		schema := fmt.Sprintf("%s_g%d", p.Name, generation)
		// One simple query: DDL is a script. Its names are found by the search path, which ends with the transaction.
		_, err := tx.Exec(ctx, `create schema `+schema+`; set local search_path = `+schema+`; `+p.DDL+`; `+p.Indexes+`; reset search_path`)
		if err != nil {
			return 0, fmt.Errorf("create %s: %w", schema, err)
		}
	}
	_, err = tx.Exec(ctx, `insert into proj.live as l (projection, generation, version) values ($1, $2, $3)
		on conflict (projection) do update set generation = excluded.generation, version = excluded.version, epoch = l.epoch + 1`, p.Name, generation, p.Version)
	if err != nil {
		return 0, err
	}
	_, err = tx.Exec(ctx, `insert into proj.checkpoint (projection, generation, tenant, state, version) values ($1, $2, $3, 'live', $4) on conflict do nothing`,
		p.Name, generation, string(p.root(c.tenant)), p.Version)
	return generation, err
}
