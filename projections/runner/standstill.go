package runner

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// stand lets the consumer do nothing for a while; then, or when an operator rings, it looks at everything anew.
func (c *consumer) stand(why standing, d time.Duration) {
	c.standing.Store(int32(why))
	c.loaded = false
	c.rest = time.Now().Add(d)
	time.AfterFunc(d+time.Millisecond, func() { c.runner.queue.add(c.tenant, rung) })
}

// logEvery is after how many failures in a row the same reason is logged again: some minutes, in the end.
const logEvery = 30

// retry lets the consumer rest, longer each time.
func (c *consumer) retry(ctx context.Context, err error) {
	delay := lastRetry
	if c.failures < 7 {
		delay = firstRetry << c.failures
	}
	delay = delay/2 + rand.N(delay/2)
	c.failures++
	c.late()
	text := describe(err)
	if text != c.reason || c.failures%logEvery == 0 {
		c.runner.config.Logger.Warn("projection waits and tries again", "projection", c.projection.Name, "tenant", c.tenant,
			"failures", c.failures, "after", delay, "error", text)
		c.reason = text
	}
	if c.failures >= tellAfter {
		bounded, cancel := context.WithTimeout(ctx, blameTimeout)
		defer cancel()
		c.blame(bounded, text, true)
	}
	c.stand(waiting, delay)
}

// halt lets the consumer stand still: going on would skip or garble facts. It looks again slowly, and at once when an operator rings, so that
// a rebuild, a log that was restored or a schema that was migrated heals it.
func (c *consumer) halt(ctx context.Context, reason error) {
	text := describe(reason)
	if text != c.reason {
		c.runner.config.Logger.Error("projection halted", "projection", c.projection.Name, "tenant", c.tenant, "position", c.at.position, "error", text)
		c.reason = text
	}
	bounded, cancel := context.WithTimeout(ctx, blameTimeout)
	defer cancel()
	if !c.loaded || c.measure(bounded) != nil {
		c.late()
	}
	c.blame(bounded, text, false)
	c.stand(halted, c.runner.config.LookEvery)
}

// blameTimeout bounds the writing down of a reason, which may concern the very database that it is written to.
const blameTimeout = 2 * time.Second

// blame keeps the reason for standing still beside the checkpoint of the live generation.
func (c *consumer) blame(ctx context.Context, text string, waits bool) {
	pool, err := c.pool(ctx)
	if err == nil {
		_, err = pool.Exec(ctx, `update proj.checkpoint c set error = $3, waits = $4 from proj.live l
			where l.projection = c.projection and l.generation = c.generation and c.projection = $1 and c.tenant = $2
			and (c.error is distinct from $3 or c.waits <> $4)`, c.projection.Name, string(c.tenant), text, waits)
	}
	if err != nil && !waits && !errors.Is(err, context.Canceled) {
		c.runner.config.Logger.Error("the reason for a halt could not be stored", "projection", c.projection.Name, "tenant", c.tenant, "error", describe(err))
	}
}

// forgive removes the reason from the checkpoint of a consumer that is well again and has nothing to apply, which would remove it as well.
func (c *consumer) forgive(ctx context.Context) error {
	if !c.blamed {
		return nil
	}
	pool, err := c.pool(ctx)
	if err != nil {
		return err
	}
	_, err = pool.Exec(ctx, `update proj.checkpoint set error = null, waits = false
		where projection = $1 and generation = $2 and tenant = $3 and position = $4 and state = $5`,
		c.projection.Name, c.at.generation, string(c.tenant), int64(c.at.position), c.at.state)
	if err != nil {
		return fmt.Errorf("runner: clear the error of %s of %s: %w", c.projection.Name, c.tenant, err)
	}
	c.blamed = false
	return nil
}

// exchanged says that the log is not the one that the checkpoint stands on.
func (c *consumer) exchanged() error {
	remedy := fmt.Sprintf("if the log is as it should be, 'factum projections rebuild %s' builds the read model from it; else restore the newer log", c.projection.Name)
	if c.projection.Effects {
		remedy = "restore the newer log; or, if the log is as it should be, delete this log's row of the saga in proj.checkpoint: it looks at all facts again and asks for nothing twice"
	}
	return &haltError{fmt.Sprintf("%s stands at position %d, event %s, which the log of %s does not hold: the log was restored from an older backup than its read models, "+
		"or was exchanged; nothing was changed, and queries answer with the rows as they were; %s; then it goes on by itself",
		c.projection.Name, c.at.position, c.at.last, c.tenant, remedy)}
}

// current notes that nothing is left to apply.
func (c *consumer) current() {
	c.lag.Store(0)
	c.oldest.Store(0)
}

// late notes that something may be left to apply, and since when, as long as it cannot be measured.
func (c *consumer) late() {
	c.lag.CompareAndSwap(0, 1)
	c.oldest.CompareAndSwap(0, time.Now().UnixNano())
}

// measure counts what is left to apply.
func (c *consumer) measure(ctx context.Context) error {
	l, err := lagOf(ctx, c.runner.config.Store.Tenant(c.tenant), c.runner.config.Store.Caps(), c.at.position, 0)
	if err != nil {
		return fmt.Errorf("runner: measure how far %s of %s is behind: %w", c.projection.Name, c.tenant, err)
	}
	if l.events == 0 {
		c.current()
		return nil
	}
	c.lag.Store(l.events)
	c.oldest.Store(l.oldest.UnixNano())
	return nil
}
