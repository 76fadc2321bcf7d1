package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/memstore"
	"github.com/factum-platform/factum/eventstore/pgstore"
	"github.com/factum-platform/factum/eventstore/storetest"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

var errUnknown = errors.New("no such tenant")

// databases gives each of its tenants a fresh database when it is first asked for.
type databases struct {
	t       *testing.T
	tenants []eventstore.TenantID
	role    string // the group role that the application's connections take
	conns   int32
	proxy   *proxy // between the application and the server, if any

	mu     sync.Mutex
	pools  map[string]*pgxpool.Pool
	admins map[string]*pgxpool.Pool
}

func newDatabases(t *testing.T, more ...eventstore.TenantID) *databases {
	return &databases{
		t: t, tenants: append(more, "alpha", "beta"), role: "factum_tenant", conns: 16,
		pools: map[string]*pgxpool.Pool{}, admins: map[string]*pgxpool.Pool{},
	}
}

func (d *databases) Pool(_ context.Context, tenant string) (*pgxpool.Pool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if pool, ok := d.pools[tenant]; ok {
		return pool, nil
	}
	if !slices.Contains(d.tenants, eventstore.TenantID(tenant)) {
		return nil, errUnknown
	}
	dsn := pgtest.Database(d.t, postgres.Migrations{Name: "es", FS: pgstore.Migrations()})
	admin, err := pgxpool.New(d.t.Context(), dsn)
	if err != nil {
		return nil, err
	}
	d.t.Cleanup(admin.Close)
	if d.proxy != nil {
		dsn = d.proxy.to(d.t, dsn)
	}
	if !strings.Contains(dsn, "?") {
		d.t.Fatal("the DSN has no parameters to add one to")
	}
	pool, err := postgres.Open(d.t.Context(), dsn+"&role="+d.role, d.conns)
	if err != nil {
		return nil, err
	}
	d.t.Cleanup(pool.Close)
	d.pools[tenant], d.admins[tenant] = pool, admin
	return pool, nil
}

// admin is a superuser's pool to alpha's database.
func (d *databases) admin() *pgxpool.Pool { return d.adminOf("alpha") }

func (d *databases) adminOf(tenant eventstore.TenantID) *pgxpool.Pool {
	d.t.Helper()
	if _, err := d.Pool(d.t.Context(), string(tenant)); err != nil {
		d.t.Fatal(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.admins[string(tenant)]
}

// cut breaks the application's connections to alpha's database.
func (d *databases) cut() {
	d.t.Helper()
	must(d.t, d.admin(), `select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = current_database() and application_name = 'factum'`)
}

func (d *databases) open(notify *pgxpool.Pool) *pgstore.Store {
	d.t.Helper()
	s, err := pgstore.Open(d.t.Context(), pgstore.Config{Databases: d, Notify: notify})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			d.t.Error(err)
		}
	})
	return s
}

