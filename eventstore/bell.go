package eventstore

import (
	"context"
	"sync"
)

// Bell tells listeners in this process that a tenant's log has grown. It is a hint, never a fact: rings coalesce and a
// listener always reads the log from its checkpoint. A Bell is safe for concurrent use; its zero value is ready.
type Bell struct {
	mu        sync.Mutex
	listeners map[*Listener]struct{}
}

// Ring wakes every listener for the tenant. It never blocks.
func (b *Bell) Ring(t TenantID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for l := range b.listeners {
		l.ring(t)
	}
}

// Listen returns a listener that hears every ring from now on. The caller must Close it.
func (b *Bell) Listen() *Listener {
	l := &Listener{bell: b, dirty: map[TenantID]struct{}{}, wake: make(chan struct{}, 1)}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listeners == nil {
		b.listeners = map[*Listener]struct{}{}
	}
	b.listeners[l] = struct{}{}
	return l
}

// Listener collects rings: each tenant once, however often it rang. Next is for one goroutine at a time.
type Listener struct {
	bell  *Bell
	mu    sync.Mutex
	dirty map[TenantID]struct{}
	queue []TenantID
	wake  chan struct{}
}

func (l *Listener) ring(t TenantID) {
	l.mu.Lock()
	if _, known := l.dirty[t]; !known {
		l.dirty[t] = struct{}{}
		l.queue = append(l.queue, t)
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Next waits for a tenant that rang since it was last returned, in the order of first rings, or for the context's end.
func (l *Listener) Next(ctx context.Context) (TenantID, error) {
	for {
		l.mu.Lock()
		if len(l.queue) > 0 {
			t := l.queue[0]
			l.queue = l.queue[1:]
			delete(l.dirty, t)
			l.mu.Unlock()
			return t, nil
		}
		l.mu.Unlock()
		select {
		case <-l.wake:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// Close ends the listening.
func (l *Listener) Close() {
	l.bell.mu.Lock()
	defer l.bell.mu.Unlock()
	delete(l.bell.listeners, l)
}
