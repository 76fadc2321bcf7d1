package esdbstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/esdbstore"
	"github.com/factum-platform/factum/eventstore/esdbstore/esdbtest"
)

// An append that was written and whose answer was lost is found to be written: by the same call, or by a repetition.
func TestAmbiguousAppend(t *testing.T) {
	t.Parallel()
	server := esdbtest.Start(t, esdbtest.Options{})
	s := open(t, server)
	server.BreakAfterAppends(1)
	out := mustAppend(t, s, write("a", eventstore.NoStream(), 2))
	if out.Version != 2 || out.Replayed {
		t.Errorf("%+v; want version 2, written by this very call", out)
	}
	short := open(t, server, impatient)
	w := write("a", eventstore.At(2), 2)
	server.BreakAfterAppends(1000)
	_, err := short.Tenant(alpha).Append(t.Context(), w)
	if err == nil || !strings.Contains(err.Error(), "repeating the call is safe") {
		t.Fatalf("got %v; want an ambiguous failure that says so", err)
	}
	server.BreakAfterAppends(0)
	again := mustAppend(t, short, w)
	if !again.Replayed || again.Version != 4 {
		t.Errorf("repeated: %+v; want a replay at version 4", again)
	}
	log := whole(t, s, 0, 100)
	if len(log) != 4 || log[3].Position != again.Position || log[1].Position != out.Position {
		t.Errorf("%d events; want 4, the last at %d", len(log), again.Position)
	}
}

// The same append twice at once, from two processes: one of them wrote it.
func TestRepetitionsFromTwoStores(t *testing.T) {
	server := esdbtest.Start(t, esdbtest.Options{})
	stores := []eventstore.Store{open(t, server), open(t, server)}
	for round := range 10 {
		w := write(fmt.Sprint(round), eventstore.NoStream(), 3)
		var wg sync.WaitGroup
		outs, errs := make([][]eventstore.Appended, 4), make([]error, 4)
		for i := range outs {
			wg.Go(func() { outs[i], errs[i] = stores[i%2].Tenant(alpha).Append(t.Context(), w) })
		}
		wg.Wait()
		fresh := 0
		for i := range outs {
			if errs[i] != nil || outs[i][0].Version != 3 || outs[i][0].Position != outs[0][0].Position {
				t.Fatalf("%+v, %v", outs[i], errs[i])
			}
			if !outs[i][0].Replayed {
				fresh++
			}
		}
		if fresh != 1 {
			t.Fatalf("%d of the calls wrote; want 1", fresh)
		}
	}
}

// What a store has not written itself it finds in the stream: a repetition, a part of an append, another type.
func TestReuseSeenByAnotherStore(t *testing.T) {
	server := esdbtest.Start(t, esdbtest.Options{})
	first := write("a", eventstore.NoStream(), 3)
	before := mustAppend(t, open(t, server), first)
	other := func() eventstore.Log { return open(t, server).Tenant(alpha) }
	for _, expected := range []eventstore.Expected{eventstore.NoStream(), eventstore.At(3), eventstore.StreamExists(), eventstore.At(7)} {
		w := first
		w.Expected = expected
		out, err := other().Append(t.Context(), w)
		if err != nil || !out[0].Replayed || out[0].Version != 3 || out[0].Position != before.Position {
			t.Errorf("repeated at %s: %+v, %v; want a replay", expected, out, err)
		}
		w.Events = append(events(1), first.Events[1])
		var reused *eventstore.ReusedKeyError
		if _, err := other().Append(t.Context(), w); !errors.As(err, &reused) {
			t.Errorf("half new at %s: %v; want *eventstore.ReusedKeyError", expected, err)
		}
		w.Events = append([]eventstore.Proposed{}, first.Events...)
		w.Events[1].Type = "thing.undone"
		if _, err := other().Append(t.Context(), w); !errors.As(err, &reused) {
			t.Errorf("another type at %s: %v; want *eventstore.ReusedKeyError", expected, err)
		}
	}
	reader := open(t, server)
	if n := len(whole(t, reader, 0, 10)); n != 3 {
		t.Errorf("%d events are in the log; want 3", n)
	}
	elsewhere := first
	elsewhere.Stream.ID = "b"
	var reused *eventstore.ReusedKeyError
	if _, err := reader.Tenant(alpha).Append(t.Context(), elsewhere); !errors.As(err, &reused) { // it has read the stream they are in
		t.Errorf("in another stream: %v; want *eventstore.ReusedKeyError", err)
	}
}

