package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/infra/devstack"
)

// cli are the arguments of a command that works on the site beside the processes that serve.
func (s *site) cli(args ...string) []string {
	for _, name := range []string{"database-url", "keyring", "esdb", "log-format"} {
		if value := s.flags[name]; value != "" {
			args = append(args, "--"+name+"="+value)
		}
	}
	return args
}

// addServer starts a second PostgreSQL server and makes it known as "east".
func (s *site) addServer(t *testing.T) (dsn string) {
	t.Helper()
	pg, err := devstack.StartPostgres(t.Context(), devstack.PostgresConfig{Dir: filepath.Join(t.TempDir(), "east")})
	must(t, err)
	t.Cleanup(func() { must(t, pg.Stop(context.Background())) })
	st := newStack()
	l, err := logServers{DatabaseURL: s.dsn, Keyring: s.flags["keyring"], ESDB: s.flags["esdb"], LogLevel: "error", LogFormat: "text"}.openLive(t.Context(), st)
	if err == nil {
		err = l.dbs.AddServer(t.Context(), "east", pg.AdminDSN())
		if err == nil {
			err = l.dbs.Accept(t.Context(), "east", false)
		}
	}
	must(t, err)
	must(t, st.stop())
	return pg.AdminDSN()
}

// load writes to a tenant and reads from it, through several processes, and judges the answers.
type load struct {
	t      *testing.T
	tenant string
	stop   context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	acked    []acknowledged
	longest  time.Duration // that a write took
	reads    int
	failures []string
}

func startLoad(t *testing.T, c *demoClient, tenant string, at ...string) *load {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	l := &load{t: t, tenant: tenant, stop: stop}
	for w := range 3 {
		l.wg.Go(func() {
			for n := w; ctx.Err() == nil; n += 3 {
				began := time.Now()
				up, err := uploadOne(context.WithoutCancel(ctx), at[n%len(at)], c.token, tenant, n)
				l.mu.Lock()
				if err != nil {
					l.failures = append(l.failures, "write: "+err.Error())
				} else {
					l.acked = append(l.acked, up)
				}
				l.longest = max(l.longest, time.Since(began))
				l.mu.Unlock()
			}
		})
	}
	for range 2 {
		l.wg.Go(func() { // one after the other, from all processes: nothing may go backwards
			position, total := 0, 0
			for n := 0; ctx.Err() == nil; n++ {
				p, docs, err := listed(context.WithoutCancel(ctx), c, at[n%len(at)], tenant)
				l.mu.Lock()
				l.reads++
				switch {
				case err != nil:
					l.failures = append(l.failures, "read: "+err.Error())
				case p < position || docs < total:
					l.failures = append(l.failures, fmt.Sprintf("read %d goes back: position %d after %d, %d documents after %d", n, p, position, docs, total))
				default:
					position, total = p, docs
				}
				l.mu.Unlock()
			}
		})
	}
	return l
}

// listed reads how many documents there are and the position of the answer.
func listed(ctx context.Context, c *demoClient, base, tenant string) (position, total int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/tenants/"+tenant+"/documents?per_page=1", nil)
	if err != nil {
		return 0, 0, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer res.Body.Close()
	var out struct {
		Data struct {
			Pagination struct {
				Total int `json:"total"`
			} `json:"pagination"`
		} `json:"data"`
		Detail string `json:"detail"`
	}
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return 0, 0, err
	}
	if res.StatusCode != http.StatusOK {
		return 0, 0, fmt.Errorf("%s: %s", res.Status, out.Detail)
	}
	position, err = strconv.Atoi(res.Header.Get("Factum-Position"))
	return position, out.Data.Pagination.Total, err
}

// written waits until so many more writes were acknowledged.
func (l *load) written(more int) {
	l.t.Helper()
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.acked)
	}
	until := count() + more
	deadline := time.After(time.Minute)
	for tick := time.Tick(10 * time.Millisecond); count() < until; {
		select {
		case <-tick:
		case <-deadline:
			l.t.Fatalf("%d writes in a minute; %v", count(), l.failures)
		}
	}
}

// end stops the load and checks that everything that was acknowledged is there.
func (l *load) end(c *demoClient, bases ...string) {
	l.t.Helper()
	l.stop()
	l.wg.Wait()
	l.t.Logf("%d writes, of which the slowest took %s, and %d reads", len(l.acked), l.longest.Round(time.Millisecond), l.reads)
	for i, f := range l.failures {
		if l.t.Error(f); i == 5 {
			break
		}
	}
	for _, base := range bases {
		if _, total, err := listed(l.t.Context(), c, base, l.tenant); err != nil || total < len(l.acked) {
			l.t.Errorf("%s lists %d documents, %v; %d were acknowledged", base, total, err, len(l.acked))
		}
	}
}

var pauseText = regexp.MustCompile(`writes waited for ([0-9.]+m?s)`)

// pauseOf reads the write pause from what the command printed.
func pauseOf(t *testing.T, out string) time.Duration {
	t.Helper()
	found := pauseText.FindStringSubmatch(out)
	if found == nil {
		t.Fatal(out)
	}
	d, err := time.ParseDuration(found[1])
	must(t, err)
	return d
}

// databasesOf lists the tenant databases of a server.
func databasesOf(t *testing.T, dsn string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	must(t, err)
	defer conn.Close(context.Background())
	var list string
	must(t, conn.QueryRow(t.Context(), `select coalesce(string_agg(datname, ' ' order by datname), '') from pg_database where datname ~ '^tenant_'`).Scan(&list))
	return list
}

// TestATenantMovesWhileItIsUsed moves a tenant to a second server and back, under writes and reads through two processes.
func TestATenantMovesWhileItIsUsed(t *testing.T) {
	s := newSite(t)
	_, first := s.start(t)
	_, second := s.start(t)
	east := s.addServer(t)
	c, tenant := tenantClient(t, first)
	other, bystander := tenantClient(t, first)
	l := startLoad(t, c, tenant, first.BaseURL, second.BaseURL)
	quiet := startLoad(t, other, bystander, second.BaseURL)
	l.written(30)
	for i, to := range []string{"east", "main"} {
		out := launchFactum(t, s.cli("tenants", "move", tenant, "--to="+to)...).ended(t, 0)
		pause := pauseOf(t, out)
		t.Logf("to %s: writes waited for %s", to, pause)
		if pause > time.Second {
			t.Errorf("writes waited for %s", pause)
		}
		l.written(30)
		if !strings.Contains(out, "is dropped after") || !strings.Contains(out, "lives on server "+to) {
			t.Error(out)
		}
		if got := s.count(`select count(*) from placement.databases where server = '` + to + `' and tenant = '` + strings.ReplaceAll(tenant, "-", "") + `'`); got != 1 {
			t.Errorf("it lies elsewhere than on %s", to)
		}
		if got := s.count(`select count(*) from placement.retired`); got != i+1 {
			t.Errorf("%d databases are kept, want %d", got, i+1)
		}
	}
	out := launchFactum(t, s.cli("tenants", "move", tenant, "--to=main", "--drop-old")...).ended(t, 0)
	if strings.Count(out, "was dropped") != 2 || databasesOf(t, east) != "" || s.count(`select count(*) from placement.retired`) != 0 {
		t.Error(out, databasesOf(t, east))
	}
	l.written(10)
	l.end(c, first.BaseURL, second.BaseURL)
	quiet.end(other, first.BaseURL, second.BaseURL)
	for n, up := range l.acked {
		if n%10 == 0 {
			awaitStamped(t, c, tenant, up.file)
		}
	}
}
