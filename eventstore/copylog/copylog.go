// Package copylog moves one tenant's log from one engine to another, event by event and in order: ids, types, schemas, versions, the
// bytes of the data, metadata and claims stay what they are; only positions and the engine's clock are the target's own.
//
// A copy keeps no state: what the target holds already must be a beginning of the source, and the copy goes on behind it. So it may be
// killed at any point and repeated. [Copy] is meant for a source whose writers are at rest and notices when they are not; a [Copier] follows
// a source that is written to.
package copylog

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/factum-platform/factum/eventstore"
)

// pageEvents is how many events are read at a time: at most 200 MiB of them, usually less than one.
const pageEvents = 200

// A run is what one append of a copy holds. It stays well below the limits of the contract: EventStoreDB takes 1 MiB per append, metadata
// included, unless it is told to take more, and nothing is won by larger ones.
const (
	runEvents = 500
	runBytes  = 512 << 10 // of data; a single event may be larger
)

// Progress is told how far a copy or a comparison is: how many events it has dealt with since it began, and the source's position after
// the last of them. It may be called often and must not block.
type Progress func(events uint64, at eventstore.Position)

// Copied says what a copy did.
type Copied struct {
	Found  uint64              // events that the target held before
	Added  uint64              // events that were appended
	Source eventstore.Position // the source's head, from beginning to end
}

// MovedError says that somebody wrote to the source during the copy. What was copied stays a beginning of the source.
type MovedError struct {
	Tenant   eventstore.TenantID
	From, To eventstore.Position
}

// Error implements error.
func (e *MovedError) Error() string {
	return fmt.Sprintf("copylog: the source log of %s moved from position %d to %d during the copy; stop everything that writes to it and copy again", e.Tenant, e.From, e.To)
}

// DifferenceError names the first difference of two logs. Index counts events (or claims) from 1. Nothing was overwritten.
type DifferenceError struct {
	Tenant eventstore.TenantID
	Index  uint64
	Reason string
}

// Error implements error.
func (e *DifferenceError) Error() string {
	return fmt.Sprintf("copylog: the logs of %s differ: %s; nothing was overwritten", e.Tenant, e.Reason)
}

// Copy appends to the target what it lacks of a source whose writers are at rest. Errors: *[DifferenceError] for a target that holds
// something else than a beginning of the source, *[MovedError], or what an engine answered; after any of them the copy may be repeated.
// The caller makes sure that nobody else writes to the target.
func Copy(ctx context.Context, tenant eventstore.TenantID, from, to eventstore.Log, progress Progress) (Copied, error) {
	c := Copier{Tenant: tenant, From: from, To: to, Progress: progress}
	out, err := c.Run(ctx)
	if err != nil {
		return out, err
	}
	return out, still(ctx, tenant, from, out.Source)
}

// Copier copies one tenant's log again and again, while others write to the source, and so stays near its end: it remembers up to where
// both are the same, and goes on behind that. It is for one goroutine.
type Copier struct {
	Tenant   eventstore.TenantID
	From, To eventstore.Log
	// MultiStream says that the target takes appends to several streams at once (see [eventstore.Caps]): a copy is then far faster.
	MultiStream bool
	// SamePositions says that events must come to lie at the positions of the source, as they do from one gapless engine to another.
	SamePositions bool
	Progress      Progress // optional

	here, there eventstore.Position // both logs are the same up to there
	events      uint64              // that lie before
}

// Run copies what the source holds when it begins. When it returns without an error, the target is the same up to Copied.Source; the claims
// are too, if nobody writes to the source. Errors: *[DifferenceError], or what an engine answered; it may be repeated.
func (c *Copier) Run(ctx context.Context) (Copied, error) {
	if c.Progress == nil {
		c.Progress = func(uint64, eventstore.Position) {}
	}
	head, err := c.From.Head(ctx)
	if err != nil {
		return Copied{}, fmt.Errorf("copylog: the source of %s: %w", c.Tenant, err)
	}
	source := &batches{reader: newReader(c.From, head), several: c.MultiStream}
	source.after = c.here
	if err := c.skip(ctx, source.reader); err != nil {
		return Copied{Found: c.events, Source: head}, err
	}
	out := Copied{Found: c.events, Source: head}
	owed, err := outstanding(ctx, c.Tenant, c.From, c.To)
	if err != nil {
		return out, err
	}
	for {
		batch, err := source.next(ctx)
		if err != nil {
			return out, fmt.Errorf("copylog: the source of %s: %w", c.Tenant, err)
		}
		if len(batch) == 0 {
			return out, nil
		}
		if err := c.append(ctx, batch, owed); err != nil {
			return out, fmt.Errorf("copylog: append to the target of %s: %w", c.Tenant, err)
		}
		out.Added += uint64(len(batch))
		c.Progress(c.events, c.here)
	}
}

