package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/factum-platform/factum/eventstore"
)

// Torture appends from many goroutines while others tail the logs, and then compares what each reader saw with what is in the logs.
// It is made hard by the caller: an engine's test delays commits after the position is drawn, rolls some back, cuts connections and
// loses answers. Failed appends are repeated with the same ids, half of the time; the others are given up.
type Torture struct {
	Stores   []eventstore.Store    // of the same logs; each stands for a process
	Tenants  []eventstore.TenantID // their logs must be empty
	Writers  int                   // goroutines that append, spread over tenants and stores
	Readers  int                   // each tails every tenant
	Events   int                   // writing ends when so many were acknowledged
	Batch    int                   // most events of an append; small appends are the likelier
	Progress func(Tortured)        // nil, or called every five seconds
}

// Tortured says how much a run did, so that a test can tell a hard run from an idle one.
type Tortured struct {
	Events   int // acknowledged; at the end those in the logs
	Appends  int // acknowledged
	Read     int // by all readers together
	Failures int // attempts to append that failed
	Replays  int // repetitions that found the first attempt in the log: it was committed and its answer lost
}

// SkippedError says that a reader was handed later events without an earlier one: the failure that promise F3 excludes.
type SkippedError struct {
	Reader, Count int
	Tenant        eventstore.TenantID
	First         eventstore.Position // the first position that was skipped
}

// Error implements error.
func (e *SkippedError) Error() string {
	return fmt.Sprintf("storetest: reader %d of tenant %s was never handed %d events, the first at position %d", e.Reader, e.Tenant, e.Count, e.First)
}

// torturePause bounds the random wait before an attempt follows one that failed.
const torturePause = 20 * time.Millisecond

// counts is a Tortured that many goroutines add to.
type counts struct{ events, appends, read, failures, replays atomic.Int64 }

func (c *counts) now() Tortured {
	return Tortured{
		Events: int(c.events.Load()), Appends: int(c.appends.Load()), Read: int(c.read.Load()),
		Failures: int(c.failures.Load()), Replays: int(c.replays.Load()),
	}
}

// sighting is what is remembered of an event that was read.
type sighting struct {
	position eventstore.Position
	id       eventstore.EventID
}

// Run tortures the logs until the context ends or all is done. Errors: *[SkippedError] for each reader that missed events, and what
// else contradicts the contract.
func (x Torture) Run(ctx context.Context) (Tortured, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var n counts
	if x.Progress != nil {
		var reports sync.WaitGroup
		defer reports.Wait()
		defer cancel()
		reports.Go(func() { x.report(ctx, &n) })
	}
	logs := make([]*tortured, len(x.Tenants))
	var tails, writing sync.WaitGroup
	for i, tenant := range x.Tenants {
		logs[i] = &tortured{tenant: tenant, written: make(chan struct{}), tails: make([]tortureTail, x.Readers), acknowledged: map[eventstore.EventID]eventstore.Position{}}
		for r := range logs[i].tails {
			l := x.Stores[r%len(x.Stores)].Tenant(tenant)
			tails.Go(func() { logs[i].tails[r].run(ctx, l, logs[i], &n) })
		}
	}
	for i := range x.Writers {
		to := logs[i%len(logs)]
		l := x.Stores[i/len(logs)%len(x.Stores)].Tenant(to.tenant)
		writing.Go(func() { to.fail(x.write(ctx, l, to, i, &n)) })
	}
	writing.Wait()
	for _, to := range logs {
		writing.Go(func() { to.fail(to.end(ctx, x.Stores[0].Tenant(to.tenant))) })
	}
	writing.Wait()
	tails.Wait()
	done := n.now()
	done.Events = 0
	var errs []error
	for _, to := range logs {
		log, err := to.read(ctx, x.Stores[0].Tenant(to.tenant))
		done.Events += len(log)
		errs = append(errs, errors.Join(to.errs...), err, to.check(log, x.Stores[0].Caps().Gapless))
	}
	return done, errors.Join(errs...)
}

