package esdbtest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// linkType is the type of events that point to another: their data is "revision@stream".
const linkType = "$>"

// recentIDs is how many ids the server remembers for appends without an exact revision.
const recentIDs = 100

// event is one record of the log.
type event struct {
	id          uuid.UUID
	stream      string
	revision    uint64
	kind        string
	contentType string
	data, meta  []byte
	created     time.Time
	position    uint64 // its byte offset, as commit and prepare position
}

// stream is what is readable of a stream: revisions first to first+len(events)-1.
type stream struct {
	first  uint64
	events []*event
}

func (s *stream) next() uint64 { return s.first + uint64(len(s.events)) }

// log is the transaction log and its streams.
type log struct {
	mu      sync.Mutex
	all     []*event
	streams map[string]*stream
	recent  map[uuid.UUID]*event
	order   []uuid.UUID // of recent, oldest first
	end     uint64      // where the next record begins
	changed chan struct{}

	linking bool
	lag     time.Duration
	next    int // the event that $by_category looks at next
}

func (l *log) init(linking bool, lag time.Duration) {
	l.streams, l.recent, l.changed = map[string]*stream{}, map[uuid.UUID]*event{}, make(chan struct{})
	l.end, l.linking, l.lag = 1374, linking, lag // a real log begins with records of its own
}

// signal wakes everybody who waits for a change. l.mu is held.
func (l *log) signal() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// expected is what an append demands.
type expected struct {
	any, exists bool
	next        uint64 // else: the revision that the first event must get
}

// outcome is how an append ended: the last revision and its position, or else the stream's next revision.
type outcome struct {
	written  bool
	revision uint64
	position uint64
	next     uint64
}

// append does what the server's index writer decides: new events, a repetition, or a wrong expected version.
func (l *log) append(name string, want expected, events []*event) outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.streams[name]
	if s == nil {
		s = &stream{}
	}
	next := s.next()
	wrong := outcome{next: next}
	if want.any || want.exists {
		if want.exists && next == 0 {
			return wrong
		}
		known := 0
		for _, e := range events {
			if old := l.recent[e.id]; old != nil && old.stream == name {
				known++
				continue
			}
			break
		}
		switch known {
		case 0:
			return l.write(name, s, events)
		case len(events):
			last := l.recent[events[len(events)-1].id]
			return outcome{written: true, revision: last.revision, position: last.position}
		default:
			return wrong
		}
	}
	if want.next == next {
		return l.write(name, s, events)
	}
	if want.next > next {
		return wrong
	}
	for i, e := range events { // the same ids at the same place are the same append
		at := want.next + uint64(i)
		if at < s.first || at >= next || s.events[at-s.first].id != e.id {
			return wrong
		}
	}
	last := s.events[want.next+uint64(len(events))-1-s.first]
	return outcome{written: true, revision: last.revision, position: last.position}
}

// write adds records. l.mu is held.
func (l *log) write(name string, s *stream, events []*event) outcome {
	l.streams[name] = s
	now := time.Now().UTC().Truncate(100 * time.Nanosecond)
	for _, e := range events {
		e.stream, e.revision, e.position, e.created = name, s.next(), l.end, now
		l.end += uint64(len(e.data)+len(e.meta)+len(e.kind)+len(name)) + 97
		s.events = append(s.events, e)
		l.all = append(l.all, e)
		if _, known := l.recent[e.id]; !known {
			l.order = append(l.order, e.id)
		}
		l.recent[e.id] = e
		if len(l.order) > recentIDs {
			delete(l.recent, l.order[0])
			l.order = l.order[1:]
		}
	}
	l.signal()
	if len(events) == 0 {
		return outcome{written: true, revision: s.next() - 1, next: s.next()}
	}
	last := events[len(events)-1]
	return outcome{written: true, revision: last.revision, position: last.position}
}

