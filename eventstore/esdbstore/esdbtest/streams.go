package esdbtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

type streamsService struct {
	streams.UnimplementedStreamsServer
	server *Server
}

// Append implements the service. Nothing is written before the caller has sent everything.
func (s *streamsService) Append(call streams.Streams_AppendServer) error {
	s.server.mu.Lock()
	s.server.appends++
	refused, hold := s.server.allowed == 0, s.server.hold
	s.server.allowed = max(s.server.allowed-1, min(s.server.allowed, 0))
	s.server.mu.Unlock()
	first, err := call.Recv()
	if err != nil {
		return err
	}
	options := first.GetOptions()
	if options == nil {
		return status.Error(codes.InvalidArgument, "Required argument 'Options' was missing")
	}
	var want expected
	switch e := options.ExpectedStreamRevision.(type) {
	case *streams.AppendReq_Options_Any:
		want.any = true
	case *streams.AppendReq_Options_StreamExists:
		want.exists = true
	case *streams.AppendReq_Options_NoStream:
	case *streams.AppendReq_Options_Revision:
		if e.Revision >= math.MaxInt64 {
			return status.Error(codes.InvalidArgument, "the expected revision is out of range")
		}
		want.next = e.Revision + 1
	default:
		return status.Error(codes.InvalidArgument, "Required argument 'ExpectedStreamRevision' was missing")
	}
	name := string(options.GetStreamIdentifier().GetStreamName())
	if name == "" {
		return status.Error(codes.InvalidArgument, "the stream's name is empty")
	}
	var events []*event
	size := 0
	for {
		message, err := call.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		e, err := proposed(message.GetProposedMessage())
		if err != nil {
			return err
		}
		if size += len(e.data) + len(e.meta) + 2*len(e.kind); size > s.server.options.MaxAppendSize {
			limit := strconv.Itoa(s.server.options.MaxAppendSize)
			call.SetTrailer(metadata.Pairs("exception", "maximum-append-size-exceeded", "maximum-append-size", limit))
			return status.Errorf(codes.InvalidArgument, "Maximum Append Size of %s Exceeded.", limit)
		}
		events = append(events, e)
	}
	if refused {
		return status.Error(codes.Unavailable, "Server Is Not Ready")
	}
	if hold != nil {
		select {
		case <-hold:
		case <-call.Context().Done():
			return status.FromContextError(call.Context().Err()).Err()
		}
	}
	done := s.server.log.append(name, want, events)
	s.server.mu.Lock()
	broken := s.server.breakAfter > 0
	if broken {
		s.server.breakAfter--
	}
	s.server.mu.Unlock()
	if broken {
		s.server.Cut()
		return status.Error(codes.Unavailable, "the connection is broken")
	}
	return call.SendAndClose(answer(want, done))
}

func proposed(m *streams.AppendReq_ProposedMessage) (*event, error) {
	if m == nil {
		return nil, status.Error(codes.InvalidArgument, "Required argument 'ProposedMessage' was missing")
	}
	kind, contentType := m.Metadata["type"], m.Metadata["content-type"]
	if kind == "" || contentType == "" {
		return nil, status.Error(codes.InvalidArgument, "Required metadata property 'type' or 'content-type' is missing")
	}
	e := &event{kind: kind, contentType: contentType, data: m.Data, meta: m.CustomMetadata}
	switch id := m.GetId().GetValue().(type) {
	case *shared.UUID_Structured_:
		binary.BigEndian.PutUint64(e.id[:8], uint64(id.Structured.MostSignificantBits))
		binary.BigEndian.PutUint64(e.id[8:], uint64(id.Structured.LeastSignificantBits))
	case *shared.UUID_String_:
		parsed, err := uuid.Parse(id.String_)
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, "the id is not a UUID")
		}
		e.id = parsed
	}
	if e.id == uuid.Nil {
		return nil, status.Error(codes.InvalidArgument, "the id is empty")
	}
	return e, nil
}

