package tenants_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/factum-platform/factum/infra/tenants"
)

// tenantConnections counts the connections of tenants' roles, as the server sees them.
func tenantConnections(t *testing.T, admin *pgx.Conn) (n int) {
	t.Helper()
	if err := admin.QueryRow(t.Context(), `select count(*) from pg_stat_activity where usename like 'factum\_t\_%'`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func gauge(t *testing.T, r *prometheus.Registry, name string) *dto.Metric {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0]
		}
	}
	t.Fatal("there is no metric", name)
	return nil
}

// many makes n tenants on the platform, several at once.
func many(t *testing.T, d *tenants.Databases, n int) []string {
	t.Helper()
	list := make([]string, n)
	var wg sync.WaitGroup
	next := atomic.Int64{}
	for range 4 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				list[i] = fmt.Sprintf("t%d", i)
				if err := d.Provision(t.Context(), list[i], fmt.Sprintf("tenant_%d", i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	return list
}

// TestTwoHundredTenantsShareTenConnections has traffic on all tenants at once: nothing fails, nobody waits for ever, and the server never
// sees more connections than were allowed.
func TestTwoHundredTenantsShareTenConnections(t *testing.T) {
	const budget, callers, each = 10, 40, 40
	c := second(t)
	metrics := prometheus.NewRegistry()
	d, _ := openOn(t, platformOn(t, c), t.TempDir()+"/kek.json", func(c *tenants.Config) { c.Connections, c.Metrics = budget, metrics })
	list := many(t, d, 200)
	admin := connect(t, c.DSN())
	running, stop := context.WithCancel(t.Context())
	most := 0
	var watch sync.WaitGroup
	watch.Go(func() {
		for tick := time.Tick(5 * time.Millisecond); ; {
			select {
			case <-tick:
				most = max(most, int(gauge(t, metrics, "factum_tenant_connections").GetGauge().GetValue()))
			case <-running.Done():
				return
			}
		}
	})
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for i := range each {
				tenant := list[(caller*61+i*i*7)%len(list)]
				pool, err := d.Pool(t.Context(), tenant)
				if err != nil {
					t.Error(err)
					return
				}
				err = pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
					_, err := tx.Exec(t.Context(), `insert into notes values ($1)`, tenant)
					return err
				})
				if err != nil {
					t.Errorf("%s: %v", tenant, err)
					return
				}
			}
		})
	}
	wg.Wait()
	stop()
	watch.Wait()
	if most > budget || most < budget/2 {
		t.Errorf("at most %d connections were open, of %d", most, budget)
	}
	eventually(t, func() bool { return tenantConnections(t, admin) <= budget }) // a server ends a connection a moment after us
	if gauge(t, metrics, "factum_tenant_connection_wait_seconds").GetHistogram().GetSampleCount() == 0 {
		t.Error("nobody waited")
	}
	total := 0
	for _, tenant := range list {
		pool, err := d.Pool(t.Context(), tenant)
		if err != nil {
			t.Fatal(err)
		}
		var own, foreign int
		if err := pool.QueryRow(t.Context(), `select count(*) filter (where v = $1), count(*) filter (where v <> $1) from notes`, tenant).Scan(&own, &foreign); err != nil || foreign > 0 {
			t.Fatal(tenant, own, foreign, err)
		}
		total += own
	}
	if total != callers*each {
		t.Fatalf("%d of %d rows", total, callers*each)
	}
}

// TestWhoWaitsIsBoundByItsContextOnly lets one tenant hold the whole budget.
func TestWhoWaitsIsBoundByItsContextOnly(t *testing.T) {
	cleanUp(t, []string{name("tenant_a"), name("tenant_b")}, []string{tenantA, tenantB})
	d, _ := open(t, func(c *tenants.Config) { c.Connections = 1 })
	provision(t, d, tenantA, name("tenant_a"))
	provision(t, d, tenantB, name("tenant_b"))
	a, err := d.Pool(t.Context(), tenantA)
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Pool(t.Context(), tenantB)
	if err != nil {
		t.Fatal(err)
	}
	held, err := a.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	impatient, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := b.Ping(impatient); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	patient := make(chan error, 1)
	go func() { patient <- b.Ping(t.Context()) }()
	select {
	case err := <-patient:
		t.Fatal("there was no connection to be had:", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := held.Ping(t.Context()); err != nil {
		t.Fatal("a connection in use was closed:", err)
	}
	held.Release()
	if err := <-patient; err != nil {
		t.Fatal(err)
	}
	if err := a.Ping(t.Context()); err != nil {
		t.Fatal("the pool whose connection was given away does not work any more:", err)
	}
}

// TestBusyTenantsKeepTheirConnections lets many tenants come by once each. They take each other's connections, not those of the tenants that
// have the traffic, although the latter were not the last ones to be used.
func TestBusyTenantsKeepTheirConnections(t *testing.T) {
	const busy, passing = 3, 12
	d, _ := openOn(t, platformOn(t, second(t)), t.TempDir()+"/kek.json", func(c *tenants.Config) { c.Connections = busy + 1 })
	list := many(t, d, busy+passing)
	backend := func(tenant string) (pid int) {
		t.Helper()
		pool, err := d.Pool(t.Context(), tenant)
		if err == nil {
			err = pool.QueryRow(t.Context(), `select pg_backend_pid()`).Scan(&pid)
		}
		if err != nil {
			t.Fatal(tenant, err)
		}
		return pid
	}
	var before [busy]int
	for range 10 {
		for i := range before {
			before[i] = backend(list[i])
		}
	}
	for _, tenant := range list[busy:] {
		backend(tenant)
	}
	for i := range before {
		if now := backend(list[i]); now != before[i] {
			t.Errorf("%s lost its connection to a tenant that came by once", list[i])
		}
	}
}