func TestConflictSaysTheVersion(t *testing.T) {
	server := esdbtest.Start(t, esdbtest.Options{})
	mustAppend(t, open(t, server), write("a", eventstore.NoStream(), 5))
	for _, expected := range []eventstore.Expected{{}, eventstore.NoStream(), eventstore.At(1), eventstore.At(4), eventstore.At(6)} {
		_, err := open(t, server).Tenant(alpha).Append(t.Context(), write("a", expected, 2))
		var conflict *eventstore.ConflictError
		if !errors.As(err, &conflict) || conflict.Actual != 5 || conflict.Expected != expected || conflict.Stream.ID != "a" {
			t.Errorf("expecting %s: %v; want a conflict at version 5", expected, err)
		}
	}
}

// A tenant's own appends are in its pages though links come late; positions have gaps.
func TestLaggingLinks(t *testing.T) {
	t.Parallel()
	server := esdbtest.Start(t, esdbtest.Options{LinkLag: 50 * time.Millisecond})
	s := open(t, server)
	for v := range eventstore.Version(3) {
		server.Gap(1 << 40)
		out := mustAppend(t, s, write("a", eventstore.At(v), 1))
		if head, err := s.Tenant(alpha).Head(t.Context()); err != nil || head != out.Position {
			t.Errorf("head %d, %v; want %d", head, err, out.Position)
		}
		if log := whole(t, s, 0, 10); len(log) != int(v)+1 || log[v].Position != out.Position || out.Position < eventstore.Position(v+1)<<40 {
			t.Errorf("%d events, the last appended at %d", len(log), out.Position)
		}
	}
	short := open(t, server, func(c *esdbstore.Config) { c.LinkTimeout = 10 * time.Millisecond })
	server.SetByCategory(false)
	after := mustAppend(t, short, write("a", eventstore.At(3), 1)).Position - 1
	b, err := short.Tenant(alpha).Page(t.Context(), 0, 10)
	if err != nil || len(b.Events) != 3 || b.Live {
		t.Errorf("a page of what is linked: %d events, live %v, %v; want 3 and not live", len(b.Events), b.Live, err)
	}
	if _, err = short.Tenant(alpha).Page(t.Context(), after, 10); err == nil || !strings.Contains(err.Error(), "$by_category") {
		t.Errorf("got %v; want an error that names $by_category: the page is not empty", err)
	}
	server.SetByCategory(true)
	for b, err := range short.Tenant(alpha).Follow(t.Context(), after) { // following outlasts the lag
		if err != nil || len(b.Events) != 1 || b.Events[0].Version != 4 {
			t.Errorf("%+v, %v; want version 4", b, err)
		}
		break
	}
}

// Pages are right from each position, whatever numbers the links have.
func TestRenumberedLinks(t *testing.T) {
	t.Parallel()
	server := esdbtest.Start(t, esdbtest.Options{})
	s := open(t, server)
	for v := range eventstore.Version(40) {
		mustAppend(t, s, write("a", eventstore.At(v), 1))
	}
	log := whole(t, s, 0, 7)
	if len(log) != 40 {
		t.Fatalf("%d events; want 40", len(log))
	}
	fresh := open(t, server) // without hints, and with those of before
	for round := range 3 {
		for _, reader := range []eventstore.Store{s, fresh} {
			for i := -1; i < 40; i++ {
				after := eventstore.Position(0)
				if i >= 0 {
					after = log[i].Position
				}
				for _, from := range []eventstore.Position{after, after + 1} {
					got := whole(t, reader, from, 9)
					if len(got) != 39-i || len(got) > 0 && got[0].ID != log[i+1].ID {
						t.Fatalf("round %d, after %d: %d events; want %d", round, from, len(got), 39-i)
					}
				}
			}
		}
		server.ResetByCategory()
	}
}

