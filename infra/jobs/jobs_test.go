package jobs

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

type greeting struct {
	To string `json:"to"`
}

func (greeting) Kind() string { return "greet" }

// greeter tells whom it greets, and does what the test wants.
type greeter struct {
	river.WorkerDefaults[greeting]
	greeted chan string
	do      func(ctx context.Context, to string) error
}

func (g *greeter) Work(ctx context.Context, job *river.Job[greeting]) error {
	g.greeted <- job.Args.To
	if g.do == nil {
		return nil
	}
	return g.do(ctx, job.Args.To)
}

// open migrates a fresh database from several processes at once and returns a pool with the application's rights.
func open(t *testing.T) *pgxpool.Pool {
	t.Helper()
	dsn := pgtest.Database(t)
	if err := postgres.Migrate(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	errs := make([]error, 3)
	for i := range errs {
		all.Go(func() { errs[i] = Migrate(t.Context(), dsn) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	pool, err := postgres.Open(t.Context(), dsn+"&role=factum_app", 10)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func client(t *testing.T, c Config, g *greeter) *Client {
	t.Helper()
	g.greeted = make(chan string, 100)
	c.Workers, c.Logger = river.NewWorkers(), slog.New(slog.DiscardHandler)
	if err := river.AddWorkerSafely(c.Workers, g); err != nil {
		t.Fatal(err)
	}
	q, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func insert(t *testing.T, pool *pgxpool.Pool, q *Client, end error, list ...river.JobArgs) {
	t.Helper()
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error { return errors.Join(q.InsertTx(t.Context(), tx, list), end) })
	if !errors.Is(err, end) {
		t.Fatal(err)
	}
}

func hear(t *testing.T, g *greeter) string {
	t.Helper()
	select {
	case to := <-g.greeted:
		return to
	case <-time.After(30 * time.Second):
		t.Fatal("no job was run in 30 s")
		return ""
	}
}

func state(t *testing.T, pool *pgxpool.Pool) (states string) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), `select coalesce(string_agg(state::text, ' ' order by id), '') from river.river_job`).Scan(&states); err != nil {
		t.Fatal(err)
	}
	return states
}

func live(t *testing.T, pool *pgxpool.Pool, q *Client) (values []string) {
	t.Helper()
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) (err error) {
		values, err = q.LiveTx(t.Context(), tx, "to")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return values
}

func TestJobsExistWithTheirTransaction(t *testing.T) {
	pool := open(t)
	metrics := prometheus.NewPedanticRegistry()
	g := &greeter{}
	q := client(t, Config{Pool: pool, Metrics: metrics}, g)
	insert(t, pool, q, errors.New("killed"), greeting{"nobody"})
	if got := state(t, pool); got != "" {
		t.Fatalf("a transaction that was rolled back left jobs: %s", got)
	}
	insert(t, pool, q, nil)
	only, err := New(Config{Pool: pool, Logger: slog.New(slog.DiscardHandler)}) // a client that works on nothing
	if err != nil {
		t.Fatal(err)
	}
	insert(t, pool, only, nil, greeting{"ann"})
	if got := state(t, pool); got != "available" {
		t.Fatalf("the jobs are %s", got)
	}
	if got := live(t, pool, only); !slices.Equal(got, []string{"ann"}) {
		t.Errorf("jobs that have not ended: %v", got)
	}
	families, err := metrics.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "factum_jobs_ready" || families[0].GetMetric()[0].GetGauge().GetValue() != 1 {
		t.Errorf("measured %v, %v; want factum_jobs_ready 1", families, err)
	}
	if err := q.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := hear(t, g); got != "ann" {
		t.Errorf("%s was greeted", got)
	}
	if err := q.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := state(t, pool); got != "completed" {
		t.Errorf("the jobs are %s", got)
	}
	if got := live(t, pool, only); len(got) > 0 {
		t.Errorf("jobs that have not ended: %v", got)
	}
	pool.Close()
	if families, err := metrics.Gather(); len(families) != 0 || err != nil {
		t.Errorf("without a database %v, %v; want nothing and no error", families, err)
	}
}

func TestAFailureIsTriedAgainAndStopInterrupts(t *testing.T) {
	pool := open(t)
	g := &greeter{do: func(ctx context.Context, _ string) error {
		<-ctx.Done() // until it is interrupted
		return ctx.Err()
	}}
	q := client(t, Config{Pool: pool}, g)
	insert(t, pool, q, nil, greeting{"a"})
	if err := q.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	hear(t, g)
	if err := q.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := state(t, pool); got != "available" && got != "retryable" {
		t.Fatalf("an interrupted job is %s", got)
	}

	tries := 0
	g = &greeter{do: func(context.Context, string) error {
		if tries++; tries == 1 {
			return errors.New("the log is away")
		}
		return nil
	}}
	q = client(t, Config{Pool: pool}, g)
	if err := q.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	hear(t, g)
	hear(t, g)
	if err := q.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := state(t, pool); got != "completed" {
		t.Errorf("the job is %s", got)
	}
}

func TestAtMostConcurrencyJobsRunAtOnce(t *testing.T) {
	pool := open(t)
	release := make(chan struct{})
	g := &greeter{do: func(ctx context.Context, _ string) error {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return ctx.Err()
	}}
	q := client(t, Config{Pool: pool, Concurrency: 2}, g)
	insert(t, pool, q, nil, greeting{"a"}, greeting{"b"}, greeting{"c"})
	if err := q.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	hear(t, g)
	hear(t, g)
	if got := state(t, pool); got != "running running available" {
		t.Errorf("the jobs are %s", got)
	}
	close(release)
	hear(t, g)
	if err := q.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestOnlyAnExclusiveClientTakesUpRunningJobs(t *testing.T) {
	pool := open(t)
	if _, err := pool.Exec(t.Context(), `insert into river.river_job (state, args, kind, max_attempts, attempt, attempted_at, attempted_by)
		values ('running', '{"to": "left"}', 'greet', 100, 1, now(), array['dead'])`); err != nil {
		t.Fatal(err)
	}
	for _, exclusive := range []bool{false, true} {
		g := &greeter{}
		q := client(t, Config{Pool: pool, Exclusive: exclusive}, g)
		if !exclusive {
			insert(t, pool, q, nil, greeting{"other"})
		}
		if err := q.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := hear(t, g), map[bool]string{false: "other", true: "left"}[exclusive]; got != want {
			t.Errorf("exclusive %v: %s was greeted; want %s", exclusive, got, want)
		}
		if err := q.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRetriesAreSpacedAndNeverMoreThanAMinute(t *testing.T) {
	for failed, want := range map[int]time.Duration{0: time.Second, 1: 2 * time.Second, 5: 32 * time.Second, 6: time.Minute, 30_000: time.Minute} {
		before := time.Now()
		got := retry{}.NextRetry(&rivertype.JobRow{Errors: make([]rivertype.AttemptError, failed)})
		if early, late := before.Add(want), time.Now().Add(want); got.Before(early) || got.After(late) {
			t.Errorf("after %d failures it waits %s; want %s", failed+1, got.Sub(before), want)
		}
	}
}

func TestWhatIsMissing(t *testing.T) {
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "Pool is required") {
		t.Errorf("no pool: %v", err)
	}
	if err := Migrate(t.Context(), "postgres://user:hunter2@host:port/"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a DSN that cannot be read: %v", err)
	}
	if err := client(t, Config{Pool: open(t)}, &greeter{}).Stop(t.Context()); err != nil {
		t.Errorf("stopping what was never started: %v", err)
	}
}
