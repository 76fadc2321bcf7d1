package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/factum-platform/factum/infra/postgres/cluster"
)

// factum runs a command beside the platform and returns what it says.
func (s *site) factum(t *testing.T, code int, args ...string) string {
	t.Helper()
	return launchFactum(t, append(args, "--database-url="+s.flags["database-url"], "--keyring="+s.flags["keyring"])...).ended(t, code)
}

// addServer starts a PostgreSQL server and adds it to the platform.
func (s *site) addServer(t *testing.T, name string) *cluster.Cluster {
	t.Helper()
	other, err := cluster.Start(t.Context(), cluster.Config{Dir: t.TempDir(), Settings: map[string]string{"fsync": "off"}})
	must(t, err)
	t.Cleanup(func() { must(t, other.Stop(context.Background())) })
	file := filepath.Join(t.TempDir(), "url")
	must(t, os.WriteFile(file, []byte(other.DSN()+"\n"), 0o600))
	if out := s.factum(t, 0, "servers", "add", name, "--url-file="+file); !strings.Contains(out, "Server "+name+" holds tenants from now on") {
		t.Fatal(out)
	}
	return other
}

// documentsOf asks the API for a tenant's documents.
func documentsOf(t *testing.T, c *demoClient, tenant string) (status int, body string, took time.Duration) {
	t.Helper()
	begun := time.Now()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.base+"/api/tenants/"+tenant+"/documents", nil)
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(raw), time.Since(begun)
}

// awaitDocuments waits until the API answers so.
func awaitDocuments(t *testing.T, c *demoClient, tenant string, status int, want string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for tick := time.Tick(50 * time.Millisecond); ; {
		got, body, _ := documentsOf(t, c, tenant)
		if got == status && strings.Contains(body, want) {
			return
		}
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("%d %s; want %d with %q", got, body, status, want)
		}
	}
}

