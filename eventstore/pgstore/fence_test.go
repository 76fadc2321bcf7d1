package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/pgstore"
)

var (
	fence = [16]byte{1}
	other = [16]byte{2}
)

// TestAClosedLogTakesNothing closes a log under writers: what they were told is written lies before the head that closing answered, and
// all that came later is written once it is opened again.
func TestAClosedLogTakesNothing(t *testing.T) {
	d := newDatabases(t)
	l := d.open(nil).Tenant("alpha")
	admin := d.admin()
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		written int
		enough  = make(chan struct{})
		stop    atomic.Bool // once one of them has met the closed log
	)
	const writers = 8
	for w := range writers {
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				_, err := l.Append(t.Context(), one(fmt.Sprint("e", i, "-", w), fmt.Sprint("s", w), eventstore.At(eventstore.Version(i))))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if written++; written == 80 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	<-enough
	head, err := pgstore.Close(t.Context(), admin, fence)
	if err != nil {
		t.Fatal(err)
	}
	awaitRefusal(t, admin)
	stop.Store(true)
	if now, err := l.Head(t.Context()); err != nil || now != head {
		t.Fatalf("closed at %d, and now at %d: %v", head, now, err)
	}
	if page, err := l.Page(t.Context(), 0, 1000); err != nil || len(page.Events) != min(1000, int(head)) {
		t.Fatalf("readers see %d events of %d: %v", len(page.Events), head, err)
	}
	if again, err := pgstore.Close(t.Context(), admin, fence); err != nil || again != head {
		t.Error("closing is not repeatable:", again, err)
	}
	var closed *pgstore.ClosedError
	if _, err := pgstore.Close(t.Context(), admin, other); !errors.As(err, &closed) || closed.By != fence {
		t.Error("a log was closed twice:", err)
	}
	if lifted, err := pgstore.Reopen(t.Context(), admin, other); err != nil || lifted {
		t.Error("somebody else opened it:", lifted, err)
	}
	if lifted, err := pgstore.Reopen(t.Context(), admin, fence); err != nil || !lifted {
		t.Fatal(lifted, err)
	}
	wg.Wait()
	if now, err := l.Head(t.Context()); err != nil || now != eventstore.Position(written) || now <= head {
		t.Errorf("%d events, %v; want %d, and more than %d", now, err, written, head)
	}
}

// awaitRefusal returns when an append has met the closed log.
func awaitRefusal(t *testing.T, admin *pgxpool.Pool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for tick := time.Tick(time.Millisecond); ; {
		var refused bool
		err := admin.QueryRow(t.Context(), `select xact_rollback > 0 from pg_stat_database where datname = current_database()`).Scan(&refused)
		if err != nil {
			t.Fatal(err)
		}
		if refused {
			return
		}
		select {
		case <-tick:
		case <-deadline:
			t.Fatal("no append met the closed log")
		}
	}
}

// TestAnAppendFollowsItsLog: an append that meets a closed log asks where the log lies now, and goes there.
func TestAnAppendFollowsItsLog(t *testing.T) {
	here, there := newDatabases(t), newDatabases(t)
	moving := &movable{Databases: here}
	asked := 0
	s, err := pgstore.Open(t.Context(), pgstore.Config{Databases: moving, Closed: func(_ context.Context, tenant string) error {
		if tenant != "alpha" {
			t.Errorf("it asks for %s", tenant)
		}
		if asked++; asked == 3 {
			moving.to(there)
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := pgstore.Close(t.Context(), here.admin(), fence); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Tenant("alpha").Append(t.Context(), one("1", "a", eventstore.NoStream())); err != nil {
		t.Fatal(err)
	}
	for db, want := range map[*databases]eventstore.Position{here: 0, there: 1} {
		if head, err := db.open(nil).Tenant("alpha").Head(t.Context()); err != nil || head != want {
			t.Errorf("head %d, %v; want %d", head, err, want)
		}
	}
}

type movable struct {
	mu sync.Mutex
	pgstore.Databases
}

func (m *movable) to(d pgstore.Databases) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.Databases = d
}

func (m *movable) Pool(ctx context.Context, tenant string) (*pgxpool.Pool, error) {
	m.mu.Lock()
	d := m.Databases
	m.mu.Unlock()
	return d.Pool(ctx, tenant)
}

func TestAnAppendGivesUpOnALogThatStaysClosed(t *testing.T) {
	d := newDatabases(t)
	l := d.open(nil).Tenant("alpha")
	first, err := l.Append(t.Context(), one("1", "a", eventstore.NoStream()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pgstore.Close(t.Context(), d.admin(), fence); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { // a repetition of what is written
		again, err := l.Append(t.Context(), one("1", "a", eventstore.NoStream()))
		if err != nil || !again[0].Replayed || again[0].Position != first[0].Position {
			t.Errorf("a repetition is answered %+v, %v", again, err)
		}
	})
	wg.Go(func() {
		began := time.Now()
		_, err := l.Append(t.Context(), one("2", "b", eventstore.NoStream()))
		var unavailable *eventstore.UnavailableError
		var closed *pgstore.ClosedError
		if !errors.As(err, &unavailable) || unavailable.Maybe || !errors.As(err, &closed) || closed.By != fence || !strings.Contains(err.Error(), "nothing was written") {
			t.Error(err)
		}
		if took := time.Since(began); took < 3*time.Second || took > 20*time.Second {
			t.Errorf("it gave up after %s", took)
		}
	})
	wg.Go(func() {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := l.Append(ctx, one("3", "c", eventstore.NoStream()))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error("who gives up earlier is answered", err)
		}
	})
	wg.Wait()
}

func TestTheApplicationCannotTouchTheFence(t *testing.T) {
	for _, role := range []string{"factum_app", "factum_tenant"} {
		d := newDatabases(t)
		d.role = role
		pool, err := d.Pool(t.Context(), "alpha")
		if err != nil {
			t.Fatal(err)
		}
		for _, sql := range []string{`update es.head set closed = null`, `update es.head set pos = pos, closed = gen_random_uuid()`} {
			var pg *pgconn.PgError
			if _, err := pool.Exec(t.Context(), sql); !errors.As(err, &pg) || pg.Code != "42501" {
				t.Errorf("%s: %s: %v", role, sql, err)
			}
		}
	}
}

// TestVersion1 works on a database whose schema has no fence yet.
func TestVersion1(t *testing.T) {
	d := newDatabases(t)
	l := d.open(nil).Tenant("alpha")
	raw, err := fs.ReadFile(pgstore.Migrations(), "00002_fence.sql")
	if err != nil {
		t.Fatal(err)
	}
	up, down, _ := strings.Cut(string(raw), "-- +goose Down")
	must(t, d.admin(), down)
	for i, id := range []string{"1", "2"} {
		if _, err := l.Append(t.Context(), one(id, "a", eventstore.At(eventstore.Version(i)))); err != nil {
			t.Fatal(err)
		}
	}
	must(t, d.admin(), up)
	if _, err := pgstore.Close(t.Context(), d.admin(), fence); err != nil {
		t.Fatal(err)
	}
	if again, err := l.Append(t.Context(), one("2", "a", eventstore.At(1))); err != nil || !again[0].Replayed {
		t.Fatal(again, err)
	}
}