// byCategory is the projection: for each event it appends a link to the stream of its category.
func (l *log) byCategory(ctx context.Context) {
	for {
		l.mu.Lock()
		changed, lag := l.changed, l.lag
		var due time.Duration
		for l.linking && l.next < len(l.all) {
			e := l.all[l.next]
			category, _, found := strings.Cut(e.stream, "-")
			if strings.HasPrefix(e.stream, "$") || !found || category == "" {
				l.next++
				continue
			}
			if due = time.Until(e.created.Add(lag)); due > 0 {
				break
			}
			l.next++
			name := "$ce-" + category
			s := l.streams[name]
			if s == nil {
				s = &stream{}
			}
			l.write(name, s, []*event{{
				id: uuid.New(), kind: linkType, contentType: "application/octet-stream", data: fmt.Appendf(nil, "%d@%s", e.revision, e.stream),
				meta: fmt.Appendf(nil, `{"$v":"2:-1:1:4","$c":%d,"$p":%d,"$causedBy":"%s"}`, e.position, e.position, e.id),
			}})
			changed = l.changed
		}
		l.mu.Unlock()
		var timer <-chan time.Time
		if due > 0 {
			timer = time.After(due)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-timer:
		}
	}
}

func (l *log) setByCategory(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.linking = on
	l.signal()
}

func (l *log) setLinkLag(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lag = d
	l.signal()
}

func (l *log) resetByCategory() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, s := range l.streams {
		if strings.HasPrefix(name, "$ce-") {
			s.first, s.events = s.next(), nil
		}
	}
	l.next = 0
	l.signal()
}

func (l *log) truncate(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.streams[name]; s != nil {
		s.first, s.events = s.next(), nil
	}
}

func (l *log) gap(n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end += n
}

func (l *log) count(name string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.streams[name]; s != nil {
		return len(s.events)
	}
	return 0
}

// readStream returns up to n events from a revision on, or backwards from there; exists is false for a stream without events.
func (l *log) readStream(name string, from uint64, atEnd, backwards bool, n uint64) (events []*event, exists bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.streams[name]
	if s == nil || len(s.events) == 0 {
		return nil, false
	}
	if backwards {
		last := s.next() - 1
		if !atEnd {
			last = min(last, from)
		}
		for at := last; at+1 > s.first && uint64(len(events)) < n; at-- {
			events = append(events, s.events[at-s.first])
			if at == 0 {
				break
			}
		}
		return events, true
	}
	if atEnd {
		return nil, true
	}
	for at := max(from, s.first); at < s.next() && uint64(len(events)) < n; at++ {
		events = append(events, s.events[at-s.first])
	}
	return events, true
}

// readAll returns up to n events that fit, from a position on, or before it.
func (l *log) readAll(from uint64, atEnd, backwards bool, n uint64, fits func(*event) bool) (events []*event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if backwards {
		for i := len(l.all) - 1; i >= 0 && uint64(len(events)) < n; i-- {
			if e := l.all[i]; (atEnd || e.position < from) && fits(e) {
				events = append(events, e)
			}
		}
		return events
	}
	for i := 0; !atEnd && i < len(l.all) && uint64(len(events)) < n; i++ {
		if e := l.all[i]; e.position >= from && fits(e) {
			events = append(events, e)
		}
	}
	return events
}

// resolve returns the event that a link points to, nil when it is gone; other is not a link.
func (l *log) resolve(e *event) (target *event, isLink bool) {
	if e.kind != linkType {
		return nil, false
	}
	number, name, found := strings.Cut(string(e.data), "@")
	at, err := strconv.ParseUint(number, 10, 64)
	if !found || err != nil {
		return nil, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.streams[name]
	if s == nil || at < s.first || at >= s.next() {
		return nil, true
	}
	return s.events[at-s.first], true
}

// readable tells whether the event is still in its stream; $all has it in any case.
func (l *log) readable(e *event) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.streams[e.stream]
	return s != nil && e.revision >= s.first
}

// index is a cursor into all events: the number of those before it.
func (l *log) index(position uint64, after bool) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, e := range l.all {
		if e.position > position || !after && e.position == position {
			return i
		}
	}
	return len(l.all)
}

// from returns the events from a cursor on and what is closed at the next change.
func (l *log) from(cursor int) ([]*event, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all[min(cursor, len(l.all)):], l.changed
}
