package process

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/file"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/pgstore"
	"github.com/factum-platform/factum/eventstore/seal"
	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/devstack"
	"github.com/factum-platform/factum/infra/jobs"
	"github.com/factum-platform/factum/infra/keyring"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
	"github.com/factum-platform/factum/projections/runner"
)

// station is the outside of processes that are killed: databases, logs, and an authority that speaks RFC 3161.
type station struct {
	t     *testing.T
	e     errand
	dbs   pools // as the process sees them
	store eventstore.Store
	codec *seal.Codec
	asked atomic.Int64 // how often the authority was
	files int
}

// newStation makes the databases of the platform and of the tenants. The authority refuses service while the log of the tenant whose file
// is stamped holds fewer than failures failed attempts; this holds for one file per tenant.
func newStation(t *testing.T, tenants, failures int) *station {
	t.Helper()
	logs := []postgres.Migrations{{Name: "es", FS: pgstore.Migrations()}, {Name: "proj", FS: runner.Migrations()}}
	platform := pgtest.Database(t, append(logs, postgres.Migrations{Name: "saga", FS: Migrations()},
		postgres.Migrations{Name: "auth", FS: auth.Migrations()}, postgres.Migrations{Name: "keyring", FS: keyring.Migrations()})...)
	if err := jobs.Migrate(t.Context(), platform); err != nil {
		t.Fatal(err)
	}
	s := &station{t: t, e: errand{KEK: filepath.Join(t.TempDir(), "kek.json")}}
	s.e.Tenants = map[string]string{string(eventstore.PlatformTenant): platform}
	for n := range tenants {
		s.e.Tenants[tenantOf(n)] = pgtest.Database(t, logs...)
	}
	var err error
	if s.dbs, err = openPools(t.Context(), s.e, nil); err != nil {
		t.Fatal(err)
	}
	_, s.store, s.codec, err = openCommands(t.Context(), s.e, s.dbs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.store.Close(); err != nil {
			t.Error(err)
		}
		for _, pool := range s.dbs {
			pool.Close()
		}
	})
	s.authority(failures)
	return s
}

func tenantOf(n int) string { return fmt.Sprintf("%032x", n+1) }

// authority stands in front of a real one, counts, and refuses service at first.
func (s *station) authority(failures int) {
	s.t.Helper()
	real, err := devstack.StartTSA(s.t.Context(), devstack.TSAConfig{Dir: s.t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		s.t.Fatal(err)
	}
	target, err := url.Parse(real.URL())
	if err != nil {
		s.t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) {} // the process that asked was killed
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		if failures > 0 {
			var failed int
			if err := s.dbs[tenantOf(0)].QueryRow(context.Background(), `select count(*) from es.events where type = 'file.timestamp_failed'`).Scan(&failed); err != nil {
				s.t.Error(err)
			}
			if failed < failures {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	s.t.Cleanup(func() {
		server.Close()
		if err := real.Stop(context.Background()); err != nil {
			s.t.Error(err)
		}
	})
	s.e.TSA, s.e.Roots = server.URL, real.RootsPath()
}

// ask stores the n-th file of the tenant and asks for its time-stamp.
func (s *station) ask(tenant string, n int) {
	s.t.Helper()
	at, id := time.Now().UTC().Truncate(time.Microsecond), es.Key("file", tenant, fmt.Sprint(n))
	sum := make([]byte, 32)
	sum[0], sum[1] = byte(n), byte(n>>8)
	_, err := commands.NewExecutor(s.store, s.codec).Execute(s.t.Context(), eventstore.TenantID(tenant), eventstore.Meta{Command: "upload " + id, Actor: "u", At: at},
		&commands.Decision[file.State, file.Command, file.Event]{
			Decider: file.Decider, Stream: eventstore.StreamID{Kind: file.Kind, ID: id},
			Command: file.Keep{FileID: id, SHA256: hex.EncodeToString(sum), MD5: "x", Size: 1, ObjectKey: "k", DocumentID: "d", By: "u", Stamp: true, At: at},
		})
	if err != nil {
		s.t.Fatal(err)
	}
	s.files++
}

// child is a process that runs the saga.
type child struct {
	cmd   *exec.Cmd
	done  chan struct{} // it has ended
	mu    sync.Mutex
	steps []string
	said  strings.Builder // on standard error
}

// Write notes what the process says on standard error.
func (c *child) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.Write(p)
}

// words are what the process has said on standard error.
func (c *child) words() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.String()
}

// launch starts a process that dies before the step, or lives until it is killed.
func (s *station) launch(dieAt string) *child {
	s.t.Helper()
	e := s.e
	e.DieAt = dieAt
	raw, err := json.Marshal(e)
	if err != nil {
		s.t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	c := &child{cmd: exec.Command(exe), done: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), childEnv+"="+string(raw))
	c.cmd.Stderr = c
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		defer close(c.done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.mu.Lock()
			c.steps = append(c.steps, lines.Text())
			c.mu.Unlock()
		}
	}()
	s.t.Cleanup(func() { s.kill(c) })
	return c
}