func (x Torture) report(ctx context.Context, n *counts) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			x.Progress(n.now())
		case <-ctx.Done():
			return
		}
	}
}

// tortured is one tenant's log and what is known about it.
type tortured struct {
	tenant  eventstore.TenantID
	tails   []tortureTail
	last    eventstore.Position // of an event that was appended when all writers had ended; valid when written is closed
	written chan struct{}

	mu           sync.Mutex
	errs         []error
	acknowledged map[eventstore.EventID]eventstore.Position // of the last event of each append
}

func (to *tortured) fail(err error) {
	to.mu.Lock()
	defer to.mu.Unlock()
	to.errs = append(to.errs, err)
}

// transient tells whether an append may have failed by what the caller did to the engine.
func transient(ctx context.Context, err error) bool {
	_, conflict := as[*eventstore.ConflictError](err)
	_, claim := as[*eventstore.ClaimError](err)
	_, reused := as[*eventstore.ReusedKeyError](err)
	_, invalid := as[*eventstore.InvalidError](err)
	return err != nil && ctx.Err() == nil && !conflict && !claim && !reused && !invalid
}

// write appends to streams of its own, so that no append waits for another writer's version. A stream holds one append, and its
// name ends with the number of events.
func (x Torture) write(ctx context.Context, l eventstore.Log, to *tortured, number int, n *counts) error {
	for i := 0; n.events.Load() < int64(x.Events); i++ {
		size := 1 + rand.N(1+rand.N(x.Batch))
		add := write("doc", fmt.Sprintf("%d %d %d", number, i, size), eventstore.NoStream(), size)
		out, err := l.Append(ctx, add)
		for err != nil {
			if !transient(ctx, err) {
				return fmt.Errorf("storetest: writer %d: %w", number, err)
			}
			n.failures.Add(1)
			sleep(ctx, rand.N(torturePause))
			if rand.N(2) == 0 {
				break // given up: it may or may not be in the log
			}
			out, err = l.Append(ctx, add)
		}
		if err != nil {
			continue
		}
		if out[0].Replayed {
			n.replays.Add(1)
		}
		n.appends.Add(1)
		n.events.Add(int64(size))
		to.mu.Lock()
		to.acknowledged[add.Events[size-1].ID] = out[0].Position
		to.mu.Unlock()
	}
	return nil
}

// sleep waits, or less when the context ends.
func sleep(ctx context.Context, d time.Duration) {
	due := time.NewTimer(d)
	defer due.Stop()
	select {
	case <-due.C:
	case <-ctx.Done():
	}
}

// end appends the log's last event, up to which everything is compared, and another one that wakes the readers.
func (to *tortured) end(ctx context.Context, l eventstore.Log) error {
	known := sync.OnceFunc(func() { close(to.written) })
	defer known()
	for _, name := range []string{"last 1", "wake 1"} {
		add := write("doc", name, eventstore.NoStream(), 1)
		out, err := l.Append(ctx, add)
		for transient(ctx, err) {
			sleep(ctx, rand.N(torturePause))
			out, err = l.Append(ctx, add)
		}
		if err != nil {
			return fmt.Errorf("storetest: the last append to %s: %w", to.tenant, err)
		}
		if to.last == 0 {
			to.last = out[0].Position
			known() // before the other one: whoever is handed that must know
		}
	}
	return nil
}

