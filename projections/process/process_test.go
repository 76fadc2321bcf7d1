package process

import (
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/domain"
	"github.com/factum-platform/factum/domain/file"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/memstore"
	"github.com/factum-platform/factum/eventstore/seal"
	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/jobs"
	"github.com/factum-platform/factum/infra/keyring"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
	"github.com/factum-platform/factum/infra/tsa"
	"github.com/factum-platform/factum/projections/runner"
)

// TestMain lets more tests run at once than there are processors: they wait, for due times and retries, more than they compute.
func TestMain(m *testing.M) {
	if raw := os.Getenv(childEnv); raw != "" {
		fmt.Fprintln(os.Stderr, runChild(raw))
		os.Exit(1)
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "12"); err != nil {
		panic(err)
	}
	pgtest.Main(m)
}

const (
	tenant = eventstore.TenantID("0123456789abcdef0123456789abcdef")
	fileID = "f0000000-0000-8000-8000-000000000001"
)

// TestStampingReacts is the pure saga: facts in, jobs out.
func TestStampingReacts(t *testing.T) {
	at := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	asked := file.TimestampRequested{FileID: fileID, At: at}
	failed := file.TimestampFailed{FileID: fileID, Attempt: 1, NextAttempt: at.Add(time.Minute), At: at}
	stamped := file.Timestamped{FileID: fileID}
	abandoned := file.TimestampAbandoned{FileID: fileID, Attempt: 2}
	first := Job{"tsa.stamp", stampArgs{fileID, 1}, at}
	second := Job{"tsa.stamp", stampArgs{fileID, 2}, at.Add(time.Minute)}
	p := stamping()
	for name, tc := range map[string]struct {
		facts []file.Event
		jobs  []Job
		done  bool
	}{
		"asked":                {[]file.Event{asked}, []Job{first}, false},
		"asked, failed":        {[]file.Event{asked, failed}, []Job{first, second}, false},
		"stamped":              {[]file.Event{asked, stamped}, []Job{first}, true},
		"abandoned":            {[]file.Event{asked, failed, abandoned}, []Job{first, second}, true},
		"asked again":          {[]file.Event{asked, abandoned, asked}, []Job{first, first}, false},
		"deleted meanwhile":    {[]file.Event{asked, failed, file.Deleted{FileID: fileID}}, []Job{first, second}, true},
		"a failure too late":   {[]file.Event{asked, stamped, failed}, []Job{first}, true},
		"a failure unasked of": {[]file.Event{failed}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := p.Initial()
			var got []Job
			for _, fact := range tc.facts {
				if instance, interested := p.Correlate(fact); !interested || instance != fileID {
					t.Fatalf("%T belongs to %q, interested %v", fact, instance, interested)
				}
				s = p.Evolve(s, fact)
				got = append(got, p.React(s, fact)...)
			}
			if !slices.Equal(got, tc.jobs) || p.Done(s) != tc.done {
				t.Fatalf("jobs %v, done %v", got, p.Done(s))
			}
		})
	}
	if _, interested := p.Correlate(file.Linked{FileID: fileID}); interested {
		t.Error("the saga cares for documents")
	}
}

// authority is a stamper that fails as it is told and counts how often it is asked.
type authority struct {
	mu    sync.Mutex
	plan  []error
	asked int
}

func (a *authority) Stamp(_ context.Context, digest []byte) (tsa.Stamp, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked++
	if len(a.plan) > 0 {
		err := a.plan[0]
		a.plan = a.plan[1:]
		if err != nil {
			return tsa.Stamp{}, err
		}
	}
	return tsa.Stamp{Response: digest, GenTime: time.Now().UTC(), Serial: "0x1", Policy: "1.2.3", Algorithm: "sha256", Authority: "CN=test"}, nil
}

// times tells how often it was asked.
func (a *authority) times() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked
}

// crashing stands between the worker and the commands and breaks off where it is told, as a killed process would.
type crashing struct {
	*commands.Commands
	mu     sync.Mutex
	before int // reports that never arrive
	after  int // reports that are carried out and not answered
}

