package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/factum-platform/factum/eventstore"
)

// Torture appends from many goroutines while others tail the log, and then compares what each reader saw with what is in the log.
// It is made hard by the caller: an engine's test delays commits after the position is drawn, rolls some back and cuts
// connections. Failed appends are repeated with the same ids, half of the time.
type Torture struct {
	Store    eventstore.Store
	Writers  int           // goroutines that append
	Readers  int           // goroutines that tail
	Duration time.Duration // of the writing
}

// Tortured says how much a run did, so that a test can tell a hard run from an idle one.
type Tortured struct {
	Events   int // in the log at the end
	Failures int // appends that failed once at least
	Replays  int // repetitions that found the first attempt in the log
}

// SkippedError says that a reader was handed later events without an earlier one: the failure that promise F3 excludes.
type SkippedError struct {
	Reader, Count int
	First         eventstore.Position // the first position that was skipped
}

// Error implements error.
func (e *SkippedError) Error() string {
	return fmt.Sprintf("storetest: reader %d was never handed %d events, the first at position %d", e.Reader, e.Count, e.First)
}

// Run tortures the log of tenant "alpha", which must be empty. Errors: *[SkippedError] for each reader that missed events, and what
// else contradicts the contract.
func (x Torture) Run(ctx context.Context) (Tortured, error) {
	ctx, cancel := context.WithTimeout(ctx, x.Duration+time.Minute)
	defer cancel()
	l := x.Store.Tenant(alpha)
	writing, stop := context.WithTimeout(ctx, x.Duration)
	defer stop()
	writers := make([]tortureWriter, x.Writers)
	errs := make([]error, x.Writers+x.Readers)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() { errs[i] = writers[i].run(ctx, writing, l, i) })
	}
	readers := make([]tortureReader, x.Readers)
	var tails sync.WaitGroup
	end := make(chan struct{}) // closed when the last position is known
	var last eventstore.Position
	for i := range readers {
		readers[i].end, readers[i].last = end, &last
		tails.Go(func() { errs[x.Writers+i] = readers[i].run(ctx, l) })
	}
	wg.Wait()
	log, err := whole(ctx, l, 0, 500)
	for try := 0; err != nil && try < 20; try++ { // the reading connection may be cut, too
		log, err = whole(ctx, l, 0, 500)
	}
	if err != nil || len(log) == 0 {
		cancel()
		tails.Wait()
		return Tortured{}, errors.Join(append(errs, fmt.Errorf("storetest: read the log of %d events: %w", len(log), err))...)
	}
	last = log[len(log)-1].Position
	close(end)
	if _, err := l.Append(ctx, write("doc", "last", eventstore.NoStream(), 1)); err != nil && !transient(ctx, err) { // wakes the readers
		errs = append(errs, err)
	}
	tails.Wait()
	done := Tortured{Events: len(log)}
	for i := range writers {
		done.Failures += writers[i].failures
		done.Replays += writers[i].replays
		errs = append(errs, writers[i].check(log))
	}
	for i := range readers {
		errs = append(errs, readers[i].check(i, log))
	}
	if x.Store.Caps().Gapless {
		for i, rec := range log {
			if rec.Position != eventstore.Position(i+1) {
				errs = append(errs, fmt.Errorf("storetest: event %d is at position %d: there is a gap", i+1, rec.Position))
				break
			}
		}
	}
	return done, errors.Join(errs...)
}

// transient tells whether an append may have failed by what the caller did to the engine.
func transient(ctx context.Context, err error) bool {
	_, conflict := as[*eventstore.ConflictError](err)
	_, claim := as[*eventstore.ClaimError](err)
	_, reused := as[*eventstore.ReusedKeyError](err)
	_, invalid := as[*eventstore.InvalidError](err)
	return err != nil && ctx.Err() == nil && !conflict && !claim && !reused && !invalid
}

type tortureWriter struct {
	acknowledged map[eventstore.EventID]eventstore.Position // of the last event of its append
	failures     int
	replays      int
}

// run appends to streams of its own, so that no append waits for another writer's version.
func (w *tortureWriter) run(ctx, writing context.Context, l eventstore.Log, number int) error {
	w.acknowledged = map[eventstore.EventID]eventstore.Position{}
	for n := 0; writing.Err() == nil; n++ {
		add := write("doc", fmt.Sprintf("%d %d", number, n), eventstore.NoStream(), 1+rand.N(3))
		out, err := l.Append(ctx, add)
		if err != nil {
			w.failures++
		}
		for err != nil && rand.N(2) == 0 { // the others are given up: they may or may not be in the log
			if !transient(ctx, err) {
				return fmt.Errorf("storetest: writer %d: %w", number, err)
			}
			out, err = l.Append(ctx, add)
		}
		if err != nil {
			continue
		}
		if out[0].Replayed {
			w.replays++
		}
		w.acknowledged[add.Events[len(add.Events)-1].ID] = out[0].Position
	}
	return nil
}

func (w *tortureWriter) check(log []eventstore.Recorded) error {
	found := 0
	for _, rec := range log {
		if at, ok := w.acknowledged[rec.ID]; ok {
			found++
			if at != rec.Position {
				return fmt.Errorf("storetest: an append was answered with position %d and is at %d", at, rec.Position)
			}
		}
	}
	if found != len(w.acknowledged) {
		return fmt.Errorf("storetest: %d of %d acknowledged appends are in the log", found, len(w.acknowledged))
	}
	return nil
}

type tortureReader struct {
	end  <-chan struct{}
	last *eventstore.Position // valid when end is closed
	got  []eventstore.Recorded
}

func (r *tortureReader) run(ctx context.Context, l eventstore.Log) error {
	for b, err := range l.Follow(ctx, 0) {
		if err != nil {
			return fmt.Errorf("storetest: a reader ended after %d events: %w", len(r.got), err)
		}
		r.got = append(r.got, b.Events...)
		select {
		case <-r.end:
			if b.Through >= *r.last {
				return nil
			}
		default:
		}
	}
	return errors.New("storetest: a reader ended without an error")
}

// check compares what the reader got with the log: everything once, in order.
func (r *tortureReader) check(number int, log []eventstore.Recorded) error {
	last := log[len(log)-1].Position
	skipped := SkippedError{Reader: number}
	i := 0
	for _, rec := range r.got {
		if rec.Position > last {
			break // appended after the log was read
		}
		for i < len(log) && log[i].Position < rec.Position {
			if skipped.Count == 0 {
				skipped.First = log[i].Position
			}
			skipped.Count++
			i++
		}
		if i == len(log) || log[i].ID != rec.ID || log[i].Position != rec.Position {
			return fmt.Errorf("storetest: reader %d was handed %s at %d out of order, twice, or though it is not in the log", number, rec.ID, rec.Position)
		}
		i++
	}
	if skipped.Count += len(log) - i; skipped.Count > 0 {
		if skipped.First == 0 {
			skipped.First = log[i].Position
		}
		return &skipped
	}
	return nil
}