// skip reads what both hold and leaves the source at the first event that the target lacks.
func (c *Copier) skip(ctx context.Context, source *reader) error {
	target := newReader(c.To, 0)
	target.after = c.there
	for {
		there, ok, err := target.peek(ctx)
		if err != nil {
			return fmt.Errorf("copylog: the target of %s: %w", c.Tenant, err)
		}
		if !ok {
			return nil
		}
		here, ok, err := source.peek(ctx)
		if err != nil {
			return fmt.Errorf("copylog: the source of %s: %w", c.Tenant, err)
		}
		n := c.events + 1
		if !ok {
			return &DifferenceError{c.Tenant, n, fmt.Sprintf("event %d of the target, %s, is not in the source", n, name(there))}
		}
		if d := c.differ(here, there); d != "" {
			return &DifferenceError{c.Tenant, n, fmt.Sprintf("event %d %s", n, d)}
		}
		source.advance()
		target.advance()
		c.events, c.here, c.there = n, here.Position, there.Position
		c.Progress(n, here.Position)
	}
}

func (c *Copier) differ(here, there eventstore.Recorded) string {
	if d := differ(here, there); d != "" || !c.SamePositions || here.Position == there.Position {
		return d
	}
	return fmt.Sprintf("lies at position %d in the source and at %d in the target", here.Position, there.Position)
}

// append writes a batch: one write for each stream.
func (c *Copier) append(ctx context.Context, batch []eventstore.Recorded, owed *debts) error {
	var writes []eventstore.Write
	var streams []eventstore.StreamID
	var last []eventstore.Recorded
	for i, rec := range batch {
		if i == 0 || rec.Stream != batch[i-1].Stream {
			writes = append(writes, eventstore.Write{Stream: rec.Stream, Expected: eventstore.At(rec.Version - 1)})
			streams, last = append(streams, rec.Stream), append(last, rec)
		}
		w := len(writes) - 1
		writes[w].Events = append(writes[w].Events, rec.Proposed)
		last[w] = rec
	}
	for i, claims := range owed.settle(streams) {
		writes[i].Claims = claims
	}
	out, err := c.To.Append(ctx, writes...)
	if err != nil {
		return err
	}
	for i, rec := range last {
		if len(out) != len(last) || out[i].Version != rec.Version {
			return fmt.Errorf("stream %s came to another version than %d: %+v", rec.Stream, rec.Version, out)
		}
		if c.SamePositions && out[i].Position != rec.Position {
			return fmt.Errorf("%s came to position %d and not to %d: somebody else writes to the target", name(rec), out[i].Position, rec.Position)
		}
	}
	c.events += uint64(len(batch))
	c.here, c.there = batch[len(batch)-1].Position, out[len(out)-1].Position
	return nil
}

// batches groups a log into appends.
type batches struct {
	*reader
	several bool // streams in one append
	group   run  // that did not fit into the last one
}

// run is what one append can hold: adjacent events, each stream once.
type run struct {
	events []eventstore.Recorded
	seen   map[eventstore.StreamID]bool
	size   int // bytes of data
}

// takes tells whether rec may follow: its stream is the last one's, or a new one if several are allowed.
func (r *run) takes(rec eventstore.Recorded, several bool) bool {
	return len(r.events) == 0 || rec.Stream == r.events[len(r.events)-1].Stream || (several && !r.seen[rec.Stream])
}

func (r *run) add(rec eventstore.Recorded) {
	if r.seen == nil {
		r.seen = map[eventstore.StreamID]bool{}
	}
	r.seen[rec.Stream] = true
	r.events, r.size = append(r.events, rec), r.size+len(rec.Data)
}

