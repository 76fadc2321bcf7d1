package main

import (
	"context"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/eventstore/esdbstore/esdbtest"
)

// TestServeOnEventStoreDB does the main job on a platform whose log never was elsewhere.
func TestServeOnEventStoreDB(t *testing.T) {
	s := newSite(t)
	s.flags["esdb"], s.flags["event-store"] = esdbtest.Start(t, esdbtest.Options{}).ConnectionString(), engineEventStoreDB
	p, info := s.start(t)
	c, tenant := tenantClient(t, info)
	up, err := uploadOne(t.Context(), info.BaseURL, c.token, tenant, 1)
	must(t, err)
	awaitStamped(t, c, tenant, up.file)
	if err := c.call(t.Context(), "POST", "/api/auth/register", map[string]string{"first_name": "A", "last_name": "B", "email": c.email(t), "password": "stator coil 7"}, nil); err == nil || !strings.Contains(err.Error(), "email_exists") {
		t.Error("an address was registered twice:", err)
	}
	if code := p.kill(syscall.SIGTERM); code != 0 {
		t.Fatal(code, p.output)
	}

	for name, tc := range map[string]struct {
		change []string
		want   string
	}{
		"the log would seem lost on PostgreSQL": {[]string{"event-store", enginePostgres}, "lie in eventstoredb"},
		"another server":                        {[]string{"esdb", esdbtest.Start(t, esdbtest.Options{}).ConnectionString()}, "this is another server than before"},
		"nobody there":                          {[]string{"esdb", "esdb://127.0.0.1:1?tls=false"}, "check --esdb (ESDB_CONNECTION_STRING)"},
		"no connection string":                  {[]string{"esdb", "x"}, "check --esdb (ESDB_CONNECTION_STRING)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if out := refusedStart(t, s.serve(tc.change...)...); !strings.Contains(out, tc.want) {
				t.Fatal(out)
			}
		})
	}
}

// email is the client's own address.
func (c *demoClient) email(t *testing.T) string {
	t.Helper()
	var me struct {
		Data struct {
			Email string `json:"email"`
		} `json:"data"`
	}
	must(t, c.call(t.Context(), "GET", "/api/users/me", nil, &me))
	return me.Data.Email
}

// everything is what the API answers, but for positions, which are the engine's.
func everything(t *testing.T, c *demoClient, tenant string) map[string]string {
	t.Helper()
	out := answers(t, c, tenant)
	for path, raw := range out {
		out[path] = position.ReplaceAllString(raw, "")
	}
	return out
}

var position = regexp.MustCompile(`"position":\d+,`)

// awaitEverything waits until the audit trail, which is built anew after a move, and all else answer what they did.
func awaitEverything(t *testing.T, c *demoClient, tenant string, want map[string]string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for tick := time.Tick(50 * time.Millisecond); ; {
		got, different := everything(t, c, tenant), ""
		for path := range want {
			if got[path] != want[path] {
				different = path + "\nnow  " + got[path] + "\nonce " + want[path]
			}
		}
		if different == "" {
			return
		}
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("%.3000s", different)
		}
	}
}

