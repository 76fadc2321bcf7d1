package esdbstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/factum-platform/factum/eventstore"
)

// A claimed value has a stream of its own, in which appends say what they are about to do: reserve, then append the event, then confirm.
// The truth is in the streams of the owners: a stream holds a value if the last of its appends that touched the value took it. A
// reservation whose append is not known to be written or refused yet is open; whoever needs to know looks into the owner's stream.

const (
	// reservationAge is when an open reservation whose event is not in its stream counts as given up.
	reservationAge = 10 * time.Minute
	// appendAge is how old an append's own reservations may be when its event is sent: far below reservationAge, so that nobody takes the
	// value over in between.
	appendAge = 3 * time.Minute
	// sweepEvery is how often reservations that were left open are looked for.
	sweepEvery = time.Minute
)

// The types of the events in a claim's stream.
const (
	claimReserved  = "claim.reserved"
	claimConfirmed = "claim.confirmed"
	claimDropped   = "claim.dropped"
)

type claimed struct{ scope, key string }

// claimEvent is the data of all three types.
type claimEvent struct {
	Kind  string             `json:"kind"` // of the owner
	ID    string             `json:"id"`   // of the owner
	Event string             `json:"event"`
	Give  bool               `json:"give,omitempty"`
	After eventstore.Version `json:"after,omitempty"` // reserved: the owner's version; the event can only come later
	At    eventstore.Version `json:"at,omitempty"`    // confirmed: the event's version
	// Reservation is the id of what is dropped.
	Reservation string `json:"reservation,omitempty"`
}

// reservation is an append's word about one value.
type reservation struct {
	id    eventstore.EventID
	value claimed
	owner eventstore.StreamID
	event eventstore.EventID // the append's first
	give  bool
	after eventstore.Version
	made  time.Time // by the server's clock
}

func (r reservation) data(at eventstore.Version, dropped bool) claimEvent {
	e := claimEvent{Kind: r.owner.Kind, ID: r.owner.ID, Event: r.event.String(), Give: r.give, After: r.after, At: at}
	if dropped {
		e.Reservation = r.id.String()
	}
	return e
}

// claimState is what a claim's stream says.
type claimState struct {
	value claimed
	count uint64 // of events in the stream
	open  []reservation
	last  map[eventstore.StreamID]landed
}

// landed is the last append of a stream that touched the value.
type landed struct {
	at   eventstore.Version
	give bool
}

func newClaimState(v claimed) *claimState {
	return &claimState{value: v, last: map[eventstore.StreamID]landed{}}
}

// apply folds the next event of the stream.
func (s *claimState) apply(r record) error {
	s.count = r.revision + 1
	var e claimEvent
	if err := json.Unmarshal(r.data, &e); err != nil {
		return &callError{what: "read stream " + r.stream, err: fmt.Errorf("event %d: %w", r.revision, err), fix: "nobody else may write to it"}
	}
	event, err := eventstore.ParseEventID(e.Event)
	if err != nil {
		return &callError{what: "read stream " + r.stream, err: fmt.Errorf("event %d: %w", r.revision, err), fix: "nobody else may write to it"}
	}
	owner := eventstore.StreamID{Kind: e.Kind, ID: e.ID}
	switch r.kind {
	case claimReserved:
		s.open = append(s.open, reservation{id: r.id, value: s.value, owner: owner, event: event, give: e.Give, after: e.After, made: r.created})
	case claimConfirmed:
		s.confirm(owner, event, landed{e.At, e.Give})
	case claimDropped:
		s.open = slices.DeleteFunc(s.open, func(o reservation) bool { return o.id.String() == e.Reservation })
	}
	return nil
}

func (s *claimState) confirm(owner eventstore.StreamID, event eventstore.EventID, at landed) {
	if at.at >= s.last[owner].at {
		s.last[owner] = at
	}
	s.open = slices.DeleteFunc(s.open, func(o reservation) bool { return o.owner == owner && o.event == event })
}

