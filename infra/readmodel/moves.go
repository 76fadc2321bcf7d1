package readmodel

import (
	"strconv"
	"strings"
	"sync"

	"github.com/factum-platform/factum/infra/notify"
)

// Channel is where the processes of a platform tell each other that live read models have moved.
const Channel = "moves"

// Moves carries the news that a live read model has moved from the projector to waiters, in the same process and, once it is shared, in
// others. It is a hint that saves time: what holds is the checkpoint in the database, and waiters also poll it. The zero value is
// ready; a Moves is safe for concurrent use.
type Moves struct {
	mu        sync.Mutex
	waiting   map[moveKey]map[*waiting]struct{}
	count     map[moveKey]uint64 // of moves; grows with the number of logs
	tell      func(notify.Hint)
	connected func() bool
}

type moveKey struct{ projection, tenant string }

type waiting struct {
	position uint64
	reached  chan struct{}
}

// Share tells other processes what is announced in this one; tell must not wait. connected tells whether [Moves.Hear] hears what others
// announce: waiters then poll less. Call it before anything is announced or waited for.
func (m *Moves) Share(tell func(notify.Hint), connected func() bool) {
	m.tell, m.connected = tell, connected
}

// Announce tells waiters that the projection of the tenant's log has committed everything up to position. Announce only what
// is committed and live. It never blocks.
func (m *Moves) Announce(projection, tenant string, position uint64) {
	m.reach(projection, tenant, position)
	if m.tell != nil {
		m.tell(notify.Hint{Key: projection + "/" + tenant, Value: strconv.FormatUint(position, 10)})
	}
}

// Hear takes what another process announces. What is malformed is none of ours.
func (m *Moves) Hear(h notify.Hint) {
	projection, tenant, ok := strings.Cut(h.Key, "/")
	position, err := strconv.ParseUint(h.Value, 10, 64)
	if ok && err == nil {
		m.reach(projection, tenant, position)
	}
}

// hears tells whether other processes' moves are heard.
func (m *Moves) hears() bool { return m.connected != nil && m.connected() }

func (m *Moves) reach(projection, tenant string, position uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := moveKey{projection, tenant}
	if m.count == nil {
		m.count = map[moveKey]uint64{}
	}
	m.count[key]++
	for w := range m.waiting[key] {
		if w.position <= position {
			close(w.reached)
			m.forget(key, w)
		}
	}
}

func (m *Moves) moved(projection, tenant string) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count[moveKey{projection, tenant}]
}

// watch returns a channel that is closed when position is announced, and a function that ends the watching.
func (m *Moves) watch(projection, tenant string, position uint64) (<-chan struct{}, func()) {
	key := moveKey{projection, tenant}
	w := &waiting{position, make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waiting == nil {
		m.waiting = map[moveKey]map[*waiting]struct{}{}
	}
	if m.waiting[key] == nil {
		m.waiting[key] = map[*waiting]struct{}{}
	}
	m.waiting[key][w] = struct{}{}
	return w.reached, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.forget(key, w)
	}
}

func (m *Moves) forget(key moveKey, w *waiting) {
	delete(m.waiting[key], w)
	if len(m.waiting[key]) == 0 {
		delete(m.waiting, key)
	}
}
