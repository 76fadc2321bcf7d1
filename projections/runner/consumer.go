package runner

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/seal"
)

const (
	// sliceEvents bounds a slice: after it the tenant goes to the end of the queue.
	sliceEvents = 500
	// sliceTime is how long a slice should take at most: a slower one makes the next ones smaller, down to smallSlice.
	sliceTime  = 100 * time.Millisecond
	smallSlice = 16
	firstRetry = 100 * time.Millisecond
	lastRetry  = 10 * time.Second
)

// consumer is one projection of one log. It is worked on by one worker at a time, which the queue sees to.
type consumer struct {
	runner     *Runner
	projection *Projection
	tenant     eventstore.TenantID

	loaded   bool
	at       checkpoint
	parked   map[eventstore.StreamID]bool
	size     int  // events in the next slice
	vanished bool // the last slice met a relation that is missing
	failures int  // transient ones in a row
	rest     time.Time
	halted   bool

	// What the metrics show.
	parkedStreams atomic.Int64
	lag           atomic.Int64
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

// wants tells whether the event leads to rows: its type is one of the projection's and its stream is not parked.
func (c *consumer) wants(rec *eventstore.Recorded) bool {
	if c.parked[rec.Stream] {
		return false
	}
	return len(c.projection.Types) == 0 || slices.Contains(c.projection.Types, rec.Type)
}

// slice applies at most one page and tells whether there is more to do at once. Every failure is dealt with here.
func (c *consumer) slice(ctx context.Context, shared **page) (more bool) {
	if c.halted || time.Now().Before(c.rest) {
		return false
	}
	more, err := c.advance(ctx, shared)
	if err == nil {
		c.failures, c.vanished = 0, false
		return more
	}
	if ctx.Err() != nil {
		return false
	}
	switch judge(err) {
	case lostRace:
		c.loaded = false
		return true
	case vanished: // somebody removed it, or a newer generation has come: look again, once
		if !c.vanished {
			c.loaded, c.vanished = false, true
			return true
		}
		c.stop(ctx, err)
	case halt, poison: // poison that could not be parked
		c.stop(ctx, err)
	case transient:
		c.retry(err)
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
	if *shared == nil || (*shared).after != c.at.position || (*shared).last != c.at.last {
		if *shared, err = c.read(ctx); err != nil {
			return false, err
		}
	}
	p := *shared
	if len(p.batch.Events) == 0 {
		c.lag.Store(0)
		return false, nil
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
		c.lag.Store(0)
		return false, nil
	}
	head, err := c.runner.config.Store.Tenant(c.tenant).Head(ctx)
	if err != nil {
		return false, fmt.Errorf("runner: read the head of %s: %w", c.tenant, err)
	}
	c.lag.Store(int64(head) - int64(c.at.position))
	return true, nil
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
		return nil, &haltError{fmt.Sprintf(
			"%s stands at position %d, event %s, which the log of %s does not hold: the log was restored from an older backup than its read models; %s and start again",
			c.projection.Name, c.at.position, c.at.last, c.tenant, c.remedy())}
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

// remedy is what a person can do about a checkpoint whose log was exchanged.
func (c *consumer) remedy() string {
	if c.projection.Effects {
		return "restore the newer log, or delete this log's row of the saga in proj.checkpoint to look at all its facts again"
	}
	return "restore the newer log, or delete the projection's rows in proj.checkpoint and proj.live to rebuild it"
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

// retry lets the consumer rest, longer each time, and marks its tenant again for then.
func (c *consumer) retry(err error) {
	delay := lastRetry
	if c.failures < 7 {
		delay = firstRetry << c.failures
	}
	delay = delay/2 + rand.N(delay/2)
	c.failures++
	c.loaded = false
	c.rest = time.Now().Add(delay)
	time.AfterFunc(delay+time.Millisecond, func() { c.runner.queue.add(c.tenant, true) })
	c.runner.config.Logger.Warn("projection waits and tries again", "projection", c.projection.Name, "tenant", c.tenant,
		"failures", c.failures, "after", delay, "error", describe(err))
}

// stop halts the consumer until the process is started again: going on would skip or garble facts. The reason is kept beside the
// checkpoint.
func (c *consumer) stop(ctx context.Context, reason error) {
	c.halted = true
	text := describe(reason)
	c.runner.config.Logger.Error("projection halted", "projection", c.projection.Name, "tenant", c.tenant, "position", c.at.position, "error", text)
	pool, err := c.pool(ctx)
	if err == nil {
		_, err = pool.Exec(ctx, `update proj.checkpoint set error = $4 where projection = $1 and generation = $2 and tenant = $3`,
			c.projection.Name, c.at.generation, string(c.tenant), text)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		c.runner.config.Logger.Error("the reason for a halt could not be stored", "projection", c.projection.Name, "tenant", c.tenant, "error", describe(err))
	}
}
