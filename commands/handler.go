// Package commands turns what people and jobs ask for into facts: load the streams, decide, append in one step. One file per
// use case.
package commands

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/seal"
)

const (
	// conflictRetries is how often a command is decided again on fresh facts before its conflict is answered.
	conflictRetries = 100
	// longestPause bounds the random pause before that: those who meet at one stream must not meet again at once.
	longestPause = 100 * time.Millisecond
)

// Receipt says where a command's facts lie. A command that was already true has the version it found and no position.
type Receipt struct {
	Tenant   eventstore.TenantID
	Version  eventstore.Version  // of the last stream that was written
	Position eventstore.Position // of the last event; 0 when nothing was written
	Replayed bool                // this very command had been carried out before
}

// Step is one stream's part of a command.
type Step interface {
	// load folds the stream, or once takes what loadAhead has folded.
	load(ctx context.Context, log eventstore.Log, codec *seal.Codec, meta eventstore.Meta) (done, error)
	// loadAhead folds the stream when so many turns have ended at it.
	loadAhead(ctx context.Context, log eventstore.Log, codec *seal.Codec, meta eventstore.Meta, ended uint64) error
	// keepAhead keeps what loadAhead has folded only if as many turns have ended by now.
	keepAhead(ended uint64)
	decide() (facts []any, claims []eventstore.Claim, err error)
	stream() eventstore.StreamID
	version() eventstore.Version
	settle()
}

// done is what a step's stream holds of this very command.
type done struct {
	receipt *Receipt // nil for nothing
	events  int
}

// Decision is the [Step] of one aggregate. After [Executor.Execute] it holds the state that the command led to.
type Decision[S, C, E any] struct {
	Decider es.Decider[S, C, E]
	Stream  eventstore.StreamID
	Command C
	// Claims is a pure difference of two states, so that nobody can forget to release a value. Optional.
	Claims func(before, after S) []eventstore.Claim
	// IfMatch is the versions that the client would change (its ETags); nil lets a conflict be decided again.
	IfMatch []eventstore.Version

	// State is, after Executor.Execute, the state after the command's facts.
	State S

	current S
	at      eventstore.Version
	facts   []E

	ahead   *done  // what loadAhead has found and nobody used
	aheadAt uint64 // turns that had ended then
}

func (d *Decision[S, C, E]) stream() eventstore.StreamID { return d.Stream }
func (d *Decision[S, C, E]) version() eventstore.Version { return d.at }
func (d *Decision[S, C, E]) settle()                     { d.State = d.Decider.Fold(d.current, d.facts...) }

func (d *Decision[S, C, E]) load(ctx context.Context, log eventstore.Log, codec *seal.Codec, meta eventstore.Meta) (done, error) {
	if d.ahead == nil {
		if err := d.loadAhead(ctx, log, codec, meta, 0); err != nil {
			return done{}, err
		}
	}
	found := *d.ahead
	d.ahead = nil
	return found, nil
}

func (d *Decision[S, C, E]) loadAhead(ctx context.Context, log eventstore.Log, codec *seal.Codec, meta eventstore.Meta, ended uint64) error {
	d.facts, d.ahead, d.aheadAt = nil, nil, ended
	var found done
	var err error
	d.current, d.at, err = fold(ctx, log, codec, d.Decider, d.Stream, func(rec eventstore.Recorded) {
		if rec.Meta.Command == meta.Command && rec.Meta.Actor == meta.Actor {
			found.receipt = &Receipt{Tenant: rec.Tenant, Version: rec.Version, Position: rec.Position, Replayed: true}
			found.events++
		}
	})
	if err == nil {
		d.ahead = &found
	}
	return err
}

func (d *Decision[S, C, E]) keepAhead(ended uint64) {
	if d.aheadAt != ended {
		d.ahead = nil
	}
}

func (d *Decision[S, C, E]) decide() ([]any, []eventstore.Claim, error) {
	if d.IfMatch != nil && !slices.Contains(d.IfMatch, d.at) {
		return nil, nil, &StaleError{d.Stream, d.at}
	}
	var err error
	if d.facts, err = d.Decider.Decide(d.current, d.Command); err != nil {
		return nil, nil, err
	}
	facts := make([]any, len(d.facts))
	for i, f := range d.facts {
		facts[i] = f
	}
	var claims []eventstore.Claim
	if d.Claims != nil {
		claims = d.Claims(d.current, d.Decider.Fold(d.current, d.facts...))
	}
	return facts, claims, nil
}

