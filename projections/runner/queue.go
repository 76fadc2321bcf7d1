package runner

import (
	"sync"

	"github.com/factum-platform/factum/eventstore"
)

const (
	// workers is how many tenants are worked on at once while their databases answer.
	workers = 8
	// lingerers is how many more may be waited for whose databases do not.
	lingerers = 24
	// stuckServer is how many tenants of one server must linger for all its tenants to be taken for lingering ones.
	stuckServer = 3
)

// news is why a tenant is to be worked on. The larger ones include the smaller ones.
type news uint8

const (
	swept    news = iota // it is only looked after
	rung                 // its log has grown
	operated             // somebody changed something about its consumers, which are to be loaded anew
)

// queue hands dirty tenants to workers in turn: a tenant is worked on by one worker at a time, and one that is still dirty
// afterwards goes to the end, so a long import costs the others one slice. Tenants whose work takes unusually long, such as those of a server
// that hangs, have workers of their own, so that however many they are they never take those of the others.
type queue struct {
	mu     sync.Mutex
	filled sync.Cond
	order  []eventstore.TenantID
	marks  map[eventstore.TenantID]*mark
	closed bool

	server           func(tenant string) string // which server the tenant is on; optional
	working, lingers int                        // tenants that are worked on, by the kind of worker
	slow             map[eventstore.TenantID]bool
	stuck            map[string]int // tenants that linger, by server
}

type mark struct {
	queued, running bool
	lingers         bool   // takes a worker of the lingering ones
	server          string // that it was counted for when it began to
	news            news
	again           bool // marked while it was running
}

func newQueue(server func(string) string) *queue {
	if server == nil {
		server = func(string) string { return "" }
	}
	q := &queue{marks: map[eventstore.TenantID]*mark{}, server: server, slow: map[eventstore.TenantID]bool{}, stuck: map[string]int{}}
	q.filled.L = &q.mu
	return q
}

// add marks the tenant dirty.
func (q *queue) add(t eventstore.TenantID, why news) {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := q.marks[t]
	if m == nil {
		m = &mark{}
		q.marks[t] = m
	}
	m.news = max(m.news, why)
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

// take waits for the next dirty tenant that has a worker; ok is false once the queue is closed.
func (q *queue) take() (t eventstore.TenantID, why news, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	next := -1
	for !q.closed {
		if next = q.next(); next >= 0 {
			break
		}
		q.filled.Wait()
	}
	if q.closed {
		return "", swept, false
	}
	t = q.order[next]
	q.order = append(q.order[:next], q.order[next+1:]...)
	m := q.marks[t]
	why = m.news
	m.queued, m.running, m.news, m.again = false, true, swept, false
	if q.isSlow(t) {
		q.enter(t, m)
	} else {
		q.working++
	}
	if q.next() >= 0 {
		q.filled.Signal() // what made room for one may have made room for more
	}
	return t, why, true
}

// next is the index of the first tenant for which there is a worker, or -1.
func (q *queue) next() int {
	if q.working >= workers && q.lingers >= lingerers {
		return -1
	}
	for i, t := range q.order {
		if q.isSlow(t) {
			if q.lingers < lingerers {
				return i
			}
		} else if q.working < workers {
			return i
		}
	}
	return -1
}

// isSlow tells whether the tenant took too long the last time, or is on a server on which several do now.
func (q *queue) isSlow(t eventstore.TenantID) bool {
	if q.slow[t] {
		return true
	}
	server := q.server(string(t))
	return server != "" && q.stuck[server] >= stuckServer
}

// linger says that the work on the tenant takes too long. Its worker is given to others; when too many linger already it answers false, and
// the work must be given up.
func (q *queue) linger(t eventstore.TenantID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.slow[t] = true
	m := q.marks[t]
	if m == nil || !m.running || m.lingers {
		return true
	}
	if q.lingers >= lingerers {
		return false
	}
	q.working--
	q.enter(t, m)
	q.filled.Signal()
	return true
}

// enter counts a tenant among the lingering ones.
func (q *queue) enter(t eventstore.TenantID, m *mark) {
	m.lingers, m.server = true, q.server(string(t))
	q.lingers++
	q.stuck[m.server]++
}

// done ends the work that take began; more says that the tenant is still dirty, quick that it did not take too long.
func (q *queue) done(t eventstore.TenantID, more, quick bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := q.marks[t]
	if m.lingers {
		q.lingers--
		if q.stuck[m.server]--; q.stuck[m.server] == 0 {
			delete(q.stuck, m.server)
		}
	} else {
		q.working--
	}
	m.running, m.lingers = false, false
	if quick {
		delete(q.slow, t)
	}
	q.filled.Signal()
	if more {
		m.news = max(m.news, rung)
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
