package esdbtest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/factum-platform/factum/eventstore/esdbstore/esdbtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

func connect(t *testing.T, s *esdbtest.Server) *esdb.Client {
	t.Helper()
	config, err := esdb.ParseConnectionString(s.ConnectionString())
	if err != nil {
		t.Fatal(err)
	}
	config.Logger = esdb.NoopLogging()
	c, err := esdb.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func event(id uuid.UUID, data string) esdb.EventData {
	return esdb.EventData{EventID: id, EventType: "thing", ContentType: esdb.ContentTypeJson, Data: []byte(data), Metadata: []byte(`{"m":1}`)}
}

func ids(n int) []uuid.UUID {
	out := make([]uuid.UUID, n)
	for i := range out {
		out[i] = uuid.New()
	}
	return out
}

// An append is decided as the server's index writer does it.
func TestAppend(t *testing.T) {
	c := connect(t, esdbtest.Start(t, esdbtest.Options{}))
	id := ids(7)
	for i, step := range []struct {
		expected esdb.ExpectedRevision
		ids      []uuid.UUID
		revision int // of the last event, negative for a wrong expected version
		found    string
	}{
		{esdb.StreamExists{}, id[:1], -1, "no_stream"},
		{esdb.Revision(0), id[:1], -1, "no_stream"},
		{esdb.NoStream{}, id[:2], 1, ""},
		{esdb.NoStream{}, id[:2], 1, ""}, // idempotent
		{esdb.NoStream{}, id[:1], 0, ""}, // a prefix of it, too
		{esdb.NoStream{}, id[:3], -1, "1"},
		{esdb.NoStream{}, id[1:2], -1, "1"},
		{esdb.Revision(1), id[2:4], 3, ""},
		{esdb.Revision(0), id[1:4], 3, ""}, // compared across appends
		{esdb.Revision(3), id[:1], 4, ""},  // an id elsewhere in the stream is no repetition
		{esdb.Revision(9), id[4:5], -1, "4"},
		{esdb.StreamExists{}, id[2:4], 3, ""}, // among the recent ids
		{esdb.Any{}, id[2:5], -1, "4"},
		{esdb.Any{}, id[4:6], 6, ""},
	} {
		var events []esdb.EventData
		for _, id := range step.ids {
			events = append(events, event(id, fmt.Sprint(i)))
		}
		out, err := c.AppendToStream(t.Context(), "a-b", esdb.AppendToStreamOptions{ExpectedRevision: step.expected}, events...)
		if step.revision >= 0 {
			if err != nil || out.NextExpectedVersion != uint64(step.revision) || out.CommitPosition == 0 {
				t.Errorf("step %d: %+v, %v; want revision %d", i, out, err, step.revision)
			}
			continue
		}
		var wrong *esdb.Error
		if !errors.As(err, &wrong) || wrong.Code() != esdb.ErrorCodeWrongExpectedVersion || !strings.Contains(err.Error(), "got '"+step.found+"'") {
			t.Errorf("step %d: %v; want a wrong expected version, found %s", i, err, step.found)
		}
	}
}

type reading interface {
	Recv() (*esdb.ResolvedEvent, error)
	Close()
}

func collect(t *testing.T, r reading, err error) (out []*esdb.ResolvedEvent) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		e, err := r.Recv()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
}

func revisions(events []*esdb.ResolvedEvent) string {
	var out []string
	for _, e := range events {
		out = append(out, fmt.Sprint(e.OriginalEvent().StreamID, "@", e.OriginalEvent().EventNumber))
	}
	return strings.Join(out, " ")
}