var errKilled = errors.New("killed")

func (c *crashing) report(do func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.before > 0 {
		c.before--
		return errKilled
	}
	err := do()
	if c.after > 0 {
		c.after--
		return errKilled
	}
	return err
}

func (c *crashing) RecordTimestamp(ctx context.Context, in commands.StampOutcome) error {
	return c.report(func() error { return c.Commands.RecordTimestamp(ctx, in) })
}

func (c *crashing) RecordTimestampFailure(ctx context.Context, in commands.FailedAttempt) error {
	return c.report(func() error { return c.Commands.RecordTimestampFailure(ctx, in) })
}

// world is a log in memory, and the platform's database with River in PostgreSQL.
type world struct {
	t        *testing.T
	pool     *pgxpool.Pool // with the application's rights
	admin    *pgxpool.Pool
	store    *memstore.Store
	codec    *seal.Codec
	commands *commands.Commands
	mailer   *mailer
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dsn := pgtest.Database(t,
		postgres.Migrations{Name: "proj", FS: runner.Migrations()}, postgres.Migrations{Name: "saga", FS: Migrations()},
		postgres.Migrations{Name: "auth", FS: auth.Migrations()}, postgres.Migrations{Name: "keyring", FS: keyring.Migrations()})
	if err := jobs.Migrate(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	admin, pool := openPool(t, dsn), openPool(t, dsn+"&role=factum_app")
	kek, err := keyring.LoadOrCreateKEK(t.TempDir() + "/kek.json")
	if err != nil {
		t.Fatal(err)
	}
	keys := keyring.Open(pool, kek)
	accounts, err := auth.New(t.Context(), auth.Config{Pool: pool, Secrets: keys})
	if err != nil {
		t.Fatal(err)
	}
	types, err := eventstore.NewRegistry(domain.Catalog()...)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, pool: pool, admin: admin, store: memstore.New(), codec: &seal.Codec{Registry: types, Keys: &seal.MemoryKeys{}}, mailer: &mailer{}}
	w.commands, err = commands.New(commands.Config{
		Store: w.store, Codec: w.codec, Objects: noObjects{}, MAC: keys.MAC, Auth: accounts, Now: time.Now, NewID: func() string { return "" },
		Provision: func(context.Context, string, string) error { return nil }, Mailer: w.mailer, AccountURL: "http://factum.example/account",
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func openPool(t *testing.T, dsn string) *pgxpool.Pool {
	t.Helper()
	pool, err := postgres.Open(t.Context(), dsn, 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// noObjects is an object store that these tests never reach.
type noObjects struct{ commands.ObjectStore }

// ask stores a file and asks for its time-stamp, as an upload does.
func (w *world) ask() {
	w.t.Helper()
	step := &commands.Decision[file.State, file.Command, file.Event]{
		Decider: file.Decider, Stream: eventstore.StreamID{Kind: file.Kind, ID: fileID},
		Command: file.Keep{FileID: fileID, SHA256: hex.EncodeToString(make([]byte, 32)), MD5: "x", Size: 1, ObjectKey: "k", DocumentID: "d", By: "u", Stamp: true, At: time.Now().UTC()},
	}
	_, err := commands.NewExecutor(w.store, w.codec).Execute(w.t.Context(), tenant, eventstore.Meta{Command: "upload", Actor: "u", At: time.Now()}, step)
	if err != nil {
		w.t.Fatal(err)
	}
}

// types lists the log's event types.
func (w *world) types() string {
	w.t.Helper()
	page, err := w.store.Tenant(tenant).Page(w.t.Context(), 0, 100)
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, e := range page.Events {
		names = append(names, strings.TrimPrefix(e.Type, "file."))
	}
	return strings.Join(names, " ")
}

// noneRetired is a [Dropper] of a platform whose generations never change.
type noneRetired struct{}

func (noneRetired) DropRetired(context.Context, string, eventstore.TenantID, int, time.Duration) (bool, error) {
	return false, nil
}

// start runs the saga and its jobs until stop.
func (w *world) start(reports Reporter, tsa Stamper, breakTx func(context.Context, pgx.Tx) error) (stop func()) {
	w.t.Helper()
	log := slog.New(slog.DiscardHandler)
	worker, err := NewWorker(Deps{Pool: w.pool, Commands: reports, TSA: tsa, Retired: noneRetired{}, Logger: log, Exclusive: true})
	if err != nil {
		w.t.Fatal(err)
	}
	projection := Sagas(worker.lane.queue)[0]
	if breakTx != nil {
		honest := projection.InTx
		projection.InTx = func(ctx context.Context, tx pgx.Tx, t eventstore.TenantID, slice []runner.Fact) error {
			if err := honest(ctx, tx, t, slice); err != nil {
				return err
			}
			return breakTx(ctx, tx)
		}
	}
	r, err := runner.New(runner.Config{
		Store: w.store, Codec: w.codec, Projections: []runner.Projection{projection}, Logger: log,
		Pool:    func(context.Context, string) (*pgxpool.Pool, error) { return w.pool, nil },
		Tenants: func(context.Context) ([]string, error) { return []string{string(tenant)}, nil },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := worker.Start(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			w.t.Error(err)
		}
		if err := worker.Stop(context.Background()); err != nil {
			w.t.Error(err)
		}
	}
	w.t.Cleanup(stop)
	return stop
}

// await follows the log until the event type occurs.
func (w *world) await(name string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 40*time.Second)
	defer cancel()
	for batch, err := range w.store.Tenant(tenant).Follow(ctx, 0) {
		if err != nil {
			w.t.Fatalf("%s does not come; the log holds %s: %v", name, w.types(), err)
		}
		for _, e := range batch.Events {
			if e.Type == "file."+name {
				return
			}
		}
	}
}

const stampedLog = "stored linked timestamp_requested timestamped"

// TestCrashesBetweenFactAndOutcome breaks the way from the request to the outcome at every step; each time the log ends with
// exactly one outcome.
func TestCrashesBetweenFactAndOutcome(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]*struct {
		reports crashing
		txs     int // transactions that die after the jobs were inserted
		asked   int // how often the authority is asked
	}{
		"no crash": {asked: 1},
		"after the jobs were inserted, before the commit":    {txs: 2, asked: 1},
		"after the authority answered, before the report":    {reports: crashing{before: 2}, asked: 3},
		"after the report, before the job is marked as done": {reports: crashing{after: 1}, asked: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			tc.reports.Commands = w.commands
			a := &authority{}
			left := tc.txs
			w.ask()
			w.start(&tc.reports, a, func(ctx context.Context, tx pgx.Tx) error {
				if left > 0 {
					left--
					return tx.Conn().Close(ctx) // PostgreSQL rolls back, as when the process is killed
				}
				return nil
			})
			w.await("timestamped")
			awaitIdle(t, w)
			if got := w.types(); got != stampedLog {
				t.Fatal(got)
			}
			if got := a.times(); got != tc.asked {
				t.Fatalf("the authority was asked %d times; want %d", got, tc.asked)
			}
		})
	}
}

// awaitIdle waits until River holds no job that is still to be done.
func awaitIdle(t *testing.T, w *world) {
	t.Helper()
	deadline := time.After(40 * time.Second)
	for tick := time.Tick(20 * time.Millisecond); ; {
		var open int
		if err := w.pool.QueryRow(t.Context(), `select count(*) from river.river_job where state not in ('completed', 'discarded', 'cancelled')`).Scan(&open); err != nil {
			t.Fatal(err)
		}
		if open == 0 {
			return
		}
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("%d jobs are left", open)
		}
	}
}

// TestAJobThatAKilledProcessLeftRunningIsTakenUp: River marks a job as running before its worker dies.
func TestAJobThatAKilledProcessLeftRunningIsTakenUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ask()
	args := fmt.Sprintf(`{"key": "00000000-0000-8000-8000-000000000000", "tenant": %q, "args": {"file": %q, "attempt": 1}}`, tenant, fileID)
	_, err := w.pool.Exec(t.Context(), `insert into river.river_job (state, args, kind, max_attempts, attempt, attempted_at, attempted_by)
		values ('running', $1, 'tsa.stamp', 100, 1, now(), array['dead'])`, args)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{}
	w.start(w.commands, a, nil)
	w.await("timestamped")
	awaitIdle(t, w)
	if got := w.types(); got != stampedLog {
		t.Fatal(got)
	}
}

// TestTheAuthorityComesBack: a failure is a fact with its next attempt, which then comes through.
func TestTheAuthorityComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ask()
	a := &authority{plan: []error{&tsa.Error{Reason: "The time-stamping authority cannot be reached."}}}
	stop := w.start(w.commands, a, nil)
	w.await("timestamp_failed")
	stop() // a restart in between forgets nothing
	w.start(w.commands, a, nil)
	w.await("timestamped")
	if got := w.types(); got != "stored linked timestamp_requested timestamp_failed timestamped" {
		t.Fatal(got)
	}
}

