package pgstore

import (
	"context"
	"runtime"
	"time"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/internal/tail"
)

const (
	// laneAppends, laneEvents and laneBytes bound one statement. A single append may be larger: it then goes alone.
	laneAppends = 256
	laneEvents  = 1000
	laneBytes   = 4 << 20
	// gatherShare and longestGather bound the wait for callers that were just answered: a part of what the statement took.
	gatherShare   = 8
	longestGather = 200 * time.Microsecond
	// statementTimeout bounds one statement with all its repetitions.
	statementTimeout = 30 * time.Second
	// closedPatience bounds how long an append waits for a closed log to be opened, here or elsewhere; closedPause lies between two attempts.
	closedPatience = 5 * time.Second
	closedPause    = 20 * time.Millisecond
)

// lane carries the appends of one tenant: one statement at a time, and all that arrive meanwhile go together in the next. So a busy
// tenant pays one commit for many appends, a lone append waits for nobody, and within a process nobody waits for the
// counter's lock. Several processes may each have a lane of the same tenant: that the log is right is es.append's doing.
type lane struct {
	log   *log
	queue []*pending // guarded by the store's mutex, as is whether the lane runs: it does as long as it is in Store.lanes
}

// pending is an append on its way.
type pending struct {
	writes []eventstore.Write
	datas  []string // of all events, in order
	metas  []string
	size   int // bytes of data
	answer chan answer
}

// answer is what the statement said to one append.
type answer struct {
	done    []eventstore.Appended
	refused string             // by what: conflict or claimed
	part    int                // the index, in the append, of the refused write or claim
	found   eventstore.Version // of the refused write's stream
	err     error
}

// enqueue hands the append to the tenant's lane. The caller that finds none running has made one and must call lead with it, at once:
// so a lone append goes out from its own goroutine.
func (l *log) enqueue(p *pending) (made *lane, err error) {
	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Err() != nil {
		return nil, eventstore.ErrClosed
	}
	if q, running := s.lanes[l.tenant]; running {
		q.queue = append(q.queue, p)
		return nil, nil
	}
	q := &lane{log: l}
	s.lanes[l.tenant] = q
	s.running.Add(1)
	return q, nil
}

// lead carries the lane's first append, within the caller's context, and leaves what arrived meanwhile to a goroutine.
func (q *lane) lead(ctx context.Context, p *pending) {
	q.log.carry(ctx, []*pending{p})
	if q.waiting() == 0 && q.rest() {
		return
	}
	go q.run(1)
}

// rest ends the lane if nothing waits.
func (q *lane) rest() bool {
	s := q.log.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(q.queue) > 0 {
		return false
	}
	delete(s.lanes, q.log.tenant)
	s.running.Done()
	return true
}

// withdraw takes an append back that is not on its way yet.
func (l *log) withdraw(p *pending) bool {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	q, running := l.store.lanes[l.tenant]
	if !running {
		return false
	}
	for i, waiting := range q.queue {
		if waiting == p {
			q.queue = append(q.queue[:i], q.queue[i+1:]...)
			return true
		}
	}
	return false
}

// run carries batches until nothing waits. The statement's time is its own: a caller that gives up does not take the others with it.
func (q *lane) run(answered int) {
	took := longestGather
	for {
		q.gather(answered, took/gatherShare)
		if q.rest() {
			return
		}
		batch := q.take()
		if q.log.store.closed.Err() != nil {
			answerAll(batch, answer{err: eventstore.ErrClosed})
			continue
		}
		began := time.Now()
		q.log.carry(context.Background(), batch)
		answered, took = len(batch), time.Since(began)
	}
}

// gather lets those who were just answered come back with their next append, as busy callers do at once. Without it they miss the
// statement that starts now, and a tenant with four busy callers would send statements of two.
func (q *lane) gather(answered int, patience time.Duration) {
	if answered+q.waiting() == 1 {
		return
	}
	end := time.Now().Add(min(patience, longestGather))
	expected := q.waiting() + answered
	for q.waiting() < expected && time.Now().Before(end) {
		runtime.Gosched() // a timer would be late: it is a matter of microseconds
	}
}

func (q *lane) waiting() int {
	q.log.store.mu.Lock()
	defer q.log.store.mu.Unlock()
	return len(q.queue)
}

// take removes the next batch from the queue, which may have become empty. A stream occurs once in a batch: of two appends to it the
// second waits, as its expectation is about what the first leaves.
func (q *lane) take() []*pending {
	s := q.log.store
	s.mu.Lock()
	defer s.mu.Unlock()
	var batch, rest []*pending
	streams := make(map[eventstore.StreamID]struct{}, len(q.queue))
	events, size := 0, 0
	for i, p := range q.queue {
		events, size = events+len(p.metas), size+p.size
		if len(batch) == laneAppends || (len(batch) > 0 && (events > laneEvents || size > laneBytes)) {
			rest = append(rest, q.queue[i:]...)
			break
		}
		free := true
		for _, w := range p.writes {
			if _, taken := streams[w.Stream]; taken {
				free = false
			}
		}
		for _, w := range p.writes { // those of an append that waits, too: nobody overtakes it
			streams[w.Stream] = struct{}{}
		}
		if free {
			batch = append(batch, p)
		} else {
			rest = append(rest, p)
		}
	}
	q.queue = rest
	return batch
}

func answerAll(batch []*pending, a answer) {
	for _, p := range batch {
		p.answer <- a
	}
}

