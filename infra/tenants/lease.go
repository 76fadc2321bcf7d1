package tenants

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// waitForSlot bounds how long the making of a connection goes on when those who wanted it have gone; they wait as long as their own
// contexts allow.
const waitForSlot = time.Minute

// errNoAnswer is why a connection was given up that the server did not answer in time.
var errNoAnswer = fmt.Errorf("no answer within %v", answerWithin)

// govern makes the connections of a pool obey the budget and the server's gate.
func (d *Databases) govern(c *pgxpool.Config, e *entry) {
	c.ConnConfig.ConnectTimeout = waitForSlot + answerWithin
	c.ConnConfig.Tracer = releases{d.tracer, d.budget}
	c.BeforeConnect = func(_ context.Context, one *pgx.ConnConfig) error {
		l := &lease{d: d, e: e}
		one.DialFunc = l.dial
		one.AfterConnect = func(context.Context, *pgconn.PgConn) error { l.settle(true, nil); return nil }
		return nil
	}
}

// releases closes a connection that is given back while others wait for a slot and none is idle: its pool then forgets it. Where others are
// idle, theirs are closed, or the busiest tenants would lose theirs at each use.
type releases struct {
	*otelpgx.Tracer
	budget *budget
}

// TraceRelease implements [pgxpool.ReleaseTracer].
func (r releases) TraceRelease(_ *pgxpool.Pool, data pgxpool.TraceReleaseData) {
	if !r.budget.busy.Load() || r.budget.waiters.Load() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	_ = data.Conn.Close(ctx) // the socket is closed in any case
}

// lease is one connection of a pool: its sockets share one slot. A second socket lives beside the first for the moment in which a
// running statement is cancelled.
type lease struct {
	d *Databases
	e *entry

	mu      sync.Mutex
	sockets int
	leave   func(answered bool, err error) // of the gate; nil once the server answered or failed to
	timer   *time.Timer
	late    bool
}

func (l *lease) dial(ctx context.Context, network, address string) (net.Conn, error) {
	l.mu.Lock()
	second := l.sockets > 0
	if second {
		l.sockets++
	}
	l.mu.Unlock()
	if !second {
		if err := l.take(ctx); err != nil {
			return nil, err
		}
	}
	dialer := net.Dialer{Timeout: answerWithin}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		l.settle(false, err)
		l.closed()
		return nil, &ServerError{l.e.server.name, err}
	}
	s := &socket{Conn: conn, lease: l}
	if !second {
		l.mu.Lock()
		l.timer = time.AfterFunc(answerWithin, func() {
			l.mu.Lock()
			waits := l.leave != nil
			l.late = waits
			l.mu.Unlock()
			if waits {
				_ = s.Close() // wakes the reader, who says what happened
			}
		})
		l.mu.Unlock()
	}
	return s, nil
}

// take waits for the server's gate and for a slot.
func (l *lease) take(ctx context.Context) error {
	leave, err := l.e.server.gate.enter(ctx)
	if err != nil {
		return err
	}
	if err := l.d.budget.take(ctx); err != nil {
		leave(false, nil)
		return fmt.Errorf("tenants: no connection to the database of %s came free: %w; see --tenant-connections (FACTUM_TENANT_CONNECTIONS)", l.e.tenant, err)
	}
	l.d.budget.holds(l.e, 1)
	l.mu.Lock()
	l.sockets, l.leave, l.late = 1, leave, false
	l.mu.Unlock()
	return nil
}

// settle says once how the server answered.
func (l *lease) settle(answered bool, err error) {
	l.mu.Lock()
	leave, timer := l.leave, l.timer
	l.leave, l.timer = nil, nil
	l.mu.Unlock()
	if timer != nil {
		timer.Stop()
	}
	if leave != nil {
		leave(answered, err)
	}
}

// closed counts a socket less; with the last one the slot is given back.
func (l *lease) closed() {
	l.mu.Lock()
	l.sockets--
	last := l.sockets == 0
	late := l.late
	l.mu.Unlock()
	if !last {
		return
	}
	var err error
	if late {
		err = errNoAnswer
	}
	l.settle(false, err)
	l.d.budget.holds(l.e, -1)
	l.d.budget.give()
}

// socket gives its slot back when it is closed.
type socket struct {
	net.Conn
	lease *lease
	once  sync.Once
}

// Read implements [net.Conn]. Any byte is an answer of the server, be it a refusal.
func (s *socket) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if n > 0 {
		return n, err
	}
	s.lease.mu.Lock()
	late := s.lease.late
	s.lease.mu.Unlock()
	if late && err != nil {
		return n, &ServerError{s.lease.e.server.name, errNoAnswer}
	}
	return n, err
}

// Close implements [net.Conn].
func (s *socket) Close() error {
	err := s.Conn.Close()
	s.once.Do(s.lease.closed)
	if errors.Is(err, net.ErrClosed) {
		return nil // by the timer
	}
	return err
}