func must(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func one(id, stream string, expected eventstore.Expected) eventstore.Write {
	return eventstore.Write{Stream: eventstore.StreamID{Kind: "doc", ID: stream}, Expected: expected, Events: []eventstore.Proposed{
		{ID: eventstore.NewEventID("alpha", "tester", id, 0), Type: "thing.happened", Schema: 1, Data: []byte(`{}`)},
	}}
}

func TestContract(t *testing.T) {
	var d *databases
	storetest.Run(t, storetest.Engine{
		Open: func(t *testing.T) eventstore.Store { d = newDatabases(t); return d.open(nil) },
		Cut:  func(*testing.T) { d.cut() },
	})
}

func TestModel(t *testing.T) {
	model := memstore.New()
	defer model.Close()
	storetest.RunModel(t, model, newDatabases(t).open(nil))
}

func TestConcurrent(t *testing.T) {
	storetest.RunConcurrent(t, func() eventstore.Store { return memstore.New() }, newDatabases(t).open(nil))
}

func TestTheLogIsAppendOnly(t *testing.T) {
	for _, role := range []string{"factum_app", "factum_tenant", "postgres"} {
		d := newDatabases(t)
		d.role = role
		if role == "postgres" { // not even the owner, by mistake
			d.role = "none"
		}
		s := d.open(nil)
		if _, err := s.Tenant("alpha").Append(t.Context(), one("1", "a", eventstore.NoStream())); err != nil {
			t.Fatalf("as %s: %v", role, err)
		}
		pool, err := d.Pool(t.Context(), "alpha")
		if err != nil {
			t.Fatal(err)
		}
		statements := []string{`update es.events set type = 'x'`, `delete from es.events`, `truncate es.events`}
		if role != "postgres" {
			statements = append(statements, `drop trigger append_only on es.events`, `alter table es.events disable trigger all`,
				`create or replace function es.refuse() returns trigger language plpgsql as 'begin return null; end'`,
				`set session_replication_role = replica`, `delete from es.head`, `truncate es.head`, `drop schema es cascade`, `create table es.x ()`)
		}
		for _, sql := range statements {
			_, err := pool.Exec(t.Context(), sql)
			var refused *pgconn.PgError
			if !errors.As(err, &refused) || refused.Code != "42501" {
				t.Errorf("as %s: %s: %v; want error 42501", role, sql, err)
			}
		}
	}
}

// An append whose connection breaks between its statement and the answer is not known to be written; repeating it is safe.
func TestAppendWhoseConnectionBreaks(t *testing.T) {
	d := newDatabases(t)
	l, admin := d.open(nil).Tenant("alpha"), d.admin()
	must(t, admin, `create function public.slow() returns trigger language plpgsql as $$ begin perform pg_sleep(20); return null; end $$`)
	must(t, admin, `create constraint trigger slow after insert on es.events deferrable initially deferred for each row execute function public.slow()`)
	failed := make(chan error, 1)
	go func() {
		_, err := l.Append(t.Context(), one("1", "a", eventstore.NoStream()))
		failed <- err
	}()
	var err error
	for waiting := true; waiting; { // as often as the store tries it
		must(t, admin, `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'`)
		select {
		case err = <-failed:
			waiting = false
		default:
		}
	}
	var unavailable *eventstore.UnavailableError
	if !errors.As(err, &unavailable) || !unavailable.Maybe {
		t.Fatalf("the broken append answered %v", err)
	}
	must(t, admin, `drop trigger slow on es.events`)
	for _, replayed := range []bool{false, true} {
		out, err := l.Append(t.Context(), one("1", "a", eventstore.NoStream()))
		if err != nil || out[0].Replayed != replayed || out[0].Position != 1 {
			t.Fatalf("repeated: %+v, %v; want replayed %v", out, err, replayed)
		}
	}
}

func TestFollowReconnects(t *testing.T) {
	d := newDatabases(t)
	l, other := d.open(nil).Tenant("alpha"), d.open(nil).Tenant("alpha")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	const rounds = 2
	seen := 0
	for b, err := range l.Follow(ctx, 0) {
		if err != nil {
			t.Fatal(err)
		}
		seen += len(b.Events)
		if seen == rounds {
			break
		}
		d.cut()
		if !b.Live {
			t.Errorf("after %d events: not live", seen)
		}
		// By another process; no bell rings here.
		if _, err := other.Append(ctx, one(fmt.Sprint(seen), fmt.Sprint(seen), eventstore.NoStream())); err != nil {
			t.Fatal(err)
		}
	}
	if seen != rounds {
		t.Errorf("%d events came; want %d", seen, rounds)
	}
}

func TestFollowEndsWithoutADatabase(t *testing.T) {
	d := newDatabases(t)
	s := d.open(nil)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var last error
	for _, err := range s.Tenant("gamma").Follow(ctx, 0) {
		last = err
	}
	if !errors.Is(last, errUnknown) {
		t.Errorf("an unknown tenant: %v", last)
	}
	must(t, d.admin(), `drop schema es cascade`)
	for _, err := range s.Tenant("alpha").Follow(ctx, 0) {
		last = err
	}
	var pg *pgconn.PgError
	if !errors.As(last, &pg) || pg.Code != "42P01" {
		t.Errorf("a database without a log: %v", last)
	}
}

func TestOpenNeedsDatabases(t *testing.T) {
	if _, err := pgstore.Open(t.Context(), pgstore.Config{}); err == nil || !strings.HasPrefix(err.Error(), "pgstore: ") {
		t.Errorf("opened without databases: %v", err)
	}
}

func TestDeeplyNestedJSONIsRefused(t *testing.T) {
	w := one("1", "a", eventstore.NoStream())
	w.Events[0].Data = []byte(strings.Repeat("[", 9_999) + strings.Repeat("]", 9_999))
	_, err := newDatabases(t).open(nil).Tenant("alpha").Append(t.Context(), w)
	var invalid *eventstore.InvalidError
	if err != nil && !errors.As(err, &invalid) {
		t.Errorf("got %v; want success or an InvalidError", err)
	}
}
