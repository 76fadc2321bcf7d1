package pgstore

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
)

const (
	channel = "es"
	// ringEvery bounds the notifications of one tenant to 20 a second.
	ringEvery = 50 * time.Millisecond
	// notifyTimeout bounds one NOTIFY; readers poll anyway.
	notifyTimeout = 2 * time.Second
)

// ring tells this process at once and the others soon. It happens after the commit and outside of it: NOTIFY takes a lock that
// would make all commits of the server wait for each other.
func (s *Store) ring(t eventstore.TenantID) {
	s.bell.Ring(t)
	if s.notifier != nil {
		s.notifier.ring(t)
	}
}

// notifier sends and receives notifications. A lost one costs a reader's poll interval, never an event.
type notifier struct {
	pool   *pgxpool.Pool
	bell   *eventstore.Bell
	logger *slog.Logger
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	dirty map[eventstore.TenantID]struct{}
	wake  chan struct{}
}

func startNotifier(pool *pgxpool.Pool, bell *eventstore.Bell, logger *slog.Logger) *notifier {
	ctx, cancel := context.WithCancel(context.Background())
	n := &notifier{pool: pool, bell: bell, logger: logger, cancel: cancel, dirty: map[eventstore.TenantID]struct{}{}, wake: make(chan struct{}, 1)}
	n.wg.Go(func() { n.send(ctx) })
	n.wg.Go(func() { n.receive(ctx) })
	return n
}

func (n *notifier) stop() {
	n.cancel()
	n.wg.Wait()
}

func (n *notifier) ring(t eventstore.TenantID) {
	n.mu.Lock()
	n.dirty[t] = struct{}{}
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *notifier) send(ctx context.Context) {
	for {
		select {
		case <-n.wake:
		case <-ctx.Done():
			return
		}
		n.mu.Lock()
		tenants := make([]string, 0, len(n.dirty))
		for t := range n.dirty {
			tenants = append(tenants, string(t))
		}
		clear(n.dirty)
		n.mu.Unlock()
		notify, cancel := context.WithTimeout(ctx, notifyTimeout)
		_, err := n.pool.Exec(notify, `select pg_notify($1, t) from unnest($2::text[]) t`, channel, tenants)
		cancel()
		if err != nil && ctx.Err() == nil {
			n.logger.WarnContext(ctx, "pgstore: other processes were not told of new events; they poll", "error", err)
		}
		if !wait(ctx, ringEvery) {
			return
		}
	}
}

func (n *notifier) receive(ctx context.Context) {
	delay := 100 * time.Millisecond
	for ctx.Err() == nil {
		heard, err := n.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		n.logger.WarnContext(ctx, "pgstore: the doorbell's connection broke; it is opened again", "error", err)
		if heard {
			delay = 100 * time.Millisecond
		}
		if !wait(ctx, delay/2+rand.N(delay/2)) {
			return
		}
		delay = min(2*delay, 5*time.Second)
	}
}

// listen rings the bell until the connection breaks.
func (n *notifier) listen(ctx context.Context) (heard bool, err error) {
	acquired, err := n.pool.Acquire(ctx)
	if err != nil {
		return false, err
	}
	// The connection listens for ever, so it leaves the pool and is closed here.
	conn := acquired.Hijack()
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), notifyTimeout)
		defer cancel()
		if closeErr := conn.Close(closing); closeErr != nil && err == nil {
			err = closeErr
		}
	}()
	if _, err := conn.Exec(ctx, "listen "+channel); err != nil {
		return false, err
	}
	for {
		notification, err := conn.WaitForNotification(ctx)
		if err != nil {
			return true, err
		}
		if t := eventstore.TenantID(notification.Payload); t.Validate() == nil {
			n.bell.Ring(t)
		}
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
