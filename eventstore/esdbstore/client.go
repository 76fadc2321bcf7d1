package esdbstore

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/internal/tail"
)

// This file is all that knows the client library. What the library does that its users must know, read in v4.2.0:
//
//   - When a search for a node fails, the client is dead for ever, and calls that were just starting wait for ever. So each client is
//     a session: found first, given up at the first sign of an unreachable server, and replaced.
//   - When a call fails because the server is unavailable, the client forgets its connection without closing it. A session that no new
//     call enters from then on still has it, and closes it.
//   - Closing a client under a running call panics. So a session is closed when its last call has ended.
//   - "requires-leader" is written where it is never sent; it is sent here.
//   - An append that is cancelled while it is being sent reads what gRPC is writing: a data race. So the library is not told of
//     cancellations; the caller leaves, and the append ends by itself or at the timeout.
//   - An append that the server refuses while it is still being sent answers "EOF" instead of the reason.
//   - The version found at a conflict is only in the text of the error; it is read from the stream instead.
//   - FromError answers false for errors and true for none; errors are inspected with errors.As.

const (
	// attempts is how often a call is made when its failures may pass.
	attempts = 4
	// readBytes bounds the data that one read holds in memory, except for its last event.
	readBytes = 16 << 20
	// noPosition is what servers answer that do not know an event's position.
	noPosition = math.MaxUint64
	// discoverAttempts is how often a session looks for a node before it fails and the call's own retry begins.
	discoverAttempts = 1
)

// The outcomes that callers tell apart. All other errors are a *callError.
var (
	errWrongVersion = errors.New("esdbstore: the stream is at another revision")
	errNoStream     = errors.New("esdbstore: no such stream")
)

// callError is a call that failed, with what to do about it.
type callError struct {
	what  string
	err   error
	fix   string
	again bool // the same call may succeed later
}

// Error implements error.
func (e *callError) Error() string {
	s := "esdbstore: " + e.what + ": " + e.err.Error()
	if e.fix != "" {
		s += "; " + e.fix
	}
	return s
}

// Unwrap makes the cause visible to errors.Is and errors.As.
func (e *callError) Unwrap() error { return e.err }

// unfixed is the error without what to do about it, for where that is said beside it.
func (e *callError) unfixed() error {
	plain := *e
	plain.fix = ""
	return &plain
}

// fixes says what to do about a gRPC status.
var fixes = map[codes.Code]string{
	codes.Unauthenticated:   "the server refuses the user name, the password or the user certificate of ESDB_CONNECTION_STRING",
	codes.PermissionDenied:  "give the user of ESDB_CONNECTION_STRING the right to read and write the tenants' streams and to read $all, for example by the group $admins",
	codes.Unimplemented:     "ESDB_CONNECTION_STRING must name the gRPC port of EventStoreDB 21.10 or later",
	codes.ResourceExhausted: "see the server's log",
}

const unreachable = "check ESDB_CONNECTION_STRING, with tls, tlsCaFile, userCertFile and userKeyFile, and whether the server runs and accepts writes; " +
	"repeating the call is safe"

// tooLarge names the setting that limits an append. 16 MiB less 10,000 bytes is the most that a server accepts for it.
func tooLarge(reason string) error {
	return &eventstore.InvalidError{Reason: "the server refuses an append of this size (" + reason +
		"); raise its setting MaxAppendSize (EVENTSTORE_MAX_APPEND_SIZE), to 16767216 bytes at most"}
}

