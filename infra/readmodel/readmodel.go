// Package readmodel is how queries meet what projections wrote: which generation is live, how far it is, and a bounded
// wait until it has reached a position. It reads the schema "proj" of the database in which the read model lies and
// never drives a projection.
package readmodel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ErrNotBuilt says that the database holds no live generation of the projection yet: the projector has not met it.
var ErrNotBuilt = errors.New("the read model is not built yet; it appears once the projector runs")

// ErrBehind says that the live generation has not applied the log as far as was demanded.
var ErrBehind = errors.New("the read model has not applied the log so far")

const (
	// pollEvery is how often a waiter looks for checkpoints that another process moved, while it does not hear of them.
	pollEvery = 50 * time.Millisecond
	// hearingPollEvery is how often it looks while it does: a notification can be lost.
	hearingPollEvery = 250 * time.Millisecond
)

// Schema is the PostgreSQL schema in which a generation of a projection lies, such as "documents_g1".
func Schema(projection string, generation int) string {
	return fmt.Sprintf("%s_g%d", projection, generation)
}

// Tx is a transaction that only reads.
type Tx interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// Read calls fn once, in one REPEATABLE READ READ ONLY transaction, with the schema of the projection's live generation, and returns how far
// that has applied the tenant's log, 0 when it has not begun. The generation is resolved inside that transaction, so fn never sees two
// generations mixed; fn names tables explicitly, as in schema + ".documents". tenant is the id of the log, as in [Position]. It costs two
// round trips beside those of fn. Errors: [ErrNotBuilt]; [ErrBehind] when the generation has not applied the log up to atLeast, in both
// cases without a call of fn; what fn answered, or the database's.
func Read(ctx context.Context, pool *pgxpool.Pool, projection, tenant string, atLeast uint64, fn func(tx Tx, schema string) error) (at uint64, err error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	defer func() {
		if conn.Conn().PgConn().TxStatus() == 'I' {
			return // nothing began, or the connection is gone
		}
		tag, failed := conn.Exec(ctx, "commit")
		if failed == nil && tag.String() == "ROLLBACK" {
			failed = pgx.ErrTxCommitRollback // fn passed over a statement that failed
		}
		if err == nil {
			err = failed
		}
	}()
	var begin pgx.Batch
	begin.Queue("begin isolation level repeatable read read only")
	begin.Queue(`select l.generation, coalesce(c.position, 0) from proj.live l
		left join proj.checkpoint c on c.projection = l.projection and c.generation = l.generation and c.tenant = $2
		where l.projection = $1`, projection, tenant)
	results := conn.SendBatch(ctx, &begin)
	generation, at, err := begun(results, projection, atLeast)
	if err = errors.Join(err, results.Close()); err != nil {
		return at, err
	}
	return at, fn(conn, Schema(projection, generation))
}

// begun reads the answers to the beginning of a read.
func begun(results pgx.BatchResults, projection string, atLeast uint64) (generation int, at uint64, err error) {
	if _, err = results.Exec(); err == nil {
		err = results.QueryRow().Scan(&generation, &at)
	}
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return 0, 0, fmt.Errorf("readmodel: %s: %w", projection, ErrNotBuilt)
	case err != nil:
		return 0, 0, fmt.Errorf("readmodel: which generation of %s is live: %w", projection, err)
	}
	return generation, at, far(projection, at, atLeast)
}

// far is an error unless the projection is as far as was demanded.
func far(projection string, at, atLeast uint64) error {
	if at < atLeast {
		return fmt.Errorf("readmodel: %s: %w", projection, ErrBehind)
	}
	return nil
}

// Query is a query of a read model in one statement, which sees one moment however it is asked.
type Query struct {
	// Head is a select that answers exactly one row, whether there are Rows or not, such as how many there are; "" is none. Its columns go to
	// Into.
	Head string
	Into []any

	// Columns, From, Order and Limit are what stands between the words of a select: "d.id, d.name", "documents_g1.documents d where …",
	// "d.name, d.id", "20 offset 40". Without Order and Limit there may be one row at most.
	Columns, From, Order, Limit string
	// Row takes the next row.
	Row func(pgx.CollectableRow) error

	Args []any // of Head and of the rows, in which $1 is the first
}

