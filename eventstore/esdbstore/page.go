package esdbstore

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/internal/tail"
)

// streamPage is how many events ReadStream and Follow fetch at a time.
const streamPage = 500

// hintsPerTenant bounds how many positions a store remembers the links of.
const hintsPerTenant = 256

// log implements [eventstore.Log].
type log struct {
	store  *Store
	tenant eventstore.TenantID

	mu    sync.Mutex
	hints map[eventstore.Position]uint64 // the number that the link to a position had when it was read
}

// begin is what every call on a log does first. end must be called with the call's error, and returns what to answer.
func (l *log) begin(ctx context.Context) (_ context.Context, end func(error) error, err error) {
	if err := l.tenant.Validate(); err != nil && l.store.closed.Err() == nil {
		return nil, nil, invalid(err)
	}
	return l.store.begin(ctx)
}

// begin makes the call's context end with the store. end must be called with the call's error, and returns what to answer.
func (s *Store) begin(ctx context.Context) (_ context.Context, end func(error) error, err error) {
	if s.closed.Err() != nil {
		return nil, nil, eventstore.ErrClosed
	}
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.closed, cancel)
	return ctx, func(err error) error {
		stop()
		cancel()
		if err != nil && s.closed.Err() != nil {
			return eventstore.ErrClosed
		}
		return err
	}, nil
}

func invalid(err error) error {
	return &eventstore.InvalidError{Reason: strings.TrimPrefix(err.Error(), "eventstore: ")}
}

// ReadStream implements [eventstore.Log]. It reads page by page, so that a slow consumer holds no call open.
func (l *log) ReadStream(ctx context.Context, s eventstore.StreamID, from eventstore.Version) iter.Seq2[eventstore.Recorded, error] {
	return func(yield func(eventstore.Recorded, error) bool) {
		if err := s.Validate(); err != nil {
			yield(eventstore.Recorded{}, invalid(err))
			return
		}
		for from = max(from, 1); ; {
			page, more, err := l.streamPage(ctx, s, from)
			if err != nil {
				yield(eventstore.Recorded{}, err)
				return
			}
			for _, rec := range page {
				if !yield(rec, nil) {
					return
				}
				from = rec.Version + 1
			}
			if !more {
				return
			}
		}
	}
}

// streamPage returns the next events of a stream, and whether there may be more.
func (l *log) streamPage(ctx context.Context, s eventstore.StreamID, from eventstore.Version) (page []eventstore.Recorded, more bool, err error) {
	ctx, end, err := l.begin(ctx)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = end(err) }()
	links, more, err := l.store.client.read(ctx, streamName(l.tenant, s), span{from: uint64(from) - 1, count: streamPage})
	if err != nil {
		return nil, false, err
	}
	for _, e := range links {
		rec, err := l.recorded(e.record, s)
		if err != nil {
			return nil, false, err
		}
		page = append(page, rec)
	}
	return page, more || len(page) == streamPage, nil
}

// Page implements [eventstore.Log]. Where the log is known to go on beyond the links that $by_category has made, an empty page waits for
// them for at most Config.LinkTimeout, and then fails; the call may be repeated.
func (l *log) Page(ctx context.Context, after eventstore.Position, limit int) (_ eventstore.Batch, err error) {
	ctx, end, err := l.begin(ctx)
	if err != nil {
		return eventstore.Batch{}, err
	}
	defer func() { err = end(err) }()
	if limit < 1 || limit > eventstore.MaxPageEvents {
		return eventstore.Batch{}, &eventstore.InvalidError{Reason: fmt.Sprintf("a page holds 1 to %d events, not %d", eventstore.MaxPageEvents, limit)}
	}
	var batch eventstore.Batch
	err = l.await(ctx, func() (bool, error) {
		b, reached, err := l.page(ctx, after, limit)
		if err != nil {
			return false, err
		}
		lacking := b.Live && l.store.watch.head(l.tenant) > max(after, reached)
		b.Live = b.Live && !lacking
		batch = b
		return len(b.Events) > 0 || !lacking, nil
	})
	return batch, err
}