func TestARefusalForGoodIsAbandoned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ask()
	w.start(w.commands, &authority{plan: []error{&tsa.Error{Reason: "badAlg", Permanent: true}}}, nil)
	w.await("timestamp_abandoned")
	awaitIdle(t, w)
	var kept int
	if err := w.pool.QueryRow(t.Context(), `select count(*) from saga.state`).Scan(&kept); err != nil || kept > 1 {
		t.Fatal(kept, err)
	}
}

// TestALostCheckpointStampsNothingTwice: the saga replays its log, and its jobs look again before they act.
func TestALostCheckpointStampsNothingTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ask()
	a := &authority{}
	stop := w.start(w.commands, a, nil)
	w.await("timestamped")
	awaitIdle(t, w)
	stop()
	if _, err := w.admin.Exec(t.Context(), `truncate proj.checkpoint, proj.live, saga.state`); err != nil {
		t.Fatal(err)
	}
	replayed := make(chan struct{}, 10)
	w.start(w.commands, a, func(context.Context, pgx.Tx) error { replayed <- struct{}{}; return nil })
	<-replayed
	awaitIdle(t, w)
	if got := w.types(); got != stampedLog || a.times() != 1 {
		t.Fatal(got, a.times())
	}
}

// TestACrashAfterAFailureWasReported: the job runs again when its attempt is over already, and must not make the next one, whose
// answer would be thrown away and which is not due yet.
func TestACrashAfterAFailureWasReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ask()
	a := &authority{plan: []error{&tsa.Error{Reason: "The time-stamping authority cannot be reached."}}}
	w.start(&crashing{Commands: w.commands, after: 1}, a, nil)
	w.await("timestamped")
	awaitIdle(t, w)
	if got := w.types(); got != "stored linked timestamp_requested timestamp_failed timestamped" || a.times() != 2 {
		t.Fatalf("%s; the authority was asked %d times, want 2", got, a.times())
	}
}

// TestALostCheckpointInsertsNoJobTwice: the job of a request lives, the next one is due later, and the log is read again.
func TestALostCheckpointInsertsNoJobTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ask()
	a := &authority{plan: []error{&tsa.Error{Reason: "The time-stamping authority cannot be reached."}}}
	stop := w.start(w.commands, a, nil)
	w.await("timestamp_failed")
	stop()
	if _, err := w.admin.Exec(t.Context(), `truncate proj.checkpoint, proj.live, saga.state`); err != nil {
		t.Fatal(err)
	}
	w.start(w.commands, a, nil)
	w.await("timestamped")
	awaitIdle(t, w)
	var inserted, keys int
	err := w.pool.QueryRow(t.Context(), `select count(*), count(distinct args->>'key') from river.river_job`).Scan(&inserted, &keys)
	if err != nil || inserted != 2 || keys != 2 || a.times() != 2 {
		t.Fatalf("%d jobs with %d keys, the authority was asked %d times, %v; want 2 of each", inserted, keys, a.times(), err)
	}
}
