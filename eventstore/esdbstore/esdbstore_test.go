package esdbstore_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"iter"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/esdbstore"
	"github.com/factum-platform/factum/eventstore/esdbstore/esdbtest"
	"github.com/factum-platform/factum/eventstore/memstore"
	"github.com/factum-platform/factum/eventstore/storetest"
)

// TestMain also proves that no connection of the client library is left behind, whatever the tests did to it.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	alpha eventstore.TenantID = "alpha"
	// patience bounds every wait.
	patience = 20 * time.Second
)

var quiet = slog.New(slog.DiscardHandler)

// open opens a store that the test closes.
func open(t *testing.T, server *esdbtest.Server, change ...func(*esdbstore.Config)) *esdbstore.Store {
	t.Helper()
	return openAt(t, server, time.Now, change...)
}

func openAt(t *testing.T, server *esdbtest.Server, now func() time.Time, change ...func(*esdbstore.Config)) *esdbstore.Store {
	t.Helper()
	c := esdbstore.Config{ConnectionString: server.ConnectionString(), Logger: quiet}
	for _, f := range change {
		f(&c)
	}
	s, err := esdbstore.OpenAt(t.Context(), c, now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestContract(t *testing.T) {
	var server *esdbtest.Server
	storetest.Run(t, storetest.Engine{
		Open: func(t *testing.T) eventstore.Store {
			server = esdbtest.Start(t, esdbtest.Options{})
			return open(t, server)
		},
		Cut: func(*testing.T) { server.Cut() },
	})
}

// TestContractOnOneServer runs the suite on the server of ESDB_CONNECTION_STRING, or on one in-process server for all, with links that
// lag. Each test gets tenants of its own.
func TestContractOnOneServer(t *testing.T) {
	t.Parallel()
	connection := os.Getenv("ESDB_CONNECTION_STRING")
	if connection == "" {
		connection = esdbtest.Start(t, esdbtest.Options{LinkLag: 2 * time.Millisecond}).ConnectionString()
	}
	storetest.Run(t, storetest.Engine{Open: func(t *testing.T) eventstore.Store {
		s, err := esdbstore.Open(t.Context(), esdbstore.Config{ConnectionString: connection, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		return renamed(t, s)
	}})
}

// renamedStore gives the suite's tenants names that nobody has used on the server.
type renamedStore struct {
	eventstore.Store
	bell   eventstore.Bell
	inner  map[eventstore.TenantID]eventstore.TenantID
	listen context.CancelFunc
	done   chan struct{}
}

func renamed(t *testing.T, inner eventstore.Store) *renamedStore {
	t.Helper()
	s := &renamedStore{Store: inner, inner: map[eventstore.TenantID]eventstore.TenantID{}, done: make(chan struct{})}
	outer := map[eventstore.TenantID]eventstore.TenantID{}
	for _, name := range []eventstore.TenantID{"alpha", "beta"} {
		var random [12]byte
		rand.Read(random[:])
		s.inner[name] = eventstore.TenantID("t" + hex.EncodeToString(random[:]))
		outer[s.inner[name]] = name
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.listen = cancel
	heard := inner.Bell().Listen()
	go func() {
		defer close(s.done)
		defer heard.Close()
		for {
			tenant, err := heard.Next(ctx)
			if err != nil {
				return
			}
			if name, ours := outer[tenant]; ours {
				s.bell.Ring(name)
			}
		}
	}()
	return s
}

func (s *renamedStore) Bell() *eventstore.Bell { return &s.bell }

func (s *renamedStore) Close() error {
	s.listen()
	<-s.done
	return s.Store.Close()
}

func (s *renamedStore) Tenant(t eventstore.TenantID) eventstore.Log {
	return renamedLog{s.Store.Tenant(cmp.Or(s.inner[t], t)), t}
}

type renamedLog struct {
	eventstore.Log
	tenant eventstore.TenantID
}

func (l renamedLog) ReadStream(ctx context.Context, s eventstore.StreamID, from eventstore.Version) iter.Seq2[eventstore.Recorded, error] {
	return func(yield func(eventstore.Recorded, error) bool) {
		for rec, err := range l.Log.ReadStream(ctx, s, from) {
			rec.Tenant = l.tenant
			if !yield(rec, err) {
				return
			}
		}
	}
}

func (l renamedLog) Page(ctx context.Context, after eventstore.Position, limit int) (eventstore.Batch, error) {
	b, err := l.Log.Page(ctx, after, limit)
	return l.rename(b), err
}

func (l renamedLog) Follow(ctx context.Context, after eventstore.Position) iter.Seq2[eventstore.Batch, error] {
	return func(yield func(eventstore.Batch, error) bool) {
		for b, err := range l.Log.Follow(ctx, after) {
			if !yield(l.rename(b), err) {
				return
			}
		}
	}
}

func (l renamedLog) rename(b eventstore.Batch) eventstore.Batch {
	for i := range b.Events {
		b.Events[i].Tenant = l.tenant
	}
	return b
}

// Readers see every event once and in order while connections break, subscriptions drop, links lag and are made anew.
func TestTorture(t *testing.T) {
	t.Parallel()
	server := esdbtest.Start(t, esdbtest.Options{LinkLag: 3 * time.Millisecond})
	s := open(t, server)
	ctx, stop := context.WithCancel(t.Context())
	hurt := make(chan int)
	// Each time all links are made anew the server's log grows by as many: on a slow machine faster than it is read, without a bound.
	const resets = 30
	go func() {
		cuts, reset := 0, 0
		defer func() { hurt <- cuts }()
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(mathrand.N(60 * time.Millisecond)):
			}
			switch mathrand.N(6) {
			case 0:
				server.DropSubscriptions()
			case 1:
				server.Gap(mathrand.Uint64N(1 << 33))
			case 2:
				if reset < resets {
					server.ResetByCategory()
					reset++
				}
			case 3:
				server.BreakAfterAppends(1)
			default:
				server.Cut()
				cuts++
			}
		}
	}()
	done, err := storetest.Torture{Stores: []eventstore.Store{s}, Tenants: []eventstore.TenantID{alpha}, Writers: 8, Readers: 4, Events: 2000, Batch: 3}.Run(t.Context())
	stop()
	cuts := <-hurt
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d events, %d appends failed, %d replays, %d cuts", done.Events, done.Failures, done.Replays, cuts)
	if done.Events < 100 || cuts < 5 {
		t.Errorf("%d events and %d cuts: the test did not hurt", done.Events, cuts)
	}
}

func TestModel(t *testing.T) {
	model := memstore.New()
	defer model.Close()
	storetest.RunModel(t, model, open(t, esdbtest.Start(t, esdbtest.Options{})))
}

func TestConcurrent(t *testing.T) {
	storetest.RunConcurrent(t, func() eventstore.Store { return memstore.New() }, open(t, esdbtest.Start(t, esdbtest.Options{})))
}

var commands atomic.Uint64

func events(n int) []eventstore.Proposed {
	command := fmt.Sprintf("own command %d", commands.Add(1))
	out := make([]eventstore.Proposed, n)
	for i := range out {
		out[i] = eventstore.Proposed{
			ID: eventstore.NewEventID(alpha, "tester", command, i), Type: "thing.happened", Schema: 1, Data: fmt.Appendf(nil, `{"n":%d}`, i),
			Meta: eventstore.Meta{Command: command, Actor: "tester", At: time.Now()},
		}
	}
	return out
}

func write(id string, expected eventstore.Expected, n int, claims ...eventstore.Claim) eventstore.Write {
	return eventstore.Write{Stream: eventstore.StreamID{Kind: "doc", ID: id}, Expected: expected, Events: events(n), Claims: claims}
}

func mustAppend(t *testing.T, s eventstore.Store, w eventstore.Write) eventstore.Appended {
	t.Helper()
	out, err := s.Tenant(alpha).Append(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	return out[0]
}

// whole reads the log by pages.
func whole(t *testing.T, s eventstore.Store, after eventstore.Position, limit int) []eventstore.Recorded {
	t.Helper()
	var out []eventstore.Recorded
	for {
		b, err := s.Tenant(alpha).Page(t.Context(), after, limit)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b.Events...)
		if b.Live {
			return out
		}
		after = b.Through
	}
}