// kill kills the process with -9, if it still runs, and waits for its end.
func (s *station) kill(c *child) {
	if c.cmd.ProcessState != nil {
		return
	}
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Error(err)
	}
	<-c.done
	var exit *exec.ExitError
	if err := c.cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		s.t.Errorf("the process was not killed: %v: %s", err, c.words())
	}
}

// count asks one number of a database.
func (s *station) count(pool *pgxpool.Pool, sql string) (n int) {
	s.t.Helper()
	if err := pool.QueryRow(s.t.Context(), sql).Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// open counts what is still to be done: files without an outcome, jobs that are not done, jobs that River holds, instances of the saga.
func (s *station) open() int {
	s.t.Helper()
	platform := s.dbs[string(eventstore.PlatformTenant)]
	n := s.count(platform, `select (select count(*) from saga.job where state <> 'done') + (select count(*) from saga.state) +
		(select count(*) from river.river_job where state <> 'completed')`)
	for id, pool := range s.dbs {
		if id != string(eventstore.PlatformTenant) {
			n += s.count(pool, `select count(*) filter (where type = 'file.timestamp_requested') - count(*) filter (where type = 'file.timestamped') from es.events`)
		}
	}
	return n
}

// settled waits until everything is done, or the process has ended, or the deadline has come; it answers whether everything is done.
func (s *station) settled(c *child, within time.Duration) bool {
	s.t.Helper()
	deadline := time.After(within)
	for tick := time.Tick(20 * time.Millisecond); ; {
		if s.open() == 0 {
			return true
		}
		select {
		case <-tick:
		case <-c.done:
			return false
		case <-deadline:
			return false
		}
	}
}

// check holds what must be true at the end, whatever happened: each file has exactly its outcomes, no job is lost, no place is taken,
// every job was given to River once.
func (s *station) check(failures int) {
	s.t.Helper()
	want := "file.stored file.linked file.timestamp_requested " + strings.Repeat("file.timestamp_failed ", failures) + "file.timestamped"
	for id, pool := range s.dbs {
		if id == string(eventstore.PlatformTenant) {
			continue
		}
		var odd string
		err := pool.QueryRow(s.t.Context(), `select coalesce(string_agg(id || ': ' || story, '; '), '') from
			(select id, string_agg(type, ' ' order by version) as story from es.events where kind = 'file' group by id) s where story <> $1`, want).Scan(&odd)
		if err != nil || odd != "" {
			s.t.Errorf("tenant %s: %s %v; want %s", id, odd, err, want)
		}
	}
	platform := s.dbs[string(eventstore.PlatformTenant)]
	jobs := s.files * (1 + failures)
	if got := s.count(platform, `select count(*) from saga.job where state = 'done'`); got != jobs {
		s.t.Errorf("%d jobs are done; want %d", got, jobs)
	}
	if got := s.count(platform, `select count(*) from river.river_job where state = 'completed'`); got != jobs {
		s.t.Errorf("River has completed %d jobs; want %d", got, jobs)
	}
	if got := s.count(platform, `select count(*) from saga.state`); got != 0 {
		s.t.Errorf("the saga remembers %d instances that have come to their end", got)
	}
	if got := s.asked.Load(); got < int64(jobs) {
		s.t.Errorf("the authority was asked %d times; want at least %d", got, jobs)
	}
}

// TestKilledAtEveryStep: a process runs the saga of one file on real servers and tells its steps: every statement, every conversation with the
// authority. Then, for each of these steps, another one is killed with -9 just before it, and a third goes on. The story is told twice: the
// authority answers at once, or the first attempt fails; of the second only the steps count that the first does not have.
func TestKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	tell := func(failures int) []string {
		s := newStation(t, 1, failures)
		s.ask(tenantOf(0), 0)
		c := s.launch("")
		if !s.settled(c, time.Minute) {
			t.Fatalf("%d things are still to be done: %s", s.open(), c.words())
		}
		s.kill(c)
		s.check(failures)
		return slices.DeleteFunc(c.steps, changesNothing.MatchString)
	}
	stories := [][]string{tell(0), tell(1)}
	seen := strings.Join(stories[1], "\n")
	for _, part := range []string{
		"select instance, state from saga.state", "delete from saga.state", "pg_advisory_xact_lock(hashtextextended('factum.saga.'", "copy into", "update proj.checkpoint",
		"commit", "select coalesce((select state = 'done'", "the authority is asked", "the authority has answered", "es.append", "JobGetAvailable", "JobSetStateIfRunningMany",
		"select tenant from saga.job where state = 'scheduled'",
	} {
		if !strings.Contains(seen, part) {
			t.Errorf("no step is %q:\n%s", part, seen)
		}
	}
	stories[1] = slices.DeleteFunc(stories[1], func(step string) bool { return slices.Contains(stories[0], step) })
	total := len(stories[0]) + len(stories[1])
	turns := make(chan struct{}, 8)
	var died atomic.Int64
	t.Run("each", func(t *testing.T) {
		for failures, steps := range stories {
			for _, step := range steps {
				t.Run(step, func(t *testing.T) {
					t.Parallel()
					turns <- struct{}{}
					defer func() { <-turns }()
					if dieAt(t, step, failures) {
						died.Add(1)
					}
				})
			}
		}
	})
	t.Logf("of %d steps %d were deadly", total, died.Load())
	if int(died.Load()) < total*3/4 {
		t.Errorf("only %d of %d steps were met again", died.Load(), total)
	}
}

