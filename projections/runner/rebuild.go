package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/factum-platform/factum/eventstore"
)

// Progress tells how far a rebuild or a rollback is.
type Progress struct {
	Stage  string              // "building", "indexing", "comparing", "promoting" or "dropping"
	Events uint64              // read by this call, whether they lead to rows or not
	At     eventstore.Position // how far the generation is; over several logs, the sum
	Head   eventstore.Position // how far it has to come, as far as is known; over several logs, the sum
}

// RebuildOptions says how to rebuild or to go back. The zero value is usable.
type RebuildOptions struct {
	Parallel          int  // logs that are read at once, for a projection that consumes all logs; 0 means 1
	AcceptDifferences bool // promote although the same version of the projection comes to other rows than the live ones
	Anew              bool // do not go on with a generation that an earlier call has begun
	DropOld           bool // drop the generation that was live at once, as far as nobody reads it any more, and not by a job
	// Retiring is called before a promotion with the generation that is about to be retired, so that its removal can be scheduled: it may
	// be called without a promotion following, and twice. Optional.
	Retiring func(ctx context.Context, projection string, t eventstore.TenantID, generation int) error
	// Progress is called after each slice and at each stage, by one goroutine at a time. Optional.
	Progress func(Progress)
}

// Rebuilt says what came of a rebuild or a rollback.
type Rebuilt struct {
	Generation int    // that is live now
	Previous   int    // that was; 0 when there was none
	Resumed    bool   // it went on where an earlier call had ended
	Events     uint64 // that this call has read
	Took       time.Duration
	Fenced     time.Duration // for how long the writer of the live generation was stopped, at the most
	Compared   Comparison    // with the previous generation; a rollback does not compare
	Dropped    bool          // the previous generation is gone
	Kept       string        // why it is not, although DropOld asked for that
}

// ErrRebuildRuns says that another process rebuilds the projection in the same database, or rolls it back. Nothing was changed.
var ErrRebuildRuns = errors.New("another rebuild or rollback of it runs on this database; wait for its end, or stop it and start again")

// Rebuild builds a new generation of the projection from the beginning of the log beside the live one, compares the two, and promotes the new
// one in a step that readers do not notice. Queries go on all the while. t is the tenant whose read model is built, or "platform" for a
// projection that consumes all logs, which is built as a whole.
//
// It may be killed at any point: the same call goes on from the checkpoint of the generation that is being built. An event that cannot be
// applied fails it with a *[PoisonError], rows that differ with a *[DifferenceError], a second call at the same time with [ErrRebuildRuns]; in
// all these cases the live generation stays and is still written.
func (o *Operator) Rebuild(ctx context.Context, projection string, t eventstore.TenantID, opt RebuildOptions) (Rebuilt, error) {
	b, err := o.begin(ctx, projection, t, opt)
	if err != nil {
		return Rebuilt{}, err
	}
	defer b.end()
	err = b.create(ctx, opt.Anew)
	if err == nil {
		err = b.build(ctx)
	}
	var exchanged *exchangedError
	if errors.As(err, &exchanged) && b.resumed { // what an earlier call has built is of no use
		if err = b.create(ctx, true); err == nil {
			err = b.build(ctx)
		}
	}
	if err != nil {
		return b.result(), err
	}
	if err := b.compare(ctx); err != nil {
		return b.result(), err
	}
	return b.finish(ctx)
}

// build feeds the new generation until it is where the live one is, and indexes it on the last stretch.
func (b *building) build(ctx context.Context) error {
	b.stage("building")
	if err := b.catchUp(ctx, b.toLive); err != nil {
		return err
	}
	if err := b.index(ctx); err != nil {
		return err
	}
	b.stage("building")
	return b.catchUp(ctx, b.toLive) // what was appended while it was indexed
}

// finish brings the generation to the head, promotes it, and drops the one that was live if that is wanted.
func (b *building) finish(ctx context.Context) (Rebuilt, error) {
	b.stage("promoting")
	if err := b.catchUp(ctx, b.toHead); err != nil {
		return b.result(), err
	}
	if b.live != 0 && b.opt.Retiring != nil {
		if err := b.opt.Retiring(ctx, b.p.Name, b.home, b.live); err != nil {
			return b.result(), b.failed("schedule the removal of "+b.schema(b.live), err)
		}
	}
	if err := b.promote(ctx); err != nil {
		return b.result(), err
	}
	out := b.result()
	if b.live == 0 || !b.opt.DropOld {
		return out, nil
	}
	b.stage("dropping")
	_, err := b.o.DropRetired(ctx, b.p.Name, b.home, b.live, 0)
	var early *TooEarlyError
	switch {
	case errors.As(err, &early):
		out.Kept = early.Reason
	case err != nil:
		out.Kept = err.Error() // the rebuild itself has succeeded
	default:
		out.Dropped = true
	}
	return out, nil
}

func (b *building) result() Rebuilt {
	return Rebuilt{
		Generation: b.fresh, Previous: b.live, Resumed: b.resumed, Events: b.events.Load(), Took: time.Since(b.begun), Fenced: b.fenced, Compared: b.compared,
	}
}

// failed says what could not be done, unless the error says so already. The live generation is as it was: nothing before the promotion
// touches it.
func (b *building) failed(doing string, err error) error {
	var (
		told      *failedError
		poisoned  *PoisonError
		different *DifferenceError
	)
	if errors.As(err, &told) || errors.As(err, &poisoned) || errors.As(err, &different) {
		return err
	}
	return &failedError{fmt.Errorf("runner: rebuild %s of %s: %s: %w", b.p.Name, b.home, doing, err)}
}

// failedError is what [building.failed] makes.
type failedError struct{ error }

// Unwrap makes the cause visible to errors.Is and errors.As.
func (e *failedError) Unwrap() error { return e.error }