func TestReads(t *testing.T) {
	s := esdbtest.Start(t, esdbtest.Options{NoByCategory: true})
	c := connect(t, s)
	var at []esdb.Position
	for i := range 4 {
		name := []string{"a-x", "b-x"}[i%2]
		s.Gap(1 << 20)
		out, err := c.AppendToStream(t.Context(), name, esdb.AppendToStreamOptions{}, event(uuid.New(), `{"n":1}`))
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, esdb.Position{Commit: out.CommitPosition, Prepare: out.PreparePosition})
	}
	for _, test := range []struct {
		from      esdb.StreamPosition
		direction esdb.Direction
		count     uint64
		want      string
	}{
		{esdb.Start{}, esdb.Forwards, 10, "a-x@0 a-x@1"},
		{esdb.Start{}, esdb.Forwards, 1, "a-x@0"},
		{esdb.Revision(1), esdb.Forwards, 10, "a-x@1"},
		{esdb.Revision(2), esdb.Forwards, 10, ""},
		{esdb.End{}, esdb.Backwards, 10, "a-x@1 a-x@0"},
		{esdb.Revision(0), esdb.Backwards, 10, "a-x@0"},
		{esdb.Revision(9), esdb.Backwards, 1, "a-x@1"},
	} {
		r, err := c.ReadStream(t.Context(), "a-x", esdb.ReadStreamOptions{From: test.from, Direction: test.direction}, test.count)
		if got := revisions(collect(t, r, err)); got != test.want {
			t.Errorf("from %v: %q; want %q", test.from, got, test.want)
		}
	}
	for _, test := range []struct {
		from      esdb.AllPosition
		direction esdb.Direction
		want      string
	}{
		{esdb.Start{}, esdb.Forwards, "a-x@0 b-x@0 a-x@1"},
		{at[1], esdb.Forwards, "b-x@0 a-x@1 b-x@1"},
		{esdb.End{}, esdb.Forwards, ""},
		{esdb.End{}, esdb.Backwards, "b-x@1 a-x@1 b-x@0"},
		{at[1], esdb.Backwards, "a-x@0"},
	} {
		r, err := c.ReadAll(t.Context(), esdb.ReadAllOptions{From: test.from, Direction: test.direction}, 3)
		if got := revisions(collect(t, r, err)); got != test.want {
			t.Errorf("$all from %v: %q; want %q", test.from, got, test.want)
		}
	}
	r, err := c.ReadStream(t.Context(), "a-x", esdb.ReadStreamOptions{}, 1)
	e := collect(t, r, err)[0].Event
	if string(e.Data) != `{"n":1}` || string(e.UserMetadata) != `{"m":1}` || e.EventType != "thing" || e.ContentType != "application/json" ||
		e.Position != at[0] || time.Since(e.CreatedDate) > time.Minute || at[0].Commit < 1<<20 {
		t.Errorf("the event came back as %+v", e)
	}
	r, err = c.ReadStream(t.Context(), "none", esdb.ReadStreamOptions{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var missing *esdb.Error
	if _, err := r.Recv(); !errors.As(err, &missing) || missing.Code() != esdb.ErrorCodeResourceNotFound {
		t.Errorf("a stream that does not exist: %v", err)
	}
}

// The library cannot ask for a filtered read of $all; the protocol can.
func TestFilteredReadOfAll(t *testing.T) {
	s := esdbtest.Start(t, esdbtest.Options{NoByCategory: true})
	for i := range 6 {
		s.Write([]string{"a-x", "b-x", "ab-x"}[i%3], []string{"one", "two"}[i%2], nil)
	}
	address := strings.TrimPrefix(strings.Split(s.ConnectionString(), "?")[0], "esdb://")
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	regex := func(r string) *streams.ReadReq_Options_FilterOptions_Expression {
		return &streams.ReadReq_Options_FilterOptions_Expression{Regex: r}
	}
	window := &streams.ReadReq_Options_FilterOptions_Max{Max: 32}
	for _, test := range []struct {
		filter    *streams.ReadReq_Options_FilterOptions
		backwards bool
		want      string // "error" for one
	}{
		{&streams.ReadReq_Options_FilterOptions{Window: window, Filter: &streams.ReadReq_Options_FilterOptions_StreamIdentifier{StreamIdentifier: regex("^a-")}}, false, "a-x@0 a-x@1"},
		{&streams.ReadReq_Options_FilterOptions{Window: window, Filter: &streams.ReadReq_Options_FilterOptions_EventType{EventType: regex("^two$")}}, true, "ab-x@1 a-x@1 b-x@0"},
		{&streams.ReadReq_Options_FilterOptions{Window: window, Filter: &streams.ReadReq_Options_FilterOptions_StreamIdentifier{
			StreamIdentifier: &streams.ReadReq_Options_FilterOptions_Expression{Prefix: []string{"b", "ab"}},
		}}, false, "b-x@0 ab-x@0 b-x@1 ab-x@1"},
		{&streams.ReadReq_Options_FilterOptions{Window: window, Filter: &streams.ReadReq_Options_FilterOptions_StreamIdentifier{StreamIdentifier: regex("(")}}, false, "error"},
		{&streams.ReadReq_Options_FilterOptions{Filter: &streams.ReadReq_Options_FilterOptions_StreamIdentifier{StreamIdentifier: regex("a")}}, false, "error"},
		{&streams.ReadReq_Options_FilterOptions{Window: window}, false, "error"},
	} {
		o := &streams.ReadReq_Options{
			CountOption:  &streams.ReadReq_Options_Count{Count: 100},
			StreamOption: &streams.ReadReq_Options_All{All: &streams.ReadReq_Options_AllOptions{AllOption: &streams.ReadReq_Options_AllOptions_Start{Start: &shared.Empty{}}}},
			FilterOption: &streams.ReadReq_Options_Filter{Filter: test.filter},
		}
		if test.backwards {
			o.ReadDirection = streams.ReadReq_Options_Backwards
			o.StreamOption = &streams.ReadReq_Options_All{All: &streams.ReadReq_Options_AllOptions{AllOption: &streams.ReadReq_Options_AllOptions_End{End: &shared.Empty{}}}}
		}
		call, err := streams.NewStreamsClient(conn).Read(t.Context(), &streams.ReadReq{Options: o})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for {
			answer, err := call.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				got = []string{"error"}
				break
			}
			e := answer.GetEvent().GetEvent()
			got = append(got, fmt.Sprintf("%s@%d", e.StreamIdentifier.StreamName, e.StreamRevision))
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%v: %q; want %q", test.filter, got, test.want)
		}
	}
}