func anotherTenant(t *testing.T, c *demoClient, name string) string {
	t.Helper()
	var out struct {
		Data struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	must(t, c.call(t.Context(), "POST", "/api/tenants", map[string]string{"name": name}, &out))
	return out.Data.ID
}

// TestTenantsAndServers does what operators do, beside a running platform with two database servers.
func TestTenantsAndServers(t *testing.T) {
	s := newSite(t)
	p, info := s.start(t)
	c, first := tenantClient(t, info)
	east := s.addServer(t, "east")
	second := anotherTenant(t, c, "South Mill") // on east, which has fewer
	for _, tenant := range []string{first, second} {
		_, err := uploadOne(t.Context(), c.base, c.token, tenant, 1)
		must(t, err)
		awaitDocuments(t, c, tenant, 200, "file_id")
	}

	t.Run("list", func(t *testing.T) {
		out := s.factum(t, 0, "tenants", "list")
		for _, want := range []string{first + "  North Mill  main", second + "  South Mill  east", "MiB"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
		var list []tenantStatus
		must(t, json.Unmarshal([]byte(s.factum(t, 0, "tenants", "list", "--json")), &list))
		if len(list) != 2 || list[1].Server != "east" || list[1].Bytes == nil || list[1].Schema["es"] == 0 || list[1].Refused != "" {
			t.Errorf("%+v", list)
		}
	})
	t.Run("show", func(t *testing.T) {
		var d tenantDetails
		must(t, json.Unmarshal([]byte(s.factum(t, 0, "tenants", "show", second, "--json")), &d))
		if d.ID != second || d.Log != shortID(second) || d.Head == nil || *d.Head < 3 || d.Claims == nil || d.Connections == nil || len(d.ReadModels) < 2 || len(d.Trouble) > 0 {
			t.Errorf("%+v", d)
		}
		for _, id := range []string{second, shortID(second), strings.ToUpper(second)} {
			if out := s.factum(t, 0, "tenants", "show", id); !strings.Contains(out, "log head") || !strings.Contains(out, "South Mill") {
				t.Error(out)
			}
		}
		if out := s.factum(t, 1, "tenants", "show", "0f3c1a5e-0000-4000-8000-000000000000"); !strings.Contains(out, "'factum tenants list' shows") {
			t.Error(out)
		}
	})
	t.Run("migrate", func(t *testing.T) { s.migrateBack(t, c, first, second) })
	t.Run("newer", func(t *testing.T) {
		s.exec(`update placement.databases set schema = schema || '{"es": 99}' where tenant = '` + shortID(first) + `'`)
		awaitDocuments(t, c, first, 503, "version 99 of the schema es")
		awaitDocuments(t, c, first, 503, "deploy the newer binary")
		awaitDocuments(t, c, second, 200, "file_id")
		if out := s.factum(t, 0, "tenants", "list"); !strings.Contains(out, "refused: ") {
			t.Error(out)
		}
		s.exec(`update placement.databases set schema = '{}' where tenant = '` + shortID(first) + `'`) // it is looked into
		awaitDocuments(t, c, first, 200, "file_id")
	})
	t.Run("accept", func(t *testing.T) {
		if out := s.factum(t, 0, "servers", "accept", "main", "--no"); strings.Contains(out, "No server accepts") {
			t.Error(out)
		}
		if out := s.factum(t, 0, "servers", "accept", "east", "--no"); !strings.Contains(out, "No server accepts new tenants now") {
			t.Error(out)
		}
		if err := c.call(t.Context(), "POST", "/api/tenants", map[string]string{"name": "West Mill"}, nil); err == nil || !strings.Contains(err.Error(), "factum servers accept") {
			t.Error(err)
		}
		s.factum(t, 0, "servers", "accept", "main", "--yes")
		if out := s.factum(t, 1, "servers", "accept", "west", "--yes"); !strings.Contains(out, "no such database server") {
			t.Error(out)
		}
	})
	t.Run("a server that is gone", func(t *testing.T) {
		must(t, east.Stop(t.Context()))
		awaitDocuments(t, c, second, 503, "does not answer")
		for range 5 {
			if status, body, took := documentsOf(t, c, second); status != 503 || took > 5*time.Second {
				t.Errorf("%d after %v: %s", status, took, body)
			}
			if status, body, took := documentsOf(t, c, first); status != 200 || took > 2*time.Second {
				t.Errorf("a tenant of another server: %d after %v: %s", status, took, body)
			}
		}
		if out := s.factum(t, 0, "servers", "list"); !strings.Contains(out, "cannot be reached") || !strings.Contains(out, "reachable") {
			t.Error(out)
		}
		if out := s.factum(t, 0, "tenants", "list"); !strings.Contains(out, "South Mill  east") || !strings.Contains(out, "sizes are missing") {
			t.Error(out)
		}
		if out := s.factum(t, 0, "tenants", "show", second); !strings.Contains(out, "not found out: size") {
			t.Error(out)
		}
	})
	if strings.Contains(p.said(), "postgres://") {
		t.Error("a URL with a password is in the log")
	}
}

// migrateBack makes a tenant's database one of an earlier release, and migrates it while the platform serves.
func (s *site) migrateBack(t *testing.T, c *demoClient, old, other string) {
	s.in(old, `delete from public.migrations_proj where version_id = 3`)
	s.in(old, `alter table proj.checkpoint drop column waits`)
	s.exec(`update placement.databases set schema = schema || '{"proj": 2}' where tenant = '` + shortID(old) + `'`)
	awaitDocuments(t, c, old, 503, "version 2 of the schema proj")
	awaitDocuments(t, c, old, 503, "run 'factum tenants migrate'")
	awaitDocuments(t, c, other, 200, "file_id")
	if out := s.factum(t, 0, "tenants", "migrate", "--dry-run"); !strings.Contains(out, "1 databases would be migrated") || !strings.Contains(out, old) || strings.Contains(out, other) {
		t.Error(out)
	}
	if out := s.factum(t, 0, "tenants", "migrate", "--history"); !strings.Contains(out, "No migration has run yet") {
		t.Error(out)
	}
	if out := s.factum(t, 0, "tenants", "migrate"); !strings.Contains(out, "1 migrated, ") || !strings.Contains(out, old) {
		t.Error(out)
	}
	awaitDocuments(t, c, old, 200, "file_id")
	if out := s.factum(t, 0, "tenants", "migrate", "--tenant="+old); !strings.Contains(out, "Nothing to do: all 1 databases are up to date") {
		t.Error(out)
	}
	if out := s.factum(t, 0, "tenants", "migrate", "--history"); !strings.Contains(out, "The latest:") || !strings.Contains(out, "MIGRATED") {
		t.Error(out)
	}
	if out := s.factum(t, 1, "tenants", "migrate", "--tenant=0f3c1a5e-0000-4000-8000-000000000000"); !strings.Contains(out, "'factum tenants list' shows") {
		t.Error(out)
	}
}
