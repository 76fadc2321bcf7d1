package esdbstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/factum-platform/factum/eventstore"
)

// userMeta is the metadata of an event on the server.
type userMeta struct {
	eventstore.Meta
	Schema uint16 `json:"schema"`
	// Write is drawn anew for each Append. The server answers a repeated append like a new one; which of both it was shows when the
	// event is read back.
	Write string `json:"write"`
}

// recorded turns an event of the tenant's stream into the contract's form.
func (l *log) recorded(r record, s eventstore.StreamID) (eventstore.Recorded, error) {
	var m userMeta
	if err := json.Unmarshal(r.meta, &m); err != nil || m.Schema == 0 {
		return eventstore.Recorded{}, &callError{
			what: "read stream " + r.stream, err: fmt.Errorf("event %d has no metadata of factum", r.revision),
			fix: "nobody else may write to streams that begin with a tenant id",
		}
	}
	if r.position == noPosition {
		return eventstore.Recorded{}, noPositions("read stream " + r.stream)
	}
	m.At = m.At.UTC()
	rec := eventstore.Recorded{
		Tenant: l.tenant, Stream: s, Version: eventstore.Version(r.revision) + 1, Position: eventstore.Position(r.position), Recorded: r.created,
		Proposed: eventstore.Proposed{ID: r.id, Type: r.kind, Schema: m.Schema, Data: r.data, Meta: m.Meta},
	}
	l.store.known.learn(l.tenant, rec.ID, whereOf(rec))
	return rec, nil
}

func whereOf(rec eventstore.Recorded) where {
	return where{stream: rec.Stream, version: rec.Version, position: rec.Position, kind: rec.Type}
}

func noPositions(what string) error {
	return &callError{
		what: what, err: errors.New("the server does not say the events' positions in $all"),
		fix: "EventStoreDB 22.6 or later does for events that were written by version 5 or later",
	}
}

// Append implements [eventstore.Log]. See the package's comment for what the engine can see of repeated and reused ids.
func (l *log) Append(ctx context.Context, writes ...eventstore.Write) (_ []eventstore.Appended, err error) {
	ctx, end, err := l.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = end(err) }()
	if err := eventstore.Validate(caps, writes); err != nil {
		return nil, err
	}
	w := writes[0]
	for _, e := range w.Events {
		if strings.HasPrefix(e.Type, "$") {
			return nil, &eventstore.InvalidError{Reason: fmt.Sprintf("the event type %q begins with '$', which EventStoreDB keeps for itself", e.Type)}
		}
	}
	events, write, err := proposals(w)
	if err != nil {
		return nil, err
	}
	out, err := l.append(ctx, w, events, write)
	if err != nil {
		return nil, err
	}
	l.store.watch.committed(l.tenant, out.Position)
	return []eventstore.Appended{out}, nil
}

// maxTurns bounds how often an append starts over because others append to the same stream.
const maxTurns = 100

// toEnd is a version that no stream reaches.
const toEnd eventstore.Version = math.MaxInt64

func (l *log) append(ctx context.Context, w eventstore.Write, events []proposal, write string) (eventstore.Appended, error) {
	changes := netClaims(w.Claims)
	until, exact := w.Expected.Exact()
	if !exact || len(changes) > 0 { // a conflict is looked for before claims are touched
		until = toEnd
	}
	var reserved []reservation
	var begun time.Time // the reserving
	for turn := range maxTurns {
		if turn > 1 { // what is known of the stream contradicts the server: it may have been restored
			l.store.known.drop(l.tenant, w.Stream)
		}
		found, actual, err := l.look(ctx, w, until)
		if err != nil {
			return eventstore.Appended{}, err
		}
		out, err := l.replayed(ctx, w, found)
		if err == nil && !out.Replayed && !w.Expected.Allows(actual) {
			err = &eventstore.ConflictError{Stream: w.Stream, Expected: w.Expected, Actual: actual}
		}
		if err != nil {
			l.undo(ctx, reserved, err)
			return eventstore.Appended{}, err
		}
		if out.Replayed {
			l.confirm(ctx, w, changes, found[w.Events[0].ID].version)
			return out, nil
		}
		if len(reserved) == 0 && len(changes) > 0 {
			begun = l.store.now()
			if reserved, err = l.reserve(ctx, w, actual, changes); err != nil {
				return eventstore.Appended{}, err
			}
		}
		if age := l.store.now().Sub(begun); len(reserved) > 0 && age > appendAge {
			return eventstore.Appended{}, &callError{
				what: "append to stream " + streamName(l.tenant, w.Stream), err: fmt.Errorf("its claims were reserved %s ago", age), fix: "repeat the append", again: true,
			}
		}
		out, fresh, err := l.send(ctx, w, actual, events, write)
		switch {
		case err == nil && fresh:
			l.settle(ctx, reserved, actual+1)
			return out, nil
		case err == nil, errors.Is(err, errWrongVersion):
			until = toEnd // somebody was faster, with this very append or with another
		default:
			l.undo(ctx, reserved, err)
			return eventstore.Appended{}, err
		}
	}
	return eventstore.Appended{}, &callError{
		what: "append to stream " + streamName(l.tenant, w.Stream), err: fmt.Errorf("the stream moved on %d times", maxTurns), fix: "repeat the append", again: true,
	}
}