// changesNothing are steps before which a death leaves what a death before another step leaves too: what is only done at the start, the
// beginning of transactions, looks that are repeated.
var changesNothing = regexp.MustCompile(`^sql: begin|version\(\)|pg_namespace|signing_keys|JobDeleteBefore|JobGetStuck|from proj\.live|proj\.checkpoint where|` +
	`proj\.parked|factum\.proj|^sql: select (l\.|e\.pos|min\().* #([3-9]|\d\d)$`)

// dieAt runs the story with a death and tells whether the step was met: a look that is made from time to time may not fall into it.
func dieAt(t *testing.T, step string, failures int) (died bool) {
	t.Helper()
	s := newStation(t, 1, failures)
	s.ask(tenantOf(0), 0)
	c := s.launch(step)
	if !s.settled(c, time.Minute) {
		select {
		case <-c.done:
			died = true
		default:
			t.Errorf("it neither died nor came to the end: %s", c.words())
		}
	}
	s.kill(c)
	c = s.launch("")
	if !s.settled(c, time.Minute) {
		t.Fatalf("after the death %d things are still to be done: %s", s.open(), c.words())
	}
	s.kill(c)
	s.check(failures)
	return died
}

// TestKilledAtRandom: 120 files of three tenants, and a process that is killed with -9 at any moment, again and again for 12 seconds.
func TestKilledAtRandom(t *testing.T) {
	t.Parallel()
	const files, tenants, bleeding = 120, 3, 12 * time.Second
	s := newStation(t, tenants, 0)
	for n := range files {
		s.ask(tenantOf(n%tenants), n)
	}
	begun, deaths := time.Now(), 0
	for next := files; time.Since(begun) < bleeding; next++ {
		c := s.launch("")
		select {
		case <-time.After(50*time.Millisecond + rand.N(700*time.Millisecond)):
		case <-c.done:
			t.Fatalf("the process ended by itself: %s", c.words())
		}
		s.kill(c)
		deaths++
		s.ask(tenantOf(next%tenants), next) // there is always something to do
	}
	c := s.launch("")
	if !s.settled(c, time.Minute) {
		t.Fatalf("after %d deaths %d things are still to be done: %s", deaths, s.open(), c.words())
	}
	s.kill(c)
	s.check(0)
	t.Logf("%d deaths, %d files, the authority was asked %d times", deaths, s.files, s.asked.Load())
}
