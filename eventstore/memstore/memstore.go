// Package memstore is the model of the log: the whole contract in memory, easy to read, for tests and for comparing other
// engines with. Everything is lost with the process.
package memstore

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/internal/tail"
)

// pageEvents is how many events ReadStream and Follow copy at a time.
const pageEvents = 500

var caps = eventstore.Caps{Gapless: true, MultiStream: true, AtomicClaim: true}

// Store implements [eventstore.Store]. It is safe for concurrent use.
type Store struct {
	bell   eventstore.Bell
	closed context.Context
	close  context.CancelFunc

	mu   sync.Mutex
	logs map[eventstore.TenantID]*log
}

// New returns an empty store.
func New() *Store {
	s := &Store{logs: map[eventstore.TenantID]*log{}}
	s.closed, s.close = context.WithCancel(context.Background())
	return s
}

// Tenant implements [eventstore.Store]. The calls on a log whose tenant id is malformed fail.
func (s *Store) Tenant(t eventstore.TenantID) eventstore.Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.logs[t]
	if !ok {
		l = &log{
			store: s, tenant: t, ids: map[eventstore.EventID]int{},
			streams: map[eventstore.StreamID][]int{}, claims: map[claimed]eventstore.StreamID{},
		}
		if t.Validate() == nil { // malformed ids are not remembered
			s.logs[t] = l
		}
	}
	return l
}

// Caps implements [eventstore.Store].
func (s *Store) Caps() eventstore.Caps { return caps }

// Bell implements [eventstore.Store].
func (s *Store) Bell() *eventstore.Bell { return &s.bell }

// Close implements [eventstore.Store]: every later call, and every Follow, answers [eventstore.ErrClosed].
func (s *Store) Close() error {
	s.close()
	return nil
}

type claimed struct{ scope, key string }

type log struct {
	store  *Store
	tenant eventstore.TenantID

	mu      sync.RWMutex
	events  []eventstore.Recorded // the event at position p is events[p-1]
	ids     map[eventstore.EventID]int
	streams map[eventstore.StreamID][]int // indexes into events
	claims  map[claimed]eventstore.StreamID
}

// ready says why a call cannot be made.
func (l *log) ready(ctx context.Context) error {
	if l.store.closed.Err() != nil {
		return eventstore.ErrClosed
	}
	if err := l.tenant.Validate(); err != nil {
		return &eventstore.InvalidError{Reason: strings.TrimPrefix(err.Error(), "eventstore: ")}
	}
	return ctx.Err()
}

// Append implements [eventstore.Log].
func (l *log) Append(ctx context.Context, writes ...eventstore.Write) ([]eventstore.Appended, error) {
	if err := l.ready(ctx); err != nil {
		return nil, err
	}
	if err := eventstore.Validate(caps, writes); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if out, err := l.replayed(writes); out != nil || err != nil {
		return out, err
	}
	if err := l.conflict(writes); err != nil {
		return nil, err
	}
	claims, err := l.claim(writes)
	if err != nil {
		return nil, err
	}
	l.claims = claims
	out := make([]eventstore.Appended, len(writes))
	now := time.Now().UTC().Truncate(time.Microsecond)
	for i, w := range writes {
		for _, e := range w.Events {
			e.Data = bytes.Clone(e.Data)
			e.Meta.At = e.Meta.At.UTC().Round(0)
			l.ids[e.ID] = len(l.events)
			l.streams[w.Stream] = append(l.streams[w.Stream], len(l.events))
			l.events = append(l.events, eventstore.Recorded{
				Tenant: l.tenant, Stream: w.Stream, Version: eventstore.Version(len(l.streams[w.Stream])),
				Position: eventstore.Position(len(l.events) + 1), Recorded: now, Proposed: e,
			})
		}
		out[i] = eventstore.Appended{Version: l.version(w.Stream), Position: eventstore.Position(len(l.events))}
	}
	l.store.bell.Ring(l.tenant)
	return out, nil
}

// replayed answers an append whose ids are in the log already; nil and no error when none is.
func (l *log) replayed(writes []eventstore.Write) ([]eventstore.Appended, error) {
	known, total := 0, 0
	out := make([]eventstore.Appended, len(writes))
	for i, w := range writes {
		out[i].Replayed = true
		for _, e := range w.Events {
			total++
			at, ok := l.ids[e.ID]
			if !ok {
				continue
			}
			known++
			first := l.events[at]
			if first.Stream != w.Stream || first.Type != e.Type {
				return nil, &eventstore.ReusedKeyError{Stream: w.Stream}
			}
			out[i].Version, out[i].Position = max(out[i].Version, first.Version), max(out[i].Position, first.Position)
		}
	}
	switch known {
	case 0:
		return nil, nil
	case total:
		return out, nil
	default:
		return nil, &eventstore.ReusedKeyError{Stream: writes[0].Stream}
	}
}

func (l *log) conflict(writes []eventstore.Write) error {
	sorted := slices.SortedFunc(slices.Values(writes), func(a, b eventstore.Write) int {
		return cmp.Or(cmp.Compare(a.Stream.Kind, b.Stream.Kind), cmp.Compare(a.Stream.ID, b.Stream.ID))
	})
	for _, w := range sorted {
		if v := l.version(w.Stream); !w.Expected.Allows(v) {
			return &eventstore.ConflictError{Stream: w.Stream, Expected: w.Expected, Actual: v}
		}
	}
	return nil
}

