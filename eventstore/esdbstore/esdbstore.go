// Package esdbstore is the log on EventStoreDB, through EventStore-Client-Go v4. See docs/adr/0006-eventstoredb-client.md.
//
// A stream is named <tenant>-<kind>-<id>, so the server's projection $by_category gathers a tenant's streams in $ce-<tenant>: that is
// the tenant's log. Its links are numbered anew when the projection is reset; positions are therefore those of the events themselves in
// $all. They rise and have gaps.
//
// Links are made some milliseconds after the events. What an Append has returned is seen by Page, Follow and Head of the same store: they
// wait for the links of what the store knows to be committed, at most Config.LinkTimeout. Of what other processes append, a store
// learns by its subscription to $all or when the links are there, so that another process may call a log live that has grown a moment
// ago. ReadStream does not depend on links and sees every append that has returned anywhere.
//
// Event ids. The server compares an append with the events at its expected revision, by ids only. This engine looks further: an append is
// compared with its whole stream, and with the events of other streams of the tenant that this store has read or written from their
// beginnings, as far as they are among the last 131,072 ids of all tenants. For that, the first append to a stream that this store
// has not just read from its beginning reads it. So in one stream promises A3 and A4 hold without exception. Ids that were used in another
// stream, by another process or before a restart, are not noticed unless this store has read that stream: A4 holds across streams as
// far as that.
//
// Claims are reserved before the append and confirmed after it (Caps.AtomicClaim is false). A value never belongs to two streams, unless
// a process sleeps for more than 7 minutes between its reservation and the sending of its append, or clocks differ by as much.
// What is different from an atomic claim: an append that ended ambiguously keeps its values reserved for 10 minutes or until it is
// repeated, and an append that fails on its own account may have made another claimant fail at the same time.
//
// The server limits an append by its setting MaxAppendSize, which counts data, metadata and types: 1 MiB by default, so that an event of
// 1 MiB does not fit, and 16767216 bytes at most. Set it to that. A larger append answers *[eventstore.InvalidError] and names the
// setting. Appends of nearly [eventstore.MaxAppendBytes] do not fit any server.
//
// After the server was restored from a backup, restart the processes: they know of events that the server has lost, and wait for them.
//
// The subscription carries each event of each tenant to each process once more; it is what the watchdog looks at.
package esdbstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/factum-platform/factum/eventstore"
)

// knownIDs is how many event ids a store remembers.
const knownIDs = 1 << 17

var caps = eventstore.Caps{Gapless: false, MultiStream: false, AtomicClaim: false}

// Config says how to reach the server. Only ConnectionString is required.
type Config struct {
	// ConnectionString has the form esdb://user:password@host:2113?tls=true (ESDB_CONNECTION_STRING), with the settings of
	// EventStore-Client-Go: tlsCaFile, tlsVerifyCert, userCertFile, userKeyFile, nodePreference, gossipTimeout and so on. maxDiscoverAttempts
	// has no effect. Credentials are sent over TLS only.
	ConnectionString string
	// Logger gets what operators must know; nil is [slog.Default].
	Logger *slog.Logger
	// Timeout bounds one call to the server, its retries included; 0 is 10 s. A call of the contract makes several.
	Timeout time.Duration
	// LinkTimeout bounds how long a reader waits for the link of an event that is known to be committed; 0 is 5 s.
	LinkTimeout time.Duration
	// ProbeTimeout bounds how long Open waits for $by_category to link its probe; 0 is 15 s.
	ProbeTimeout time.Duration
}

// Store implements [eventstore.Store]. It is safe for concurrent use.
type Store struct {
	config     Config
	client     *client
	now        func() time.Time
	bell       eventstore.Bell
	watch      *watch
	known      *known
	closed     context.Context
	close      context.CancelFunc
	background sync.WaitGroup

	mu      sync.Mutex
	logs    map[eventstore.TenantID]*log
	claimed map[eventstore.TenantID]uint64 // the position of this store's last word about the tenant's claims

	sweeping sync.Mutex
	sweeps   map[eventstore.TenantID]*sweep
}

// Open connects, and checks that the server runs the projection $by_category and says events' positions: it appends a small event to
// the stream factum.probe-open and waits for its link. Errors name the setting to change. ctx bounds the opening only.
func Open(ctx context.Context, c Config) (*Store, error) { return open(ctx, c, time.Now) }

