package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/factum-platform/factum/eventstore"
)

const (
	// feedEvents is how many events a transaction of a rebuild takes: enough to make its commit cheap, few enough to hold some of them in memory.
	feedEvents = 4000
	// feedAhead is how many pages are read and decoded while one is written.
	feedAhead = 3
)

// PoisonError says that a rebuild met an event that cannot be applied. The live generation stays.
type PoisonError struct {
	Projection string
	Event      eventstore.Recorded
	Reason     string // holds no personal data
}

// Error implements error.
func (e *PoisonError) Error() string {
	return fmt.Sprintf("%[1]s cannot apply event %[2]s (%[3]s, stream %[4]s, version %[5]d, position %[6]d): %[7]s; the live generation stays as it is; "+
		"mend the projection, or pass over the event with 'factum projections skip %[1]s --tenant %[8]s --stream %[4]s --event %[2]s --reason …', and rebuild again",
		e.Projection, e.Event.ID, e.Event.Type, e.Event.Stream, e.Event.Version, e.Event.Position, e.Reason, e.Event.Tenant)
}

// exchangedError says that a log does not hold what was built from it.
type exchangedError struct {
	tenant eventstore.TenantID
	at     checkpoint
	schema string
}

// Error implements error.
func (e *exchangedError) Error() string {
	return fmt.Sprintf("the log of %s does not hold event %s at position %d, up to which %s was built: it was restored from a backup since", e.tenant, e.at.last, e.at.position, e.schema)
}

// feed is the way of one log into a generation that is being built. One goroutine at a time drives it.
type feed struct {
	b       *building
	tenant  eventstore.TenantID
	at      checkpoint
	known   bool // the skipped events and the parked streams are
	skipped map[eventstore.EventID]bool
	parked  map[eventstore.StreamID]bool
}

// read is a page that was read ahead. What it holds of facts is decoded once ready is closed.
type read struct {
	events []eventstore.Recorded
	facts  []any   // by event; nil for what the projection does not want
	errs   []error // why an event could not be decoded
	ready  chan struct{}
	err    error // the last page's: the log could not be read, or not by this binary
}

// to feeds what the log holds up to target, as far as it reaches. With a time until which it must be done it stops between pages when that has
// passed: errTooFar.
func (f *feed) to(ctx context.Context, target eventstore.Position, until time.Time) error {
	if f.at.position >= target {
		return nil
	}
	if !f.known {
		if err := f.learn(ctx); err != nil {
			return err
		}
	}
	pages := make(chan *read, feedAhead)
	var ahead sync.WaitGroup
	defer ahead.Wait()
	reading, stop := context.WithCancel(ctx)
	defer stop()
	ahead.Go(func() {
		defer close(pages)
		f.readAhead(reading, target, pages, &ahead)
	})
	for p := range pages {
		if p.err != nil {
			return p.err
		}
		if !until.IsZero() && time.Now().After(until) {
			return errTooFar
		}
		<-p.ready
		if err := f.write(ctx, p); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// readAhead reads pages up to target, or to the end of the log, and has each decoded while the next is read. The checkpoint's own event is read
// with the first: a log that does not hold it there was exchanged since the rebuild began.
func (f *feed) readAhead(ctx context.Context, target eventstore.Position, to chan<- *read, workers *sync.WaitGroup) {
	log := f.b.o.config.Store.Tenant(f.tenant)
	after, first := f.at.position, f.at.position > 0
	if first {
		after--
	}
	send := func(p *read) bool {
		select {
		case to <- p:
			return p.err == nil
		case <-ctx.Done():
			return false
		}
	}
	for {
		batch, err := log.Page(ctx, after, feedEvents)
		if err != nil {
			send(&read{err: f.b.failed("read the log of "+string(f.tenant), err)})
			return
		}
		events := batch.Events
		if first {
			if len(events) == 0 || events[0].Position != f.at.position || events[0].ID != f.at.last {
				send(&read{err: f.b.failed("go on", &exchangedError{f.tenant, f.at, f.b.schema(f.at.generation)})})
				return
			}
			events, first = events[1:], false
		}
		after = batch.Through
		last := batch.Live || after >= target
		for len(events) > 0 && events[len(events)-1].Position > target {
			events = events[:len(events)-1]
		}
		for _, rec := range events {
			if err := f.b.o.codec.Registry.Check(rec.Type, rec.Schema); err != nil {
				send(&read{err: f.b.failed(fmt.Sprintf("read the log of %s at position %d", f.tenant, rec.Position), err)})
				return
			}
		}
		if len(events) > 0 {
			p := &read{events: events, facts: make([]any, len(events)), errs: make([]error, len(events)), ready: make(chan struct{})}
			workers.Go(func() { f.decode(ctx, p) })
			if !send(p) {
				return
			}
		}
		if last {
			return
		}
	}
}

// decode decodes the facts that the projection wants.
func (f *feed) decode(ctx context.Context, p *read) {
	defer close(p.ready)
	for i := range p.events {
		rec := &p.events[i]
		if len(f.b.p.Types) > 0 && !slices.Contains(f.b.p.Types, rec.Type) {
			continue
		}
		fact, err := f.b.o.codec.Decode(ctx, *rec)
		if err != nil {
			p.errs[i] = &factError{"decode " + rec.Type, err}
			continue
		}
		p.facts[i] = fact
	}
}

// learn reads which events operators have skipped and which streams are parked in this generation, if it was live before.
func (f *feed) learn(ctx context.Context) error {
	skipped, err := skippedEvents(ctx, f.b.o.config.Store.Tenant(f.tenant), f.b.o.codec, f.b.p.Name)
	if err != nil {
		return f.b.failed("read which events of "+string(f.tenant)+" are skipped", err)
	}
	pool, err := f.b.pool(ctx)
	if err != nil {
		return err
	}
	rows, err := pool.Query(ctx, `select kind, stream_id from proj.parked where projection = $1 and generation = $2 and tenant = $3`,
		f.b.p.Name, f.at.generation, string(f.tenant))
	if err != nil {
		return f.b.failed("read the parked streams", err)
	}
	parked := map[eventstore.StreamID]bool{}
	var s eventstore.StreamID
	_, err = pgx.ForEachRow(rows, []any{&s.Kind, &s.ID}, func() error { parked[s] = true; return nil })
	if err != nil {
		return f.b.failed("read the parked streams", err)
	}
	f.skipped, f.parked, f.known = skipped, parked, true
	return nil
}

// write applies a page in one transaction. If that fails because of an event, it finds out which: with one transaction per event.
func (f *feed) write(ctx context.Context, p *read) error {
	err := f.apply(ctx, p, 0, len(p.events))
	if err == nil || judge(err) != poison {
		return f.stopped(ctx, err)
	}
	// Somebody may have skipped the event since this began.
	if err := f.learn(ctx); err != nil {
		return err
	}
	for i := range p.events {
		err := f.apply(ctx, p, i, i+1)
		if err != nil && judge(err) == poison && f.b.parks {
			err = f.park(ctx, p.events[i], describe(err))
		}
		if err != nil && judge(err) == poison {
			return &PoisonError{f.b.p.Name, p.events[i], describe(err)}
		}
		if err != nil {
			return f.stopped(ctx, err)
		}
	}
	return nil
}

// stopped says why a page could not be applied, in words for people.
func (f *feed) stopped(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, ErrLostRace), gone(err):
		return f.b.failed("write "+f.b.schema(f.at.generation), errors.Join(errMovedAway, err))
	default:
		return f.b.failed("write "+f.b.schema(f.at.generation), err)
	}
}