// TestLogCopy moves a platform from PostgreSQL to EventStoreDB and back while it gets older.
func TestLogCopy(t *testing.T) {
	s := newSite(t)
	server := esdbtest.Start(t, esdbtest.Options{})
	s.flags["esdb"] = server.ConnectionString()
	p, info := s.start(t)
	c, tenant := tenantClient(t, info)
	var files []string
	upload := func() {
		t.Helper()
		up, err := uploadOne(t.Context(), c.base, c.token, tenant, len(files))
		must(t, err)
		awaitStamped(t, c, tenant, up.file)
		files = append(files, up.file)
	}
	for range 3 {
		upload()
	}
	before := everything(t, c, tenant)
	stop := func() {
		t.Helper()
		if code := p.kill(syscall.SIGTERM); code != 0 {
			t.Fatal(code, p.output)
		}
	}
	stop()
	log := strings.ReplaceAll(tenant, "-", "")
	copyLogs := func(code int, args ...string) string {
		t.Helper()
		return launchFactum(t, args...).ended(t, code)
	}

	// Stopped in the middle, killed in the middle, and begun again.
	for i, end := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		server.AllowAppends(5)
		halted := launchFactum(t, s.logCopy(enginePostgres, engineEventStoreDB, "--tenant="+tenant)...)
		for tick := time.Tick(10 * time.Millisecond); server.Events(log+"-file-"+files[i]) == 0; <-tick {
			select {
			case <-halted.done:
				t.Fatal(halted.output)
			default:
			}
		}
		if code := halted.kill(end); code == 0 || (end == syscall.SIGTERM && !strings.Contains(halted.output.String(), "stopped before the end; the same command goes on")) {
			t.Fatal(code, halted.output)
		}
	}
	server.AllowAppends(-1)
	out := copyLogs(0, s.logCopy(enginePostgres, engineEventStoreDB, "--tenant="+tenant)...)
	if !strings.Contains(out, log+"\n  postgres ") || !strings.Contains(out, "\n  same\n") || strings.Contains(out, "platform") {
		t.Fatal(out)
	}
	if out := copyLogs(1, s.logCopy(enginePostgres, engineEventStoreDB, "--all", "--verify-only")...); !strings.Contains(out, "platform\n") ||
		!strings.Contains(out, "different: event 1 of the source") || !strings.Contains(out, "1 of 2 logs differ") {
		t.Fatal(out)
	}
	if out := refusedStart(t, s.logCopy(enginePostgres, engineEventStoreDB, "--tenant=nobody")...); !strings.Contains(out, "there is no tenant nobody") {
		t.Fatal(out)
	}
	s.refused(t, engineEventStoreDB, "lie in postgres")

	// The switch, and life on the other side.
	out = copyLogs(0, s.logCopy(enginePostgres, engineEventStoreDB, "--all", "--switch")...)
	if strings.Count(out, "\n  same\n") != 2 || !strings.Contains(out, "start it with --event-store eventstoredb") {
		t.Fatal(out)
	}
	s.refused(t, enginePostgres, "factum log copy --from eventstoredb --to postgres --all --switch")
	resume := func(engine string) {
		t.Helper()
		s.flags["event-store"] = engine
		p, info = s.start(t)
		c.base = info.BaseURL
		awaitEverything(t, c, tenant, before)
		upload()
		for file, n := range stampsOf(t, c, tenant) {
			if n != 1 {
				t.Errorf("on %s, %s was time-stamped %d times", engine, file, n)
			}
		}
		if n := len(stampsOf(t, c, tenant)); n != len(files) {
			t.Errorf("on %s, %d files are time-stamped; want %d", engine, n, len(files))
		}
		if err := c.call(t.Context(), "POST", "/api/auth/register", map[string]string{"first_name": "A", "last_name": "B", "email": c.email(t), "password": "stator coil 7"}, nil); err == nil || !strings.Contains(err.Error(), "email_exists") {
			t.Errorf("on %s, an address was registered twice: %v", engine, err)
		}
		if got := s.count(`select count(*) from saga.job where saga = 'timestamping'`); got != len(files) {
			t.Errorf("on %s, the saga has asked for %d attempts; want %d", engine, got, len(files))
		}
		before = everything(t, c, tenant)
		stop()
	}
	resume(engineEventStoreDB)

	if out := refusedStart(t, s.logCopy(enginePostgres, engineEventStoreDB, "--all", "--switch")...); !strings.Contains(out, "lie in eventstoredb, so --from must name that") {
		t.Fatal(out)
	}
	if out := copyLogs(1, s.logCopy(enginePostgres, engineEventStoreDB, "--all", "--verify-only")...); !strings.Contains(out, "different: event 17 of the target, file.stored") {
		t.Fatal(out)
	}

	// A switch that was not finished, given up, and back after all.
	s.exec(`update placement.log set moving_to = 'postgres'`)
	s.refused(t, engineEventStoreDB, "that was not finished")
	if out := copyLogs(0, s.logCopy(engineEventStoreDB, engineEventStoreDB, "--all", "--switch")...); !strings.Contains(out, "start it with --event-store eventstoredb") {
		t.Fatal(out)
	}
	resume(engineEventStoreDB)
	copyLogs(0, s.logCopy(engineEventStoreDB, enginePostgres, "--all", "--switch")...)
	resume(enginePostgres)
	s.refused(t, engineEventStoreDB, "lie in postgres")
}

// refused wants the platform not to start on the engine.
func (s *site) refused(t *testing.T, engine, want string) {
	t.Helper()
	if out := refusedStart(t, s.serve("event-store", engine)...); !strings.Contains(out, want) {
		t.Fatal(out)
	}
}

// count asks the platform's database.
func (s *site) count(sql string) (n int) {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.platform())
	must(s.t, err)
	defer conn.Close(context.Background())
	must(s.t, conn.QueryRow(s.t.Context(), sql).Scan(&n))
	return n
}

func (s *site) exec(sql string) {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.platform())
	must(s.t, err)
	defer conn.Close(context.Background())
	_, err = conn.Exec(s.t.Context(), sql)
	must(s.t, err)
}