// Following goes on after cuts and drops, and its rings come back.
func TestReconnect(t *testing.T) {
	t.Parallel()
	server := esdbtest.Start(t, esdbtest.Options{})
	s := open(t, server)
	heard := s.Bell().Listen()
	defer heard.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	next := eventstore.Version(0)
	var last eventstore.Position
	for b, err := range s.Tenant(alpha).Follow(ctx, 0) {
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range b.Events {
			if rec.Version != next || rec.Position <= last {
				t.Fatalf("version %d came; want %d", rec.Version, next)
			}
			last = rec.Position
		}
		if !b.Live {
			continue
		}
		if next == 9 {
			break
		}
		switch next % 3 {
		case 0:
			server.Cut()
		case 1:
			server.DropSubscriptions()
		case 2:
			server.NotLeader(2)
		}
		mustAppend(t, s, write("a", eventstore.At(next), 1))
		next++
	}
	if next != 9 {
		t.Fatalf("it followed up to version %d; want 9", next)
	}
	for range 3 { // a ring may come late, but after the subscription is back it comes
		if tenant, err := heard.Next(ctx); err != nil || tenant != alpha {
			t.Fatalf("the bell rang for %q, %v", tenant, err)
		}
		mustAppend(t, s, write("a", eventstore.StreamExists(), 1))
	}
}

