// Package notify carries hints between the processes of a platform by LISTEN and NOTIFY on its database. A hint may be lost, come twice or
// late: whoever waits for one also looks by itself. It is sent outside of transactions, at most 40 times a second, many in one message.
package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// sendEvery bounds how often a hub sends.
	sendEvery = 25 * time.Millisecond
	// sendTimeout bounds one sending, and the closing of a connection.
	sendTimeout = 2 * time.Second
	// maxPayload bounds a message; PostgreSQL takes less than 8,000 bytes.
	maxPayload   = 7000
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// Hint is what is said on a channel: about what, and what of it. Of two hints about the same key that have not been sent yet only the later
// one is. Neither may hold a blank or a line break in Key, or a line break in Value.
type Hint struct{ Key, Value string }

// Hub sends and hears hints. It is safe for concurrent use.
type Hub struct {
	pool      *pgxpool.Pool
	logger    *slog.Logger
	heard     map[string]func(Hint)
	connected atomic.Bool
	stop      context.CancelFunc
	running   sync.WaitGroup

	mu    sync.Mutex
	wait  map[string]map[string]string // hints to send: channel, key, value
	wake  chan struct{}
	ready chan struct{} // closed when it listens for the first time
}

// Open returns a hub that calls the function of a channel for each hint that is heard on it, one at a time; those functions must not wait. It
// holds one connection of its own besides the pool's, which is opened again whenever it breaks. logger may be nil.
func Open(pool *pgxpool.Pool, logger *slog.Logger, heard map[string]func(Hint)) *Hub {
	if logger == nil {
		logger = slog.Default()
	}
	ctx, stop := context.WithCancel(context.Background())
	h := &Hub{
		pool: pool, logger: logger, heard: heard, stop: stop,
		wait: map[string]map[string]string{}, wake: make(chan struct{}, 1), ready: make(chan struct{}),
	}
	h.running.Go(func() { h.sends(ctx) })
	if len(heard) > 0 {
		h.running.Go(func() { h.listens(ctx) })
	}
	return h
}

// Close ends the hub. What was not sent yet is not.
func (h *Hub) Close() {
	h.stop()
	h.running.Wait()
}

// Connected tells whether hints are heard at present.
func (h *Hub) Connected() bool { return h.connected.Load() }

// Ready is closed once hints are heard for the first time.
func (h *Hub) Ready() <-chan struct{} { return h.ready }

// Send tells all processes, this one included, soon. It never waits.
func (h *Hub) Send(channel string, hint Hint) {
	h.mu.Lock()
	if h.wait[channel] == nil {
		h.wait[channel] = map[string]string{}
	}
	h.wait[channel][hint.Key] = hint.Value
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *Hub) sends(ctx context.Context) {
	for {
		select {
		case <-h.wake:
		case <-ctx.Done():
			return
		}
		h.mu.Lock()
		wait := h.wait
		h.wait = map[string]map[string]string{}
		h.mu.Unlock()
		var channels, payloads []string
		for channel, hints := range wait {
			for _, payload := range pack(hints) {
				channels, payloads = append(channels, channel), append(payloads, payload)
			}
		}
		if err := send(ctx, h.pool, channels, payloads); err != nil && ctx.Err() == nil {
			h.logger.WarnContext(ctx, "other processes were not told; they look by themselves", "error", err)
		}
		if !pause(ctx, sendEvery) {
			return
		}
	}
}

// Send tells the processes of the platform at once, for those who have no hub.
func Send(ctx context.Context, pool *pgxpool.Pool, channel string, hint Hint) error {
	return send(ctx, pool, []string{channel}, pack(map[string]string{hint.Key: hint.Value}))
}

func send(ctx context.Context, pool *pgxpool.Pool, channels, payloads []string) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	if _, err := pool.Exec(ctx, `select pg_notify(c, p) from unnest($1::text[], $2::text[]) as n (c, p)`, channels, payloads); err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	return nil
}

// pack makes messages of hints, a line each.
func pack(hints map[string]string) []string {
	var out []string
	var b strings.Builder
	for key, value := range hints {
		line := strings.TrimSuffix(key+" "+value, " ")
		if b.Len() > 0 && b.Len()+1+len(line) > maxPayload {
			out = append(out, b.String())
			b.Reset()
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(line)
	}
	return append(out, b.String())
}

// hear tells what a message holds.
func (h *Hub) hear(channel, payload string) {
	for line := range strings.SplitSeq(payload, "\n") {
		key, value, _ := strings.Cut(line, " ")
		if f := h.heard[channel]; f != nil && key != "" {
			f(Hint{key, value})
		}
	}
}

func (h *Hub) listens(ctx context.Context) {
	delay := firstPause
	for ctx.Err() == nil {
		begun := time.Now()
		err := h.listen(ctx)
		h.connected.Store(false)
		if ctx.Err() != nil {
			return
		}
		h.logger.WarnContext(ctx, "the connection on which other processes are heard broke; it is opened again", "error", err)
		if time.Since(begun) > longestPause {
			delay = firstPause
		}
		if !pause(ctx, delay/2+rand.N(delay/2)) { //nolint:gosec // jitter is no secret
			return
		}
		delay = min(2*delay, longestPause)
	}
}

// listen hears until the connection breaks.
func (h *Hub) listen(ctx context.Context) (err error) {
	acquired, err := h.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	conn := acquired.Hijack() // it listens for ever, so it leaves the pool and is closed here
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
		defer cancel()
		err = errors.Join(err, conn.Close(closing))
	}()
	for channel := range h.heard {
		if _, err := conn.Exec(ctx, `listen "`+channel+`"`); err != nil {
			return err
		}
	}
	if !h.connected.Swap(true) {
		select {
		case <-h.ready:
		default:
			close(h.ready)
		}
	}
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		h.hear(n.Channel, n.Payload)
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
