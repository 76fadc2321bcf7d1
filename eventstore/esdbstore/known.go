package esdbstore

import (
	"container/list"
	"sync"

	"github.com/factum-platform/factum/eventstore"
)

// where an event is.
type where struct {
	stream   eventstore.StreamID
	version  eventstore.Version
	position eventstore.Position // 0: not read yet
	kind     string
}

// known remembers the event ids of streams that were read from their first event on without a hole, as many as fit: the server itself
// checks ids only at the expected revision of one stream. It is safe for concurrent use.
type known struct {
	limit int // of ids

	mu      sync.Mutex
	ids     map[idKey]where
	streams map[streamKey]*list.Element // of *knownStream
	recent  *list.List                  // the last used first
}

type (
	idKey struct {
		tenant eventstore.TenantID
		id     eventstore.EventID
	}
	streamKey struct {
		tenant eventstore.TenantID
		stream eventstore.StreamID
	}
	knownStream struct {
		key     streamKey
		through eventstore.Version // every event up to here was seen
		ids     []eventstore.EventID
	}
)

func newKnown(limit int) *known {
	return &known{limit: limit, ids: map[idKey]where{}, streams: map[streamKey]*list.Element{}, recent: list.New()}
}

// learn notes an event if it follows on what is known of its stream.
func (k *known) learn(t eventstore.TenantID, id eventstore.EventID, at where) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := streamKey{t, at.stream}
	element, found := k.streams[key]
	if !found {
		if at.version != 1 {
			return
		}
		element = k.recent.PushFront(&knownStream{key: key})
		k.streams[key] = element
	}
	k.recent.MoveToFront(element)
	s := element.Value.(*knownStream)
	if at.version != s.through+1 {
		return
	}
	for len(k.ids) >= k.limit {
		oldest := k.recent.Back()
		k.forget(oldest)
		if oldest == element { // one stream larger than everything
			return
		}
	}
	s.through = at.version
	if _, taken := k.ids[idKey{t, id}]; !taken {
		k.ids[idKey{t, id}] = at
		s.ids = append(s.ids, id)
	}
}

// forget drops a stream. k.mu is held.
func (k *known) forget(element *list.Element) {
	s := element.Value.(*knownStream)
	for _, id := range s.ids {
		delete(k.ids, idKey{s.key.tenant, id})
	}
	delete(k.streams, s.key)
	k.recent.Remove(element)
}

// drop forgets a stream.
func (k *known) drop(t eventstore.TenantID, s eventstore.StreamID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if element, found := k.streams[streamKey{t, s}]; found {
		k.forget(element)
	}
}

// through is the version up to which every event of the stream is known.
func (k *known) through(t eventstore.TenantID, s eventstore.StreamID) eventstore.Version {
	k.mu.Lock()
	defer k.mu.Unlock()
	if element, found := k.streams[streamKey{t, s}]; found {
		k.recent.MoveToFront(element)
		return element.Value.(*knownStream).through
	}
	return 0
}

// find returns where the tenant's event is, if it is known.
func (k *known) find(t eventstore.TenantID, id eventstore.EventID) (where, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	at, found := k.ids[idKey{t, id}]
	return at, found
}