// sql is the statement: first the generation that is live and its position, then the head, whether there are rows, their columns, and their
// number where they are ordered: only the outermost order by is one that PostgreSQL promises to keep. There is always one row at least if
// any generation is live.
func (q Query) sql() string {
	head, columns, join, tail := "", q.Columns, "", ""
	if q.Head != "" {
		head, join = "h.*, ", " cross join lateral ("+q.Head+") h"
	}
	from := q.From
	if q.Order != "" {
		columns += ", row_number() over (order by " + q.Order + ") as nth"
		from += " order by " + q.Order + " limit " + q.Limit
		tail = " order by r.nth"
	}
	projection, tenant := len(q.Args)+1, len(q.Args)+2
	return fmt.Sprintf(`select l.generation, coalesce(c.position, 0), %s r.* from proj.live l
		left join proj.checkpoint c on c.projection = l.projection and c.generation = l.generation and c.tenant = $%d%s
		left join lateral (select true as found, %s from %s) r on true where l.projection = $%d%s`, head, tenant, join, columns, from, projection, tail)
}

// Guesses remembers which generations were live when they were read last. The zero value is ready; it is safe for concurrent use and grows with
// the number of databases and projections that are read.
type Guesses struct{ live sync.Map } // of guess, the generation

type guess struct{ projection, tenant string }

// promotions is how many generations may go live while one question is asked.
const promotions = 3

// errOther says that another generation is live than was believed.
var errOther = errors.New("readmodel: another generation is live")

// Ask is [Read] for what is one statement, and costs one round trip. query is called with the schema that was live when it was read last. When
// that was wrong nothing is done with the answer, and query is called again with the right schema. along puts statements on other tables of
// the database into the same round trip; they see a moment of their own. Both must be callable more than once; nil asks nothing along.
func (g *Guesses) Ask(ctx context.Context, pool *pgxpool.Pool, projection, tenant string, atLeast uint64, query func(schema string) Query, along func(*pgx.Batch)) (at uint64, err error) {
	key := guess{projection, tenant}
	if known, ok := g.live.Load(key); ok {
		at, err := ask(ctx, pool, key, known.(int), atLeast, query, along)
		if err == nil || !errors.Is(err, errOther) && (!Passing(err) || ctx.Err() != nil) {
			return at, err
		}
		g.live.Delete(key)
	}
	for range promotions {
		var generation int
		err := pool.QueryRow(ctx, `select generation from proj.live where projection = $1`, projection).Scan(&generation)
		if errors.Is(err, pgx.ErrNoRows) {
			return 0, fmt.Errorf("readmodel: %s: %w", projection, ErrNotBuilt)
		}
		if err != nil {
			return 0, fmt.Errorf("readmodel: which generation of %s is live: %w", projection, err)
		}
		if at, err = ask(ctx, pool, key, generation, atLeast, query, along); !errors.Is(err, errOther) {
			g.live.Store(key, generation)
			return at, err
		}
	}
	return 0, fmt.Errorf("readmodel: %s is promoted again and again: %w", projection, errOther)
}

// ask asks the generation that is believed to be live. Errors: errOther; those of [Guesses.Ask].
func ask(ctx context.Context, pool *pgxpool.Pool, of guess, believed int, atLeast uint64, query func(schema string) Query, along func(*pgx.Batch)) (at uint64, err error) {
	q := query(Schema(of.projection, believed))
	var b pgx.Batch
	b.Queue(q.sql(), append(slices.Clip(q.Args), of.projection, of.tenant)...).Query(func(rows pgx.Rows) (err error) {
		at, err = q.read(rows, of.projection, believed, atLeast)
		return err
	})
	if along != nil {
		along(&b)
	}
	err = pool.SendBatch(ctx, &b).Close()
	return at, err
}