func open(ctx context.Context, c Config, now func() time.Time) (*Store, error) {
	if c.ConnectionString == "" {
		return nil, errors.New("esdbstore: Config.ConnectionString is required; set ESDB_CONNECTION_STRING")
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	for setting, otherwise := range map[*time.Duration]time.Duration{
		&c.Timeout: 10 * time.Second, &c.LinkTimeout: 5 * time.Second, &c.ProbeTimeout: 15 * time.Second,
	} {
		if *setting == 0 {
			*setting = otherwise
		}
	}
	client, err := newClient(c.ConnectionString, c.Timeout, c.Logger)
	if err != nil {
		return nil, err
	}
	s := &Store{
		config: c, client: client, now: now, known: newKnown(knownIDs), watch: &watch{now: now, tenants: map[eventstore.TenantID]*watched{}},
		logs: map[eventstore.TenantID]*log{}, claimed: map[eventstore.TenantID]uint64{}, sweeps: map[eventstore.TenantID]*sweep{},
	}
	s.closed, s.close = context.WithCancel(context.Background())
	if err := s.probe(ctx); err != nil {
		s.close()
		s.client.close()
		return nil, err
	}
	rings := make(chan struct{})
	s.background.Go(func() { s.doorbell(s.closed, sync.OnceFunc(func() { close(rings) })) })
	s.background.Go(func() { s.housekeeping(s.closed) })
	select {
	case <-rings:
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("esdbstore: open: %w", ctx.Err()), s.Close())
	}
	return s, nil
}

// probe appends an event and waits for its link.
func (s *Store) probe(ctx context.Context) error {
	id := newID()
	at, err := s.client.append(ctx, probeStream, expectation{any: true}, []proposal{{id: id, kind: "factum.probe", data: []byte(`{}`)}})
	if err != nil {
		return err
	}
	for until := time.Now().Add(s.config.ProbeTimeout); ; {
		links, _, err := s.client.read(ctx, probeCategory, span{last: true, count: 1})
		switch {
		case err != nil:
			return err
		case len(links) == 1 && !links[0].lost && links[0].position == noPosition:
			return noPositions("read stream " + probeCategory)
		case len(links) == 1 && !links[0].lost && links[0].revision >= at.revision:
			return nil
		case time.Now().After(until):
			return fmt.Errorf("esdbstore: open: the server made no link in %s within %s: start it with RunProjections=System (EVENTSTORE_RUN_PROJECTIONS) "+
				"and enable its projection $by_category (EVENTSTORE_START_STANDARD_PROJECTIONS=true, or in its web page)", probeCategory, s.config.ProbeTimeout)
		}
		wait(ctx, 20*time.Millisecond)
		if ctx.Err() != nil {
			return fmt.Errorf("esdbstore: open: %w", ctx.Err())
		}
	}
}

// Tenant implements [eventstore.Store]. The calls on a log whose tenant id is malformed fail.
func (s *Store) Tenant(t eventstore.TenantID) eventstore.Log { return s.log(t) }

func (s *Store) log(t eventstore.TenantID) *log {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, found := s.logs[t]
	if !found {
		l = &log{store: s, tenant: t, hints: map[eventstore.Position]uint64{}}
		if t.Validate() == nil { // malformed ids are not remembered
			s.logs[t] = l
		}
	}
	return l
}

// claims notes that this store wrote to the tenant's claims, up to a position.
func (s *Store) claims(t eventstore.TenantID, p uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claimed[t] = max(s.claimed[t], p)
}

// claimsThrough is how far the tenant's claims go at least.
func (s *Store) claimsThrough(t eventstore.TenantID) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claimed[t]
}

// tenants are those whose logs were asked for.
func (s *Store) tenants() []eventstore.TenantID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.logs))
}

func (s *Store) claimants() []eventstore.TenantID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.claimed))
}

// Caps implements [eventstore.Store].
func (s *Store) Caps() eventstore.Caps { return caps }

// Bell implements [eventstore.Store]. It rings when an event can be read from the log, in whichever process it was appended.
func (s *Store) Bell() *eventstore.Bell { return &s.bell }

// Close implements [eventstore.Store]: every later call, and every Follow, answers [eventstore.ErrClosed]. It may be called more than once.
func (s *Store) Close() error {
	s.close()
	s.background.Wait()
	s.client.close()
	return nil
}
