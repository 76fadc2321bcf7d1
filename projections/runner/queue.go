package runner

import (
	"sync"

	"github.com/factum-platform/factum/eventstore"
)

// queue hands dirty tenants to workers in turn: a tenant is worked on by one worker at a time, and one that is still dirty
// afterwards goes to the end, so a long import costs the others one slice.
type queue struct {
	mu     sync.Mutex
	filled sync.Cond
	order  []eventstore.TenantID
	marks  map[eventstore.TenantID]*mark
	closed bool
}

type mark struct {
	queued, running bool
	rung            bool // there is news; otherwise it is only looked after
	again           bool // marked while it was running
}

func newQueue() *queue {
	q := &queue{marks: map[eventstore.TenantID]*mark{}}
	q.filled.L = &q.mu
	return q
}

// add marks the tenant dirty. rung says that its log is known to have grown.
func (q *queue) add(t eventstore.TenantID, rung bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := q.marks[t]
	if m == nil {
		m = &mark{}
		q.marks[t] = m
	}
	m.rung = m.rung || rung
	if m.running {
		m.again = true
		return
	}
	q.push(t, m)
}

func (q *queue) push(t eventstore.TenantID, m *mark) {
	if m.queued || q.closed {
		return
	}
	m.queued = true
	q.order = append(q.order, t)
	q.filled.Signal()
}

// take waits for the next dirty tenant; ok is false once the queue is closed.
func (q *queue) take() (t eventstore.TenantID, rung, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.order) == 0 && !q.closed {
		q.filled.Wait()
	}
	if q.closed {
		return "", false, false
	}
	t = q.order[0]
	q.order = q.order[1:]
	m := q.marks[t]
	rung = m.rung
	m.queued, m.running, m.rung, m.again = false, true, false, false
	return t, rung, true
}

// done ends the work that take began; more says that the tenant is still dirty.
func (q *queue) done(t eventstore.TenantID, more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := q.marks[t]
	m.running = false
	if more {
		m.rung = true
	}
	if more || m.again {
		q.push(t, m)
		return
	}
	delete(q.marks, t)
}

// close wakes all workers and ends them.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.filled.Broadcast()
}
