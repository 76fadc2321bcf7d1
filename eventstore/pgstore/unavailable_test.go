package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/pgstore"
)

// What people are told when the database cannot be written, and what they know then.
func TestUnavailable(t *testing.T) {
	for name, test := range map[string]struct {
		damage string // SQL, as the superuser
		says   string
	}{
		"read-only": {`do $$ begin execute format('alter database %I set default_transaction_read_only = on', current_database()); end $$`, "read-only"},
		"full": {`create function public.full() returns trigger language plpgsql as $$ begin raise exception 'no space left on device' using errcode = '53100'; end $$;
			create trigger full_disk before insert on es.events for each statement execute function public.full()`, "no room"},
		"another schema": {`drop function es.append`, "migrate it"},
		"no grants":      {`revoke all on es.events from factum_tenant`, "grants"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDatabases(t)
			l := d.open(nil).Tenant("alpha")
			must(t, d.admin(), test.damage)
			d.pools["alpha"].Reset() // a connection keeps the settings that it began with
			_, err := l.Append(t.Context(), one("1", "a", eventstore.NoStream()))
			var unavailable *eventstore.UnavailableError
			if !errors.As(err, &unavailable) || unavailable.Maybe || !strings.Contains(unavailable.Reason, test.says) {
				t.Fatalf("got %v; want it certain that nothing was written, and %q", err, test.says)
			}
			var n int
			if err := d.admin().QueryRow(t.Context(), `select count(*) from es.events`).Scan(&n); err != nil || n != 0 {
				t.Errorf("%d events are there, %v; want none", n, err)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	pool, err := pgxpool.New(t.Context(), "postgres://nobody@127.0.0.1:1/nothing?sslmode=disable") // nothing listens there
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	s, err := pgstore.Open(t.Context(), pgstore.Config{Databases: fixed{"alpha": pool}, Setting: "FACTUM_DATABASE_URL"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = s.Tenant("alpha").Append(t.Context(), one("1", "a", eventstore.NoStream()))
	var unavailable *eventstore.UnavailableError
	if !errors.As(err, &unavailable) || unavailable.Maybe || !strings.Contains(err.Error(), "FACTUM_DATABASE_URL") {
		t.Errorf("got %v; want it certain that nothing was written, and the setting's name", err)
	}
}

// One bad append among many that wait together fails by itself.
func TestABadAppendFailsAlone(t *testing.T) {
	d := newDatabases(t)
	l, admin := d.open(nil).Tenant("alpha"), d.admin()
	used := one("used", "used", eventstore.NoStream())
	if _, err := l.Append(t.Context(), used); err != nil {
		t.Fatal(err)
	}
	hold := holdLog(t, admin)
	errs := make([]error, 40)
	var wg sync.WaitGroup
	for i := range errs {
		w := one(fmt.Sprint(i), fmt.Sprint(i), eventstore.NoStream())
		switch i {
		case 10:
			w.Events[0].ID = used.Events[0].ID
		case 20:
			w.Events[0].Data = []byte(strings.Repeat("[", 9_999) + strings.Repeat("]", 9_999))
		case 30:
			w.Stream.ID, w.Expected = "used", eventstore.At(7)
		}
		wg.Go(func() { _, errs[i] = l.Append(t.Context(), w) })
	}
	hold()
	wg.Wait()
	for i, err := range errs {
		var reused *eventstore.ReusedKeyError
		var invalid *eventstore.InvalidError
		var conflict *eventstore.ConflictError
		switch i {
		case 10:
			if !errors.As(err, &reused) {
				t.Errorf("a reused id: %v", err)
			}
		case 20:
			if err != nil && !errors.As(err, &invalid) { // the server's stack may be deep enough
				t.Errorf("deep JSON: %v", err)
			}
		case 30:
			if !errors.As(err, &conflict) || conflict.Actual != 1 {
				t.Errorf("a conflict: %v", err)
			}
		default:
			if err != nil {
				t.Errorf("append %d: %v", i, err)
			}
		}
	}
}

// Appends that arrive while a statement is on its way go together in the next one: they have one transaction.
func TestWaitingAppendsGoTogether(t *testing.T) {
	d := newDatabases(t)
	l, admin := d.open(nil).Tenant("alpha"), d.admin()
	if _, err := l.Append(t.Context(), one("first", "first", eventstore.NoStream())); err != nil {
		t.Fatal(err)
	}
	hold := holdLog(t, admin)
	const n = 64
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if _, err := l.Append(t.Context(), one(fmt.Sprint(i), fmt.Sprint(i), eventstore.NoStream())); err != nil {
				t.Error(err)
			}
		})
	}
	hold()
	wg.Wait()
	var transactions, events int
	if err := admin.QueryRow(t.Context(), `select count(distinct xmin::text), count(*) from es.events`).Scan(&transactions, &events); err != nil {
		t.Fatal(err)
	}
	if events != n+1 || transactions > n/2 {
		t.Errorf("%d events in %d transactions; want %d in far fewer", events, transactions, n+1)
	}
}

// An append whose caller stops waiting is certainly not written as long as it was not sent.
func TestGivenUpBeforeItWasSent(t *testing.T) {
	d := newDatabases(t)
	l, admin := d.open(nil).Tenant("alpha"), d.admin()
	hold := holdLog(t, admin)
	first := make(chan error, 1)
	go func() {
		_, err := l.Append(t.Context(), one("1", "a", eventstore.NoStream()))
		first <- err
	}()
	awaitWaiting(t, admin) // the first is on its way now
	ctx, cancel := context.WithCancel(t.Context())
	second := make(chan error, 1)
	go func() {
		_, err := l.Append(ctx, one("2", "b", eventstore.NoStream()))
		second <- err
	}()
	cancel()
	err := <-second
	var unavailable *eventstore.UnavailableError
	if !errors.Is(err, context.Canceled) || errors.As(err, &unavailable) && unavailable.Maybe {
		t.Errorf("given up: %v; want it certain that nothing was written", err)
	}
	hold()
	if err := <-first; err != nil {
		t.Error(err)
	}
	if page, err := l.Page(t.Context(), 0, 10); err != nil || len(page.Events) != 1 {
		t.Errorf("%d events, %v; want the first alone", len(page.Events), err)
	}
}

// holdLog holds the lock of alpha's log as another process would that is slow to commit. The returned function lets go of it, once an
// append waits for it.
func holdLog(t *testing.T, admin *pgxpool.Pool) (letGo func()) {
	t.Helper()
	tx, err := admin.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `select from es.head for update`); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		awaitWaiting(t, admin)
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// awaitWaiting returns when an append waits for the log's lock.
func awaitWaiting(t *testing.T, admin *pgxpool.Pool) {
	t.Helper()
	for waiting := false; !waiting; {
		err := admin.QueryRow(t.Context(), `select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')`).Scan(&waiting)
		if err != nil {
			t.Fatal(err)
		}
	}
}