// gone tells whether a schema or a table is not there.
func gone(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "3F000" || pg.Code == "42P01")
}

const feedSQL = `update proj.checkpoint set position = $1, last_event = $2, moved_at = now(), error = null
	where projection = $3 and generation = $4 and tenant = $5 and position = $6 and last_event is not distinct from $7 and state = 'building'`

// apply commits what the events [from, to) of the page lead to, together with the move of the checkpoint, or nothing.
func (f *feed) apply(ctx context.Context, p *read, from, to int) error {
	w := &Writes{schema: f.b.schema(f.at.generation)}
	// What a crash of the server loses of a generation that is being built is built again, its checkpoint included.
	w.begin(to-from > 1)
	next := f.move(w, p.events[to-1])
	head := w.batch.Len()
	var slice []Fact
	for i := from; i < to; i++ {
		rec := p.events[i]
		if f.parked[rec.Stream] || f.skipped[rec.ID] || (p.facts[i] == nil && p.errs[i] == nil) {
			continue
		}
		if p.errs[i] != nil {
			return p.errs[i]
		}
		if f.b.p.Apply != nil {
			if err := f.b.p.Apply(w, rec, p.facts[i]); err != nil {
				return &factError{"apply " + rec.Type, err}
			}
		}
		if f.b.p.InTx != nil {
			slice = append(slice, Fact{rec, p.facts[i]})
		}
	}
	return f.commit(ctx, w, head, next, slice, to-from)
}

// move queues the checkpoint's compare-and-set, before all that it answers for.
func (f *feed) move(w *Writes, rec eventstore.Recorded) checkpoint {
	next := f.at
	next.position, next.last = rec.Position, rec.ID
	w.batch.Queue(feedSQL, int64(next.position), next.lastEvent(), f.b.p.Name, f.at.generation, string(f.tenant), int64(f.at.position), f.at.lastEvent())
	return next
}

// commit sends the queued statements, of which the head-th is the compare-and-set, in one transaction.
func (f *feed) commit(ctx context.Context, w *Writes, head int, next checkpoint, slice []Fact, events int) error {
	pool, err := f.b.pool(ctx)
	if err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		err := send(ctx, tx, &w.batch, head)
		if err == nil {
			err = w.writeRows(ctx, tx, f.b.types)
		}
		if err == nil && len(slice) > 0 {
			if err = f.b.p.InTx(ctx, tx, f.tenant, slice); err != nil {
				err = &factError{"apply a slice to " + f.b.p.Name, err}
			}
		}
		if err != nil && tx.Conn().IsClosed() {
			return &keyError{err} // the connection died, whatever the reason's words
		}
		return err
	})
	if err != nil {
		return err
	}
	by := next.position - f.at.position
	f.at = next
	f.b.moved(events, by)
	return nil
}

// park skips the event's stream from this event on, in a generation that is rolled back to.
func (f *feed) park(ctx context.Context, rec eventstore.Recorded, reason string) error {
	w := &Writes{}
	next := f.move(w, rec)
	head := w.batch.Len()
	w.Exec(`insert into proj.parked (projection, generation, tenant, kind, stream_id, from_version, event_id, error)
		values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing`,
		f.b.p.Name, f.at.generation, string(f.tenant), rec.Stream.Kind, rec.Stream.ID, int64(rec.Version), [16]byte(rec.ID), reason)
	if err := f.commit(ctx, w, head, next, nil, 1); err != nil {
		return err
	}
	f.parked[rec.Stream] = true
	return nil
}