// read reads the log up to its last event, page by page, because the reading connection may be cut, too. It looks for appends that
// are not whole or not adjacent.
func (to *tortured) read(ctx context.Context, l eventstore.Log) ([]sighting, error) {
	var log []sighting
	var before eventstore.Recorded
	size := 0
	for after := eventstore.Position(0); after < to.last; {
		b, err := l.Page(ctx, after, 500)
		if transient(ctx, err) {
			sleep(ctx, rand.N(torturePause))
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("storetest: read the log of %s: %w", to.tenant, err)
		}
		if len(b.Events) == 0 {
			return nil, fmt.Errorf("storetest: the log of %s ends at %d; the last append was answered with %d", to.tenant, after, to.last)
		}
		for _, rec := range b.Events {
			if rec.Position > to.last {
				break
			}
			log = append(log, sighting{rec.Position, rec.ID})
			first := rec.Version == 1
			if first != (int(before.Version) == size) || !first && (rec.Stream != before.Stream || rec.Version != before.Version+1) {
				return nil, fmt.Errorf("storetest: at %d %s@%d follows %s@%d of %d: an append is not whole, or not adjacent", rec.Position, rec.Stream, rec.Version, before.Stream, before.Version, size)
			}
			if first {
				if size, err = strconv.Atoi(rec.Stream.ID[1+strings.LastIndexByte(rec.Stream.ID, ' '):]); err != nil {
					return nil, fmt.Errorf("storetest: the name of %s: %w", rec.Stream, err)
				}
			}
			before = rec
		}
		after = b.Through
	}
	if int(before.Version) != size {
		return nil, fmt.Errorf("storetest: the log of %s ends inside of an append to %s", to.tenant, before.Stream)
	}
	return log, nil
}

func (to *tortured) check(log []sighting, gapless bool) error {
	if len(log) == 0 {
		return nil // why was said by read
	}
	var errs []error
	found := 0
	for i, at := range log {
		if gapless && at.position != eventstore.Position(i+1) {
			errs = append(errs, fmt.Errorf("storetest: event %d of %s is at position %d: there is a gap", i+1, to.tenant, at.position))
			gapless = false // said once
		}
		if answered, ok := to.acknowledged[at.id]; ok {
			found++
			if answered != at.position {
				errs = append(errs, fmt.Errorf("storetest: an append was answered with position %d and is at %d", answered, at.position))
			}
		}
	}
	if found != len(to.acknowledged) {
		errs = append(errs, fmt.Errorf("storetest: %d of %d acknowledged appends are in the log of %s", found, len(to.acknowledged), to.tenant))
	}
	for r := range to.tails {
		errs = append(errs, to.tails[r].err, to.tails[r].check(r, to, log))
	}
	return errors.Join(errs...)
}

type tortureTail struct {
	got []sighting
	err error
}

func (r *tortureTail) run(ctx context.Context, l eventstore.Log, to *tortured, n *counts) {
	for b, err := range l.Follow(ctx, 0) {
		if err != nil {
			r.err = fmt.Errorf("storetest: a reader of %s ended after %d events: %w", to.tenant, len(r.got), err)
			return
		}
		n.read.Add(int64(len(b.Events)))
		for _, rec := range b.Events {
			r.got = append(r.got, sighting{rec.Position, rec.ID})
		}
		select {
		case <-to.written:
			if b.Through >= to.last {
				return
			}
		default:
		}
	}
	r.err = fmt.Errorf("storetest: a reader of %s ended without an error", to.tenant)
}

// check compares what the reader got with the log: everything once, in order.
func (r *tortureTail) check(number int, to *tortured, log []sighting) error {
	skipped := SkippedError{Reader: number, Tenant: to.tenant}
	skip := func(at sighting) {
		if skipped.Count == 0 {
			skipped.First = at.position
		}
		skipped.Count++
	}
	for _, at := range r.got {
		if at.position > to.last {
			break // appended after the log was read
		}
		for len(log) > 0 && log[0].position < at.position {
			skip(log[0])
			log = log[1:]
		}
		if len(log) == 0 || log[0] != at {
			return fmt.Errorf("storetest: reader %d of %s was handed %s at %d out of order, twice, or though it is not in the log", number, to.tenant, at.id, at.position)
		}
		log = log[1:]
	}
	for _, at := range log {
		skip(at)
	}
	if skipped.Count > 0 {
		return &skipped
	}
	return nil
}
