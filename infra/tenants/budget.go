package tenants

import (
	"cmp"
	"container/list"
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// evictEvery is how often idle connections are looked for while somebody waits for one.
	evictEvery = 5 * time.Millisecond
	// closeWithin bounds the good-bye to a server.
	closeWithin = 250 * time.Millisecond
	// halfLife is after how many uses of pools, in units of the budget's slots, an earlier use counts half.
	halfLife = 16
	// atWork is how long after its last use a pool keeps its connections before all others: a request or a projection uses one several times.
	atWork = 250 * time.Millisecond
)

// budget bounds the connections of all tenants' pools of this process. A slot is taken when a socket is dialled and given back when that
// is closed. Who finds none waits in order; meanwhile idle connections are closed: first what pools have beside one, then the last ones, in
// both cases of the least used pools first. It is safe for concurrent use.
//
// How much a pool is used is the sum over its uses, each of which counts half as much after every halfLife × slots uses of all pools (LRFU,
// Lee et al., IEEE Transactions on Computers 50(12), 2001). Where a few of many tenants have most of the traffic, these keep
// their connections, which those that come by once would take from them if only the last use counted.
type budget struct {
	slots   int
	waiters atomic.Int64 // length of waiting, for those that only look
	busy    atomic.Bool  // somebody waits, and no connection was idle
	waited  prometheus.Histogram

	mu       sync.Mutex
	used     int
	waiting  list.List           // of chan struct{}, closed when a slot is handed over
	holders  map[*entry]struct{} // those with open sockets
	uses     float64             // of all pools so far
	evicting bool
	evictors sync.WaitGroup
}

func newBudget(slots int, r prometheus.Registerer) *budget {
	b := &budget{slots: slots, holders: map[*entry]struct{}{}, waited: prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "factum_tenant_connection_wait_seconds", Help: "Waits for a free connection when all of --tenant-connections are open.",
		Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 5},
	})}
	if r != nil {
		r.MustRegister(b.waited, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "factum_tenant_connections", Help: "Open connections to tenants' databases; --tenant-connections bounds them.",
		}, func() float64 { return float64(b.open()) }), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "factum_tenant_connections_waiting", Help: "Connections that wait for a free slot.",
		}, func() float64 { return float64(b.waiters.Load()) }))
	}
	return b
}

func (b *budget) open() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// take returns when a slot is the caller's. Its only error is the context's.
func (b *budget) take(ctx context.Context) error {
	b.mu.Lock()
	if b.used < b.slots && b.waiting.Len() == 0 {
		b.used++
		b.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	place := b.waiting.PushBack(turn)
	b.waiters.Add(1)
	if !b.evicting {
		b.evicting = true
		b.evictors.Go(b.evict)
	}
	b.mu.Unlock()
	begun := time.Now()
	defer func() { b.waited.Observe(time.Since(begun).Seconds()) }()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-turn: // handed over meanwhile
		return nil
	default:
		b.waiting.Remove(place)
		b.waiters.Add(-1)
		return ctx.Err()
	}
}

// give hands a slot to whoever waits longest.
func (b *budget) give() {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := b.waiting.Front()
	if first == nil {
		b.used--
		return
	}
	b.waiters.Add(-1)
	close(b.waiting.Remove(first).(chan struct{}))
}

// touch notes that the pool was asked for.
func (b *budget) touch(e *entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.uses++
	// A use weighs 2^now, so that earlier ones need not be made lighter; the weight is kept as its logarithm to the base 2, which never grows
	// beyond any number.
	now := b.uses / float64(halfLife*b.slots)
	if e.asked.IsZero() {
		e.weight = now
	} else {
		e.weight = max(e.weight, now) + math.Log2(1+math.Exp2(-math.Abs(e.weight-now)))
	}
	e.asked = time.Now()
}

// holds notes that a socket of the pool was opened (1) or closed (-1).
func (b *budget) holds(e *entry, change int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.sockets += change; e.sockets > 0 {
		b.holders[e] = struct{}{}
	} else {
		delete(b.holders, e)
	}
}

// leastUsed returns the pools that have more open sockets than that, those first that are to lose them first. The caller holds the lock.
func (b *budget) leastUsed(sockets int) (pools []*pgxpool.Pool) {
	now := time.Now()
	order := slices.SortedFunc(maps.Keys(b.holders), func(x, y *entry) int {
		if busy := now.Sub(x.asked) < atWork; busy != (now.Sub(y.asked) < atWork) {
			if busy {
				return 1
			}
			return -1
		}
		return cmp.Compare(x.weight, y.weight)
	})
	for _, e := range order {
		if e.sockets > sockets {
			pools = append(pools, e.pool)
		}
	}
	return pools
}

// evict closes idle connections as long as anybody waits.
func (b *budget) evict() {
	tick := time.NewTicker(evictEvery)
	defer tick.Stop()
	for {
		b.mu.Lock()
		wanted := b.waiting.Len()
		if wanted == 0 {
			b.busy.Store(false)
			b.evicting = false
			b.mu.Unlock()
			return
		}
		several, all := b.leastUsed(1), b.leastUsed(0)
		b.mu.Unlock()
		wanted -= closeIdle(several, 1, wanted)
		if wanted > 0 {
			wanted -= closeIdle(all, 0, wanted)
		}
		b.busy.Store(wanted > 0)
		<-tick.C
	}
}

// closeIdle closes idle connections of the pools, in their order, until so many are closed that are wanted, and leaves each pool the
// connections that are to be kept. The pools stay usable.
func closeIdle(pools []*pgxpool.Pool, keep, wanted int) (closed int) {
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	for _, pool := range pools {
		if closed >= wanted {
			break
		}
		if pool.Stat().IdleConns() == 0 {
			continue // to look closer would keep its users waiting
		}
		left := int(pool.Stat().TotalConns()) - keep
		for _, c := range pool.AcquireAllIdle(ctx) {
			if left <= 0 || closed >= wanted {
				c.Release()
				continue
			}
			_ = c.Hijack().Close(ctx) // the socket is closed in any case, and nobody waits for an answer on it
			closed++
			left--
		}
	}
	return closed
}

// wait returns when nothing runs any more; the pools must be closed before.
func (b *budget) wait() { b.evictors.Wait() }