// holder returns the stream that holds the value by what is confirmed.
func (s *claimState) holder() (eventstore.StreamID, bool) {
	for owner, last := range s.last {
		if !last.give {
			return owner, true
		}
	}
	return eventstore.StreamID{}, false
}

// netClaims says what an append does to each value, in the order of scope and key. A value that is given and taken is taken.
func netClaims(claims []eventstore.Claim) []eventstore.Claim {
	net := map[claimed]eventstore.Claim{}
	for _, c := range claims {
		v := claimed{c.Scope, c.Key}
		if other, twice := net[v]; twice && !other.Give {
			c = other
		}
		net[v] = c
	}
	out := make([]eventstore.Claim, 0, len(net))
	for _, c := range net {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b eventstore.Claim) int {
		return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Key, b.Key))
	})
	return out
}

// reserve writes down what the append is about to do. It reserves all or none.
func (l *log) reserve(ctx context.Context, w eventstore.Write, version eventstore.Version, changes []eventstore.Claim) ([]reservation, error) {
	var done []reservation
	for _, c := range changes {
		r := reservation{value: claimed{c.Scope, c.Key}, owner: w.Stream, event: w.Events[0].ID, give: c.Give, after: version}
		made, err := l.reserveOne(ctx, &r, c)
		if made {
			done = append(done, r)
		}
		if err != nil {
			l.undo(ctx, done, err)
			return nil, err
		}
	}
	return done, nil
}

// reserveOne reserves one value. made is false where there is nothing to do: what is not one's own cannot be given.
func (l *log) reserveOne(ctx context.Context, r *reservation, c eventstore.Claim) (made bool, err error) {
	r.id = newID()
	for range maxTurns {
		state, err := l.claim(ctx, r.value)
		if err != nil {
			return false, err
		}
		settled, err := l.resolve(ctx, state)
		if err != nil {
			return false, err
		}
		holder, held := state.holder()
		if held && holder != r.owner && !r.give || slices.ContainsFunc(state.open, func(o reservation) bool { return o.owner != r.owner && !o.give && !r.give }) {
			return false, &eventstore.ClaimError{Claim: c}
		}
		mine := held && holder == r.owner || slices.ContainsFunc(state.open, func(o reservation) bool { return o.owner == r.owner && !o.give })
		if r.give && !mine {
			return false, nil
		}
		settled = append(settled, claimProposal(r.id, claimReserved, r.data(0, false)))
		at, err := l.store.client.append(ctx, claimName(l.tenant, r.value), expectation{count: state.count}, settled)
		if errors.Is(err, errWrongVersion) {
			continue
		}
		l.store.claims(l.tenant, at.position)
		return true, err // if it is written in spite of an error, it stays open until it is old
	}
	return false, &callError{what: "reserve a claimed " + c.Scope, err: fmt.Errorf("its stream moved on %d times", maxTurns), fix: "repeat the append", again: true}
}

// claim reads what a value's stream says.
func (l *log) claim(ctx context.Context, v claimed) (*claimState, error) {
	state := newClaimState(v)
	for {
		page, more, err := l.store.client.read(ctx, claimName(l.tenant, v), span{from: state.count, count: streamPage})
		if err != nil {
			return nil, err
		}
		for _, e := range page {
			if err := state.apply(e.record); err != nil {
				return nil, err
			}
		}
		if !more && len(page) < streamPage {
			return state, nil
		}
	}
}

// resolve looks into the owners' streams for what became of open reservations. It settles in state those that are decided, and returns the
// events that say so.
func (l *log) resolve(ctx context.Context, state *claimState) ([]proposal, error) {
	var settled []proposal
	for _, r := range slices.Clone(state.open) {
		if !slices.ContainsFunc(state.open, func(o reservation) bool { return o.id == r.id }) {
			continue // another one of the same append was settled
		}
		at, err := l.landed(ctx, r)
		if err != nil {
			return nil, err
		}
		switch {
		case at > 0:
			state.confirm(r.owner, r.event, landed{at, r.give})
			settled = append(settled, claimProposal(newID(), claimConfirmed, r.data(at, false)))
		case l.store.now().Sub(r.made) > reservationAge:
			state.open = slices.DeleteFunc(state.open, func(o reservation) bool { return o.id == r.id })
			settled = append(settled, claimProposal(newID(), claimDropped, r.data(0, true)))
		}
	}
	return settled, nil
}