// proposals returns the events as the server gets them, and what marks them as written by this call.
func proposals(w eventstore.Write) (events []proposal, write string, err error) {
	var mark [16]byte
	rand.Read(mark[:])
	write = hex.EncodeToString(mark[:])
	events = make([]proposal, len(w.Events))
	for i, e := range w.Events {
		e.Meta.At = e.Meta.At.UTC()
		meta, err := json.Marshal(userMeta{Meta: e.Meta, Schema: e.Schema, Write: write})
		if err != nil {
			return nil, "", &eventstore.InvalidError{Reason: "the meta of " + e.Type + " is not JSON: " + err.Error()}
		}
		events[i] = proposal{id: e.ID, kind: e.Type, data: bytes.Clone(e.Data), meta: meta} // a cancelled call may still be sending it
	}
	return events, write, nil
}

// look finds which ids of the append are in the log: all of its stream up to a version, and what is known of other streams. actual is
// the stream's version, or until when it is longer.
func (l *log) look(ctx context.Context, w eventstore.Write, until eventstore.Version) (found map[eventstore.EventID]where, actual eventstore.Version, err error) {
	found = map[eventstore.EventID]where{}
	sought := make(map[eventstore.EventID]bool, len(w.Events))
	for _, e := range w.Events {
		sought[e.ID] = true
	}
	actual = l.store.known.through(l.tenant, w.Stream)
	for actual < until {
		page, more, err := l.store.client.read(ctx, streamName(l.tenant, w.Stream), span{from: uint64(actual), count: int(min(streamPage, until-actual))})
		if err != nil {
			return nil, 0, err
		}
		for _, e := range page {
			rec, err := l.recorded(e.record, w.Stream)
			if err != nil {
				return nil, 0, err
			}
			if sought[rec.ID] {
				found[rec.ID] = whereOf(rec)
			}
			actual = rec.Version
		}
		if !more && len(page) < streamPage {
			break
		}
	}
	for id := range sought { // after the reading: it may have driven others out
		if at, known := l.store.known.find(l.tenant, id); known {
			found[id] = at
		}
	}
	return found, min(actual, until), nil
}

// replayed answers an append whose ids are in the log already.
func (l *log) replayed(ctx context.Context, w eventstore.Write, found map[eventstore.EventID]where) (eventstore.Appended, error) {
	if len(found) == 0 {
		return eventstore.Appended{}, nil
	}
	var last where
	for _, e := range w.Events {
		at, known := found[e.ID]
		if !known || at.stream != w.Stream || at.kind != e.Type {
			return eventstore.Appended{}, &eventstore.ReusedKeyError{Stream: w.Stream}
		}
		if at.version > last.version {
			last = at
		}
	}
	if last.position == 0 {
		rec, err := l.at(ctx, w.Stream, last.version)
		if err != nil {
			return eventstore.Appended{}, err
		}
		last.position = rec.Position
	}
	return eventstore.Appended{Version: last.version, Position: last.position, Replayed: true}, nil
}

// send appends at a version. fresh is false when the same ids were there already.
func (l *log) send(ctx context.Context, w eventstore.Write, base eventstore.Version, events []proposal, write string) (out eventstore.Appended, fresh bool, err error) {
	at, err := l.store.client.append(ctx, streamName(l.tenant, w.Stream), expectation{count: uint64(base)}, events)
	if err != nil {
		return out, false, err
	}
	r, err := l.read(ctx, w.Stream, eventstore.Version(at.revision)+1)
	if err != nil {
		return out, false, err
	}
	if !writtenBy(write, r) {
		return out, false, nil // look says what it is
	}
	if r.position == noPosition {
		return out, false, noPositions("append to stream " + r.stream)
	}
	out = eventstore.Appended{Version: base + eventstore.Version(len(events)), Position: eventstore.Position(r.position)}
	for i, e := range w.Events {
		version, position := base+1+eventstore.Version(i), eventstore.Position(0)
		if version == out.Version {
			position = out.Position
		}
		l.store.known.learn(l.tenant, e.ID, where{w.Stream, version, position, e.Type})
	}
	return out, true, nil
}

// writtenBy tells whether an event was written by the call that drew the mark.
func writtenBy(write string, r record) bool {
	var m userMeta
	return json.Unmarshal(r.meta, &m) == nil && m.Write == write
}

// read returns the one event at a version that must exist.
func (l *log) read(ctx context.Context, s eventstore.StreamID, v eventstore.Version) (record, error) {
	name := streamName(l.tenant, s)
	page, _, err := l.store.client.read(ctx, name, span{from: uint64(v) - 1, count: 1})
	if err != nil {
		return record{}, err
	}
	if len(page) != 1 || page[0].number != uint64(v)-1 || page[0].lost {
		return record{}, &callError{what: "read stream " + name, err: fmt.Errorf("event %d is not there", v-1), fix: unreachable, again: true}
	}
	return page[0].record, nil
}

func (l *log) at(ctx context.Context, s eventstore.StreamID, v eventstore.Version) (eventstore.Recorded, error) {
	r, err := l.read(ctx, s, v)
	if err != nil {
		return eventstore.Recorded{}, err
	}
	return l.recorded(r, s)
}