func TestOpenSaysWhatToDo(t *testing.T) {
	t.Parallel()
	plain := esdbtest.Start(t, esdbtest.Options{})
	secure := esdbtest.Start(t, esdbtest.Options{TLS: true, User: "factum", Password: "s3cret/?@"})
	certified := esdbtest.Start(t, esdbtest.Options{TLS: true, UserCertificate: true})
	stopped := esdbtest.Start(t, esdbtest.Options{})
	stopped.Close()
	connection := func(s *esdbtest.Server) string { return s.ConnectionString() }
	for name, test := range map[string]struct {
		connection string
		want       []string // "" is success
	}{
		"without TLS":           {connection(plain), nil},
		"with TLS and password": {connection(secure), nil},
		"with a certificate":    {connection(certified), nil},
		"by gossip":             {strings.Replace(connection(plain), "esdb://", "esdb+discover://", 1), nil},
		"nothing":               {"", []string{"ESDB_CONNECTION_STRING"}},
		"no URL":                {"esdb://factum:s3cret@:x:y", []string{"ESDB_CONNECTION_STRING", "percent-encoded"}},
		"another scheme":        {"http://127.0.0.1", []string{"ESDB_CONNECTION_STRING", "esdb://"}},
		"no authority file":     {"esdb://factum:s3cret@127.0.0.1?tlsCaFile=/nowhere.pem", []string{"ESDB_CONNECTION_STRING", "/nowhere.pem"}},
		"half a certificate":    {"esdb://127.0.0.1?userCertFile=a.pem", []string{"ESDB_CONNECTION_STRING", "userKeyFile"}},
		"nobody there":          {connection(stopped), []string{"ESDB_CONNECTION_STRING", "connection refused"}},
		"wrong password":        {strings.Replace(connection(secure), "factum:", "factum:s3cret", 1), []string{"ESDB_CONNECTION_STRING", "password"}},
		"unknown authority":     {strings.Split(connection(secure), "?")[0] + "?tls=true", []string{"tlsCaFile", "x509"}},
		"no TLS where it must":  {strings.Split(connection(secure), "?")[0] + "?tls=false", []string{"ESDB_CONNECTION_STRING"}},
		"no user certificate":   {strings.Split(connection(certified), "?")[0] + "?tls=true&tlsVerifyCert=false", []string{"userCertFile"}},
		"projections off":       {connection(esdbtest.Start(t, esdbtest.Options{NoByCategory: true})), []string{"RunProjections=System", "$by_category"}},
		"no positions":          {connection(esdbtest.Start(t, esdbtest.Options{NoOriginalPositions: true})), []string{"positions", "22.6"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := esdbstore.Open(t.Context(), esdbstore.Config{ConnectionString: test.connection, Logger: quiet, ProbeTimeout: 200 * time.Millisecond})
			if err == nil {
				mustAppend(t, s, write(name, eventstore.NoStream(), 1))
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
			if (err == nil) != (test.want == nil) {
				t.Fatalf("got %v; want success: %v", err, test.want == nil)
			}
			for _, part := range test.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not name %s", err, part)
				}
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error tells the password: %v", err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := esdbstore.Open(ctx, esdbstore.Config{ConnectionString: plain.ConnectionString(), Logger: quiet}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a cancelled context: %v", err)
	}
}

// An outage is waited out for a while, and then named.
func TestOutage(t *testing.T) {
	t.Parallel()
	server := esdbtest.Start(t, esdbtest.Options{})
	s := open(t, server, func(c *esdbstore.Config) { c.Timeout = 300 * time.Millisecond })
	l := s.Tenant(alpha)
	w := write("a", eventstore.NoStream(), 1)
	check := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "ESDB_CONNECTION_STRING") {
			t.Errorf("%s: %v; want an error that names the setting", what, err)
		}
	}
	server.SetUnavailable(true)
	_, err := l.Append(t.Context(), w)
	check("append", err)
	_, err = l.Append(t.Context(), write("a", eventstore.At(1), 1)) // its stream is read first
	var unavailable *eventstore.UnavailableError
	if !errors.As(err, &unavailable) || unavailable.Maybe {
		t.Errorf("append to a server that is away: %v; want it certain that nothing was written", err)
	}
	_, err = l.Head(t.Context())
	check("head", err)
	_, err = l.Page(t.Context(), 0, 1)
	check("page", err)
	for _, err := range l.ReadStream(t.Context(), w.Stream, 0) {
		check("read", err)
	}
	for _, err := range l.Claims(t.Context()) {
		check("claims", err)
	}
	check("healthy", s.Healthy(t.Context()))
	server.SetUnavailable(false)
	server.AllowAppends(0)
	_, err = l.Append(t.Context(), w)
	check("append to a full server", err)
	if !errors.As(err, &unavailable) || !unavailable.Maybe {
		t.Errorf("append to a full server: %v; want it open whether it was written", err)
	}
	server.AllowAppends(-1)
	if out := mustAppend(t, s, w); out.Replayed || out.Version != 1 {
		t.Errorf("after it: %+v", out)
	}
	if err := s.Healthy(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNotLeader(t *testing.T) {
	t.Parallel()
	server := esdbtest.Start(t, esdbtest.Options{})
	s := open(t, server)
	server.NotLeader(1)
	if out := mustAppend(t, s, write("a", eventstore.NoStream(), 1)); out.Version != 1 || out.Replayed {
		t.Errorf("%+v; want version 1", out)
	}
	server.NotLeader(1)
	if n := len(whole(t, s, 0, 10)); n != 1 {
		t.Errorf("%d events; want 1", n)
	}
}

// An append beyond the server's limit is refused with the setting's name, also when the server refuses it before it is sent whole.
func TestMaxAppendSize(t *testing.T) {
	t.Parallel()
	server := esdbtest.Start(t, esdbtest.Options{MaxAppendSize: 1 << 20})
	s := open(t, server)
	large := bytes.Repeat([]byte("x"), 1<<20)
	large[0], large[len(large)-1] = '"', '"'
	for n := 1; n <= 16; n += 5 {
		w := write("a", eventstore.NoStream(), n, taking("email", "k"))
		for i := range w.Events {
			w.Events[i].Data = large
		}
		_, err := s.Tenant(alpha).Append(t.Context(), w)
		var refused *eventstore.InvalidError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), "MaxAppendSize") {
			t.Errorf("%d MiB: %v; want *eventstore.InvalidError that names MaxAppendSize", n, err)
		}
	}
	mustAppend(t, s, write("b", eventstore.NoStream(), 1, taking("email", "k"))) // no reservation was left
	w := write("c", eventstore.NoStream(), 1)
	w.Events[0].Type = "$>"
	var refused *eventstore.InvalidError
	if _, err := s.Tenant(alpha).Append(t.Context(), w); !errors.As(err, &refused) {
		t.Errorf("a system type: %v; want *eventstore.InvalidError", err)
	}
	if n := len(whole(t, s, 0, 10)); n != 1 {
		t.Errorf("%d events are in the log; want 1", n)
	}
}

