package tenants_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/factum-platform/factum/infra/postgres/cluster"
	"github.com/factum-platform/factum/infra/tenants"
)

// freeze stops or continues all processes of a server: its sockets stay open, and nobody answers.
func freeze(t *testing.T, dir string, signal syscall.Signal) {
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
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	pids := []int{postmaster}
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state parent …
		_, rest, _ := strings.Cut(string(raw), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == first {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
	}
}

// TestAServerThatIsGone refuses its tenants in bounded time and serves the others as before.
func TestAServerThatIsGone(t *testing.T) {
	dir := t.TempDir()
	start := func() *cluster.Cluster {
		t.Helper()
		c, err := cluster.Start(t.Context(), cluster.Config{Dir: dir, Settings: map[string]string{"fsync": "off"}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	east := start()
	t.Cleanup(func() {
		if err := cluster.StopOrphans(context.Background(), dir); err != nil {
			t.Error(err)
		}
	})
	cleanUp(t, []string{name("tenant_a"), name("tenant_b")}, []string{tenantA, tenantB})
	d, _ := open(t, func(c *tenants.Config) { c.Connections = 20 })
	if err := d.AddServer(t.Context(), "east", east.DSN()); err != nil {
		t.Fatal(err)
	}
	provision(t, d, tenantA, name("tenant_a")) // on main
	provision(t, d, tenantB, name("tenant_b")) // on east
	request := func(tenant string, within time.Duration) (time.Duration, error) {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		begun := time.Now()
		pool, err := d.Pool(ctx, tenant)
		if err == nil {
			err = pool.Ping(ctx)
		}
		return time.Since(begun), err
	}
	for name, tc := range map[string]struct{ gone, back func() }{
		"ended": {
			func() {
				if err := east.Stop(t.Context()); err != nil {
					t.Fatal(err)
				}
			},
			func() { east = start() },
		},
		"frozen": {
			func() { freeze(t, dir, syscall.SIGSTOP) },
			func() { freeze(t, dir, syscall.SIGCONT) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, tenant := range []string{tenantA, tenantB} {
				if _, err := request(tenant, 10*time.Second); err != nil {
					t.Fatal(err)
				}
			}
			tc.gone()
			var wg sync.WaitGroup
			for range 40 { // more than the budget
				wg.Go(func() {
					if took, err := request(tenantB, 8*time.Second); err == nil || took > 9*time.Second {
						t.Errorf("after %v: %v", took, err)
					}
				})
			}
			for range 30 {
				if took, err := request(tenantA, 10*time.Second); err != nil || took > time.Second {
					t.Errorf("a tenant of another server: after %v: %v", took, err)
				}
			}
			wg.Wait()
			quick := 0
			for range 3 { // the one that tries again waits for an answer, the others do not
				var gone *tenants.ServerError
				took, err := request(tenantB, 8*time.Second)
				if !errors.As(err, &gone) || gone.Server != "east" || took > 7*time.Second {
					t.Errorf("after %v: %v", took, err)
				}
				if took < time.Second {
					quick++
				}
			}
			if quick < 2 {
				t.Error("every caller waits for a server that is known to be gone")
			}
			servers, err := d.Servers(t.Context())
			if err != nil || servers[0].Err != nil || servers[1].Err == nil {
				t.Errorf("%+v %v", servers, err)
			}
			tc.back()
			eventually(t, func() bool { _, err := request(tenantB, 8*time.Second); return err == nil })
		})
	}
}
