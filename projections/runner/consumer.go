package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/seal"
	"github.com/factum-platform/factum/infra/tenants"
)

const (
	// sliceEvents bounds a slice: after it the tenant goes to the end of the queue.
	sliceEvents = 500
	// sliceTime is how long a slice should take at most: a slower one makes the next ones smaller, down to smallSlice.
	sliceTime  = 100 * time.Millisecond
	smallSlice = 16
	firstRetry = 100 * time.Millisecond
	lastRetry  = 10 * time.Second
	// tellAfter is after how many failures in a row the reason is kept beside the checkpoint.
	tellAfter = 3
)

// standing is why a consumer does nothing, if it does nothing.
type standing int32

const (
	running standing = iota // or has nothing to do
	waiting                 // a server is away: it tries again soon
	paused                  // by an operator
	halted                  // until a person has healed something
)

// consumer is one projection of one log. It is worked on by one worker at a time, which the queue sees to.
type consumer struct {
	runner     *Runner
	projection *Projection
	tenant     eventstore.TenantID

	loaded   bool
	at       checkpoint
	parked   map[eventstore.StreamID]bool
	skipped  map[eventstore.EventID]bool
	types    columnTypes // of the generation's columns; nil until they are needed
	paused   bool
	blamed   bool // the checkpoint says why the consumer stands still
	size     int  // events in the next slice
	vanished bool // the last slice met a relation that is missing
	failures int  // transient ones in a row
	rest     time.Time
	reason   string // why it stands still; the same is not logged each time
	gone     bool   // the tenant has no database any more

	// What the metrics show.
	standing      atomic.Int32
	parkedStreams atomic.Int64
	lag           atomic.Int64 // events
	oldest        atomic.Int64 // when the oldest event that is not applied was recorded, in Unix nanoseconds; 0 when there is none
}

// page is a run of the log that the consumers of one tenant share while they stand at the same position; each fact is decoded
// once.
type page struct {
	after eventstore.Position
	last  eventstore.EventID // the event at after
	batch eventstore.Batch
	facts map[eventstore.Position]any
}

// fact decodes the event, unless another consumer of the page has done so.
func (p *page) fact(ctx context.Context, codec *seal.Codec, rec eventstore.Recorded) (any, error) {
	if f, ok := p.facts[rec.Position]; ok {
		return f, nil
	}
	f, err := codec.Decode(ctx, rec)
	if err == nil {
		p.facts[rec.Position] = f
	}
	return f, err
}

// schema is where the generation's tables lie; a saga has none of its own.
func (c *consumer) schema() string {
	if c.projection.Effects {
		return ""
	}
	return fmt.Sprintf("%s_g%d", c.projection.Name, c.at.generation)
}

// wants tells whether the event leads to rows: its type is one of the projection's, its stream is not parked and nobody said to skip it.
func (c *consumer) wants(rec *eventstore.Recorded) bool {
	if c.parked[rec.Stream] || c.skipped[rec.ID] {
		return false
	}
	return len(c.projection.Types) == 0 || slices.Contains(c.projection.Types, rec.Type)
}

// slice applies at most one page and tells whether there is more to do at once. Every failure is dealt with here; run is the context of the
// whole runner, ctx that of this slice.
func (c *consumer) slice(run, ctx context.Context, shared **page) (more bool) {
	if time.Now().Before(c.rest) {
		return false
	}
	more, err := c.advance(ctx, shared)
	if err == nil {
		c.failures, c.vanished, c.reason = 0, false, ""
		return more
	}
	if run.Err() != nil {
		return false
	}
	switch judge(err) {
	case lostRace:
		c.runner.metrics.lost(c.projection.Name)
		c.loaded = false
		return true
	case vanished: // somebody removed it, or a newer generation has come: look again, once
		if !c.vanished {
			c.loaded, c.vanished = false, true
			return true
		}
		c.halt(run, err)
	case halt, poison: // poison that could not be parked
		c.halt(run, err)
	case transient:
		if errors.Is(err, tenants.ErrUnknownTenant) {
			c.gone = true
			return false
		}
		c.retry(run, err)
	}
	return false
}

// advance does the work of one slice.
func (c *consumer) advance(ctx context.Context, shared **page) (more bool, err error) {
	if !c.loaded {
		if err := c.load(ctx); err != nil {
			return false, err
		}
	}
	if c.paused {
		c.stand(paused, c.runner.config.LookEvery)
		return false, c.measure(ctx)
	}
	c.standing.Store(int32(running))
	if *shared == nil || (*shared).after != c.at.position || (*shared).last != c.at.last {
		if *shared, err = c.read(ctx); err != nil {
			return false, err
		}
	}
	p := *shared
	if len(p.batch.Events) == 0 {
		c.current()
		return false, c.forgive(ctx)
	}
	events := p.batch.Events[:min(c.size, len(p.batch.Events))]
	begun := time.Now()
	err = c.apply(ctx, p, events)
	if judged := err != nil && judge(err) == poison; judged {
		err = c.replay(ctx, p, events)
	}
	if err != nil {
		return false, err
	}
	took := time.Since(begun)
	c.runner.metrics.slice(c.projection.Name, took)
	c.size = nextSize(c.size, len(events), took)
	if p.batch.Live && len(events) == len(p.batch.Events) {
		c.current()
		return false, nil
	}
	return true, c.measure(ctx)
}

// read takes the next page. The checkpoint's own event is read with it: if the log does not hold it there, then the log was exchanged,
// even under a running process, and going on would skip facts and keep rows of facts that are none any more.
func (c *consumer) read(ctx context.Context) (*page, error) {
	p := &page{after: c.at.position, last: c.at.last, facts: map[eventstore.Position]any{}}
	after, limit := c.at.position, sliceEvents
	if c.at.position > 0 {
		after, limit = after-1, limit+1
	}
	var err error
	if p.batch, err = c.runner.config.Store.Tenant(c.tenant).Page(ctx, after, limit); err != nil {
		return nil, fmt.Errorf("runner: read the log of %s: %w", c.tenant, err)
	}
	if c.at.position == 0 {
		return c.known(p)
	}
	if e := p.batch.Events; len(e) == 0 || e[0].Position != c.at.position || e[0].ID != c.at.last {
		return nil, c.exchanged()
	}
	p.batch.Events = p.batch.Events[1:]
	return c.known(p)
}

// known ends the page before the first event of a type or schema that a newer binary wrote, also where the projection does not ask for
// its type: a newer one may. When nothing is left the error says what it is.
func (c *consumer) known(p *page) (*page, error) {
	for i, rec := range p.batch.Events {
		err := c.runner.codec.Registry.Check(rec.Type, rec.Schema)
		if err != nil && i == 0 {
			return nil, fmt.Errorf("runner: the log of %s at position %d: %w", c.tenant, rec.Position, err)
		}
		if err != nil {
			p.batch.Events, p.batch.Live = p.batch.Events[:i], false
			break
		}
	}
	return p, nil
}

// nextSize keeps slices near sliceTime.
func nextSize(size, applied int, took time.Duration) int {
	switch {
	case took > sliceTime:
		return max(smallSlice, size/2)
	case took < sliceTime/4 && applied == size:
		return min(sliceEvents, size*2)
	default:
		return size
	}
}