// claim returns the claims after the append. Of one value, it is given before it is taken, so an append can pass it on.
func (l *log) claim(writes []eventstore.Write) (map[claimed]eventstore.StreamID, error) {
	type change struct {
		eventstore.Claim
		stream eventstore.StreamID
	}
	var changes []change
	for _, w := range writes {
		for _, c := range w.Claims {
			changes = append(changes, change{c, w.Stream})
		}
	}
	if len(changes) == 0 {
		return l.claims, nil
	}
	slices.SortStableFunc(changes, func(a, b change) int {
		if o := cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Key, b.Key)); o != 0 || a.Give == b.Give {
			return o
		}
		if a.Give {
			return -1
		}
		return 1
	})
	after := make(map[claimed]eventstore.StreamID, len(l.claims)+len(changes))
	for k, owner := range l.claims {
		after[k] = owner
	}
	for _, c := range changes {
		k := claimed{c.Scope, c.Key}
		owner, taken := after[k]
		switch {
		case c.Give && taken && owner == c.stream:
			delete(after, k)
		case !c.Give && taken && owner != c.stream:
			return nil, &eventstore.ClaimError{Claim: c.Claim}
		case !c.Give:
			after[k] = c.stream
		}
	}
	return after, nil
}

func (l *log) version(s eventstore.StreamID) eventstore.Version {
	return eventstore.Version(len(l.streams[s]))
}

// ReadStream implements [eventstore.Log].
func (l *log) ReadStream(ctx context.Context, s eventstore.StreamID, from eventstore.Version) iter.Seq2[eventstore.Recorded, error] {
	return func(yield func(eventstore.Recorded, error) bool) {
		if err := s.Validate(); err != nil {
			yield(eventstore.Recorded{}, &eventstore.InvalidError{Reason: strings.TrimPrefix(err.Error(), "eventstore: ")})
			return
		}
		next := int(max(from, 1)) - 1
		for {
			if err := l.ready(ctx); err != nil {
				yield(eventstore.Recorded{}, err)
				return
			}
			l.mu.RLock()
			var page []eventstore.Recorded
			if at := l.streams[s]; next < len(at) {
				for _, i := range at[next:min(next+pageEvents, len(at))] {
					page = append(page, copied(l.events[i]))
				}
			}
			l.mu.RUnlock()
			for _, rec := range page {
				if !yield(rec, nil) {
					return
				}
			}
			if len(page) < pageEvents {
				return
			}
			next += len(page)
		}
	}
}

// Page implements [eventstore.Log].
func (l *log) Page(ctx context.Context, after eventstore.Position, limit int) (eventstore.Batch, error) {
	if err := l.ready(ctx); err != nil {
		return eventstore.Batch{}, err
	}
	if limit < 1 || limit > eventstore.MaxPageEvents {
		return eventstore.Batch{}, &eventstore.InvalidError{Reason: fmt.Sprintf("a page holds 1 to %d events, not %d", eventstore.MaxPageEvents, limit)}
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	head := eventstore.Position(len(l.events))
	batch := eventstore.Batch{Through: after, Live: after >= head}
	if batch.Live {
		return batch, nil
	}
	for _, rec := range l.events[after:min(head, after+eventstore.Position(limit))] {
		batch.Events = append(batch.Events, copied(rec))
		batch.Through = rec.Position
	}
	batch.Live = batch.Through >= head
	return batch, nil
}

// Follow implements [eventstore.Log].
func (l *log) Follow(ctx context.Context, after eventstore.Position) iter.Seq2[eventstore.Batch, error] {
	return tail.Source{
		Tenant: l.tenant, Bell: &l.store.bell, Closed: l.store.closed,
		Page: func(ctx context.Context, after eventstore.Position) (eventstore.Batch, error) {
			return l.Page(ctx, after, pageEvents)
		},
		Transient: func(error) bool { return false },
	}.Follow(ctx, after)
}

// Head implements [eventstore.Log].
func (l *log) Head(ctx context.Context) (eventstore.Position, error) {
	if err := l.ready(ctx); err != nil {
		return 0, err
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	return eventstore.Position(len(l.events)), nil
}

// Claims implements [eventstore.Log].
func (l *log) Claims(ctx context.Context) iter.Seq2[eventstore.Held, error] {
	return func(yield func(eventstore.Held, error) bool) {
		if err := l.ready(ctx); err != nil {
			yield(eventstore.Held{}, err)
			return
		}
		l.mu.RLock()
		held := make([]eventstore.Held, 0, len(l.claims))
		for c, stream := range l.claims {
			held = append(held, eventstore.Held{Scope: c.scope, Key: c.key, Stream: stream})
		}
		l.mu.RUnlock()
		slices.SortFunc(held, func(a, b eventstore.Held) int {
			return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Key, b.Key))
		})
		for _, h := range held {
			if !yield(h, nil) {
				return
			}
		}
	}
}

// copied protects the log from a reader that changes what it got.
func copied(rec eventstore.Recorded) eventstore.Recorded {
	rec.Data = bytes.Clone(rec.Data)
	return rec
}