// fold reads a stream to its end.
func fold[S, C, E any](ctx context.Context, log eventstore.Log, codec *seal.Codec, d es.Decider[S, C, E], s eventstore.StreamID, each func(eventstore.Recorded)) (S, eventstore.Version, error) {
	state, version := d.Initial(), eventstore.Version(0)
	for rec, err := range log.ReadStream(ctx, s, 1) {
		if err != nil {
			return state, 0, fmt.Errorf("commands: load %s: %w", s, err)
		}
		fact, err := codec.Decode(ctx, rec)
		if err != nil {
			return state, 0, fmt.Errorf("commands: load %s: %w", s, err)
		}
		event, ok := fact.(E)
		if !ok {
			return state, 0, fmt.Errorf("commands: %s holds %s, which is not an event of a %s", s, rec.Type, s.Kind)
		}
		state, version = d.Evolve(state, event), rec.Version
		if each != nil {
			each(rec)
		}
	}
	return state, version, nil
}

// Executor carries out commands on a store. It is safe for concurrent use.
type Executor struct {
	store eventstore.Store
	codec *seal.Codec
	turns turns
}

// NewExecutor returns an executor that writes to the store through the codec.
func NewExecutor(store eventstore.Store, codec *seal.Codec) *Executor {
	return &Executor{store: store, codec: codec}
}

// StaleError says that a stream does not have a version that the client would change. Nothing was written to it.
type StaleError struct {
	Stream eventstore.StreamID
	Actual eventstore.Version
}

// Error implements error.
func (e *StaleError) Error() string {
	return fmt.Sprintf("commands: %s has version %d, which is none of those that were to be changed", e.Stream, e.Actual)
}

// onlyIf lets the step change the versions that the caller named.
func (d *Decision[S, C, E]) onlyIf(by Caller) *Decision[S, C, E] {
	d.IfMatch = by.IfMatch
	return d
}

// UnfinishedError says that a command failed after some of its steps had been written, on an engine that cannot append to several
// streams at once. The same command given again does the rest.
type UnfinishedError struct{ Err error }

// Error implements error.
func (e *UnfinishedError) Error() string {
	return "commands: the first steps are written, give the same command again for the rest: " + e.Err.Error()
}

// Unwrap returns what stopped the command.
func (e *UnfinishedError) Unwrap() error { return e.Err }

// Execute carries out one command over one or several streams of a tenant. Where the store has Caps.MultiStream, all facts are
// appended at once, or none. Where it has not, the steps are appended one after the other in the given order, and what a crash
// or an error leaves out is done when the same command is given again (docs/adr/0005).
//
// A command that ran before is recognised by its id and actor and answered with its first receipt. A conflict is decided again
// on fresh facts, unless a step has IfMatch. Errors: *[es.Refusal], *[eventstore.ConflictError], *[eventstore.ClaimError],
// *[eventstore.ReusedKeyError], *[StaleError], or a failure after which the same command may be tried again ([MayHaveHappened] tells whether it
// may have been carried out); each wrapped in *[UnfinishedError] when a step is written already.
func (x *Executor) Execute(ctx context.Context, tenant eventstore.TenantID, meta eventstore.Meta, steps ...Step) (Receipt, error) {
	if meta.Command == "" { // event ids derive from it: without one every command would be the same
		return Receipt{}, errors.New("commands: a command needs an id")
	}
	meta.At = meta.At.UTC().Truncate(time.Microsecond)
	// Nothing depends on the turn but work: those who would conflict in this process wait instead. Other processes still conflict.
	leave, err := x.turns.take(ctx, tenant, steps)
	if err != nil {
		return Receipt{}, err
	}
	defer leave()
	e := &execution{
		log: x.store.Tenant(tenant), codec: x.codec, tenant: tenant, meta: meta, steps: steps,
		atOnce: x.store.Caps().MultiStream, receipt: Receipt{Tenant: tenant},
	}
	if err := e.run(ctx); err != nil {
		if e.ordinal > 0 {
			err = &UnfinishedError{err}
		}
		return Receipt{}, err
	}
	return e.receipt, nil
}

// Ahead loads the streams of the steps before their commands are known, so that an [Executor.Execute] of the same steps need not wait for it.
// What others append meanwhile is no harm: Execute loads again if it was in this process, and elsewhere it makes a conflict. forget must be
// called after Execute, or instead of it.
func (x *Executor) Ahead(ctx context.Context, tenant eventstore.TenantID, meta eventstore.Meta, steps ...Step) (forget func(), err error) {
	log := x.store.Tenant(tenant)
	forgets := make([]func(), len(steps))
	all, ctx := errgroup.WithContext(ctx)
	for i, s := range steps {
		var ended uint64
		ended, forgets[i] = x.turns.watch(tenant, s.stream())
		all.Go(func() error { return s.loadAhead(ctx, log, x.codec, meta, ended) })
	}
	return func() {
		for _, forget := range forgets {
			forget()
		}
	}, all.Wait()
}

// execution is one command on its way.
type execution struct {
	log    eventstore.Log
	codec  *seal.Codec
	tenant eventstore.TenantID
	meta   eventstore.Meta
	steps  []Step
	atOnce bool // several streams in one append

	next    int     // the steps before it are written, now or by an earlier attempt
	ordinal int     // how many events those steps made: the ids of the rest go on from there
	receipt Receipt // of the last event written
}

