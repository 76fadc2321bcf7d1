package runner_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/projections/runner"
)

// TestTenantsWhoseDatabasesHangDelayNobody: far more tenants than there are workers hang, and a tenant beside them is served at once.
func TestTenantsWhoseDatabasesHangDelayNobody(t *testing.T) {
	for name, c := range map[string]struct {
		server func(string) string
		bound  time.Duration // with what this machine adds
	}{
		"one server of two": {func(tenant string) string {
			if strings.HasPrefix(tenant, "hangs") {
				return "broken"
			}
			return "sound"
		}, 3 * time.Second},
		"servers unknown": {nil, 10 * time.Second}, // each is met once
	} {
		server := c.server
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			const hanging = 100
			var names []string
			for i := range hanging {
				names = append(names, fmt.Sprint("hangs", i))
			}
			names = append(names, string(tenant))
			tried := make(chan struct{}, 10*hanging)
			w.run(func(c *runner.Config) {
				c.Server = server
				c.Tenants = func(context.Context) ([]string, error) { return names, nil }
				c.Pool = func(ctx context.Context, tenant string) (*pgxpool.Pool, error) {
					if !strings.HasPrefix(tenant, "hangs") {
						return w.pool, nil
					}
					tried <- struct{}{}
					<-ctx.Done() // the server takes the connection and never answers
					return nil, ctx.Err()
				}
			}, sums())
			<-tried
			var worst time.Duration
			for range 50 {
				begun := time.Now()
				w.await("sums", w.add("a", 1))
				worst = max(worst, time.Since(begun))
			}
			if worst > c.bound {
				t.Errorf("a tenant waited %s for the others; want less than %s", worst, c.bound)
			}
			t.Log("longest wait", worst)
			if len(tried) == 0 {
				t.Error("nothing hung")
			}
			var total int64
			if err := w.pool.QueryRow(t.Context(), `select total from sums_g1.sums`).Scan(&total); err != nil || total != 50 {
				t.Error(total, err)
			}
		})
	}
}

// TestABusyTenantCostsTheOthersASlice: while one tenant's long log is applied another is served.
func TestABusyTenantCostsTheOthersASlice(t *testing.T) {
	w := newWorld(t)
	const busy = eventstore.TenantID("busy")
	events := make([]eventstore.Proposed, 1000)
	for round := range 40 {
		for i := range events {
			events[i] = eventstore.Proposed{
				ID: eventstore.NewEventID(busy, "bulk", fmt.Sprint(round), i), Type: "test.added", Schema: 1, Data: []byte(`{"n":1}`), Meta: eventstore.Meta{Command: "c"},
			}
		}
		_, err := w.store.Tenant(busy).Append(t.Context(), eventstore.Write{Stream: eventstore.StreamID{Kind: "test", ID: fmt.Sprint(round)}, Expected: eventstore.NoStream(), Events: events})
		if err != nil {
			t.Fatal(err)
		}
	}
	other := newWorld(t)
	w.run(func(c *runner.Config) {
		c.Tenants = func(context.Context) ([]string, error) { return []string{string(busy), string(tenant)}, nil }
		c.Pool = func(_ context.Context, t string) (*pgxpool.Pool, error) {
			if t == string(busy) {
				return other.pool, nil
			}
			return w.pool, nil
		}
	}, sums())
	w.await("sums", w.add("a", 1))
	o, err := runner.NewOperator(other.config(func(c *runner.Config) {
		c.Store = w.store
		c.Tenants = func(context.Context) ([]string, error) { return []string{string(busy)}, nil }
	}, sums()))
	if err != nil {
		t.Fatal(err)
	}
	if st := other.status(o, "sums"); st.LagEvents == 0 {
		t.Fatal("the one event was applied after the 40,000 of the busy tenant")
	}
	w.await("sums", w.add("a", 1))
}