// next takes the events of the next append. What one command wrote stays together, so that a claim passes from one stream to another as
// it did.
func (b *batches) next(ctx context.Context) ([]eventstore.Recorded, error) {
	var batch run
	for {
		if len(b.group.events) == 0 {
			if err := b.nextGroup(ctx); err != nil {
				return nil, err
			}
		}
		n := len(b.group.events)
		fits := n > 0 && (len(batch.events) == 0 || (len(batch.events)+n <= runEvents && batch.size+b.group.size <= runBytes))
		for i, rec := range b.group.events {
			if fits && (i == 0 || rec.Stream != b.group.events[i-1].Stream) {
				fits = batch.takes(rec, b.several) && (i == 0 || !batch.seen[rec.Stream])
			}
		}
		if !fits {
			return batch.events, nil
		}
		for _, rec := range b.group.events {
			batch.add(rec)
		}
		b.group = run{}
	}
}

// nextGroup takes what one command wrote, as far as one append can hold it.
func (b *batches) nextGroup(ctx context.Context) error {
	events, bytes := runEvents, runBytes
	if b.several {
		events, bytes = eventstore.MaxAppendEvents, eventstore.MaxAppendBytes
	}
	for len(b.group.events) < events {
		rec, ok, err := b.peek(ctx)
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		if len(b.group.events) > 0 {
			first := b.group.events[0].Meta
			if rec.Meta.Command != first.Command || rec.Meta.Actor != first.Actor || b.group.size+len(rec.Data) > bytes || !b.group.takes(rec, b.several) {
				return nil
			}
		}
		b.group.add(rec)
		b.advance()
	}
	return nil
}

// still makes sure that nobody wrote to the log since its head was read.
func still(ctx context.Context, tenant eventstore.TenantID, from eventstore.Log, head eventstore.Position) error {
	now, err := from.Head(ctx)
	if err != nil {
		return fmt.Errorf("copylog: the source of %s: %w", tenant, err)
	}
	if now != head {
		return &MovedError{tenant, head, now}
	}
	return nil
}

// reader yields a log event by event.
type reader struct {
	log   eventstore.Log
	until eventstore.Position // events behind it are not read; 0 reads to the end
	after eventstore.Position
	page  []eventstore.Recorded
	ended bool
}

func newReader(log eventstore.Log, until eventstore.Position) *reader {
	return &reader{log: log, until: until}
}

// peek returns the next event without taking it; ok is false at the end.
func (r *reader) peek(ctx context.Context) (rec eventstore.Recorded, ok bool, err error) {
	for len(r.page) == 0 {
		if r.ended {
			return rec, false, nil
		}
		b, err := r.log.Page(ctx, r.after, pageEvents)
		if err != nil {
			return rec, false, err
		}
		if len(b.Events) == 0 && !b.Live && b.Through <= r.after {
			return rec, false, fmt.Errorf("the page after position %d is empty and yet not the last", r.after)
		}
		r.page, r.after, r.ended = b.Events, b.Through, b.Live
	}
	if rec = r.page[0]; r.until > 0 && rec.Position > r.until {
		r.page, r.ended = nil, true
		return eventstore.Recorded{}, false, nil
	}
	return rec, true, nil
}

func (r *reader) advance() { r.page = r.page[1:] }

// differ says how an event of the target differs from the source's, "" when it does not. Data is not quoted: it may be personal.
func differ(here, there eventstore.Recorded) string {
	both := func(what string, here, there any) string {
		return fmt.Sprintf("has %s %v in the source and %v in the target", what, here, there)
	}
	switch {
	case here.ID != there.ID:
		return fmt.Sprintf("is %s in the source and %s in the target", name(here), name(there))
	case here.Stream != there.Stream || here.Version != there.Version:
		return both("stream and version", fmt.Sprintf("%s@%d", here.Stream, here.Version), fmt.Sprintf("%s@%d", there.Stream, there.Version))
	case here.Type != there.Type || here.Schema != there.Schema:
		return both("type", fmt.Sprintf("%s v%d", here.Type, here.Schema), fmt.Sprintf("%s v%d", there.Type, there.Schema))
	case !bytes.Equal(here.Data, there.Data):
		return fmt.Sprintf("(%s) holds other data: %d bytes in the source and %d in the target", name(here), len(here.Data), len(there.Data))
	case !sameMeta(here.Meta, there.Meta):
		return fmt.Sprintf("(%s) has other metadata", name(here))
	}
	return ""
}

func sameMeta(a, b eventstore.Meta) bool {
	sameTime := a.At.Equal(b.At)
	a.At, b.At = time.Time{}, time.Time{}
	return sameTime && a == b
}

func name(rec eventstore.Recorded) string {
	return fmt.Sprintf("%s %s of stream %s", rec.Type, rec.ID, rec.Stream)
}