func (e *execution) run(ctx context.Context) error {
	ambiguousAt := -1 // the step whose failed append was tried once more
	for try := 0; ; try++ {
		writes, err := e.plan(ctx)
		if err != nil {
			return err
		}
		if err = e.append(ctx, writes); err == nil {
			e.settle(len(e.steps))
			return nil
		}
		var conflict *eventstore.ConflictError
		if errors.As(err, &conflict) && try < conflictRetries && pause(ctx, try) {
			continue // decide notices an IfMatch that no longer holds
		}
		if ambiguousAt != e.next && MayHaveHappened(err) && ctx.Err() == nil {
			ambiguousAt = e.next // once more with the same ids: the log recognises them (promise A7)
			continue
		}
		return err
	}
}

// settle says that the steps before next are written.
func (e *execution) settle(next int) {
	for _, s := range e.steps[e.next:next] {
		s.settle()
	}
	e.next = next
}

// planned is a write and the index of its step.
type planned struct {
	eventstore.Write
	step int
}

// append writes what was planned: all of it at once, or one stream after the other.
func (e *execution) append(ctx context.Context, rest []planned) error {
	for len(rest) > 0 {
		n := 1
		if e.atOnce {
			n = len(rest)
		}
		writes, events := make([]eventstore.Write, n), 0
		for i, w := range rest[:n] {
			writes[i] = w.Write
			events += len(w.Events)
		}
		appended, err := e.log.Append(ctx, writes...)
		if err != nil {
			return err
		}
		last := appended[n-1]
		e.receipt = Receipt{e.tenant, last.Version, last.Position, last.Replayed}
		e.settle(rest[n-1].step + 1)
		e.ordinal += events
		rest = rest[n:]
	}
	return nil
}

// pause waits at random, up to a bound that doubles with each try. It is false when ctx ended meanwhile.
func pause(ctx context.Context, try int) bool {
	bound := longestPause
	if try < 6 {
		bound = time.Millisecond << try
	}
	timer := time.NewTimer(rand.N(bound)) //nolint:gosec // jitter is no secret
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// load loads the steps side by side: each costs a round trip.
func (e *execution) load(ctx context.Context, steps []Step) ([]done, error) {
	found := make([]done, len(steps))
	all, ctx := errgroup.WithContext(ctx)
	for i, s := range steps {
		all.Go(func() (err error) {
			found[i], err = s.load(ctx, e.log, e.codec, e.meta)
			return err
		})
	}
	return found, all.Wait()
}

// plan loads the steps that are left and decides all of them, so that a refusal is found before anything is written. Steps are
// written in order: where one is found written, those before it are written too, or made no event.
func (e *execution) plan(ctx context.Context) ([]planned, error) {
	found, err := e.load(ctx, e.steps[e.next:])
	if err != nil {
		return nil, err
	}
	next := e.next
	for i, f := range found {
		if f.receipt == nil {
			continue
		}
		next = e.next + i + 1
		e.ordinal += f.events
		if f.receipt.Position > e.receipt.Position {
			e.receipt = *f.receipt
		}
	}
	e.settle(next)
	var writes []planned
	ordinal := e.ordinal
	for i, s := range e.steps[next:] {
		facts, claims, err := s.decide()
		if err != nil {
			return nil, err
		}
		if e.ordinal == 0 {
			e.receipt.Version = s.version()
		}
		if len(facts) == 0 {
			continue
		}
		w := eventstore.Write{Stream: s.stream(), Expected: eventstore.At(s.version()), Claims: claims}
		for _, fact := range facts {
			p, err := e.codec.Encode(ctx, e.tenant, w.Stream, eventstore.NewEventID(e.tenant, e.meta.Actor, e.meta.Command, ordinal), fact)
			if err != nil {
				return nil, err
			}
			p.Meta = e.meta
			w.Events = append(w.Events, p)
			ordinal++
		}
		writes = append(writes, planned{w, next + i})
	}
	return writes, nil
}

// MayHaveHappened tells whether a command that failed with err may nevertheless have been carried out: the failure was none of
// the definite answers of the domain and the log, or came after a part was written.
func MayHaveHappened(err error) bool {
	var unavailable *eventstore.UnavailableError
	switch {
	case err == nil:
		return false
	case is[*UnfinishedError](err):
		return true // in part it has
	case errors.As(err, &unavailable):
		return unavailable.Maybe
	default:
		return !is[definite](err) && !is[*es.Refusal](err) &&
			!is[*eventstore.ConflictError](err) && !is[*eventstore.ClaimError](err) && !is[*eventstore.ReusedKeyError](err) &&
			!is[*eventstore.InvalidError](err) && !is[*eventstore.UnknownTypeError](err) && !is[*eventstore.FutureSchemaError](err)
	}
}

func is[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

// definite marks an error that was found before anything was appended.
type definite struct{ error }

// Unwrap returns the error itself.
func (d definite) Unwrap() error { return d.error }