// carry sends a batch and answers its appends. What fails a whole statement by a member's fault is found by sending each alone: one
// bad event must not fail strangers.
func (l *log) carry(ctx context.Context, batch []*pending) {
	if len(batch) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	answers, err := l.send(ctx, batch)
	if err == nil {
		for i, p := range batch {
			p.answer <- answers[i]
		}
		return
	}
	if len(batch) > 1 && failureOf(err).member {
		for _, p := range batch {
			l.carry(ctx, []*pending{p})
		}
		return
	}
	answerAll(batch, answer{err: err})
}

// send executes the statement, again if the server undid it or could not be reached, or while the log is closed.
func (l *log) send(ctx context.Context, batch []*pending) ([]answer, error) {
	args := arguments(batch)
	maybe := false // an attempt may have been carried out
	try, patience := 0, time.Time{}
	for {
		answers, err := l.execute(ctx, args, batch)
		if err == nil {
			l.store.ring(l.tenant)
			return answers, nil
		}
		f := failureOf(err)
		maybe = maybe || f.maybe
		if f.again && try < sendRetries && wait(ctx, tail.Pause(try)) {
			try++
			continue
		}
		if f.closed {
			if patience.IsZero() {
				patience = time.Now().Add(closedPatience)
			}
			if err := l.store.shut(ctx, string(l.tenant)); err != nil && ctx.Err() == nil {
				l.store.logger.WarnContext(ctx, "where a tenant's closed log lies now cannot be found out", "tenant", l.tenant, "error", err)
			}
			if time.Now().Before(patience) && wait(ctx, closedPause) {
				continue
			}
			err = closedError(err)
		}
		if f.member {
			return nil, err
		}
		reason := f.reason(l.store.setting)
		if ctx.Err() != nil {
			reason = gaveUp
		}
		return nil, &eventstore.UnavailableError{Tenant: l.tenant, Reason: reason, Maybe: maybe, Err: err}
	}
}

const appendSQL = `select o_first, o_found, o_refused, o_part
	from es.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)`

// execute runs the statement once.
func (l *log) execute(ctx context.Context, args []any, batch []*pending) ([]answer, error) {
	pool, err := l.pool(ctx)
	if err != nil {
		return nil, err
	}
	var at eventstore.Position
	var found []eventstore.Version
	var refused []string
	var part []int
	if err := pool.QueryRow(ctx, appendSQL, args...).Scan(&at, &found, &refused, &part); err != nil {
		return nil, err
	}
	answers := make([]answer, len(batch))
	write, claim := 0, 0 // how many the appends before have
	for i, p := range batch {
		a := &answers[i]
		if refused != nil {
			a.refused = refused[i]
		}
		switch a.refused {
		case "":
			a.done = make([]eventstore.Appended, len(p.writes))
			for j, w := range p.writes {
				at += eventstore.Position(len(w.Events))
				a.done[j] = eventstore.Appended{Version: found[write+j] + eventstore.Version(len(w.Events)), Position: at}
			}
		case conflict:
			a.part, a.found = part[i]-1-write, found[part[i]-1]
		case claimed:
			a.part = part[i] - 1 - claim
		}
		write += len(p.writes)
		for _, w := range p.writes {
			claim += len(w.Claims)
		}
	}
	return answers, nil
}

// arguments lays a batch out as the arrays of es.append.
func arguments(batch []*pending) []any {
	var (
		aWrites, aClaims, wCount, wBefore, eWrite, eOrd, eSchema = []int32{}, []int32{}, []int32{}, []int32{}, []int32{}, []int32{}, []int32{}
		wKind, wID, eType, eData, eMeta                          = []string{}, []string{}, []string{}, []string{}, []string{}
		wExpected                                                = []int64{}
		eID                                                      = [][16]byte{}
		cWrite, cScope, cKey, cGive                              = []int32{}, []string{}, [][]byte{}, []bool{} // null would be no array
	)
	for _, p := range batch {
		claims, event := 0, 0
		for _, w := range p.writes {
			wKind, wID = append(wKind, w.Stream.Kind), append(wID, w.Stream.ID)
			wExpected, wCount = append(wExpected, expectation(w.Expected)), append(wCount, int32(len(w.Events)))
			wBefore = append(wBefore, int32(len(eID)))
			write := int32(len(wKind))
			for i, e := range w.Events {
				eWrite, eOrd, eID = append(eWrite, write), append(eOrd, int32(i+1)), append(eID, e.ID)
				eType, eSchema = append(eType, e.Type), append(eSchema, int32(e.Schema))
				eData, eMeta = append(eData, p.datas[event]), append(eMeta, p.metas[event])
				event++
			}
			for _, c := range w.Claims {
				cWrite, cScope = append(cWrite, write), append(cScope, c.Scope)
				cKey, cGive = append(cKey, []byte(c.Key)), append(cGive, c.Give)
			}
			claims += len(w.Claims)
		}
		aWrites, aClaims = append(aWrites, int32(len(p.writes))), append(aClaims, int32(claims))
	}
	return []any{aWrites, aClaims, wKind, wID, wExpected, wCount, wBefore, eWrite, eOrd, eID, eType, eSchema, eData, eMeta, cWrite, cScope, cKey, cGive}
}

// expectation is how es.append says it.
func expectation(e eventstore.Expected) int64 {
	if v, exact := e.Exact(); exact {
		return int64(v)
	}
	if e.Allows(1) {
		return -1
	}
	return -2 // the zero Expected allows nothing: no stream has this version
}