// classify turns what the library answered into what callers look at. It must not be called for the caller's own cancellation.
func classify(what string, err error) error {
	var early *endedEarly
	if errors.As(err, &early) {
		return err
	}
	var lib *esdb.Error
	if errors.As(err, &lib) {
		switch lib.Code() {
		case esdb.ErrorCodeWrongExpectedVersion:
			return errWrongVersion
		case esdb.ErrorCodeNotLeader, esdb.ErrorCodeConnectionClosed:
			return &callError{what: what, err: err, fix: unreachable, again: true}
		case esdb.ErrorCodeStreamDeleted:
			return &callError{what: what, err: err, fix: "the streams of a tenant must never be tombstoned; restore the server from a backup"}
		case esdb.ErrorCodeResourceNotFound:
			if status.Code(err) == codes.Unknown { // said by the library, not by gRPC
				return errNoStream
			}
		default:
		}
	}
	code := status.Code(err)
	if code == codes.InvalidArgument && strings.Contains(strings.ToLower(err.Error()), "maximum append") {
		return tooLarge(status.Convert(err).Message())
	}
	var authority x509.UnknownAuthorityError
	if errors.As(err, &authority) || strings.Contains(err.Error(), "tls: ") || strings.Contains(err.Error(), "x509: ") {
		return &callError{what: what, err: err, again: true, fix: "check tls, tlsCaFile, tlsVerifyCert, userCertFile and userKeyFile in ESDB_CONNECTION_STRING"}
	}
	if fix, terminal := fixes[code]; terminal {
		return &callError{what: what, err: err, fix: fix}
	}
	again := code != codes.InvalidArgument && code != codes.NotFound && code != codes.OutOfRange && code != codes.FailedPrecondition
	return &callError{what: what, err: err, fix: unreachable, again: again}
}

// transient tells whether the same call may succeed later.
func transient(err error) bool {
	var call *callError
	return errors.As(err, &call) && call.again
}

// client hands out calls on the current session.
type client struct {
	config  esdb.Configuration
	timeout time.Duration
	logger  *slog.Logger

	mu      sync.Mutex
	current *session
	closed  bool
	open    sync.WaitGroup // sessions that are not closed
}

// session is one client of the library and the connection behind it.
type session struct {
	esdb  *esdb.Client
	ready chan struct{} // closed when a node was found or not
	err   error         // why not; read after ready
	calls int           // guarded by client.mu

	// starting is read-held by each call until the library has given it its connection. Whoever holds it for writing knows that the
	// library hands out none.
	starting sync.RWMutex
	given    bool // up; guarded by starting
}

// newClient reads the connection string and connects to nothing yet.
func newClient(connection string, timeout time.Duration, logger *slog.Logger) (*client, error) {
	config, err := esdb.ParseConnectionString(connection)
	if err != nil {
		var file *fs.PathError
		switch {
		case errors.As(err, &file):
			return nil, fmt.Errorf("esdbstore: a file named in ESDB_CONNECTION_STRING: %w", file)
		case strings.Contains(connection, "@"): // the error may quote the password
			err = errors.New("is malformed")
		}
		return nil, fmt.Errorf("esdbstore: ESDB_CONNECTION_STRING: want esdb://user:password@host:2113?tls=true, the password percent-encoded: %w", err)
	}
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("esdbstore: ESDB_CONNECTION_STRING: %w", err)
	}
	if config.DisableTLS && config.Username != "" {
		logger.Warn("esdbstore: user name and password are not sent without TLS; set tls=true in ESDB_CONNECTION_STRING")
	}
	config.MaxDiscoverAttempts = discoverAttempts
	return &client{config: *config, timeout: timeout, logger: logger}, nil
}

// close ends all sessions and waits for them, at most a second longer than the client's timeout. The contexts of running calls must have ended.
func (c *client) close() {
	c.mu.Lock()
	c.closed = true
	s := c.current
	c.mu.Unlock()
	if s != nil {
		c.retire(s)
	}
	ended := make(chan struct{})
	go func() {
		c.open.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(c.timeout + time.Second):
		c.logger.Warn("esdbstore: a call of the client library does not end; its connection stays open")
	}
}

// enter returns the session for one call, read-locked in starting; the caller must end with leave.
func (c *client) enter(ctx context.Context) (*session, error) {
	for {
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return nil, eventstore.ErrClosed
		}
		s := c.current
		if s == nil {
			var err error
			if s, err = c.dial(); err != nil {
				c.mu.Unlock()
				return nil, err
			}
			c.current = s
		}
		s.calls++
		c.mu.Unlock()
		select {
		case <-s.ready:
		case <-ctx.Done():
			c.leave(s)
			return nil, ctx.Err()
		}
		if s.err != nil {
			c.retire(s)
			c.leave(s)
			return nil, s.err
		}
		s.starting.RLock()
		if !s.given {
			return s, nil
		}
		s.starting.RUnlock()
		c.retire(s)
		c.leave(s)
	}
}