// What others write into a tenant's category is not in its log, and does not stop it.
func TestForeignStreams(t *testing.T) {
	server := esdbtest.Start(t, esdbtest.Options{})
	s := open(t, server)
	for i := range 30 {
		server.Write("alpha-UPPER", "thing", []byte("no JSON"))
		server.Write("alpha-nokind", "thing", nil)
		if i == 15 {
			mustAppend(t, s, write("a", eventstore.NoStream(), 2))
		}
	}
	last := mustAppend(t, s, write("a", eventstore.At(2), 1)).Position
	for range 30 {
		server.Write("alpha-UPPER", "thing", nil)
	}
	for _, limit := range []int{1, 2, 500} {
		if log := whole(t, s, 0, limit); len(log) != 3 || log[2].Position != last {
			t.Errorf("by %d: %d events; want 3", limit, len(log))
		}
	}
	server.Write("alpha-doc-b", "thing", []byte("no JSON"))
	for _, err := range s.Tenant(alpha).ReadStream(t.Context(), eventstore.StreamID{Kind: "doc", ID: "b"}, 0) {
		if err == nil || !strings.Contains(err.Error(), "no metadata of factum") {
			t.Errorf("a stream of factum's that others write to: %v", err)
		}
	}
}

// Without the right to read $all there is no bell, and readers look each second.
func TestWithoutRightToAll(t *testing.T) {
	t.Parallel()
	server := esdbtest.Start(t, esdbtest.Options{DenyAll: true})
	s := open(t, server)
	n := eventstore.Version(0)
	for b, err := range s.Tenant(alpha).Follow(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		if b.Live && n == 2 {
			break
		}
		if b.Live {
			mustAppend(t, open(t, server), write("a", eventstore.At(n), 1))
			n++
		}
	}
	if log := whole(t, s, 0, 10); len(log) != 2 {
		t.Errorf("%d events; want 2", len(log))
	}
}

// Events that are gone are not skipped in silence.
func TestLostEvents(t *testing.T) {
	server := esdbtest.Start(t, esdbtest.Options{})
	s := open(t, server)
	mustAppend(t, s, write("a", eventstore.NoStream(), 1))
	mustAppend(t, s, write("b", eventstore.NoStream(), 1))
	if n := len(whole(t, s, 0, 10)); n != 2 {
		t.Fatalf("%d events; want 2", n)
	}
	server.Truncate("alpha-doc-a")
	for _, err := range s.Tenant(alpha).Follow(t.Context(), 0) {
		if err == nil || !strings.Contains(err.Error(), "link 0 of $ce-alpha") || !strings.Contains(err.Error(), "$maxAge") {
			t.Errorf("got %v; want an end that names the link", err)
		}
	}
}

func TestWatchdog(t *testing.T) {
	server := esdbtest.Start(t, esdbtest.Options{})
	var log syncBuffer
	var time clock
	writer := open(t, server)
	s := openAt(t, server, time.now, func(c *esdbstore.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	mustAppend(t, writer, write("a", eventstore.NoStream(), 1))
	server.SetByCategory(false)
	out := mustAppend(t, writer, write("a", eventstore.At(1), 1))
	for head := eventstore.Position(0); head < out.Position; { // the other store hears of it
		var err error
		if head, err = s.Tenant(alpha).Head(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Healthy(t.Context()); err != nil {
		t.Errorf("too early: %v", err)
	}
	time.advance(31e9)
	var stuck *esdbstore.StuckError
	for range 3 {
		if err := s.Healthy(t.Context()); !errors.As(err, &stuck) || stuck.Tenant != alpha || !strings.Contains(err.Error(), "$by_category") {
			t.Fatalf("got %v; want tenant alpha's log to stand still", err)
		}
	}
	if n := s.Stuck(); n != 1 {
		t.Errorf("%d logs stand still; want 1", n)
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
		t.Errorf("it was logged %d times; want once", n)
	}
	server.SetByCategory(true)
	if n := len(whole(t, writer, 0, 10)); n != 2 {
		t.Fatalf("%d events; want 2", n)
	}
	time.advance(31e9)
	if err := s.Healthy(t.Context()); err != nil || s.Stuck() != 0 {
		t.Errorf("after it goes on: %v, %d stuck", err, s.Stuck())
	}
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
