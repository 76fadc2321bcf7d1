package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// gone waits until the API answers 404 for the tenant.
func gone(t *testing.T, c *demoClient, tenant string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for tick := time.Tick(20 * time.Millisecond); ; {
		err := c.call(t.Context(), "GET", "/api/tenants/"+tenant+"/documents", nil, nil)
		if err != nil && strings.Contains(err.Error(), "404") {
			return
		}
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("the tenant is still served: %v", err)
		}
	}
}

// TestATenantLeavesAndComesBack exports, deletes and imports a tenant through the real program: within the day, after its database was dropped,
// on a second server, killed at each step, and on another platform.
func TestATenantLeavesAndComesBack(t *testing.T) {
	s := newSite(t)
	_, info := s.start(t)
	s.addEast(t)
	c, tenant := tenantClient(t, info)
	other, bystander := tenantClient(t, info)
	var last acknowledged
	for n := range 5 {
		var err error
		last, err = uploadOne(t.Context(), info.BaseURL, c.token, tenant, n)
		must(t, err)
		awaitStamped(t, c, tenant, last.file)
	}
	run := func(code int, args ...string) string {
		t.Helper()
		return launchFactum(t, s.cli(args...)...).ended(t, code)
	}
	file := filepath.Join(t.TempDir(), "mill.zip")
	out := run(0, "tenants", "export", tenant, "--out="+file)
	if !strings.Contains(out, "events to position") {
		t.Fatal(out)
	}
	if out := run(1, "tenants", "export", tenant, "--out="+file); !strings.Contains(out, "choose another name for --out") {
		t.Fatal(out)
	}
	if out := launchFactum(t, "tenants", "import", file, "--verify-only").ended(t, 0); !strings.Contains(out, "North Mill") || !strings.Contains(out, "the file is whole") {
		t.Fatal(out)
	}
	before := everything(t, c, tenant)
	for path := range before { // the others say when the tenant was changed last, which is meant to change
		if !strings.HasPrefix(path, "/api/tenants/"+tenant+"/") {
			delete(before, path)
		}
	}
	lives := func(server string) {
		t.Helper()
		awaitEverything(t, c, tenant, before)
		got := s.text(`select coalesce(max(server), '') from placement.databases where tenant = '` + strings.ReplaceAll(tenant, "-", "") + `'`)
		if got != server {
			t.Fatalf("it lies on %q, want %s", got, server)
		}
		content, err := c.fetch(t.Context(), "/api/tenants/"+tenant+"/documents/"+last.document+"/download")
		if err != nil || !bytes.Equal(content, last.content) {
			t.Fatal("a document came back changed:", err)
		}
		if n := s.count(`select count(*) from saga.job where saga = 'timestamping'`); n != 5 {
			t.Fatalf("the saga has asked for %d time-stamps; want 5", n)
		}
	}
	if out := run(0, "tenants", "import", file); !strings.Contains(out, "the log holds all") {
		t.Fatal("an import over the tenant itself:", out)
	}
	lives("main")

	// Within the day.
	if out := run(1, "tenants", "delete", tenant); !strings.Contains(out, "--yes") {
		t.Fatal(out)
	}
	for range 2 {
		if out := run(0, "tenants", "delete", tenant, "--yes"); !strings.Contains(out, "is dropped after") {
			t.Fatal(out)
		}
	}
	gone(t, c, tenant)
	must(t, other.call(t.Context(), "GET", "/api/tenants/"+bystander+"/documents", nil, nil))
	if out := run(1, "tenants", "export", tenant, "--out="+file+"2"); !strings.Contains(out, "in service") {
		t.Fatal(out)
	}
	if out := run(0, "tenants", "import", file); !strings.Contains(out, "has its database") {
		t.Fatal(out)
	}
	lives("main")

	// After it, killed at every step, on another server.
	for _, step := range []string{"keys", "database", "filled", "settled", ""} {
		if out := run(0, "tenants", "delete", tenant, "--yes", "--now"); !strings.Contains(out, "is deleted") {
			t.Fatal(out)
		}
		gone(t, c, tenant)
		if step != "" {
			p := launchFactumKilledAt(t, step, s.cli("tenants", "import", file, "--server=east")...)
			<-p.done
			if code := p.kill(syscall.SIGTERM); code != -1 {
				t.Fatalf("%s: exit code %d: %s", step, code, p.output)
			}
		}
		if out := run(0, "tenants", "import", file, "--server=east"); !strings.Contains(out, "is in service") {
			t.Fatal(step, out)
		}
		lives("east")
	}
	up, err := uploadOne(t.Context(), info.BaseURL, c.token, tenant, 77)
	must(t, err)
	awaitStamped(t, c, tenant, up.file)

	// The file is older than the log now.
	if out := run(0, "tenants", "import", file); !strings.Contains(out, "the log holds all") {
		t.Fatal(out)
	}
	run(0, "tenants", "delete", tenant, "--yes", "--now")
	if out := run(0, "tenants", "import", file, "--server=main"); !strings.Contains(out, "consumers of the platform had seen more") {
		t.Fatal(out)
	}
	awaitEverything(t, c, tenant, before)
	if up, err = uploadOne(t.Context(), info.BaseURL, c.token, tenant, 78); err != nil {
		t.Fatal(err)
	}
	awaitStamped(t, c, tenant, up.file)

	t.Run("bad files", func(t *testing.T) {
		raw, err := os.ReadFile(file)
		must(t, err)
		for name, tc := range map[string]struct {
			content []byte
			want    string
		}{
			"truncated": {raw[:len(raw)-100], "its end is missing"},
			"damaged":   {bytes.Replace(raw, raw[200:210], make([]byte, 10), 1), "cannot be used"},
			"foreign":   {[]byte("hello"), "it is no archive"},
		} {
			bad := filepath.Join(t.TempDir(), "bad.zip")
			must(t, os.WriteFile(bad, tc.content, 0o600))
			if out := run(1, "tenants", "import", bad); !strings.Contains(out, tc.want) {
				t.Errorf("%s: %s", name, out)
			}
		}
	})
	t.Run("another platform", func(t *testing.T) {
		there := newSite(t)
		there.flags["s3-bucket"] = s.flags["s3-bucket"] // as if the contents had been copied
		_, info := there.start(t)
		stranger, _ := tenantClient(t, info)
		import_ := func(code int, args ...string) string {
			t.Helper()
			return launchFactum(t, there.cli(append([]string{"tenants", "import", file}, args...)...)...).ended(t, code)
		}
		if out := import_(1); !strings.Contains(out, "give --owner") || !strings.Contains(out, "nothing was written") {
			t.Fatal(out)
		}
		if out := import_(1, "--owner=3f0c9a52-8f0e-4a55-9a0f-5be3c3a0d6a1"); !strings.Contains(out, "has no user") {
			t.Fatal(out)
		}
		var me struct {
			Data struct {
				ID string `json:"id"`
			} `json:"data"`
		}
		must(t, stranger.call(t.Context(), "GET", "/api/users/me", nil, &me))
		if out := import_(1, "--owner="+me.Data.ID); !strings.Contains(out, "another key-encryption key") || !strings.Contains(out, "FACTUM_KEYRING") {
			t.Fatal(out)
		}
		if there.count(`select count(*) from placement.databases`) != 1 || there.count(`select count(*) from placement.begun`) != 0 {
			t.Error("a refused import left something")
		}
	})
	t.Run("another platform with the key", func(t *testing.T) {
		there := newSite(t)
		there.flags["s3-bucket"] = s.flags["s3-bucket"]
		kek, err := os.ReadFile(s.flags["keyring"])
		must(t, err)
		must(t, os.WriteFile(there.flags["keyring"], kek, 0o600))
		_, info := there.start(t)
		owner, _ := tenantClient(t, info)
		passer, _ := tenantClient(t, info)
		var me struct {
			Data struct {
				ID string `json:"id"`
			} `json:"data"`
		}
		must(t, owner.call(t.Context(), "GET", "/api/users/me", nil, &me))
		for range 2 { // the second finds everything there
			if out := launchFactum(t, there.cli("tenants", "import", file, "--owner="+me.Data.ID)...).ended(t, 0); !strings.Contains(out, tenant) {
				t.Fatal(out)
			}
		}
		type membership struct {
			ID   string `json:"id"`
			Role string `json:"role"`
		}
		var mine struct {
			Data []membership `json:"data"`
		}
		must(t, owner.call(t.Context(), "GET", "/api/users/me/tenants", nil, &mine))
		if !slices.Contains(mine.Data, membership{tenant, "admin"}) {
			t.Fatalf("the owner's tenants: %+v", mine.Data)
		}
		up, err := uploadOne(t.Context(), info.BaseURL, owner.token, tenant, 79)
		must(t, err)
		awaitStamped(t, owner, tenant, up.file) // and with it the read model shows all that is older
		content, err := owner.fetch(t.Context(), "/api/tenants/"+tenant+"/documents/"+last.document+"/download")
		if err != nil || !bytes.Equal(content, last.content) {
			t.Fatal("a document came changed:", err)
		}
		gone(t, passer, tenant)
	})
}
