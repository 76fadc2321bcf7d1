package tenants_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/infra/keyring"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
	"github.com/factum-platform/factum/infra/tenants"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// Databases and roles are the cluster's, which another run of these tests may use at the same time.
var (
	thisRun = strings.ToLower(rand.Text()[:12])
	tenantA = thisRun + "a1"
	tenantB = thisRun + "b2"
	tenantC = thisRun + "c3"
	tenantD = thisRun + "d4"
	tenantE = thisRun + "e5"
)

// name makes a database's name this run's own.
func name(database string) string { return database + "_" + thisRun }

// schema is the least that shows whether a tenant's role may use what the template holds.
func schema() fs.FS {
	return fstest.MapFS{"00001_notes.sql": {Data: []byte("-- +goose Up\ncreate table notes (v text);\ngrant select, insert on notes to factum_tenant;\n")}}
}

func open(t *testing.T, change func(*tenants.Config)) (*tenants.Databases, *pgxpool.Pool) {
	t.Helper()
	dsn := pgtest.Database(t, postgres.Migrations{Name: "placement", FS: tenants.Migrations()})
	return openOn(t, dsn, t.TempDir()+"/kek.json", change)
}

// openOn opens the databases of a platform as one more process would.
func openOn(t testing.TB, dsn, keyFile string, change func(*tenants.Config)) (*tenants.Databases, *pgxpool.Pool) {
	t.Helper()
	pool, err := postgres.Open(t.Context(), dsn, 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	kek, err := keyring.LoadOrCreateKEK(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	c := tenants.Config{
		Platform: pool, AdminDSN: dsn, Secrets: keyring.Open(pool, kek), Logger: slog.New(slog.DiscardHandler),
		TenantMigrations: []postgres.Migrations{{Name: "notes", FS: schema()}},
	}
	if change != nil {
		change(&c)
	}
	d, err := tenants.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d, pool
}

// provision makes a tenant whose database and role go with the test.
func provision(t *testing.T, d *tenants.Databases, tenant, database string) {
	t.Helper()
	if err := d.Provision(t.Context(), tenant, database); err != nil {
		t.Fatal(err)
	}
}

// cleanUp removes what provisioning made in the cluster that all tests share. It runs after the pools are closed.
func cleanUp(t *testing.T, databases, owners []string) {
	t.Helper()
	admin := pgtest.AdminDSN(t)
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), admin)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(context.Background())
		for _, name := range databases {
			if _, err := conn.Exec(context.Background(), "drop database if exists "+name+" with (force)"); err != nil {
				t.Error(err)
			}
		}
		for _, tenant := range owners {
			if _, err := conn.Exec(context.Background(), "drop role if exists factum_t_"+tenant); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestEachTenantHasItsOwnDatabase(t *testing.T) {
	cleanUp(t, []string{name("tenant_a"), name("tenant_b")}, []string{tenantA, tenantB})
	d, _ := open(t, nil)
	provision(t, d, tenantA, name("tenant_a"))
	provision(t, d, tenantB, name("tenant_b"))
	provision(t, d, tenantA, name("tenant_a")) // again: nothing to do
	if err := d.Provision(t.Context(), tenantA, name("tenant_c")); err == nil {
		t.Fatal("a second database for one tenant")
	}
	ctx := t.Context()
	a, err := d.Pool(ctx, tenantA)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Exec(ctx, "insert into notes values ('of a')"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Exec(ctx, "create schema documents_g1"); err != nil {
		t.Fatal("a tenant's role makes the schemas of its read models:", err)
	}
	b, err := d.Pool(ctx, tenantB)
	if err != nil {
		t.Fatal(err)
	}
	var notes int
	if err := b.QueryRow(ctx, "select count(*) from notes").Scan(&notes); err != nil || notes != 0 {
		t.Fatal("b sees", notes, err)
	}
	for _, database := range []string{name("tenant_b"), "factum_tenant_template"} {
		c := a.Config().ConnConfig.Copy()
		c.Database = database
		conn, err := pgx.ConnectConfig(ctx, c)
		if err == nil {
			t.Fatalf("the role of a connects to %s; %v", database, conn.Close(ctx))
		}
		if !strings.Contains(err.Error(), "42501") {
			t.Fatal(err)
		}
	}
	list, err := d.Tenants(ctx)
	if err != nil || strings.Join(list, " ") != tenantA+" "+tenantB {
		t.Fatal(list, err)
	}
	if _, err := d.Pool(ctx, "unknown"); !errors.Is(err, tenants.ErrUnknownTenant) {
		t.Fatal(err)
	}
	if again, err := d.Pool(ctx, tenantA); err != nil || again != a {
		t.Fatal("a second pool for one tenant", err)
	}
}

// failing lets the n-th statement of provisioning fail, which leaves what a crash before it would leave.
type failing struct{ left *atomic.Int64 }

func (f failing) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	if f.left.Add(-1) < 0 {
		dead, cancel := context.WithCancel(ctx)
		cancel()
		return dead
	}
	return ctx
}

func (failing) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TestProvisionFinishesAfterACrash stops the making of a tenant at every statement, on either server.
func TestProvisionFinishesAfterACrash(t *testing.T) {
	other := second(t)
	cleanUp(t, []string{name("tenant_crash_main"), name("tenant_crash_east")}, []string{tenantA, tenantB})
	d, pool := open(t, nil)
	if err := d.AddServer(t.Context(), "east", other.DSN()); err != nil {
		t.Fatal(err)
	}
	admins := map[string]*pgx.Conn{"main": connect(t, pgtest.AdminDSN(t)), "east": connect(t, other.DSN())}
	var left atomic.Int64
	for _, server := range []string{"main", "east"} {
		left.Store(100)
		if err := tenants.TraceAdmin(t.Context(), d, server, failing{&left}); err != nil {
			t.Fatal(err)
		}
	}
	for i, server := range []string{"main", "east"} { // the first tenant goes to main, the second to east
		tenant, database := []string{tenantA, tenantB}[i], name("tenant_crash_"+server)
		crashes := 0
		for n := int64(0); ; n++ {
			left.Store(n)
			err := d.Provision(t.Context(), tenant, database)
			left.Store(100)
			_, lookErr := d.Pool(t.Context(), tenant)
			if err == nil {
				break
			}
			crashes++
			if lookErr != nil && !errors.Is(lookErr, tenants.ErrUnknownTenant) {
				t.Fatal(lookErr)
			}
			if p, err := d.Placement(t.Context(), tenant); err == nil && n < 6 {
				t.Fatalf("a half-made tenant is served after %d statements: %+v", n, p)
			}
		}
		if crashes < 6 {
			t.Fatalf("only %d crashes were injected", crashes)
		}
		if p, err := d.Placement(t.Context(), tenant); err != nil || p.Server != server {
			t.Fatal(p, err)
		}
		tenantPool, err := d.Pool(t.Context(), tenant)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tenantPool.Exec(t.Context(), `insert into notes values ('made')`); err != nil {
			t.Fatal(err)
		}
		for name, admin := range admins {
			var made bool
			if err := admin.QueryRow(t.Context(), `select exists (select from pg_database where datname = $1)`, database).Scan(&made); err != nil || made != (name == server) {
				t.Fatalf("database %s on server %s: %t %v", database, name, made, err)
			}
		}
	}
	var begun int
	if err := connect(t, pool.Config().ConnString()).QueryRow(t.Context(), `select count(*) from placement.begun`).Scan(&begun); err != nil || begun != 0 {
		t.Fatal(begun, err)
	}
}

func TestNamesAreChecked(t *testing.T) {
	d, _ := open(t, nil)
	for _, bad := range [][2]string{{"UPPER", "x"}, {"", "x"}, {"platform", "x"}, {"a-b", "x"}, {tenantA, ""}, {tenantA, `x"; drop`}, {tenantA, "1x"}, {tenantA, strings.Repeat("x", 64)}} {
		if err := d.Provision(t.Context(), bad[0], bad[1]); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestIdlePoolsAreClosed(t *testing.T) {
	cleanUp(t, []string{name("tenant_idle_a"), name("tenant_idle_b")}, []string{tenantA, tenantB})
	d, _ := open(t, func(c *tenants.Config) { c.IdleAfter = 100 * time.Millisecond })
	provision(t, d, tenantA, name("tenant_idle_a"))
	provision(t, d, tenantB, name("tenant_idle_b"))
	idle, err := d.Pool(t.Context(), tenantA)
	if err != nil {
		t.Fatal(err)
	}
	busy, err := d.Pool(t.Context(), tenantB)
	if err != nil {
		t.Fatal(err)
	}
	held, err := busy.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release()
	deadline := time.After(10 * time.Second)
	for tick := time.Tick(300 * time.Millisecond); ; { // less often than the pool takes to become idle: a ping is a use
		if err := idle.Ping(t.Context()); err != nil {
			break // closed
		}
		select {
		case <-tick:
		case <-deadline:
			t.Fatal("an idle pool stays open")
		}
	}
	if err := held.Ping(t.Context()); err != nil {
		t.Fatal("a pool in use was closed:", err)
	}
	if _, err := d.Pool(t.Context(), tenantA); err != nil {
		t.Fatal("a closed pool does not open again:", err)
	}
}