// links waits for the links of a category.
func links(t *testing.T, c *esdb.Client, category string, n int) []*esdb.ResolvedEvent {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sub, err := c.SubscribeToStream(ctx, category, esdb.SubscribeToStreamOptions{From: esdb.Start{}, ResolveLinkTos: true})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	var out []*esdb.ResolvedEvent
	for len(out) < n {
		e := sub.Recv()
		if e.SubscriptionDropped != nil {
			t.Fatalf("after %d of %d links: %v", len(out), n, e.SubscriptionDropped.Error)
		}
		if e.EventAppeared != nil {
			out = append(out, e.EventAppeared)
		}
	}
	return out
}

func TestByCategory(t *testing.T) {
	s := esdbtest.Start(t, esdbtest.Options{NoByCategory: true})
	c := connect(t, s)
	for i := range 3 {
		s.Write("cat-a-b", "thing", fmt.Append(nil, i))
		s.Write("other-a", "thing", nil)
		s.Write("nocategory", "thing", nil)
		s.Write("-x", "thing", nil)
	}
	if n := s.Events("$ce-cat"); n != 0 {
		t.Fatalf("%d links without the projection", n)
	}
	s.SetByCategory(true)
	got := links(t, c, "$ce-cat", 3)
	if revisions(got) != "$ce-cat@0 $ce-cat@1 $ce-cat@2" {
		t.Errorf("the links are %s", revisions(got))
	}
	var last uint64
	for i, e := range got {
		if e.Event.StreamID != "cat-a-b" || e.Event.EventNumber != uint64(i) || e.Event.Position.Commit <= last || e.Link.Position.Commit <= e.Event.Position.Commit {
			t.Errorf("link %d is %+v to %+v", i, e.Link, e.Event)
		}
		last = e.Event.Position.Commit
	}
	s.ResetByCategory()
	if got := links(t, c, "$ce-cat", 3); revisions(got) != "$ce-cat@3 $ce-cat@4 $ce-cat@5" || got[0].Event.EventNumber != 0 {
		t.Errorf("after a reset the links are %s", revisions(got))
	}
	s.Truncate("cat-a-b")
	for _, e := range links(t, c, "$ce-cat", 3) {
		if e.Event != nil || e.Link == nil {
			t.Errorf("a link to what is gone is %+v", e)
		}
	}
	for _, name := range []string{"$ce-", "$ce-nocategory", "$ce-$ce"} {
		if n := s.Events(name); n != 0 {
			t.Errorf("%s has %d links", name, n)
		}
	}
}

func TestSubscribeToAll(t *testing.T) {
	s := esdbtest.Start(t, esdbtest.Options{NoByCategory: true})
	c := connect(t, s)
	s.Write("a-x", "thing", nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sub, err := c.SubscribeToAll(ctx, esdb.SubscribeToAllOptions{
		From: esdb.End{}, MaxSearchWindow: 2, CheckpointInterval: 2, Filter: &esdb.SubscriptionFilter{Type: esdb.StreamFilterType, Prefixes: []string{"a-"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	var got []string
	next := func(n int) {
		t.Helper()
		for range n {
			e := sub.Recv()
			switch {
			case e.EventAppeared != nil:
				got = append(got, revisions([]*esdb.ResolvedEvent{e.EventAppeared}))
			case e.CheckPointReached != nil:
				got = append(got, "checkpoint")
			case e.CaughtUp != nil:
				got = append(got, "caught up")
			case e.SubscriptionDropped != nil:
				got = append(got, "dropped")
			}
		}
	}
	next(1)
	for range 2 {
		s.Write("a-x", "thing", nil)
		s.Write("b-x", "thing", nil)
	}
	next(3)
	s.DropSubscriptions()
	next(1)
	if want := []string{"caught up", "a-x@1", "a-x@2", "checkpoint", "dropped"}; !slices.Equal(got, want) {
		t.Errorf("got %q; want %q", got, want)
	}
}
