package runner

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
)

// What the comment on the schema of a generation that is being built says. It is written with what it tells, in one transaction.
const (
	builtBare    = "factum: being rebuilt"
	builtIndexed = "factum: being rebuilt, indexed"
	rolledBack   = "factum: being rolled back to"
)

const (
	// lockPatience is how long a rebuild waits for another one to end.
	lockPatience = 2 * time.Second
	lockPoll     = 50 * time.Millisecond
)

// building is a generation that comes up beside the live one, in one database.
type building struct {
	o     *Operator
	p     *Projection
	opt   RebuildOptions
	home  eventstore.TenantID // whose database it is
	begun time.Time

	lock    *pgxpool.Conn // holds the lock that keeps other rebuilds away; the transactions of the fence are its
	fresh   int           // the generation that comes up
	live    int           // the one that queries read; 0 when there is none
	version int           // of the live one
	resumed bool
	indexed bool
	parks   bool // a stream whose event cannot be applied is parked, as the live generation does

	types    columnTypes
	feeds    map[eventstore.TenantID]*feed
	compared Comparison
	vacant   []eventstore.TenantID // logs that do not hold the event on which the live generation stands
	fenced   time.Duration         // for how long the live writer was stopped at most

	events   atomic.Uint64
	telling  sync.Mutex // Progress is called by one goroutine at a time
	progress Progress
}

// begin checks what is asked for and takes the lock.
func (o *Operator) begin(ctx context.Context, projection string, t eventstore.TenantID, opt RebuildOptions) (*building, error) {
	p, err := o.projection(projection)
	if err == nil {
		err = o.known(ctx, t)
	}
	switch {
	case err != nil:
		return nil, err
	case p.Effects:
		return nil, fmt.Errorf("%s is a saga and is never rebuilt: its effects cannot be taken back", p.Name)
	case p.Home == PlatformHome && t != eventstore.PlatformTenant:
		return nil, fmt.Errorf("%s consumes the logs of all tenants and is rebuilt as a whole: name the tenant %s", p.Name, eventstore.PlatformTenant)
	case !p.consumes(t):
		return nil, fmt.Errorf("%s does not consume the log of %s; name a tenant", p.Name, t)
	}
	b := &building{o: o, p: p, opt: opt, home: t, begun: time.Now(), feeds: map[eventstore.TenantID]*feed{}}
	pool, err := b.pool(ctx)
	if err != nil {
		return nil, err
	}
	if b.lock, err = pool.Acquire(ctx); err != nil {
		return nil, b.failed("connect", err)
	}
	if err = b.take(ctx); err != nil {
		b.lock.Release()
		return nil, err
	}
	return b, nil
}

