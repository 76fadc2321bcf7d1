package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/pgstore"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/cluster"
)

// attempt is an append of the kill test and what became of it.
type attempt struct {
	tenant eventstore.TenantID
	writes []eventstore.Write
	out    []eventstore.Appended // nil when it was not acknowledged
}

func (a attempt) ids() (ids []eventstore.EventID) {
	for _, w := range a.writes {
		for _, e := range w.Events {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

// fixed places tenants in the databases of one server.
type fixed map[string]*pgxpool.Pool

func (f fixed) Pool(_ context.Context, tenant string) (*pgxpool.Pool, error) { return f[tenant], nil }

// PostgreSQL is killed with -9, all its processes, under 64 writers in two processes. Every acknowledged append is there then, where it
// was said to be, and nothing is half there. fsync is on.
func TestKillNine(t *testing.T) {
	const writers, kills = 64, 3
	config := cluster.Config{Dir: filepath.Join(t.TempDir(), "postgres")}
	server, err := cluster.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	tenants := []eventstore.TenantID{"t0", "t1", "t2", "t3"}
	pools := fixed{}
	for _, tenant := range tenants {
		pools[string(tenant)] = newLog(t, server.DSN(), string(tenant))
	}
	var stores [2]eventstore.Store
	for i := range stores {
		s, err := pgstore.Open(t.Context(), pgstore.Config{Databases: pools})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		stores[i] = s
	}

	var acknowledged, failed atomic.Int64
	var mu sync.Mutex
	var all []attempt
	writing, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	for number := range writers {
		wg.Go(func() {
			for n := 0; writing.Err() == nil; n++ {
				a := randomAttempt(tenants[number%len(tenants)], number, n)
				ctx, giveUp := context.WithCancel(t.Context())
				if n%2 == 0 { // the engine outlasts a restart; this caller does not
					ctx, giveUp = context.WithTimeout(t.Context(), 100*time.Millisecond)
				}
				out, err := stores[number/len(tenants)%len(stores)].Tenant(a.tenant).Append(ctx, a.writes...)
				giveUp()
				var unavailable *eventstore.UnavailableError
				switch {
				case err == nil:
					a.out = out
					acknowledged.Add(1)
				case errors.As(err, &unavailable):
					failed.Add(1)
				default:
					t.Errorf("writer %d: %v", number, err)
					return
				}
				mu.Lock()
				all = append(all, a)
				mu.Unlock()
			}
		})
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for kill := range kills + 1 {
		for goal := acknowledged.Load() + 800; acknowledged.Load() < goal; <-tick.C {
			if t.Failed() {
				stop()
				wg.Wait()
				t.FailNow()
			}
		}
		if kill == kills {
			break
		}
		killServer(t, config.Dir)
		<-server.Exited()
		if server, err = cluster.Start(t.Context(), config); err != nil {
			stop()
			t.Fatal(err)
		}
	}
	stop()
	wg.Wait()
	for i, s := range stores { // what callers gave up may still be on its way; this goes behind it
		for _, tenant := range tenants {
			a := randomAttempt(tenant, writers+i, 0)
			if a.out, err = s.Tenant(tenant).Append(t.Context(), a.writes...); err != nil {
				t.Fatal(err)
			}
			all = append(all, a)
		}
	}

	lost, written := 0, 0
	for _, tenant := range tenants {
		l := stores[0].Tenant(tenant)
		before := readAll(t, l)
		held := map[eventstore.Held]bool{}
		for _, a := range all {
			if a.tenant != tenant {
				continue
			}
			present := wholeOrAbsent(t, before, a)
			if present {
				hold(held, a)
			}
			if a.out == nil {
				lost++
				if present {
					written++
				}
			}
		}
		compareClaims(t, l, held)
		for _, a := range all { // what was not acknowledged is repeated and there once, too
			if a.tenant != tenant || a.out != nil {
				continue
			}
			present := wholeOrAbsent(t, before, a)
			out, err := l.Append(t.Context(), a.writes...)
			if err != nil || out[0].Replayed != present {
				t.Fatalf("repeated: %+v, %v; want replayed %v", out, err, present)
			}
			hold(held, a)
		}
		after := readAll(t, l)
		for _, a := range all {
			if a.tenant == tenant && !wholeOrAbsent(t, after, a) {
				t.Errorf("an append of %s is not there though it was repeated", tenant)
			}
		}
		compareClaims(t, l, held)
	}
	t.Logf("%d kills, %d appends acknowledged, %d failed, of which %d had been written", kills, acknowledged.Load(), lost, written)
	if lost != int(failed.Load()) || lost < kills {
		t.Errorf("%d appends failed, %d were found; want the same, and %d at least", failed.Load(), lost, kills)
	}
}

// newLog makes a database with a log and opens it as the application does.
func newLog(t *testing.T, dsn, name string) *pgxpool.Pool {
	t.Helper()
	admin, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(t.Context())
	if _, err := admin.Exec(t.Context(), "create database "+name); err != nil {
		t.Fatal(err)
	}
	dsn = withDatabase(t, dsn, name)
	if err := postgres.Migrate(t.Context(), dsn, postgres.Migrations{Name: "es", FS: pgstore.Migrations()}); err != nil {
		t.Fatal(err)
	}
	pool, err := postgres.Open(t.Context(), dsn+"&role=factum_tenant", 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// randomAttempt is an append of one or two new streams, a third of them with a claim.
func randomAttempt(tenant eventstore.TenantID, number, n int) attempt {
	a := attempt{tenant: tenant}
	ordinal := 0
	for part := range 1 + rand.N(2) {
		id := fmt.Sprintf("%d %d %d", number, n, part)
		w := eventstore.Write{Stream: eventstore.StreamID{Kind: "doc", ID: id}, Expected: eventstore.NoStream()}
		if rand.N(3) == 0 {
			w.Claims = []eventstore.Claim{{Scope: "name", Key: id}}
		}
		for range 1 + rand.N(5) {
			w.Events = append(w.Events, eventstore.Proposed{
				ID: eventstore.NewEventID(tenant, "tester", fmt.Sprintf("%d %d", number, n), ordinal), Type: "thing.happened", Schema: 1, Data: []byte(`{}`),
			})
			ordinal++
		}
		a.writes = append(a.writes, w)
	}
	return a
}

// killServer kills the postmaster and all its children.
func killServer(t *testing.T, dir string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(raw), "\n")
	postmaster, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", postmaster, postmaster))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(postmaster, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	killed := 1
	for _, child := range strings.Fields(string(children)) {
		pid, err := strconv.Atoi(child)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err == nil { // some end with the postmaster
			killed++
		} else if !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
	}
	if killed < 8 { // the postmaster, its helpers and the connections
		t.Errorf("%d processes were killed; that is not all", killed)
	}
}

// readAll reads a log and checks that it has no gaps: in positions, and in the versions of each stream.
func readAll(t *testing.T, l eventstore.Log) map[eventstore.EventID]eventstore.Recorded {
	t.Helper()
	byID := map[eventstore.EventID]eventstore.Recorded{}
	versions := map[eventstore.StreamID]eventstore.Version{}
	for after := eventstore.Position(0); ; {
		page, err := l.Page(t.Context(), after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range page.Events {
			versions[rec.Stream]++
			if rec.Position != eventstore.Position(len(byID)+1) || rec.Version != versions[rec.Stream] {
				t.Fatalf("event %d is at position %d, version %d of %s; want version %d", len(byID)+1, rec.Position, rec.Version, rec.Stream, versions[rec.Stream])
			}
			byID[rec.ID] = rec
		}
		if page.Live {
			break
		}
		after = page.Through
	}
	if head, err := l.Head(t.Context()); err != nil || head != eventstore.Position(len(byID)) {
		t.Fatalf("the head is %d, %v; want %d", head, err, len(byID))
	}
	return byID
}

// wholeOrAbsent tells whether an append is in the log: all of it, adjacent and where it was acknowledged, or nothing.
func wholeOrAbsent(t *testing.T, log map[eventstore.EventID]eventstore.Recorded, a attempt) (present bool) {
	t.Helper()
	first, found := log[a.ids()[0]]
	if !found && a.out != nil {
		t.Errorf("an acknowledged append of %s is lost: %+v", a.tenant, a.out)
	}
	at := first.Position
	for i, w := range a.writes {
		for j, e := range w.Events {
			rec, ok := log[e.ID]
			if ok != found {
				t.Fatalf("an append of %s is half there", a.tenant)
			}
			if found && (rec.Stream != w.Stream || rec.Version != eventstore.Version(j+1) || rec.Position != at) {
				t.Fatalf("event %d of a write is version %d of %s at %d; want %s at %d", j+1, rec.Version, rec.Stream, rec.Position, w.Stream, at)
			}
			at++
		}
		if found && a.out != nil && (a.out[i].Position != at-1 || a.out[i].Version != eventstore.Version(len(w.Events))) {
			t.Fatalf("acknowledged as %+v; it is at %d", a.out[i], at-1)
		}
	}
	return found
}

func hold(held map[eventstore.Held]bool, a attempt) {
	for _, w := range a.writes {
		for _, c := range w.Claims {
			held[eventstore.Held{Scope: c.Scope, Key: c.Key, Stream: w.Stream}] = true
		}
	}
}

func compareClaims(t *testing.T, l eventstore.Log, want map[eventstore.Held]bool) {
	t.Helper()
	got := map[eventstore.Held]bool{}
	for held, err := range l.Claims(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got[held] = true
	}
	if !maps.Equal(got, want) {
		t.Errorf("%d claims are held; want those of the appends that are there, %d", len(got), len(want))
	}
}
