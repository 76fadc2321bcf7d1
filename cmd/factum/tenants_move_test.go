package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
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

// addEast starts a second PostgreSQL server, "east", where tenants come only by moving.
func (s *site) addEast(t *testing.T) (dsn string) {
	t.Helper()
	east := s.addServer(t, "east")
	s.factum(t, 0, "servers", "accept", "east", "--no")
	return east.DSN()
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

// startLoad uploads three times in every pace, and reads.
func startLoad(t *testing.T, c *demoClient, tenant string, pace time.Duration, at ...string) *load {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	l := &load{t: t, tenant: tenant, stop: stop}
	for w := range 3 {
		l.wg.Go(func() {
			due := time.Tick(pace)
			for n := w; ctx.Err() == nil; n += 3 {
				<-due
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
			due := time.Tick(pace / 4)
			for n := 0; ctx.Err() == nil; n++ {
				<-due
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
	east := s.addEast(t)
	c, tenant := tenantClient(t, first)
	other, bystander := tenantClient(t, first)
	l := startLoad(t, c, tenant, 40*time.Millisecond, first.BaseURL, second.BaseURL)
	quiet := startLoad(t, other, bystander, 40*time.Millisecond, second.BaseURL)
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

// TestAMoverThatIsKilled kills the mover with -9 at each of its steps, under load: the tenant goes on where it lies, for writers within
// seconds, and the same command then does the rest.
func TestAMoverThatIsKilled(t *testing.T) {
	s := newSite(t)
	_, info := s.start(t)
	s.addEast(t)
	c, tenant := tenantClient(t, info)
	// Slow enough for a log that does not grow faster than it is moved, again and again.
	l := startLoad(t, c, tenant, 200*time.Millisecond, info.BaseURL)
	l.written(5)
	places := [2]string{"main", "east"}
	for _, step := range []string{"made", "copied", "built", "closed", "caught up", "switched", "opened"} {
		began, to := time.Now(), places[1]
		p := launchFactumKilledAt(t, step, s.cli("tenants", "move", tenant, "--to="+to)...)
		<-p.done
		if code := p.kill(0); code != -1 {
			t.Fatalf("%s: exit code %d: %s", step, code, p.output)
		}
		l.written(5) // it is open again
		lies := s.text(`select server from placement.databases where tenant = '` + strings.ReplaceAll(tenant, "-", "") + `'`)
		if moved := step == "switched" || step == "opened"; (lies == to) != moved {
			t.Fatalf("killed at %s: it lies on %s", step, lies)
		}
		out := launchFactum(t, s.cli("tenants", "move", tenant, "--to="+to, "--drop-old")...).ended(t, 0)
		if !strings.Contains(out, "lives on server "+to) || !strings.Contains(out, "was dropped") {
			t.Fatal(step, out)
		}
		t.Logf("killed at %q: in service and moved in %s", step, time.Since(began).Round(time.Millisecond))
		places[0], places[1] = places[1], places[0]
	}
	// One that is given up.
	to := places[1]
	p := launchFactumKilledAt(t, "copied", s.cli("tenants", "move", tenant, "--to="+to)...)
	<-p.done
	if out := launchFactum(t, s.cli("tenants", "move", tenant, "--to=west")...).ended(t, 1); !strings.Contains(out, "there is no such database server") {
		t.Error(out)
	}
	if out := launchFactum(t, s.cli("tenants", "move", tenant, "--to="+places[0])...).ended(t, 0); !strings.Contains(out, "its move to "+to+" was given up") {
		t.Error(out)
	}
	if n := s.count(`select count(*) from placement.moves`); n != 0 {
		t.Errorf("%d moves are under way", n)
	}
	l.written(5)
	l.end(c, info.BaseURL)
}

// TestAMoveThatFailsLeavesTheTenantAlone: what cannot be built there whole is not moved.
func TestAMoveThatFailsLeavesTheTenantAlone(t *testing.T) {
	s := newSite(t)
	_, info := s.start(t)
	east := s.addEast(t)
	c, tenant := tenantClient(t, info)
	for n := range 3 {
		_, err := uploadOne(t.Context(), info.BaseURL, c.token, tenant, n)
		must(t, err)
	}
	// The read model's table refuses one of the documents there.
	database := s.text(`select database from placement.databases where server = 'main'`)
	p := launchFactumKilledAt(t, "made", s.cli("tenants", "move", tenant, "--to=east")...)
	<-p.done
	there := strings.Replace(east, "/postgres?", "/"+database+"?", 1)
	conn, err := pgx.Connect(t.Context(), there)
	must(t, err)
	_, err = conn.Exec(t.Context(), `create function refuse() returns event_trigger language plpgsql as $$ begin
			if to_regclass('documents_g1.documents') is not null then
				alter table documents_g1.documents drop constraint if exists small;
				alter table documents_g1.documents add constraint small check (filename not like '% 1.txt');
			end if;
		end $$; create event trigger refuse on ddl_command_end when tag in ('CREATE INDEX') execute function refuse()`)
	must(t, err)
	must(t, conn.Close(context.Background()))
	out := launchFactum(t, s.cli("tenants", "move", tenant, "--to=east")...).ended(t, 1)
	if !strings.Contains(out, "the read model documents cannot apply an event of stream document-") || !strings.Contains(out, "goes on on server main, and the same command tries again") {
		t.Fatal(out)
	}
	if lies := s.text(`select server from placement.databases`); lies != "main" {
		t.Fatal(lies)
	}
	up, err := uploadOne(t.Context(), info.BaseURL, c.token, tenant, 9)
	must(t, err)
	awaitStamped(t, c, tenant, up.file)
	conn, err = pgx.Connect(t.Context(), there)
	must(t, err)
	_, err = conn.Exec(t.Context(), `drop event trigger refuse`)
	must(t, err)
	must(t, conn.Close(context.Background()))
	out = launchFactum(t, s.cli("tenants", "move", tenant, "--to=east")...).ended(t, 0)
	if pauseOf(t, out) > time.Second {
		t.Error(out)
	}
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"an unknown tenant": {[]string{"tenants", "move", "3f0c9a52-8f0e-4a55-9a0f-5be3c3a0d6a1", "--to=east"}, "there is no tenant 3f0c9a52-8f0e-4a55-9a0f-5be3c3a0d6a1 in service"},
		"no tenant id":      {[]string{"tenants", "move", "North Mill", "--to=east"}, "is not a tenant's id"},
		"an unknown server": {[]string{"tenants", "move", tenant, "--to=nowhere"}, "there is no such database server"},
	} {
		if out := launchFactum(t, s.cli(tc.args...)...).ended(t, 1); !strings.Contains(out, tc.want) {
			t.Errorf("%s: %s", name, out)
		}
	}
}

// text asks the platform's database.
func (s *site) text(sql string) (text string) {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.platform())
	must(s.t, err)
	defer conn.Close(context.Background())
	must(s.t, conn.QueryRow(s.t.Context(), sql).Scan(&text))
	return text
}