// landed returns the version of the reservation's event in its stream, 0 if it is not there.
func (l *log) landed(ctx context.Context, r reservation) (eventstore.Version, error) {
	if at, found := l.store.known.find(l.tenant, r.event); found && at.stream == r.owner {
		return at.version, nil
	}
	for from := uint64(r.after); ; {
		page, more, err := l.store.client.read(ctx, streamName(l.tenant, r.owner), span{from: from, count: streamPage})
		if err != nil {
			return 0, err
		}
		for _, e := range page {
			if e.id == r.event {
				return eventstore.Version(e.revision) + 1, nil
			}
			from = e.revision + 1
		}
		if !more && len(page) < streamPage {
			return 0, nil
		}
	}
}

// settle confirms the reservations of an append that was written at a version. What fails is left to the next claimant or the sweep: the
// append is in the log, and that decides.
func (l *log) settle(ctx context.Context, reserved []reservation, at eventstore.Version) {
	for _, r := range reserved {
		l.note(ctx, r.value, []proposal{claimProposal(newID(), claimConfirmed, r.data(at, false))})
	}
}

// undo drops the reservations of an append that was refused. After an ambiguous failure they stay open: the append may be in the log.
func (l *log) undo(ctx context.Context, reserved []reservation, err error) {
	var conflict *eventstore.ConflictError
	var claim *eventstore.ClaimError
	var reused *eventstore.ReusedKeyError
	var malformed *eventstore.InvalidError
	if !errors.As(err, &conflict) && !errors.As(err, &claim) && !errors.As(err, &reused) && !errors.As(err, &malformed) {
		return
	}
	for _, r := range reserved {
		l.note(ctx, r.value, []proposal{claimProposal(newID(), claimDropped, r.data(0, true))})
	}
}

// confirm is settle for an append that was found in the log.
func (l *log) confirm(ctx context.Context, w eventstore.Write, changes []eventstore.Claim, at eventstore.Version) {
	for _, c := range changes {
		v := claimed{c.Scope, c.Key}
		state, err := l.claim(ctx, v)
		if err != nil {
			l.store.config.Logger.Warn("esdbstore: a claim was not confirmed; the sweep will", "tenant", l.tenant, "scope", c.Scope, "error", err)
			continue
		}
		for _, r := range state.open {
			if r.owner == w.Stream && r.event == w.Events[0].ID {
				l.note(ctx, v, []proposal{claimProposal(newID(), claimConfirmed, r.data(at, false))})
				break
			}
		}
	}
}

// note appends to a claim's stream what is true whatever came before.
func (l *log) note(ctx context.Context, v claimed, events []proposal) {
	at, err := l.store.client.append(ctx, claimName(l.tenant, v), expectation{any: true}, events)
	l.store.claims(l.tenant, at.position)
	if err != nil {
		l.store.config.Logger.Warn("esdbstore: a reservation stays open; the sweep will settle it", "tenant", l.tenant, "scope", v.scope, "error", err)
	}
}

func claimProposal(id eventstore.EventID, kind string, e claimEvent) proposal {
	data, err := json.Marshal(e)
	if err != nil {
		panic("esdbstore: texts and numbers are not JSON: " + err.Error())
	}
	return proposal{id: id, kind: kind, data: data}
}

func newID() (id eventstore.EventID) {
	rand.Read(id[:])
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id
}

// Claims implements [eventstore.Log]. It reads the streams of all claims that $by_category has linked, and keeps them in memory.
func (l *log) Claims(ctx context.Context) iter.Seq2[eventstore.Held, error] {
	return func(yield func(eventstore.Held, error) bool) {
		held, err := l.held(ctx)
		if err != nil {
			yield(eventstore.Held{}, err)
			return
		}
		for _, h := range held {
			if !yield(h, nil) {
				return
			}
		}
	}
}

