package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/factum-platform/factum/eventstore"
)

// RunConcurrent lets several writers do random appends at the same time, to the same streams and claims, and then looks for an order in
// which one writer alone could have done them with the same answers. That order is the engine's own log: each append that was
// acknowledged must lie there once, whole and adjacent, and doing them one by one in that order on the model must give the
// same versions, the same log and the same claims. A conflict must name a version that the stream had between call and answer and that the
// expectation excludes. model returns an empty store that can do everything; the engine must be empty at first.
func RunConcurrent(t *testing.T, model func() eventstore.Store, engine eventstore.Store) {
	t.Helper()
	rapid.Check(t, func(t *rapid.T) {
		plans := make([][]step, rapid.IntRange(2, 6).Draw(t, "writers"))
		for i := range plans {
			plans[i] = rapid.SliceOfN(rapid.Custom(drawStep), 1, 8).Draw(t, "plan")
		}
		m := model()
		defer func() {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}()
		if err := concurrently(context.Background(), m, engine, plans); err != nil {
			t.Fatal(err)
		}
	})
}

// step is one action of a concurrent writer.
type step struct {
	Streams  []int // one, or two where the engine can
	Events   int
	Expected int  // 0, 1: the version that was just read; 2: any; 3: none; 4: one too high
	Claim    int  // 0: none; else which key of three
	Give     bool // the claim
	Repeat   bool // of the writer's append before, with the same ids
}

func drawStep(t *rapid.T) step {
	return step{
		Streams: rapid.SliceOfNDistinct(rapid.IntRange(0, 3), 1, 2, rapid.ID).Draw(t, "streams"), Events: rapid.IntRange(1, 3).Draw(t, "events"),
		Expected: rapid.IntRange(0, 4).Draw(t, "expected"), Claim: rapid.IntRange(0, 3).Draw(t, "claim"), Give: rapid.Bool().Draw(t, "give"),
		Repeat: rapid.IntRange(0, 4).Draw(t, "repeat") == 0,
	}
}

// act is an append that was made, with what was answered.
type act struct {
	writes []eventstore.Write
	out    []eventstore.Appended
}

// concurrently carries out a plan per writer and compares the outcome with the model.
func concurrently(ctx context.Context, model, engine eventstore.Store, plans [][]step) error {
	run := fmt.Sprintf("concurrent %d", runs.Add(1)) // names of streams and claims are the run's own
	l := engine.Tenant(alpha)
	start, err := l.Head(ctx)
	if err != nil {
		return err
	}
	acts, errs := make([][]act, len(plans)), make([]error, len(plans))
	var wg sync.WaitGroup
	for i, plan := range plans {
		wg.Go(func() { acts[i], errs[i] = follows(ctx, l, engine.Caps(), run, plan) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	log, err := whole(ctx, l, start, 500)
	if err != nil {
		return err
	}
	return serial(ctx, model.Tenant(alpha), l, run, log, slices.Concat(acts...))
}

// follows carries out one writer's plan and returns what was acknowledged for the first time.
func follows(ctx context.Context, l eventstore.Log, caps eventstore.Caps, run string, plan []step) (done []act, err error) {
	for _, s := range plan {
		if s.Repeat && len(done) > 0 {
			first := done[len(done)-1]
			out, err := l.Append(ctx, first.writes...)
			if err != nil || !out[0].Replayed || out[0].Version != first.out[0].Version || out[0].Position != first.out[0].Position {
				return done, fmt.Errorf("repeated, an append answers %+v, %w; at first it answered %+v", out, orNone(err), first.out)
			}
			continue
		}
		if !caps.MultiStream {
			s.Streams = s.Streams[:1]
		}
		var writes []eventstore.Write
		before := map[eventstore.StreamID]eventstore.Version{}
		for i, n := range s.Streams {
			w := write("doc", fmt.Sprintf("%s %d", run, n), eventstore.Expected{}, s.Events)
			v, err := version(ctx, l, w.Stream)
			if err != nil {
				return done, err
			}
			before[w.Stream] = v
			w.Expected = []eventstore.Expected{eventstore.At(v), eventstore.At(v), eventstore.StreamExists(), eventstore.NoStream(), eventstore.At(v + 1)}[s.Expected]
			if i == 0 && s.Claim > 0 {
				w.Claims = []eventstore.Claim{{Scope: run, Key: fmt.Sprint(s.Claim), Give: s.Give}}
			}
			writes = append(writes, w)
		}
		out, err := l.Append(ctx, writes...)
		conflict, isConflict := as[*eventstore.ConflictError](err)
		_, isClaimed := as[*eventstore.ClaimError](err)
		switch {
		case err == nil && out[0].Replayed:
			return done, errors.New("a new append is said to be a repetition")
		case err == nil:
			done = append(done, act{writes, out})
		case isConflict:
			after, err := version(ctx, l, conflict.Stream)
			if err != nil {
				return done, err
			}
			if low, ours := before[conflict.Stream]; !ours || conflict.Actual < low || conflict.Actual > after || conflict.Expected.Allows(conflict.Actual) {
				return done, fmt.Errorf("%w: its stream went from version %d to %d meanwhile", conflict, low, after)
			}
		case isClaimed && s.Claim > 0 && !s.Give:
		default:
			return done, fmt.Errorf("an append answers: %w", err)
		}
	}
	return done, nil
}

func orNone(err error) error {
	if err == nil {
		return errors.New("no error")
	}
	return err
}

func version(ctx context.Context, l eventstore.Log, s eventstore.StreamID) (v eventstore.Version, err error) {
	for rec, err := range l.ReadStream(ctx, s, 0) {
		if err != nil {
			return 0, err
		}
		v = rec.Version
	}
	return v, nil
}

// serial does on the model, one by one and in the log's order, what was acknowledged.
func serial(ctx context.Context, model, engine eventstore.Log, run string, log []eventstore.Recorded, acts []act) error {
	byFirst := map[eventstore.EventID]act{}
	for _, a := range acts {
		byFirst[a.writes[0].Events[0].ID] = a
	}
	for at := 0; at < len(log); {
		a, found := byFirst[log[at].ID]
		if !found {
			return fmt.Errorf("at %d lies %s, which begins no append that was acknowledged", log[at].Position, log[at].ID)
		}
		delete(byFirst, log[at].ID)
		out, err := model.Append(ctx, a.writes...)
		if err != nil {
			return fmt.Errorf("an append that was acknowledged at %d could not have been made there: %w", log[at].Position, err)
		}
		for i, w := range a.writes {
			at += len(w.Events)
			if at > len(log) || out[i].Version != a.out[i].Version || log[at-1].Position != a.out[i].Position {
				return fmt.Errorf("write %d was acknowledged as %+v; in the log's order it is version %d", i, a.out[i], out[i].Version)
			}
		}
	}
	if len(byFirst) > 0 {
		return fmt.Errorf("%d appends that were acknowledged are not in the log", len(byFirst))
	}
	want, err := whole(ctx, model, 0, 500)
	if err != nil {
		return err
	}
	for i := range min(len(want), len(log)) {
		want[i].Position = log[i].Position
	}
	if d := differ(log, want); d != "" {
		return errors.New(d)
	}
	var claims [2][]eventstore.Held
	for i, l := range []eventstore.Log{engine, model} {
		for held, err := range l.Claims(ctx) {
			if err != nil {
				return err
			}
			if held.Scope == run {
				claims[i] = append(claims[i], held)
			}
		}
	}
	if !slices.Equal(claims[0], claims[1]) {
		return fmt.Errorf("the claims %v are held; want %v", claims[0], claims[1])
	}
	return nil
}