func answer(want expected, done outcome) *streams.AppendResp {
	if done.written {
		return &streams.AppendResp{Result: &streams.AppendResp_Success_{Success: &streams.AppendResp_Success{
			CurrentRevisionOption: &streams.AppendResp_Success_CurrentRevision{CurrentRevision: done.revision},
			PositionOption:        &streams.AppendResp_Success_Position{Position: &streams.AppendResp_Position{CommitPosition: done.position, PreparePosition: done.position}},
		}}}
	}
	wrong := &streams.AppendResp_WrongExpectedVersion{}
	switch {
	case want.any:
		wrong.ExpectedRevisionOption = &streams.AppendResp_WrongExpectedVersion_ExpectedAny{ExpectedAny: &shared.Empty{}}
	case want.exists:
		wrong.ExpectedRevisionOption = &streams.AppendResp_WrongExpectedVersion_ExpectedStreamExists{ExpectedStreamExists: &shared.Empty{}}
	case want.next == 0:
		wrong.ExpectedRevisionOption = &streams.AppendResp_WrongExpectedVersion_ExpectedNoStream{ExpectedNoStream: &shared.Empty{}}
	default:
		wrong.ExpectedRevisionOption = &streams.AppendResp_WrongExpectedVersion_ExpectedRevision{ExpectedRevision: want.next - 1}
	}
	if done.next == 0 {
		wrong.CurrentRevisionOption = &streams.AppendResp_WrongExpectedVersion_CurrentNoStream{CurrentNoStream: &shared.Empty{}}
	} else {
		wrong.CurrentRevisionOption = &streams.AppendResp_WrongExpectedVersion_CurrentRevision{CurrentRevision: done.next - 1}
	}
	return &streams.AppendResp{Result: &streams.AppendResp_WrongExpectedVersion_{WrongExpectedVersion: wrong}}
}

// Read implements the service: reads and subscriptions.
func (s *streamsService) Read(request *streams.ReadReq, call streams.Streams_ReadServer) error {
	s.server.mu.Lock()
	s.server.reads++
	s.server.mu.Unlock()
	o := request.GetOptions()
	fits, err := filter(o.GetFilter())
	if err != nil {
		return err
	}
	if o.GetAll() != nil && s.server.options.DenyAll {
		call.SetTrailer(metadata.Pairs("exception", "access-denied"))
		return status.Error(codes.PermissionDenied, "Access Denied")
	}
	backwards := o.GetReadDirection() == streams.ReadReq_Options_Backwards
	if o.GetSubscription() != nil {
		if backwards {
			return status.Error(codes.InvalidArgument, "a subscription reads forwards")
		}
		return s.subscribe(o, call, fits)
	}
	var events []*event
	switch source := o.StreamOption.(type) {
	case *streams.ReadReq_Options_Stream:
		name := source.Stream.GetStreamIdentifier()
		from, atEnd := uint64(0), source.Stream.GetEnd() != nil
		if r, ok := source.Stream.RevisionOption.(*streams.ReadReq_Options_StreamOptions_Revision); ok {
			if from = r.Revision; from > math.MaxInt64 {
				return status.Error(codes.InvalidArgument, "the revision is out of range")
			}
		}
		var exists bool
		events, exists = s.server.log.readStream(string(name.GetStreamName()), from, atEnd, backwards, o.GetCount())
		if !exists {
			return call.Send(&streams.ReadResp{Content: &streams.ReadResp_StreamNotFound_{StreamNotFound: &streams.ReadResp_StreamNotFound{StreamIdentifier: name}}})
		}
	case *streams.ReadReq_Options_All:
		from, atEnd := uint64(0), source.All.GetEnd() != nil
		if p := source.All.GetPosition(); p != nil {
			from = p.CommitPosition
		}
		events = s.server.log.readAll(from, atEnd, backwards, o.GetCount(), fits)
	default:
		return status.Error(codes.InvalidArgument, "Required argument 'StreamOption' was missing")
	}
	for _, e := range events {
		if err := call.Send(s.readEvent(e, o.GetResolveLinks())); err != nil {
			return err
		}
	}
	return nil
}