// await repeats a reading until it is complete: links are made some milliseconds after their events.
func (l *log) await(ctx context.Context, complete func() (bool, error)) error {
	until := time.Now().Add(l.store.config.LinkTimeout)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		done, err := complete()
		if done || err != nil {
			return err
		}
		if time.Now().After(until) {
			return &callError{
				what: "read the log of tenant " + string(l.tenant), err: fmt.Errorf("$by_category has not linked the last events within %s", l.store.config.LinkTimeout),
				fix: "see its state on the server; reading goes on when it does", again: true,
			}
		}
		wait(ctx, pause)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// page reads what is linked. Live says that no link follows; reached is then the position of the last one.
func (l *log) page(ctx context.Context, after eventstore.Position, limit int) (batch eventstore.Batch, reached eventstore.Position, err error) {
	batch.Through = after
	from, skip := uint64(0), 0
	if hint, found := l.hint(after); found {
		from, skip = hint, 1
	} else if after > 0 {
		var beyond bool
		if from, reached, beyond, err = l.search(ctx, after); err != nil || beyond {
			batch.Live = beyond
			return batch, reached, err
		}
	}
	links, more, err := l.store.client.read(ctx, categoryOf(l.tenant), span{from: from, count: limit + 1 + skip})
	if err != nil {
		return batch, 0, err
	}
	if skip == 1 && (len(links) == 0 || links[0].lost || links[0].number != from || eventstore.Position(links[0].position) != after) {
		l.unhint(after) // links were renumbered
		return l.page(ctx, after, limit)
	}
	for _, e := range links {
		position, err := l.position(e)
		if err != nil {
			return batch, 0, err
		}
		reached = position
		if position <= batch.Through {
			continue // before the page, or linked twice
		}
		if len(batch.Events) == limit {
			more = true
			break
		}
		if s, ours := parseStream(l.tenant, e.stream); ours {
			rec, err := l.recorded(e.record, s)
			if err != nil {
				return batch, 0, err
			}
			batch.Events = append(batch.Events, rec)
		}
		batch.Through = position
		l.setHint(position, e.number)
	}
	batch.Live = !more && len(links) <= limit+skip
	if !batch.Live && len(batch.Events) == 0 { // nothing of ours in all that was read
		if batch.Through == after {
			l.unhint(after)
		}
		return l.page(ctx, batch.Through, limit)
	}
	return batch, reached, nil
}

// search finds the first link to an event beyond a position. beyond says that there is none; reached is then the last one's position.
func (l *log) search(ctx context.Context, after eventstore.Position) (number uint64, reached eventstore.Position, beyond bool, err error) {
	probe := func(s span) (uint64, eventstore.Position, bool, error) {
		s.count = 1
		links, _, err := l.store.client.read(ctx, categoryOf(l.tenant), s)
		if err != nil || len(links) == 0 {
			return 0, 0, false, err
		}
		position, err := l.position(links[0])
		return links[0].number, position, true, err
	}
	high, reached, found, err := probe(span{last: true})
	if err != nil || !found || reached <= after {
		return 0, reached, true, err
	}
	low, position, found, err := probe(span{})
	if err != nil || !found || position > after {
		return low, 0, false, err
	}
	for high-low > 1 { // low is at or before the position, high beyond
		at, position, found, err := probe(span{from: low + (high-low)/2})
		switch {
		case err != nil:
			return 0, 0, false, err
		case !found || at >= high: // links went while we searched
			return l.search(ctx, after)
		case position > after:
			high = at
		default:
			low = at
		}
	}
	return high, 0, false, nil
}

// position is that of a link's event in $all.
func (l *log) position(e link) (eventstore.Position, error) {
	what := "read the log of tenant " + string(l.tenant)
	switch {
	case e.lost:
		return 0, &callError{
			what: what, err: fmt.Errorf("link %d of %s points to an event that is gone or may not be read", e.number, categoryOf(l.tenant)),
			fix: "streams of a tenant must have no $maxAge, $maxCount or $tb, must not be deleted, and must be readable; restore the server from a backup",
		}
	case e.position == noPosition:
		return 0, noPositions(what)
	default:
		return eventstore.Position(e.position), nil
	}
}

func (l *log) hint(p eventstore.Position) (uint64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	number, found := l.hints[p]
	return number, found
}

func (l *log) unhint(p eventstore.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.hints, p)
}

// setHint remembers a link's number, in the place of any other when there are too many.
func (l *log) setHint(p eventstore.Position, number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for other := range l.hints {
		if len(l.hints) < hintsPerTenant {
			break
		}
		delete(l.hints, other)
	}
	l.hints[p] = number
}

// Head implements [eventstore.Log]. It knows the appends of this store at once, and those of others when the doorbell has told of them or
// their links are made.
func (l *log) Head(ctx context.Context) (_ eventstore.Position, err error) {
	ctx, end, err := l.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = end(err) }()
	links, _, err := l.store.client.read(ctx, categoryOf(l.tenant), span{last: true, count: 1})
	if err != nil {
		return 0, err
	}
	var linked eventstore.Position
	if len(links) == 1 {
		if linked, err = l.position(links[0]); err != nil {
			return 0, err
		}
	}
	return max(linked, l.store.watch.head(l.tenant)), nil
}

// Follow implements [eventstore.Log].
func (l *log) Follow(ctx context.Context, after eventstore.Position) iter.Seq2[eventstore.Batch, error] {
	return tail.Source{
		Tenant: l.tenant, Bell: &l.store.bell, Closed: l.store.closed,
		Page: func(ctx context.Context, after eventstore.Position) (eventstore.Batch, error) {
			return l.Page(ctx, after, streamPage)
		},
		Transient: transient,
	}.Follow(ctx, after)
}
