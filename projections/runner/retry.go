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

// NotParkedError says that the live generation has not parked the stream. Nothing was changed.
type NotParkedError struct {
	Projection string
	Tenant     eventstore.TenantID
	Stream     eventstore.StreamID
}

// Error implements error.
func (e *NotParkedError) Error() string {
	return fmt.Sprintf("runner: %s has not parked the stream %s of %s; nothing was changed; 'factum projections list' shows what is parked", e.Projection, e.Stream, e.Tenant)
}

// StillParkedError says that a parked stream could not be applied this time either. Its rows are as they were.
type StillParkedError struct {
	Projection string
	Stream     eventstore.StreamID
	Event      eventstore.EventID // that cannot be applied
	Reason     string
	Attempts   int // so far
}

// Error implements error.
func (e *StillParkedError) Error() string {
	return fmt.Sprintf("runner: %s still cannot apply event %s of stream %s (attempt %d): %s; the stream stays parked and its rows are as they were; "+
		"deploy a version that can apply it, or pass over it with 'factum projections skip'", e.Projection, e.Event, e.Stream, e.Attempts, e.Reason)
}

// Retry applies what the live generation has not applied of a parked stream, up to its checkpoint, in one transaction, and lets the stream go
// on with the log. Events that were skipped meanwhile are passed over. The zero StreamID retries the consumer itself, if it is halted.
// Errors: *[NotParkedError], *[StillParkedError].
func (o *Operator) Retry(ctx context.Context, projection string, t eventstore.TenantID, s eventstore.StreamID) error {
	if s == (eventstore.StreamID{}) {
		return o.change(ctx, "retry", projection, t, func(pgx.Tx) error { return nil })
	}
	p, pool, err := o.find(ctx, projection, t)
	if err != nil {
		return fmt.Errorf("runner: retry %s of %s in %s: %w; nothing was changed", s, t, projection, err)
	}
	r := &retrial{operator: o, projection: p, pool: pool, tenant: t, stream: s, log: o.config.Store.Tenant(t)}
	if err := r.run(ctx); err != nil {
		return err
	}
	o.touch(ctx, t)
	return nil
}

// retrial is one attempt to apply a parked stream.
type retrial struct {
	operator   *Operator
	projection *Projection
	pool       *pgxpool.Pool
	log        eventstore.Log
	tenant     eventstore.TenantID
	stream     eventstore.StreamID
	generation int
	events     []eventstore.Recorded
	skipped    map[eventstore.EventID]bool
	at         eventstore.EventID // the event that is being applied
}

func (r *retrial) run(ctx context.Context) error {
	var from eventstore.Version
	err := r.pool.QueryRow(ctx, `select p.generation, p.from_version from proj.live l join proj.parked p using (projection, generation)
		where p.projection = $1 and p.tenant = $2 and p.kind = $3 and p.stream_id = $4`,
		r.projection.Name, string(r.tenant), r.stream.Kind, r.stream.ID).Scan(&r.generation, &from)
	if errors.Is(err, pgx.ErrNoRows) {
		return &NotParkedError{r.projection.Name, r.tenant, r.stream}
	}
	if err == nil {
		r.skipped, err = skippedEvents(ctx, r.log, r.operator.codec, r.projection.Name)
	}
	if err == nil {
		err = r.read(ctx, from) // most of it, before anybody waits for us
	}
	if err == nil {
		err = pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error { return r.apply(ctx, tx, from) })
	}
	var gone *NotParkedError
	switch {
	case err == nil || errors.As(err, &gone):
		return err
	case judge(err) == poison && r.at != eventstore.EventID{}:
		return r.again(ctx, describe(err))
	default:
		return fmt.Errorf("runner: retry %s of %s in %s: %w; nothing was changed, the stream stays parked", r.stream, r.tenant, r.projection.Name, err)
	}
}

// read goes on to read the stream.
func (r *retrial) read(ctx context.Context, from eventstore.Version) error {
	for rec, err := range r.log.ReadStream(ctx, r.stream, from) {
		if err != nil {
			return err
		}
		r.events = append(r.events, rec)
	}
	return nil
}

// apply holds the checkpoint's row, so that the log's part before it is what the stream must have applied, and what comes after it is the
// writer's, who waits and then finds the revision raised.
func (r *retrial) apply(ctx context.Context, tx pgx.Tx, from eventstore.Version) error {
	p := r.projection
	var position eventstore.Position
	err := tx.QueryRow(ctx, `select position from proj.checkpoint where projection = $1 and generation = $2 and tenant = $3 and state = 'live' for update`,
		p.Name, r.generation, string(r.tenant)).Scan(&position)
	if errors.Is(err, pgx.ErrNoRows) {
		return errors.New("another generation became the live one meanwhile; try again")
	}
	if err != nil {
		return err
	}
	freed, err := tx.Exec(ctx, `delete from proj.parked where projection = $1 and generation = $2 and tenant = $3 and kind = $4 and stream_id = $5 and from_version = $6`,
		p.Name, r.generation, string(r.tenant), r.stream.Kind, r.stream.ID, int64(from))
	if err != nil {
		return err
	}
	if freed.RowsAffected() == 0 { // somebody else was faster
		return &NotParkedError{p.Name, r.tenant, r.stream}
	}
	if n := len(r.events); n > 0 {
		from = r.events[n-1].Version + 1
	}
	if err := r.read(ctx, from); err != nil {
		return err
	}
	w := &consumer{projection: p, at: checkpoint{generation: r.generation}, skipped: r.skipped}
	for i := range r.events {
		rec := r.events[i]
		if rec.Position > position {
			break
		}
		if !w.wants(&rec) {
			continue
		}
		if err := r.one(ctx, tx, w.schema(), rec); err != nil {
			return err
		}
	}
	r.at = eventstore.EventID{}
	return raise(ctx, tx, p.Name, r.tenant)
}

// one applies one event, so that it is known which one fails.
func (r *retrial) one(ctx context.Context, tx pgx.Tx, schema string, rec eventstore.Recorded) error {
	r.at = rec.ID
	fact, err := r.operator.codec.Decode(ctx, rec)
	if err != nil {
		return &factError{"decode " + rec.Type, err}
	}
	w := &Writes{schema: schema}
	if r.projection.Apply != nil {
		if err := r.projection.Apply(w, rec, fact); err != nil {
			return &factError{"apply " + rec.Type, err}
		}
	}
	if err := send(ctx, tx, &w.batch, 0); err != nil {
		return err
	}
	if r.projection.InTx == nil {
		return nil
	}
	err = r.projection.InTx(ctx, tx, r.tenant, []Fact{{rec, fact}})
	var pg *pgconn.PgError
	if err != nil && !errors.As(err, &pg) && !connectionLost(err) {
		return &factError{"apply " + rec.Type, err}
	}
	return err
}

// again notes that the stream failed once more.
func (r *retrial) again(ctx context.Context, reason string) error {
	e := &StillParkedError{Projection: r.projection.Name, Stream: r.stream, Event: r.at, Reason: reason}
	err := r.pool.QueryRow(ctx, `update proj.parked set attempts = attempts + 1, error = $6, event_id = $7, at = now()
		where projection = $1 and generation = $2 and tenant = $3 and kind = $4 and stream_id = $5 returning attempts`,
		r.projection.Name, r.generation, string(r.tenant), r.stream.Kind, r.stream.ID, reason, [16]byte(r.at)).Scan(&e.Attempts)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return errors.Join(e, fmt.Errorf("runner: keep why %s stays parked: %w", r.stream, err))
	}
	return e
}
