// Package commands turns what people and jobs ask for into facts: load the streams, decide, append in one step. One file per
// use case.
package commands

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

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

// Step is one stream's part of a command: it is loaded, decided and written together with the others.
type Step interface {
	load(ctx context.Context, log eventstore.Log, codec *seal.Codec, meta eventstore.Meta) (done *Receipt, err error)
	decide() (facts []any, claims []eventstore.Claim, err error)
	stream() eventstore.StreamID
	version() eventstore.Version
	settle()
}

// Decision is the [Step] of one aggregate. After [Execute] it holds the state that the command led to.
type Decision[S, C, E any] struct {
	Decider es.Decider[S, C, E]
	Stream  eventstore.StreamID
	Command C
	// Claims is a pure difference of two states, so that nobody can forget to release a value. Optional.
	Claims func(before, after S) []eventstore.Claim
	// IfMatch is the version that the client saw (its ETag); nil lets a conflict be decided again.
	IfMatch *eventstore.Version

	// State is, after Execute, the state after the command's facts.
	State S

	current S
	at      eventstore.Version
	facts   []E
}

func (d *Decision[S, C, E]) stream() eventstore.StreamID { return d.Stream }
func (d *Decision[S, C, E]) version() eventstore.Version { return d.at }
func (d *Decision[S, C, E]) settle()                     { d.State = d.Decider.Fold(d.current, d.facts...) }

func (d *Decision[S, C, E]) load(ctx context.Context, log eventstore.Log, codec *seal.Codec, meta eventstore.Meta) (*Receipt, error) {
	d.facts = nil
	var done *Receipt
	var err error
	d.current, d.at, err = fold(ctx, log, codec, d.Decider, d.Stream, func(rec eventstore.Recorded) {
		if rec.Meta.Command == meta.Command && rec.Meta.Actor == meta.Actor {
			done = &Receipt{Tenant: rec.Tenant, Version: rec.Version, Position: rec.Position, Replayed: true}
		}
	})
	if err != nil || done != nil {
		return done, err
	}
	if d.IfMatch != nil && *d.IfMatch != d.at {
		return nil, &eventstore.ConflictError{Stream: d.Stream, Expected: eventstore.At(*d.IfMatch), Actual: d.at}
	}
	return nil, nil
}

func (d *Decision[S, C, E]) decide() ([]any, []eventstore.Claim, error) {
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

// Execute carries out one command over one or several streams of a tenant: all their facts are appended in one step, or none.
// A command that ran before is recognised by its id and actor and answered with its first receipt. A conflict is decided again
// on fresh facts, unless a step has IfMatch. Errors: *[es.Refusal], *[eventstore.ConflictError], *[eventstore.ClaimError],
// *[eventstore.ReusedKeyError], or a failure after which the same command may be tried again ([MayHaveHappened] tells whether it
// may have been carried out).
func Execute(ctx context.Context, store eventstore.Store, codec *seal.Codec, tenant eventstore.TenantID, meta eventstore.Meta, steps ...Step) (Receipt, error) {
	if meta.Command == "" { // event ids derive from it: without one every command would be the same
		return Receipt{}, errors.New("commands: a command needs an id")
	}
	meta.At = meta.At.UTC().Truncate(time.Microsecond)
	log := store.Tenant(tenant)
	ambiguous := false
	for try := 0; ; try++ {
		receipt, writes, err := plan(ctx, log, codec, tenant, meta, steps)
		if err != nil || len(writes) == 0 {
			return receipt, err
		}
		appended, err := log.Append(ctx, writes...)
		if err == nil {
			for _, s := range steps {
				s.settle()
			}
			last := appended[len(appended)-1]
			return Receipt{tenant, last.Version, last.Position, last.Replayed}, nil
		}
		var conflict *eventstore.ConflictError
		if errors.As(err, &conflict) && try < conflictRetries && pause(ctx, try) {
			continue // load notices an IfMatch that no longer holds
		}
		if !ambiguous && MayHaveHappened(err) && ctx.Err() == nil {
			ambiguous = true // once more with the same ids: the log recognises them (promise A7)
			continue
		}
		return Receipt{}, err
	}
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

// plan loads and decides all steps. Without writes the receipt is the answer.
func plan(ctx context.Context, log eventstore.Log, codec *seal.Codec, tenant eventstore.TenantID, meta eventstore.Meta, steps []Step) (Receipt, []eventstore.Write, error) {
	var done *Receipt
	for _, s := range steps {
		receipt, err := s.load(ctx, log, codec, meta)
		if err != nil {
			return Receipt{}, nil, err
		}
		if receipt != nil && (done == nil || receipt.Position > done.Position) {
			done = receipt
		}
	}
	if done != nil {
		for _, s := range steps {
			s.settle()
		}
		return *done, nil, nil
	}
	var writes []eventstore.Write
	ordinal := 0
	receipt := Receipt{Tenant: tenant}
	for _, s := range steps {
		facts, claims, err := s.decide()
		if err != nil {
			return Receipt{}, nil, err
		}
		receipt.Version = s.version()
		if len(facts) == 0 {
			continue
		}
		w := eventstore.Write{Stream: s.stream(), Expected: eventstore.At(s.version()), Claims: claims}
		for _, fact := range facts {
			e, err := codec.Encode(ctx, tenant, w.Stream, eventstore.NewEventID(tenant, meta.Actor, meta.Command, ordinal), fact)
			if err != nil {
				return Receipt{}, nil, err
			}
			e.Meta = meta
			w.Events = append(w.Events, e)
			ordinal++
		}
		writes = append(writes, w)
	}
	if len(writes) == 0 {
		for _, s := range steps {
			s.settle()
		}
	}
	return receipt, writes, nil
}

// MayHaveHappened tells whether a command that failed with err may nevertheless have been carried out: the failure was none of
// the definite answers of the domain and the log.
func MayHaveHappened(err error) bool {
	var (
		refusal  *es.Refusal
		conflict *eventstore.ConflictError
		claim    *eventstore.ClaimError
		reused   *eventstore.ReusedKeyError
		invalid  *eventstore.InvalidError
	)
	var known definite
	return err != nil && !errors.As(err, &known) && !errors.As(err, &refusal) && !errors.As(err, &conflict) && !errors.As(err, &claim) &&
		!errors.As(err, &reused) && !errors.As(err, &invalid)
}

// definite marks an error that was found before anything was appended.
type definite struct{ error }

// Unwrap returns the error itself.
func (d definite) Unwrap() error { return d.error }