// take takes the lock. It waits for a moment, in which the server may notice that a process which held it has just ended.
func (b *building) take(ctx context.Context) error {
	poll := time.NewTicker(lockPoll)
	defer poll.Stop()
	for deadline := time.Now().Add(lockPatience); ; {
		var taken bool
		err := b.lock.QueryRow(ctx, `select pg_try_advisory_lock(hashtextextended('factum.rebuild.' || $1, 0))`, b.p.Name).Scan(&taken)
		switch {
		case err != nil:
			return b.failed("take the lock", err)
		case taken:
			return nil
		case time.Now().After(deadline):
			return b.failed("take the lock", ErrRebuildRuns)
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// end gives the lock back, with its connection if that is of no use any more.
func (b *building) end() {
	defer b.lock.Release()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := b.lock.Exec(ctx, `select pg_advisory_unlock_all()`); err != nil {
		_ = b.lock.Conn().Close(ctx) // the server gives the lock back when it notices
	}
}

// pool is asked for anew each time: a pool that nobody asks for is closed.
func (b *building) pool(ctx context.Context) (*pgxpool.Pool, error) {
	pool, err := b.o.config.Pool(ctx, string(b.home))
	if err != nil {
		return nil, b.failed("reach the database", err)
	}
	return pool, nil
}

func (b *building) schema(generation int) string { return fmt.Sprintf("%s_g%d", b.p.Name, generation) }

// turn begins a transaction in which nobody else makes, promotes or drops a generation of the projection, or begins to consume another log.
func (b *building) turn(ctx context.Context, fn func(tx pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, b.lock, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock(hashtextextended('factum.proj.' || $1, 0))`, b.p.Name); err != nil {
			return err
		}
		return fn(tx)
	})
}

// create finds the generation that an earlier call has begun, unless it shall be made anew, or makes a new one.
func (b *building) create(ctx context.Context, anew bool) error {
	b.fresh, b.resumed, b.indexed, b.feeds = 0, false, false, map[eventstore.TenantID]*feed{}
	err := b.turn(ctx, func(tx pgx.Tx) error {
		if err := b.pointer(ctx, tx); err != nil {
			return err
		}
		begun, err := b.unfinished(ctx, tx)
		if err != nil {
			return err
		}
		for _, u := range begun {
			if !anew && u.version == b.p.Version && (u.note == builtBare || u.note == builtIndexed) && b.fresh == 0 {
				b.fresh, b.resumed, b.indexed = u.generation, true, u.note == builtIndexed
				continue
			}
			if err := discard(ctx, tx, b.p.Name, u.generation, "building"); err != nil {
				return err
			}
		}
		if b.fresh != 0 {
			return nil
		}
		return b.newGeneration(ctx, tx)
	})
	if err != nil {
		return b.failed("make a new generation", err)
	}
	return b.load(ctx)
}

// pointer reads which generation is live.
func (b *building) pointer(ctx context.Context, tx pgx.Tx) error {
	err := tx.QueryRow(ctx, `select generation, version from proj.live where projection = $1`, b.p.Name).Scan(&b.live, &b.version)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	return err
}

// unfinished is a generation that an earlier call has left.
type unfinished struct {
	generation, version int
	note                string // the comment on its schema; "" when the schema is gone
}

// unfinished returns the generations that are being built, the newest first.
func (b *building) unfinished(ctx context.Context, tx pgx.Tx) ([]unfinished, error) {
	rows, err := tx.Query(ctx, `select generation, min(version),
			coalesce(obj_description(to_regnamespace($1 || '_g' || generation)::oid, 'pg_namespace'), '')
		from proj.checkpoint where projection = $1 and state = 'building' group by generation order by generation desc`, b.p.Name)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (u unfinished, err error) {
		return u, row.Scan(&u.generation, &u.version, &u.note)
	})
}

// newGeneration makes the schema and its checkpoint. Its number was never used before.
func (b *building) newGeneration(ctx context.Context, tx pgx.Tx) error {
	err := tx.QueryRow(ctx, `select 1 + greatest(
		(select max(generation) from proj.checkpoint where projection = $1), (select generation from proj.live where projection = $1), 0,
		(select max(substring(nspname from '[0-9]+$')::int) from pg_namespace where nspname ~ ('^' || $1 || '_g[0-9]+$')))`, b.p.Name).Scan(&b.fresh)
	if err != nil {
		return err
	}
	// One simple query: DDL is a script. Its names are found by the search path, which ends with the transaction.
	schema := b.schema(b.fresh)
	_, err = tx.Exec(ctx, `create schema `+schema+`; set local search_path = `+schema+`; `+b.p.DDL+`; reset search_path; comment on schema `+schema+` is '`+builtBare+`'`)
	if err != nil {
		return fmt.Errorf("create %s: %w", schema, err)
	}
	_, err = tx.Exec(ctx, `insert into proj.checkpoint (projection, generation, tenant, state, version) values ($1, $2, $3, 'building', $4)`,
		b.p.Name, b.fresh, string(b.home), b.p.Version)
	return err
}

// load finds the logs and how far the generation is in each.
func (b *building) load(ctx context.Context) error {
	pool, err := b.pool(ctx)
	if err != nil {
		return err
	}
	if b.types, err = columnTypesOf(ctx, pool, b.schema(b.fresh)); err != nil {
		return b.failed("read the columns of "+b.schema(b.fresh), err)
	}
	logs := []eventstore.TenantID{b.home}
	if b.p.Home == PlatformHome {
		names, err := b.o.config.Tenants(ctx)
		if err != nil {
			return b.failed("list the tenants", err)
		}
		for _, name := range names {
			logs = append(logs, eventstore.TenantID(name))
		}
	}
	if err := b.consume(ctx, logs...); err != nil {
		return err
	}
	marks, err := b.marks(ctx)
	if err != nil {
		return err
	}
	for t := range marks { // what the live generation has begun, the list notwithstanding
		if err := b.consume(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// consume begins to feed logs that it does not know yet.
func (b *building) consume(ctx context.Context, logs ...eventstore.TenantID) error {
	var fresh []string
	for _, t := range logs {
		if b.feeds[t] == nil {
			b.feeds[t] = &feed{b: b, tenant: t}
			fresh = append(fresh, string(t))
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	pool, err := b.pool(ctx)
	if err != nil {
		return err
	}
	_, err = pool.Exec(ctx, `insert into proj.checkpoint (projection, generation, tenant, state, version)
		select $1, $2, t, 'building', $3 from unnest($4::text[]) t on conflict do nothing`, b.p.Name, b.fresh, b.p.Version, fresh)
	if err != nil {
		return b.failed("begin to consume logs", err)
	}
	rows, err := pool.Query(ctx, `select tenant, position, last_event from proj.checkpoint
		where projection = $1 and generation = $2 and tenant = any($3) and state = 'building'`, b.p.Name, b.fresh, fresh)
	if err != nil {
		return b.failed("read the checkpoints", err)
	}
	found := 0
	var tenant string
	at := checkpoint{generation: b.fresh}
	var last *[16]byte
	_, err = pgx.ForEachRow(rows, []any{&tenant, &at.position, &last}, func() error {
		at.last = eventstore.EventID{}
		if last != nil {
			at.last = *last
		}
		b.feeds[eventstore.TenantID(tenant)].at = at
		found++
		return nil
	})
	if err == nil && found < len(fresh) {
		err = errMovedAway
	}
	if err != nil {
		return b.failed("read the checkpoints", err)
	}
	return nil
}

// errMovedAway says that the generation is no longer ours to build.
var errMovedAway = errors.New("the generation that was being built was dropped or promoted by somebody else meanwhile; the same command begins anew")

// marks reads where the live generation stands.
func (b *building) marks(ctx context.Context) (map[eventstore.TenantID]checkpoint, error) {
	pool, err := b.pool(ctx)
	if err != nil {
		return nil, err
	}
	marks, err := b.marksOf(ctx, pool, "")
	if err != nil {
		return nil, b.failed("read where the live generation stands", err)
	}
	return marks, nil
}

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func (b *building) marksOf(ctx context.Context, q querier, suffix string) (map[eventstore.TenantID]checkpoint, error) {
	marks := map[eventstore.TenantID]checkpoint{}
	rows, err := q.Query(ctx, `select tenant, position, last_event from proj.checkpoint
		where projection = $1 and generation = $2 and state = 'live' order by tenant `+suffix, b.p.Name, b.live)
	if err != nil {
		return nil, err
	}
	var tenant string
	var position eventstore.Position
	var last *[16]byte
	_, err = pgx.ForEachRow(rows, []any{&tenant, &position, &last}, func() error {
		m := checkpoint{generation: b.live, position: position}
		if last != nil {
			m.last = *last
		}
		marks[eventstore.TenantID(tenant)] = m
		return nil
	})
	return marks, err
}

// index makes the indexes, which is faster on filled tables, and gives the planner what it needs to know before queries come.
func (b *building) index(ctx context.Context) error {
	b.stage("indexing")
	pool, err := b.pool(ctx)
	if err != nil {
		return err
	}
	schema := b.schema(b.fresh)
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `set local statement_timeout = 0`); err != nil {
			return err
		}
		if !b.indexed && b.p.Indexes != "" {
			if _, err := tx.Exec(ctx, `set local search_path = `+schema+`; `+b.p.Indexes+`; reset search_path; comment on schema `+schema+` is '`+builtIndexed+`'`); err != nil {
				return err
			}
		}
		tables, err := tablesOf(ctx, tx, schema)
		if err != nil {
			return err
		}
		for _, table := range tables {
			if _, err := tx.Exec(ctx, `analyze `+pgx.Identifier{schema, table}.Sanitize()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return b.failed("index "+schema, err)
	}
	b.indexed = true
	return nil
}

func tablesOf(ctx context.Context, q querier, schema string) ([]string, error) {
	rows, err := q.Query(ctx, `select c.relname::text from pg_class c where c.relnamespace = to_regnamespace($1) and c.relkind in ('r', 'p') order by 1`, schema)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// stage tells the next stage.
func (b *building) stage(name string) {
	b.telling.Lock()
	defer b.telling.Unlock()
	b.progress.Stage = name
	b.tell()
}

// heads sets how far all logs together have to come.
func (b *building) heads(targets map[eventstore.TenantID]eventstore.Position) {
	b.telling.Lock()
	defer b.telling.Unlock()
	b.progress.At, b.progress.Head = 0, 0
	for t, f := range b.feeds {
		b.progress.At += f.at.position
		b.progress.Head += max(f.at.position, targets[t])
	}
	b.tell()
}

// moved counts what a slice has applied.
func (b *building) moved(events int, by eventstore.Position) {
	b.events.Add(uint64(events))
	b.telling.Lock()
	defer b.telling.Unlock()
	b.progress.Events = b.events.Load()
	b.progress.At += by
	b.tell()
}

func (b *building) tell() {
	if b.opt.Progress != nil {
		b.opt.Progress(b.progress)
	}
}