// dial begins a session. c.mu is held.
func (c *client) dial() (*session, error) {
	s := &session{ready: make(chan struct{})}
	config := c.config
	config.Logger = func(level esdb.LogLevel, format string, args ...any) {
		c.logger.Debug("esdbstore: client", "level", level, "text", fmt.Sprintf(format, args...))
		if level != esdb.LogError || !strings.HasPrefix(format, "unexpected exception") {
			return
		}
		for _, arg := range args {
			if err, ok := arg.(error); ok && status.Code(err) == codes.Unavailable { // the library is about to forget its connection
				s.starting.Lock()
				s.given = true
				s.starting.Unlock()
			}
		}
	}
	var err error
	if s.esdb, err = esdb.NewClient(&config); err != nil {
		return nil, fmt.Errorf("esdbstore: ESDB_CONNECTION_STRING: %w", err)
	}
	s.calls = 1
	c.open.Add(1)
	go func() {
		defer c.leave(s)
		_, s.err = s.esdb.GetServerVersion() // finds the node
		close(s.ready)
	}()
	return s, nil
}

// retire lets no new call into the session.
func (c *client) retire(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == s {
		c.current = nil
		if s.calls == 0 {
			c.end(s)
		}
	}
}

func (c *client) leave(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.calls--; s.calls == 0 && c.current != s {
		c.end(s)
	}
}

func (c *client) end(s *session) {
	if err := s.esdb.Close(); err != nil {
		c.logger.Warn("esdbstore: close a connection", "error", err)
	}
	c.open.Done()
}

// started is the context of a call. The library asks for its deadline right after it has got a connection.
type started struct {
	context.Context
	once func()
}

// Deadline implements context.Context.
func (s started) Deadline() (time.Time, bool) {
	s.once()
	return s.Context.Deadline()
}

// uncancelled returns the context of a call without its end.
func uncancelled(ctx context.Context) context.Context {
	if s, ok := ctx.(started); ok {
		return started{context.WithoutCancel(s.Context), s.once}
	}
	return context.WithoutCancel(ctx)
}