func (l *log) held(ctx context.Context) (held []eventstore.Held, err error) {
	ctx, end, err := l.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = end(err) }()
	if err := l.await(ctx, func() (bool, error) { // this store's own may not be linked yet
		last, _, err := l.store.client.read(ctx, claimCategoryOf(l.tenant), span{last: true, count: 1})
		reached := uint64(0)
		if len(last) == 1 {
			reached = last[0].position
		}
		return reached >= l.store.claimsThrough(l.tenant), err
	}); err != nil {
		return nil, err
	}
	names := map[claimed]bool{}
	if _, err := l.claimEvents(ctx, 0, func(v claimed, _ record) error {
		names[v] = true
		return nil
	}); err != nil {
		return nil, err
	}
	for v := range names {
		state, err := l.claim(ctx, v)
		if err != nil {
			return nil, err
		}
		if _, err := l.resolve(ctx, state); err != nil {
			return nil, err
		}
		if owner, ok := state.holder(); ok {
			held = append(held, eventstore.Held{Scope: v.scope, Key: v.key, Stream: owner})
		}
	}
	slices.SortFunc(held, func(a, b eventstore.Held) int {
		return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Key, b.Key))
	})
	return held, nil
}

// claimEvents reports the linked events of all claims from a link number on, and returns the number to go on from.
func (l *log) claimEvents(ctx context.Context, from uint64, report func(claimed, record) error) (next uint64, err error) {
	for next = from; ; {
		links, more, err := l.store.client.read(ctx, claimCategoryOf(l.tenant), span{from: next, count: streamPage})
		if err != nil {
			return next, err
		}
		for _, e := range links {
			next = e.number + 1
			if v, ours := parseClaim(l.tenant, e.stream); ours && !e.lost {
				if err := report(v, e.record); err != nil {
					return next, err
				}
			}
		}
		if !more && len(links) < streamPage {
			return next, nil
		}
	}
}

// sweep is what a store knows of a tenant's open reservations.
type sweep struct {
	next uint64 // the link to read on from
	open map[claimed]bool
}

// Sweep settles the tenant's reservations that are older than 10 minutes: those whose events are in the log are confirmed, the others
// released. The store does so by itself each minute for the tenants to which it appended claims; another call is for tenants whose
// writers are gone for good. It is safe beside appends and other sweeps.
func (s *Store) Sweep(ctx context.Context, t eventstore.TenantID) (err error) {
	l := s.log(t)
	ctx, end, err := l.begin(ctx)
	if err != nil {
		return err
	}
	defer func() { err = end(err) }()
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	swept := s.sweeps[t]
	if swept == nil {
		swept = &sweep{open: map[claimed]bool{}}
		s.sweeps[t] = swept
	}
	last, _, err := s.client.read(ctx, claimCategoryOf(t), span{last: true, count: 1})
	if err != nil {
		return err
	}
	if len(last) == 1 && last[0].number+1 < swept.next { // not the log that was read before
		swept.next = 0
	}
	if swept.next, err = l.claimEvents(ctx, swept.next, func(v claimed, r record) error {
		if r.kind == claimReserved {
			swept.open[v] = true
		}
		return nil
	}); err != nil {
		return err
	}
	for v := range swept.open {
		state, err := l.claim(ctx, v)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(state.open, func(r reservation) bool { return s.now().Sub(r.made) > reservationAge }) {
			settled, err := l.resolve(ctx, state)
			if err != nil {
				return err
			}
			if len(settled) > 0 {
				_, err := s.client.append(ctx, claimName(t, v), expectation{count: state.count}, settled)
				if err != nil && !errors.Is(err, errWrongVersion) { // somebody else is at it: the next sweep looks again
					return err
				}
			}
		}
		if len(state.open) == 0 {
			delete(swept.open, v)
		}
	}
	return nil
}
