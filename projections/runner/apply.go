package runner

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
)

// The states of a generation that has a writer.
const (
	stateBuilding = "building"
	stateLive     = "live"
)

// checkpoint is where a consumer stands: the position of the last event that is applied, and that event's id.
type checkpoint struct {
	generation int
	state      string // what the generation is while this writer may write to it: live or building
	position   eventstore.Position
	last       eventstore.EventID
	revision   int64 // raised by every act of an operator
}

// lastEvent is the id as a parameter: null before the first event.
func (c checkpoint) lastEvent() *[16]byte {
	if c.position == 0 {
		return nil
	}
	id := [16]byte(c.last)
	return &id
}

// moveSQL is the compare-and-set. What a writer remembers of parked streams and of pauses is what holds as long as the revision does; the
// pause is asked for as well because it may be older than the checkpoint.
const moveSQL = `update proj.checkpoint c set position = $1, last_event = $2, moved_at = now(), error = null, waits = false
	where c.projection = $3 and c.generation = $4 and c.tenant = $5 and c.position = $6 and c.last_event is not distinct from $7
	and c.revision = $8 and c.state = $9
	and not exists (select from proj.paused p where p.projection = c.projection and p.tenant = c.tenant)`

// apply commits what the events lead to, together with the checkpoint's move, or nothing.
func (c *consumer) apply(ctx context.Context, p *page, events []eventstore.Recorded) error {
	w := &Writes{schema: c.schema()}
	if !c.projection.Effects {
		// A read model that loses its last commits in a crash loses their checkpoint too, and the log still has the events.
		w.begin(len(events) >= manyEvents)
	}
	next := c.move(w, events[len(events)-1])
	head := w.batch.Len()
	var slice []Fact
	for i := range events {
		rec := events[i]
		if !c.wants(&rec) {
			continue
		}
		fact, err := p.fact(ctx, c.runner.codec, rec)
		if err != nil {
			return &factError{"decode " + rec.Type, err}
		}
		if c.projection.Apply != nil {
			if err := c.projection.Apply(w, rec, fact); err != nil {
				return &factError{"apply " + rec.Type, err}
			}
		}
		slice = append(slice, Fact{rec, fact})
	}
	return c.commit(ctx, w, head, next, slice)
}

// move queues the checkpoint's compare-and-set. It goes first: of two runners the later one waits here and finds no row, before it
// could stumble over rows of the earlier one.
func (c *consumer) move(w *Writes, rec eventstore.Recorded) checkpoint {
	next := c.at
	next.position, next.last = rec.Position, rec.ID
	w.batch.Queue(moveSQL, int64(next.position), next.lastEvent(), c.projection.Name, c.at.generation, string(c.tenant),
		int64(c.at.position), c.at.lastEvent(), c.at.revision, c.at.state)
	return next
}

// commit sends the queued statements, of which the head-th is the compare-and-set, in one transaction.
func (c *consumer) commit(ctx context.Context, w *Writes, head int, next checkpoint, slice []Fact) error {
	pool, err := c.pool(ctx)
	if err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if err := send(ctx, tx, &w.batch, head); err != nil {
			if tx.Conn().IsClosed() {
				return &keyError{err} // the connection died, whatever the reason's words
			}
			return err
		}
		if err := c.writeRows(ctx, tx, w); err != nil {
			return err
		}
		if c.projection.InTx == nil || len(slice) == 0 {
			return nil
		}
		if err := c.projection.InTx(ctx, tx, c.tenant, slice); err != nil {
			if tx.Conn().IsClosed() {
				return &keyError{err}
			}
			return &factError{"apply a slice to " + c.projection.Name, err}
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.at, c.blamed = next, false
	if c.runner.config.Moves != nil && next.state == stateLive {
		c.runner.config.Moves.Announce(c.projection.Name, string(c.tenant), uint64(next.position))
	}
	return nil
}

// writeRows sends what was added up. The types of the columns are asked for once for a generation.
func (c *consumer) writeRows(ctx context.Context, tx pgx.Tx, w *Writes) (err error) {
	if len(w.steps) == 0 {
		return nil
	}
	if c.types == nil {
		c.types, err = columnTypesOf(ctx, tx, w.schema)
	}
	if err == nil {
		err = w.writeRows(ctx, tx, c.types)
	}
	if err != nil && tx.Conn().IsClosed() {
		return &keyError{err}
	}
	return err
}

func send(ctx context.Context, tx pgx.Tx, batch *pgx.Batch, head int) error {
	results := tx.SendBatch(ctx, batch)
	for i := range head {
		tag, err := results.Exec()
		if err == nil && i == head-1 && tag.RowsAffected() != 1 {
			err = ErrLostRace
		}
		if err != nil {
			return errors.Join(sending(err), results.Close())
		}
	}
	return sending(results.Close())
}

// sending marks an error of queued SQL that PostgreSQL did not answer.
func sending(err error) error {
	var pg *pgconn.PgError
	if err == nil || errors.Is(err, ErrLostRace) || errors.As(err, &pg) || connectionLost(err) {
		return err
	}
	return &factError{"send", &sendError{err}}
}

// replay finds the event of a slice that cannot be applied: one transaction per event. It is parked with its stream, or the
// consumer halts, as the projection wants it; what comes before it stays applied.
func (c *consumer) replay(ctx context.Context, p *page, events []eventstore.Recorded) (err error) {
	// Somebody may have said to skip the event before it was met.
	if c.skipped, err = skippedEvents(ctx, c.runner.config.Store.Tenant(c.tenant), c.runner.codec, c.projection.Name); err != nil {
		return err
	}
	for i := range events {
		err := c.apply(ctx, p, events[i:i+1])
		if err == nil {
			continue
		}
		if judge(err) != poison {
			return err
		}
		rec := events[i]
		if c.projection.Halt {
			return &haltError{fmt.Sprintf("%s cannot apply event %s (%s, stream %s, version %d): %s",
				c.projection.Name, rec.ID, rec.Type, rec.Stream, rec.Version, describe(err))}
		}
		if err := c.park(ctx, rec, describe(err)); err != nil {
			return err
		}
	}
	return nil
}

// park skips the event's stream from this event on, in the transaction that moves the checkpoint over it.
func (c *consumer) park(ctx context.Context, rec eventstore.Recorded, reason string) error {
	w := &Writes{}
	next := c.move(w, rec)
	w.Exec(`insert into proj.parked (projection, generation, tenant, kind, stream_id, from_version, event_id, error)
		values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing`,
		c.projection.Name, c.at.generation, string(c.tenant), rec.Stream.Kind, rec.Stream.ID, int64(rec.Version), [16]byte(rec.ID), reason)
	if err := c.commit(ctx, w, 1, next, nil); err != nil {
		return err
	}
	c.parked[rec.Stream] = true
	c.parkedStreams.Store(int64(len(c.parked)))
	c.runner.config.Logger.Error("projection parked a stream", "projection", c.projection.Name, "tenant", c.tenant,
		"stream", rec.Stream.String(), "version", rec.Version, "event", rec.ID.String(), "error", reason)
	return nil
}

func (c *consumer) pool(ctx context.Context) (*pgxpool.Pool, error) {
	pool, err := c.runner.config.Pool(ctx, string(c.projection.root(c.tenant)))
	if err != nil {
		return nil, fmt.Errorf("runner: reach the database of %s for %s: %w", c.tenant, c.projection.Name, err)
	}
	return pool, nil
}
