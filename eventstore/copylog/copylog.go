// Package copylog moves one tenant's log from one engine to another, event by event and in order: ids, types, schemas, versions, the
// bytes of the data, metadata and claims stay what they are; only positions and the engine's clock are the target's own.
//
// A copy keeps no state: what the target holds already must be a beginning of the source, and the copy goes on behind it. So it may be
// killed at any point and repeated. It is meant for a source whose writers are at rest and notices when they are not.
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

// Copy appends to the target what it lacks of the source. Errors: *[DifferenceError] for a target that holds something else than a
// beginning of the source, *[MovedError], or what an engine answered; after any of them the copy may be repeated. The caller makes
// sure that nobody else writes to the target.
func Copy(ctx context.Context, tenant eventstore.TenantID, from, to eventstore.Log, progress Progress) (Copied, error) {
	if progress == nil {
		progress = func(uint64, eventstore.Position) {}
	}
	head, err := from.Head(ctx)
	if err != nil {
		return Copied{}, fmt.Errorf("copylog: the source of %s: %w", tenant, err)
	}
	out := Copied{Source: head}
	source := newReader(from, head)
	if out.Found, err = skip(ctx, tenant, source, newReader(to, 0), progress); err != nil {
		return out, err
	}
	owed, err := outstanding(ctx, tenant, from, to)
	if err != nil {
		return out, err
	}
	for {
		run, err := nextRun(ctx, source)
		if err != nil {
			return out, fmt.Errorf("copylog: the source of %s: %w", tenant, err)
		}
		if len(run) == 0 {
			break
		}
		if err := appendRun(ctx, to, run, owed); err != nil {
			return out, fmt.Errorf("copylog: append to the target of %s: %w", tenant, err)
		}
		out.Added += uint64(len(run))
		progress(out.Found+out.Added, run[len(run)-1].Position)
	}
	if err := still(ctx, tenant, from, head); err != nil {
		return out, err
	}
	return out, nil
}

// skip reads what both hold and leaves the source at the first event that the target lacks.
func skip(ctx context.Context, tenant eventstore.TenantID, source, target *reader, progress Progress) (uint64, error) {
	var n uint64
	for {
		there, ok, err := target.peek(ctx)
		if err != nil {
			return n, fmt.Errorf("copylog: the target of %s: %w", tenant, err)
		}
		if !ok {
			return n, nil
		}
		here, ok, err := source.peek(ctx)
		if err != nil {
			return n, fmt.Errorf("copylog: the source of %s: %w", tenant, err)
		}
		n++
		if !ok {
			return n, &DifferenceError{tenant, n, fmt.Sprintf("event %d of the target, %s, is not in the source", n, name(there))}
		}
		if d := differ(here, there); d != "" {
			return n, &DifferenceError{tenant, n, fmt.Sprintf("event %d %s", n, d)}
		}
		source.advance()
		target.advance()
		progress(n, here.Position)
	}
}

// nextRun takes the events of the next append: all of one stream, adjacent in the source.
func nextRun(ctx context.Context, source *reader) ([]eventstore.Recorded, error) {
	var run []eventstore.Recorded
	size := 0
	for len(run) < runEvents {
		rec, ok, err := source.peek(ctx)
		if err != nil {
			return nil, err
		}
		if !ok || (len(run) > 0 && (rec.Stream != run[0].Stream || size+len(rec.Data) > runBytes)) {
			break
		}
		run = append(run, rec)
		size += len(rec.Data)
		source.advance()
	}
	return run, nil
}

func appendRun(ctx context.Context, to eventstore.Log, run []eventstore.Recorded, owed *debts) error {
	first, last := run[0], run[len(run)-1]
	w := eventstore.Write{Stream: first.Stream, Expected: eventstore.At(first.Version - 1), Claims: owed.take(first.Stream)}
	for _, rec := range run {
		w.Events = append(w.Events, rec.Proposed)
	}
	out, err := to.Append(ctx, w)
	if err != nil {
		return err
	}
	if len(out) != 1 || out[0].Version != last.Version {
		return fmt.Errorf("stream %s came to another version than %d: %+v", first.Stream, last.Version, out)
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
