package tenants_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/cluster"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
	"github.com/factum-platform/factum/infra/tenants"
)

// second starts a server of its own.
func second(t *testing.T) *cluster.Cluster {
	t.Helper()
	c, err := cluster.Start(t.Context(), cluster.Config{Dir: t.TempDir(), Settings: map[string]string{"fsync": "off"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

func exec(t *testing.T, dsn, sql string) {
	t.Helper()
	if _, err := connect(t, dsn).Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func as(t *testing.T, dsn, user, password, database string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.User, u.Path = url.UserPassword(user, password), "/"+database
	return u.String()
}

func TestNewTenantsGoToTheServerWithTheFewest(t *testing.T) {
	other := second(t)
	list := []string{tenantA, tenantB, tenantC, tenantD}
	cleanUp(t, []string{name("tenant_a"), name("tenant_b"), name("tenant_c"), name("tenant_d")}, list)
	d, _ := open(t, nil)
	if err := d.AddServer(t.Context(), "east", other.DSN()); err != nil {
		t.Fatal(err)
	}
	if err := d.AddServer(t.Context(), "east", other.DSN()); err != nil {
		t.Fatal("adding it again:", err)
	}
	on := map[string]string{}
	for i, tenant := range list {
		provision(t, d, tenant, name("tenant_"+string(rune('a'+i))))
		p, err := d.Placement(t.Context(), tenant)
		if err != nil {
			t.Fatal(err)
		}
		on[tenant] = p.Server
		pool, err := d.Pool(t.Context(), tenant)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pool.Exec(t.Context(), "insert into notes values ($1)", tenant); err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			if err := d.Accept(t.Context(), "east", false); err != nil {
				t.Fatal(err)
			}
		}
	}
	if on[tenantA] != "main" || on[tenantB] != "east" || on[tenantC] != "main" || on[tenantD] != "main" {
		t.Fatal(on)
	}
	found, err := d.Servers(t.Context())
	if err != nil || len(found) != 2 {
		t.Fatal(found, err)
	}
	main, east := found[0], found[1]
	if main.Name != "main" || main.Tenants != 3 || !main.Accepting || main.Err != nil || main.Version == "" || !strings.HasPrefix(main.Address, "127.0.0.1:") {
		t.Fatalf("%+v", main)
	}
	if east.Name != "east" || east.Tenants != 1 || east.Accepting || east.Err != nil || strings.Contains(east.Address, "@") {
		t.Fatalf("%+v", east)
	}
	if err := d.Accept(t.Context(), "main", false); err != nil {
		t.Fatal(err)
	}
	if err := d.Provision(t.Context(), tenantE, name("tenant_e")); !errors.Is(err, tenants.ErrNoServer) {
		t.Fatal(err)
	}
	if err := d.Accept(t.Context(), "west", true); !errors.Is(err, tenants.ErrUnknownServer) {
		t.Fatal(err)
	}
}

func TestServersThatCannotBeUsed(t *testing.T) {
	other := second(t)
	exec(t, other.DSN(), "create role plain login password 'x'; create role limited login password 'x' createdb createrole")
	d, pool := open(t, nil)
	main := pool.Config().ConnString()
	for name, tc := range map[string]struct{ server, dsn, want string }{
		"a name that is none": {"Über", other.DSN(), "cannot be the name of a server"},
		"the main server":     {"main", other.DSN(), "cannot be the name of a server"},
		"no URL":              {"east", "host=x password=geheim", "not a URL such as"},
		"no database":         {"east", "postgres://a:geheim@b", "not a URL such as"},
		"nobody there":        {"east", "postgres://a:geheim@127.0.0.1:1/postgres", "cannot be reached"},
		"a wrong password":    {"east", as(t, other.DSN(), "plain", "geheim", "postgres"), "cannot be reached"},
		"a role without ways": {"east", as(t, other.DSN(), "plain", "x", "postgres"), "may not create databases and roles"},
		"main once more":      {"east", main, "known already, as main"},
	} {
		t.Run(name, func(t *testing.T) {
			err := d.AddServer(t.Context(), tc.server, tc.dsn)
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "geheim") {
				t.Fatal(err)
			}
		})
	}
	if err := d.AddServer(t.Context(), "east", as(t, other.DSN(), "limited", "x", "postgres")); err != nil {
		t.Fatal("a role that may do just enough:", err)
	}
	if err := d.AddServer(t.Context(), "west", other.DSN()); err == nil || !strings.Contains(err.Error(), "known already, as east") {
		t.Fatal(err)
	}
}

// TestNoRoleReadsAnothersDatabase tries every role on every database of both servers.
func TestNoRoleReadsAnothersDatabase(t *testing.T) {
	other := second(t)
	cleanUp(t, []string{name("tenant_a"), name("tenant_b"), name("tenant_c"), name("tenant_d")}, []string{tenantA, tenantB, tenantC, tenantD})
	d, pool := open(t, nil)
	platform := pool.Config().ConnConfig.Database
	exec(t, pool.Config().ConnString(), `revoke connect on database `+platform+` from public`) // as the platform's start does
	if err := d.AddServer(t.Context(), "east", other.DSN()); err != nil {
		t.Fatal(err)
	}
	databases := []string{name("tenant_a"), name("tenant_b"), name("tenant_c"), name("tenant_d"), "factum_tenant_template", platform}
	list := []string{tenantA, tenantB, tenantC, tenantD}
	for i, tenant := range list {
		provision(t, d, tenant, databases[i])
	}
	servers := map[string]uint16{}
	for _, tenant := range list {
		p, err := d.Pool(t.Context(), tenant)
		if err != nil {
			t.Fatal(err)
		}
		placed, err := d.Placement(t.Context(), tenant)
		if err != nil {
			t.Fatal(err)
		}
		servers[placed.Server] = p.Config().ConnConfig.Port
	}
	if len(servers) != 2 {
		t.Fatal(servers)
	}
	tried := 0
	for i, tenant := range list {
		p, err := d.Pool(t.Context(), tenant)
		if err != nil {
			t.Fatal(err)
		}
		for _, port := range servers {
			for _, database := range databases {
				c := p.Config().ConnConfig.Copy()
				own := c.Port == port && database == databases[i]
				c.Port, c.Database, c.DialFunc = port, database, (&net.Dialer{}).DialContext
				conn, err := pgx.ConnectConfig(t.Context(), c)
				switch {
				case own && err != nil:
					t.Fatal(tenant, "in its own database:", err)
				case own:
					var secret bool
					if err := conn.QueryRow(t.Context(), `select rolcreatedb or rolcreaterole or rolsuper from pg_roles where rolname = current_user`).Scan(&secret); err != nil || secret {
						t.Fatal(tenant, "may more than it should", err)
					}
				case err == nil:
					t.Errorf("%s connects to %s on port %d", tenant, database, port)
				}
				if conn != nil {
					if err := conn.Close(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				tried++
			}
		}
	}
	if tried != len(list)*2*len(databases) {
		t.Fatal(tried)
	}
}

func TestSwitch(t *testing.T) {
	other := second(t)
	cleanUp(t, []string{name("tenant_a")}, []string{tenantA})
	dsn := pgtest.Database(t, postgres.Migrations{Name: "placement", FS: tenants.Migrations()})
	key := t.TempDir() + "/kek.json"
	d, _ := openOn(t, dsn, key, nil)
	if err := d.AddServer(t.Context(), "east", other.DSN()); err != nil {
		t.Fatal(err)
	}
	elsewhere, _ := openOn(t, dsn, key, nil)
	provision(t, d, tenantA, name("tenant_a"))
	from, err := d.Placement(t.Context(), tenantA)
	if err != nil || from.Server != "main" {
		t.Fatal(from, err)
	}
	for _, dbs := range []*tenants.Databases{d, elsewhere} {
		p, err := dbs.Pool(t.Context(), tenantA)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Exec(t.Context(), `insert into notes values ('old')`); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.ProvisionOn(t.Context(), tenantA, name("tenant_a"), "main"); err == nil || !strings.Contains(err.Error(), "lives on server main already") {
		t.Fatal(err)
	}
	if _, err := d.ProvisionOn(t.Context(), tenantA, name("tenant_a"), "west"); !errors.Is(err, tenants.ErrUnknownServer) {
		t.Fatal(err)
	}
	var to tenants.Placement
	for range 2 { // may be repeated
		if to, err = d.ProvisionOn(t.Context(), tenantA, name("tenant_a"), "east"); err != nil {
			t.Fatal(err)
		}
	}
	if now, err := d.Placement(t.Context(), tenantA); err != nil || now.Server != "main" {
		t.Fatal("it moved before the switch:", now, err)
	}
	admin, err := d.Admin(t.Context(), "east", name("tenant_a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Exec(t.Context(), `insert into notes values ('new')`); err != nil {
		t.Fatal(err)
	}
	if err := admin.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	turn, err := d.Turn(t.Context(), tenantA)
	if err != nil {
		t.Fatal(err)
	}
	fence, err := turn.Fence(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := turn.Switch(t.Context(), fence, from, to); err != nil {
		t.Fatal(err)
	}
	if err := turn.Switch(t.Context(), fence, from, to); !errors.Is(err, tenants.ErrFence) {
		t.Fatal("a second switch:", err)
	}
	if err := turn.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, dbs := range []*tenants.Databases{d, elsewhere} { // the other one is told
		eventually(t, func() bool {
			p, err := dbs.Pool(t.Context(), tenantA)
			if err != nil {
				t.Fatal(err)
			}
			rows, err := p.Query(t.Context(), `select v from notes`)
			if err != nil {
				t.Fatal(err)
			}
			notes, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatal(err)
			}
			return slices.Equal(notes, []string{"new"})
		})
	}
}

// eventually waits until ok.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	for tick := time.Tick(5 * time.Millisecond); !ok(); {
		select {
		case <-tick:
		case <-deadline:
			t.Fatal("it does not happen")
		}
	}
}