// read takes the answer to sql, unless that is of another generation or not as far as was demanded.
func (q Query) read(rows pgx.Rows, projection string, believed int, atLeast uint64) (at uint64, err error) {
	defer rows.Close()
	const pointer = 2 // columns: generation and position
	skip, width := pointer+len(q.Into)+1, 0
	for rows.Next() {
		if width == 0 { // the first row
			width = len(rows.FieldDescriptions())
			var generation int
			if err := (part{rows, 0, width}).Scan(&generation, &at); err != nil {
				return at, err
			}
			if generation != believed {
				return at, errOther
			}
			var found *bool
			err := errors.Join(far(projection, at, atLeast), part{rows, pointer, width}.Scan(append(slices.Clip(q.Into), &found)...))
			if err != nil || found == nil {
				return at, err
			}
		}
		if err := q.Row(part{rows, skip, width}); err != nil {
			return at, err
		}
	}
	if err := rows.Err(); err != nil {
		return at, err
	}
	if rows.CommandTag().RowsAffected() == 0 {
		return at, fmt.Errorf("readmodel: %s: %w", projection, ErrNotBuilt)
	}
	return at, nil
}

// part is a row without its first columns, and without those at its end that nobody asks for.
type part struct {
	pgx.CollectableRow
	skip, width int
}

// Scan implements pgx.CollectableRow.
func (p part) Scan(dest ...any) error {
	all := make([]any, p.width) // nil takes nothing
	copy(all[p.skip:], dest)
	return p.CollectableRow.Scan(all...)
}

// left are the codes with which a database refuses a tenant that lives elsewhere now: nobody may connect, it was dropped, or the role has another
// password.
var left = []string{"42501", "3D000", "28P01"}

// Passing tells whether a read that failed with err may succeed when it is begun anew: its generation was dropped after the pointer was read,
// the connection was lost, or the tenant has left the database.
func Passing(err error) bool {
	var connect *pgconn.ConnectError
	var pg *pgconn.PgError
	var network net.Error
	switch {
	case errors.As(err, &connect) && errors.As(err, &pg):
		return slices.Contains(left, pg.Code)
	case errors.As(err, &pg):
		return pg.Code == "42P01" || pg.Code == "3F000" || pg.Code == "57P01" || pg.Code == "57P02" || strings.HasPrefix(pg.Code, "08")
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.As(err, &network):
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || pgconn.SafeToRetry(err)
}

// Position is how far the projection's live generation has applied the tenant's log; 0 when it has not begun. tenant is the id
// of the log (an eventstore.TenantID: a UUID without dashes, or "platform").
func Position(ctx context.Context, pool *pgxpool.Pool, projection, tenant string) (uint64, error) {
	var position int64
	err := pool.QueryRow(ctx, `select c.position from proj.live l join proj.checkpoint c using (projection, generation)
		where l.projection = $1 and c.tenant = $2`, projection, tenant).Scan(&position)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("readmodel: position of %s: %w", projection, err)
	}
	return uint64(position), nil
}

// Waiter waits for read models to catch up. It is safe for concurrent use.
type Waiter struct {
	moves *Moves
}

// NewWaiter returns a waiter that is woken by moves; nil leaves it with polling.
func NewWaiter(moves *Moves) *Waiter {
	if moves == nil {
		moves = &Moves{}
	}
	return &Waiter{moves}
}

// Moved counts how often this process has learnt that the live generation moved: from its own projector, from another process that told it,
// or by waiting. A change that a [Waiter.Wait] of this process was for has been counted when that returns.
func (w *Waiter) Moved(projection, tenant string) uint64 { return w.moves.moved(projection, tenant) }

// Wait returns nil once the live generation has applied the tenant's log up to position. It is woken by the projector of this
// process, and by those of others where [Moves] are shared; besides it looks by itself, every 50 ms or, where it hears the others, every
// 250 ms. The context bounds it, and then errors.Is finds the context's error. tenant is the id of the log, as in [Position].
func (w *Waiter) Wait(ctx context.Context, pool *pgxpool.Pool, projection, tenant string, position uint64) error {
	reached, stop := w.moves.watch(projection, tenant, position)
	defer stop()
	poll := time.NewTimer(pollEvery)
	defer poll.Stop()
	for {
		at, err := Position(ctx, pool, projection, tenant)
		if err == nil && at >= position {
			w.moves.reach(projection, tenant, at) // before the projector says so
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("readmodel: %s has not reached position %d in time: %w", projection, position, ctx.Err())
		}
		if err != nil {
			return err
		}
		every := pollEvery
		if w.moves.hears() {
			every = hearingPollEvery
		}
		poll.Reset(every)
		select {
		case <-reached:
			return nil
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("readmodel: %s has not reached position %d in time: %w", projection, position, ctx.Err())
		}
	}
}