// do makes one call. It returns when the context ends, even where the library does not.
func do[T any](ctx context.Context, c *client, call func(context.Context, *esdb.Client) (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	s, err := c.enter(ctx)
	if err != nil {
		var none T
		return none, err
	}
	once := sync.OnceFunc(s.starting.RUnlock)
	inner := ctx
	if c.config.NodePreference == esdb.NodePreferenceLeader {
		inner = metadata.AppendToOutgoingContext(ctx, "requires-leader", "true")
	}
	answered := make(chan answer, 1)
	go func() {
		defer c.leave(s)
		defer once()
		value, err := call(started{inner, once}, s.esdb)
		var lib *esdb.Error
		if errors.As(err, &lib) && (lib.Code() == esdb.ErrorCodeNotLeader || lib.Code() == esdb.ErrorCodeConnectionClosed) {
			once()
			c.follow(s, lib.Code())
		}
		answered <- answer{value, err}
	}()
	select {
	case a := <-answered:
		return a.value, a.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// follow lets the library connect to the leader that a node named, with no other call in its way.
func (c *client) follow(s *session, code esdb.ErrorCode) {
	s.starting.Lock()
	defer s.starting.Unlock()
	if !s.given && code == esdb.ErrorCodeNotLeader {
		_, err := s.esdb.GetServerVersion()
		s.given = err != nil
		return
	}
	s.given = true
}

// try makes a call, again when its failure may pass, for at most the client's timeout.
func try[T any](ctx context.Context, c *client, what string, call func(context.Context, *esdb.Client) (T, error)) (T, error) {
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	for failures := 0; ; failures++ {
		value, err := do(bounded, c, call)
		switch {
		case err == nil || errors.Is(err, eventstore.ErrClosed):
			return value, err
		case ctx.Err() != nil:
			return value, fmt.Errorf("esdbstore: %s: %w", what, ctx.Err())
		case bounded.Err() != nil:
			return value, &callError{what: what, err: fmt.Errorf("no answer within %s: %w", c.timeout, err), fix: unreachable, again: true}
		}
		err = classify(what, err)
		if !transient(err) || failures+1 >= attempts {
			return value, err
		}
		wait(bounded, tail.Pause(failures))
	}
}

// wait returns after d or at the context's end.
func wait(ctx context.Context, d time.Duration) {
	due := time.NewTimer(d)
	defer due.Stop()
	select {
	case <-due.C:
	case <-ctx.Done():
	}
}

// record is an event as the server has it.
type record struct {
	id         eventstore.EventID
	kind       string // event type
	stream     string
	revision   uint64 // from 0
	position   uint64 // commit position in $all
	created    time.Time
	data, meta []byte
}

// link is an event of a stream, which may only point to the event itself.
type link struct {
	record
	number uint64 // in the stream that was read
	lost   bool   // the event that it points to is gone or may not be read
}

// span says what to read of a stream.
type span struct {
	from      uint64 // ignored when last
	last      bool   // backwards from the end
	count     int
	unlimited bool // no bound on bytes
}

// read returns events of a stream, links resolved, forwards from a revision or backwards from the end. more says that it stopped
// early because of their size. A stream that does not exist has none.
func (c *client) read(ctx context.Context, stream string, s span) (out []link, more bool, err error) {
	if s.from > math.MaxInt64 || s.count < 1 {
		return nil, false, nil
	}
	type part struct {
		links []link
		more  bool
	}
	p, err := try(ctx, c, "read stream "+stream, func(ctx context.Context, lib *esdb.Client) (part, error) {
		options := esdb.ReadStreamOptions{From: esdb.Revision(s.from), ResolveLinkTos: true}
		if s.last {
			options.From, options.Direction = esdb.End{}, esdb.Backwards
		}
		answer, err := lib.ReadStream(ctx, stream, options, uint64(s.count))
		if err != nil {
			return part{}, err
		}
		defer answer.Close()
		var p part
		size := 0
		for len(p.links) < s.count {
			if size >= readBytes && !s.unlimited {
				p.more = true
				break
			}
			got, err := answer.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return part{}, err
			}
			l := link{number: got.OriginalEvent().EventNumber, lost: got.Event == nil}
			if !l.lost {
				l.record = recordOf(got.Event)
				size += len(l.data)
			}
			p.links = append(p.links, l)
		}
		return p, nil
	})
	if errors.Is(err, errNoStream) {
		return nil, false, nil
	}
	return p.links, p.more, err
}

func recordOf(e *esdb.RecordedEvent) record {
	return record{
		id: eventstore.EventID(e.EventID), kind: e.EventType, stream: e.StreamID, revision: e.EventNumber, position: e.Position.Commit,
		created: e.CreatedDate, data: e.Data, meta: e.UserMetadata,
	}
}

// proposal is an event to append. Its id makes a repetition a replay.
type proposal struct {
	id         eventstore.EventID
	kind       string
	data, meta []byte
}

// expectation is the revision that an append demands. Any other than a count of events is for the store's own streams.
type expectation struct {
	count uint64 // of events in the stream
	any   bool
}

// appendedAt is where the last event of an append is: its revision, and the position that the server answers, which is exact for one event.
type appendedAt struct{ revision, position uint64 }

// append writes all events or none. A repetition with the same ids at the same exact revision is answered like the first time. Errors: errWrongVersion, *[eventstore.InvalidError] for
// what the server finds too large, and *callError.
func (c *client) append(ctx context.Context, stream string, expected expectation, events []proposal) (at appendedAt, err error) {
	batch := make([]esdb.EventData, len(events))
	size := 0
	for i, e := range events {
		batch[i] = esdb.EventData{EventID: [16]byte(e.id), EventType: e.kind, ContentType: esdb.ContentTypeJson, Data: e.data, Metadata: e.meta}
		size += len(e.data) + len(e.meta) + 2*len(e.kind)
	}
	options := esdb.AppendToStreamOptions{Deadline: &c.timeout}
	switch {
	case expected.any:
		options.ExpectedRevision = esdb.Any{}
	case expected.count == 0:
		options.ExpectedRevision = esdb.NoStream{}
	default:
		options.ExpectedRevision = esdb.Revision(expected.count - 1)
	}
	what := "append to stream " + stream
	send := func(ctx context.Context, lib *esdb.Client) (appendedAt, error) {
		result, err := lib.AppendToStream(uncancelled(ctx), stream, options, batch...)
		if err != nil {
			return appendedAt{}, err
		}
		return appendedAt{result.NextExpectedVersion, result.CommitPosition}, nil
	}
	if len(events) > 1 { // one event is sent whole before it is refused
		at, err = try(ctx, c, what, func(ctx context.Context, lib *esdb.Client) (appendedAt, error) {
			at, err := send(ctx, lib)
			if errors.Is(err, io.EOF) {
				err = &endedEarly{err}
			}
			return at, err
		})
		var early *endedEarly
		if !errors.As(err, &early) {
			return at, err
		}
		if refused := c.refusal(ctx, stream, size); refused != nil {
			return at, refused
		}
	}
	return try(ctx, c, what, send)
}

// endedEarly says that the server ended an append before all of it was sent, for a reason that the library swallowed.
type endedEarly struct{ error }

// Unwrap makes the cause visible to errors.Is and errors.As.
func (e *endedEarly) Unwrap() error { return e.error }

// refusal finds the swallowed reason out: one event of the append's size, at a revision that no stream reaches, is refused for its size
// or for the revision, and is not written in either case. nil: the size is not the reason.
func (c *client) refusal(ctx context.Context, stream string, size int) error {
	never := esdb.AppendToStreamOptions{ExpectedRevision: esdb.Revision(math.MaxInt64 - 1), Deadline: &c.timeout}
	_, err := try(ctx, c, "append to stream "+stream, func(ctx context.Context, lib *esdb.Client) (struct{}, error) {
		_, err := lib.AppendToStream(uncancelled(ctx), stream, never, esdb.EventData{EventType: "size", Data: make([]byte, size)})
		return struct{}{}, err
	})
	var large *eventstore.InvalidError
	switch {
	case errors.As(err, &large):
		return large
	case status.Code(err) == codes.ResourceExhausted: // not even the message is accepted
		return tooLarge(status.Convert(err).Message())
	default:
		return nil
	}
}

// subscribe reports each event whose stream's name fits the regular expression, from now on and without resolving links, until the
// subscription ends with an error.
func (c *client) subscribe(ctx context.Context, streams string, confirmed func(), heard func(record)) error {
	_, err := do(ctx, c, func(ctx context.Context, lib *esdb.Client) (struct{}, error) {
		subscription, err := lib.SubscribeToAll(ctx, esdb.SubscribeToAllOptions{
			From: esdb.End{}, MaxSearchWindow: 1024, CheckpointInterval: 16,
			Filter: &esdb.SubscriptionFilter{Type: esdb.StreamFilterType, Regex: streams},
		})
		if err != nil {
			return struct{}{}, err
		}
		defer subscription.Close() //nolint:errcheck // it only cancels and always answers nil
		confirmed()
		for {
			e := subscription.Recv()
			switch {
			case e.SubscriptionDropped != nil:
				return struct{}{}, e.SubscriptionDropped.Error
			case e.EventAppeared != nil && e.EventAppeared.Event != nil:
				heard(recordOf(e.EventAppeared.Event))
			default: // checkpoints, caught up (from older servers as an event without fields), fell behind
			}
		}
	})
	if err == nil || ctx.Err() != nil || errors.Is(err, eventstore.ErrClosed) {
		return err
	}
	return classify("subscribe to $all", err)
}