// subscribe sends what there is, says that it has caught up, and goes on for ever.
func (s *streamsService) subscribe(o *streams.ReadReq_Options, call streams.Streams_ReadServer, fits func(*event) bool) error {
	dropped := s.server.drops()
	cursor := 0
	window := uint64(math.MaxUint64) // of a filtered subscription: events looked at between checkpoints
	switch source := o.StreamOption.(type) {
	case *streams.ReadReq_Options_Stream:
		name := string(source.Stream.GetStreamIdentifier().GetStreamName())
		from, exclusive := uint64(0), false
		switch r := source.Stream.RevisionOption.(type) {
		case *streams.ReadReq_Options_StreamOptions_Revision:
			from, exclusive = r.Revision, true
		case *streams.ReadReq_Options_StreamOptions_End:
			cursor = s.server.log.index(math.MaxUint64, true)
		}
		fits = func(e *event) bool {
			return e.stream == name && (e.revision > from || !exclusive && e.revision >= from) && s.server.log.readable(e)
		}
	case *streams.ReadReq_Options_All:
		switch {
		case source.All.GetEnd() != nil:
			cursor = s.server.log.index(math.MaxUint64, true)
		case source.All.GetPosition() != nil:
			cursor = s.server.log.index(source.All.GetPosition().CommitPosition, true)
		}
		if f := o.GetFilter(); f != nil {
			window = uint64(max(f.GetMax(), 1)) * uint64(max(f.CheckpointIntervalMultiplier, 1))
		}
	default:
		return status.Error(codes.InvalidArgument, "Required argument 'StreamOption' was missing")
	}
	if err := call.Send(&streams.ReadResp{Content: &streams.ReadResp_Confirmation{Confirmation: &streams.ReadResp_SubscriptionConfirmation{SubscriptionId: uuid.NewString()}}}); err != nil {
		return err
	}
	looked, caughtUp := uint64(0), false
	for {
		events, changed := s.server.log.from(cursor)
		for _, e := range events {
			if fits(e) {
				if err := call.Send(s.readEvent(e, o.GetResolveLinks())); err != nil {
					return err
				}
			}
			if looked++; looked%window == 0 {
				if err := call.Send(&streams.ReadResp{Content: &streams.ReadResp_Checkpoint_{Checkpoint: &streams.ReadResp_Checkpoint{CommitPosition: e.position, PreparePosition: e.position}}}); err != nil {
					return err
				}
			}
		}
		cursor += len(events)
		if !caughtUp {
			caughtUp = true
			if err := call.Send(&streams.ReadResp{Content: &streams.ReadResp_CaughtUp_{CaughtUp: &streams.ReadResp_CaughtUp{}}}); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-dropped:
			return status.Error(codes.Aborted, "the subscription is dropped")
		case <-call.Context().Done():
			return status.FromContextError(call.Context().Err()).Err()
		}
	}
}

// filter builds the predicate of a filtered read; none fits everything.
func filter(f *streams.ReadReq_Options_FilterOptions) (func(*event) bool, error) {
	if f == nil {
		return func(*event) bool { return true }, nil
	}
	expression, text := f.GetStreamIdentifier(), func(e *event) string { return e.stream }
	if expression == nil {
		expression, text = f.GetEventType(), func(e *event) string { return e.kind }
	}
	if expression == nil {
		return nil, status.Error(codes.InvalidArgument, "Required argument 'Filter' was missing")
	}
	if f.Window == nil || f.GetCount() == nil && f.GetMax() == 0 {
		return nil, status.Error(codes.InvalidArgument, "the search window must be at least 1")
	}
	pattern := regexp.MustCompile("")
	if expression.Regex != "" {
		var err error
		if pattern, err = regexp.Compile(expression.Regex); err != nil {
			return nil, status.Error(codes.InvalidArgument, fmt.Sprintf("the regular expression: %v", err))
		}
	}
	return func(e *event) bool {
		if len(expression.Prefix) == 0 {
			return pattern.MatchString(text(e))
		}
		for _, prefix := range expression.Prefix {
			if strings.HasPrefix(text(e), prefix) {
				return true
			}
		}
		return false
	}, nil
}

func (s *streamsService) readEvent(e *event, resolve bool) *streams.ReadResp {
	out := &streams.ReadResp_ReadEvent{Event: recorded(e), Position: &streams.ReadResp_ReadEvent_CommitPosition{CommitPosition: e.position}}
	if target, isLink := s.server.log.resolve(e); resolve && isLink {
		out.Link, out.Event = out.Event, nil
		if target != nil {
			out.Event = recorded(target)
			if s.server.options.NoOriginalPositions {
				out.Event.CommitPosition, out.Event.PreparePosition = math.MaxUint64, math.MaxUint64
			}
		}
	}
	return &streams.ReadResp{Content: &streams.ReadResp_Event{Event: out}}
}

func recorded(e *event) *streams.ReadResp_ReadEvent_RecordedEvent {
	return &streams.ReadResp_ReadEvent_RecordedEvent{
		Id: &shared.UUID{Value: &shared.UUID_Structured_{Structured: &shared.UUID_Structured{
			MostSignificantBits: int64(binary.BigEndian.Uint64(e.id[:8])), LeastSignificantBits: int64(binary.BigEndian.Uint64(e.id[8:])),
		}}},
		StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte(e.stream)}, StreamRevision: e.revision,
		PreparePosition: e.position, CommitPosition: e.position,
		Metadata: map[string]string{"type": e.kind, "content-type": e.contentType, "created": strconv.FormatInt(e.created.UnixNano()/100, 10)},
		Data:     e.data, CustomMetadata: e.meta,
	}
}
