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
	return read(ctx, pool, projection, tenant, atLeast, func(tx Tx, generation int) error { return fn(tx, Schema(projection, generation)) })
}

func read(ctx context.Context, pool *pgxpool.Pool, projection, tenant string, atLeast uint64, fn func(tx Tx, generation int) error) (at uint64, err error) {
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
	queueBegin(&begin, projection, tenant)
	results := conn.SendBatch(ctx, &begin)
	generation, at, err := begun(results, projection, atLeast)
	if err = errors.Join(err, results.Close()); err != nil {
		return at, err
	}
	return at, fn(conn, generation)
}

// queueBegin begins the transaction of a read and asks for the live generation and its position.
func queueBegin(b *pgx.Batch, projection, tenant string) {
	b.Queue("begin isolation level repeatable read read only")
	b.Queue(`select l.generation, coalesce(c.position, 0) from proj.live l
		left join proj.checkpoint c on c.projection = l.projection and c.generation = l.generation and c.tenant = $2
		where l.projection = $1`, projection, tenant)
}

// begun reads the answers to queueBegin.
func begun(results pgx.BatchResults, projection string, atLeast uint64) (generation int, at uint64, err error) {
	if _, err = results.Exec(); err == nil {
		err = results.QueryRow().Scan(&generation, &at)
	}
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return 0, 0, fmt.Errorf("readmodel: %s: %w", projection, ErrNotBuilt)
	case err != nil:
		return 0, 0, fmt.Errorf("readmodel: which generation of %s is live: %w", projection, err)
	case at < atLeast:
		return generation, at, fmt.Errorf("readmodel: %s: %w", projection, ErrBehind)
	}
	return generation, at, nil
}

// Guesses remembers which generations were live when they were read last. The zero value is ready; it is safe for concurrent use and grows with
// the number of databases and projections that are read.
type Guesses struct{ live sync.Map } // of guess, the generation

type guess struct{ projection, tenant string }

// ReadBatch is [Read] for statements that do not depend on each other's answers: queue is given a batch to put them in, with what is to be
// done with the answers, and all is one round trip. It guesses the live generation from the last read. When the guess was wrong nothing
// is done with the answers, and queue is called again with the right schema, so it must be callable more than once.
func (g *Guesses) ReadBatch(ctx context.Context, pool *pgxpool.Pool, projection, tenant string, atLeast uint64, queue func(b *pgx.Batch, schema string)) (at uint64, err error) {
	key := guess{projection, tenant}
	if known, ok := g.live.Load(key); ok {
		at, right, err := g.readAs(ctx, pool, key, known.(int), atLeast, queue)
		if right || err != nil && (!Passing(err) || ctx.Err() != nil) {
			return at, err
		}
		g.live.Delete(key)
	}
	return read(ctx, pool, projection, tenant, atLeast, func(tx Tx, generation int) error {
		g.live.Store(key, generation)
		var b pgx.Batch
		queue(&b, Schema(projection, generation))
		return tx.SendBatch(ctx, &b).Close()
	})
}

// readAs is ReadBatch with the generation that is believed to be live; right tells whether it is.
func (g *Guesses) readAs(ctx context.Context, pool *pgxpool.Pool, key guess, believed int, atLeast uint64, queue func(b *pgx.Batch, schema string)) (at uint64, right bool, err error) {
	var b pgx.Batch
	queueBegin(&b, key.projection, key.tenant)
	queue(&b, Schema(key.projection, believed))
	b.Queue("commit")
	results := pool.SendBatch(ctx, &b)
	generation, at, err := begun(results, key.projection, atLeast)
	if err == nil && generation == believed {
		return at, true, results.Close()
	}
	for _, q := range b.QueuedQueries {
		q.Fn = nil // the answers are another generation's
	}
	return at, false, errors.Join(err, results.Close())
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
