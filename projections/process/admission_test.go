package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"

	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/infra/jobs"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
)

// hall is the platform's database with a lane whose clock stands still.
type hall struct {
	t     *testing.T
	pool  *pgxpool.Pool // with the application's rights
	admin *pgxpool.Pool
	queue *jobs.Client
	lane  *lane
	at    time.Time
}

func newHall(t *testing.T) *hall {
	t.Helper()
	dsn := pgtest.Database(t, postgres.Migrations{Name: "saga", FS: Migrations()})
	if err := jobs.Migrate(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	return enter(t, dsn)
}

func enter(t *testing.T, dsn string) *hall {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	h := &hall{t: t, pool: openPool(t, dsn+"&role=factum_app"), admin: openPool(t, dsn), at: time.Now().UTC().Truncate(time.Second)}
	var err error
	if h.queue, err = jobs.New(jobs.Config{Pool: h.pool, Logger: log}); err != nil {
		t.Fatal(err)
	}
	h.lane = &lane{pool: h.pool, queue: h.queue, log: log, now: func() time.Time { return h.at }}
	return h
}

// key is that of the tenant's n-th job.
func key(tenant string, n int) string { return es.Key("test", tenant, fmt.Sprint(n)) }

// ask asks for the jobs from, from+1 … of the tenant, all due at once.
func (h *hall) ask(tenant string, from, count int, due time.Time) {
	h.t.Helper()
	var list []wanted
	for n := from; n < from+count; n++ {
		list = append(list, wanted{key(tenant, n), Job{"test.do", map[string]int{"n": n}, due}})
	}
	err := pgx.BeginFunc(h.t.Context(), h.pool, func(tx pgx.Tx) error {
		return ask(h.t.Context(), tx, h.queue, "testing", tenant, list, h.at)
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// finish reports the tenant's n-th job.
func (h *hall) finish(tenant string, n int) {
	h.t.Helper()
	ran := false
	err := h.lane.carryOut(h.t.Context(), key(tenant, n), tenant, func(context.Context) error { ran = true; return nil })
	if err != nil || !ran {
		h.t.Fatal(n, ran, err)
	}
	// As River does once the worker has answered.
	h.exec(`update river.river_job set state = 'completed', finalized_at = now() where args->>'key' = $1`, key(tenant, n))
}

func (h *hall) exec(sql string, args ...any) {
	h.t.Helper()
	if _, err := h.admin.Exec(h.t.Context(), sql, args...); err != nil {
		h.t.Fatal(err)
	}
}

func (h *hall) text(sql string, args ...any) (out string) {
	h.t.Helper()
	if err := h.admin.QueryRow(h.t.Context(), sql, args...).Scan(&out); err != nil {
		h.t.Fatal(err)
	}
	return out
}

// want compares the tenant's jobs, in the table and in River's order, by their numbers.
func (h *hall) want(tenant, states, river string) {
	h.t.Helper()
	got := h.text(`select coalesce(string_agg(state || ' ' || count, ', ' order by state), '')
		from (select state, count(*) from saga.job where tenant = $1 group by state) s`, tenant)
	if got != states {
		h.t.Errorf("the jobs of %s are %q; want %q", tenant, got, states)
	}
	got = h.text(`select coalesce(string_agg(args->'args'->>'n', ' ' order by id), '') from river.river_job
		where args->>'tenant' = $1 and state <> 'completed'`, tenant)
	if got != river {
		h.t.Errorf("River holds %q of %s; want %q", got, tenant, river)
	}
}

func TestATenantHasFourJobsInRiverAndTheRestInTurn(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	h.ask("a", 0, 6, h.at.Add(-time.Second))
	h.ask("b", 0, 1, time.Time{}) // now
	h.ask("a", 6, 1, h.at.Add(-time.Minute))
	h.want("a", "admitted 4, waiting 3", "0 1 2 3")
	h.want("b", "admitted 1", "0")
	h.ask("a", 0, 7, h.at) // the log is read again
	h.want("a", "admitted 4, waiting 3", "0 1 2 3")

	metrics := prometheus.NewPedanticRegistry()
	metrics.MustRegister(backlog{h.pool, slog.New(slog.DiscardHandler)})
	families, err := metrics.Gather()
	if err != nil || len(families) != 2 || families[0].GetName() != "factum_jobs_oldest_seconds" || families[1].GetName() != "factum_jobs_waiting" ||
		families[0].GetMetric()[0].GetGauge().GetValue() < 60 || families[1].GetMetric()[0].GetGauge().GetValue() != 3 {
		t.Errorf("measured %v, %v", families, err)
	}

	h.finish("a", 2)
	h.want("a", "admitted 4, done 1, waiting 2", "0 1 3 6") // the one that was due first
	h.finish("a", 0)
	h.want("a", "admitted 4, done 2, waiting 1", "1 3 6 4")
	for _, n := range []int{1, 3, 6, 4, 5} {
		h.finish("a", n)
	}
	h.want("a", "done 7", "")
	h.want("b", "admitted 1", "0")
	if left := h.text(`select count(*)::text from saga.job where state = 'done' and (args is not null or kind is not null or due is not null)`); left != "0" {
		t.Errorf("%s done jobs keep more than their key", left)
	}

	h.ask("a", 0, 7, h.at) // the log is read again: everything is known
	h.want("a", "done 7", "")
	err = h.lane.carryOut(t.Context(), key("a", 3), "a", func(context.Context) error { return errors.New("it ran again") })
	if err != nil {
		t.Errorf("River repeats a job that is done: %v", err)
	}
	err = h.lane.carryOut(t.Context(), key("b", 0), "b", func(context.Context) error { return errors.New("the log is away") })
	if err == nil || err.Error() != "the log is away" {
		t.Error(err)
	}
	h.want("b", "admitted 1", "0")

	h.pool.Close()
	if families, err := metrics.Gather(); len(families) != 0 || err != nil {
		t.Errorf("without a database %v, %v; want nothing and no error", families, err)
	}
}

func TestWhatIsDueLaterHoldsNoPlace(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	h.ask("a", 0, 5, h.at.Add(time.Minute))
	h.ask("a", 5, 5, h.at)
	h.want("a", "admitted 4, scheduled 5, waiting 1", "5 6 7 8")
	look := func(want time.Duration) {
		t.Helper()
		if wait, err := h.lane.mature(t.Context()); err != nil || wait != want {
			t.Errorf("the next look is in %s, %v; want %s", wait, err, want)
		}
	}
	look(lookEvery)
	h.at = h.at.Add(59 * time.Second)
	look(time.Second)
	h.want("a", "admitted 4, scheduled 5, waiting 1", "5 6 7 8")
	h.at = h.at.Add(time.Second)
	look(shortestLook)
	h.want("a", "admitted 4, waiting 6", "5 6 7 8")
	look(lookEvery)
	for _, n := range []int{5, 6, 7, 8, 9, 0, 1, 2, 3, 4} {
		h.finish("a", n)
	}
	h.want("a", "done 10", "")

	// A tenant that has nothing under way; one place is enough for a job that has come due without anybody looking.
	h.ask("b", 0, 1, h.at.Add(time.Minute))
	h.ask("b", 1, 1, h.at)
	h.at = h.at.Add(time.Minute)
	h.finish("b", 1)
	h.want("b", "admitted 1, done 1", "0")
}

// TestNoPlaceIsLostUnderConcurrency: many workers finish, and several projectors ask, at once.
func TestNoPlaceIsLostUnderConcurrency(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	const count, askers = 60, 3
	var all sync.WaitGroup
	for i := range askers {
		all.Go(func() { h.ask("a", i*count/askers, count/askers, h.at) })
	}
	left := make(chan int, count)
	for n := range count {
		left <- n
	}
	for range 8 {
		all.Go(func() {
			for range count / 4 {
				// Whatever River holds is finished, by several workers at once now and then.
				var n int
				err := h.admin.QueryRow(t.Context(), `select (args->'args'->>'n')::int from river.river_job where state = 'available' order by random() limit 1`).Scan(&n)
				if errors.Is(err, pgx.ErrNoRows) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if err := h.lane.carryOut(t.Context(), key("a", n), "a", func(context.Context) error { return nil }); err != nil {
					t.Error(err)
				}
				h.exec(`update river.river_job set state = 'completed', finalized_at = now() where args->>'key' = $1`, key("a", n))
				var admitted int
				if err := h.admin.QueryRow(t.Context(), `select count(*) from saga.job where state = 'admitted'`).Scan(&admitted); err != nil || admitted > perTenant {
					t.Errorf("%d jobs are admitted, %v", admitted, err)
				}
			}
		})
	}
	all.Wait()
	for h.text(`select count(*)::text from saga.job where state <> 'done'`) != "0" {
		held := h.text(`select coalesce(max(args->'args'->>'n'), '') from river.river_job where state = 'available'`)
		if held == "" {
			t.Fatal("jobs wait although nothing is under way: ", h.text(`select string_agg(state, ' ') from saga.job`))
		}
		var n int
		if _, err := fmt.Sscan(held, &n); err != nil {
			t.Fatal(err)
		}
		h.finish("a", n)
	}
	if got := h.text(`select count(*) || ' ' || count(distinct args->>'key') from river.river_job`); got != fmt.Sprint(count, " ", count) {
		t.Errorf("jobs and keys in River: %s; want %d of each", got, count)
	}
}

func TestWhatRiverLostIsRepaired(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	h.ask("a", 0, 6, h.at)
	h.ask("b", 0, 2, h.at)
	repair := func() {
		t.Helper()
		if err := h.lane.repair(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	repair()
	h.want("a", "admitted 4, waiting 2", "0 1 2 3") // nothing to repair

	h.exec(`delete from river.river_job where args->>'key' in ($1, $2)`, key("a", 0), key("a", 1))
	h.exec(`update river.river_job set state = 'cancelled', finalized_at = now() where args->>'key' = $1`, key("b", 1))
	h.exec(`insert into saga.job (key, saga, tenant) values ($1, 'testing', 'a')`, key("a", 99)) // by a process of the version before
	repair()
	h.want("a", "admitted 4, done 1, waiting 2", "2 3 0 1")
	h.want("b", "admitted 2", "0 1 1")
	repair()
	h.want("a", "admitted 4, done 1, waiting 2", "2 3 0 1")

	h.exec(`update saga.job set state = 'waiting' where state = 'admitted' and tenant = 'b'; delete from river.river_job where args->>'tenant' = 'b'`)
	repair() // such as after a version with fewer places
	h.want("b", "admitted 2", "0 1")
}

// TestMigrationTakesOverWhatRiverHolds: the tables of the version before, with jobs in every state.
func TestMigrationTakesOverWhatRiverHolds(t *testing.T) {
	t.Parallel()
	before := fstest.MapFS{}
	for _, name := range []string{"00001_saga.sql", "00002_job.sql"} {
		raw, err := fs.ReadFile(Migrations(), name)
		if err != nil {
			t.Fatal(err)
		}
		before[name] = &fstest.MapFile{Data: raw}
	}
	dsn := pgtest.Database(t, postgres.Migrations{Name: "saga", FS: before})
	if err := jobs.Migrate(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	admin := openPool(t, dsn)
	states := []string{"available", "running", "retryable", "scheduled", "completed", "scheduled"}
	for n, state := range states {
		_, err := admin.Exec(t.Context(), `with j as (insert into saga.job values ($1, 'testing', 'a'))
			insert into river.river_job (state, args, kind, max_attempts, attempt, attempted_at, scheduled_at, finalized_at)
			values ($2::text::river.river_job_state, jsonb_build_object('key', $1::text, 'tenant', 'a', 'args', jsonb_build_object('n', $3::int)), 'test.do', 100, 1, now(),
				now() + interval '1 hour' * $3::int, case when $2::text = 'completed' then now() end)`, key("a", n), state, n)
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := postgres.Migrate(t.Context(), dsn, postgres.Migrations{Name: "saga", FS: Migrations()}); err != nil {
		t.Fatal(err)
	}
	h := enter(t, dsn)
	h.want("a", "admitted 3, done 1, scheduled 2", "0 1 2")
	h.at = h.at.Add(4 * time.Hour)
	if _, err := h.lane.mature(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.want("a", "admitted 4, done 1, scheduled 1", "0 1 2 3")
	for _, n := range []int{0, 1, 2, 3} {
		h.finish("a", n)
	}
	h.at = h.at.Add(4 * time.Hour)
	if _, err := h.lane.mature(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.want("a", "admitted 1, done 5", "5")
	if _, err := h.pool.Exec(t.Context(), `update saga.job set key = gen_random_uuid()`); err == nil || !strings.Contains(err.Error(), "42501") {
		t.Errorf("the application changes keys: %v", err)
	}
}

// counting is a job that takes its time and tells its end.
type countedArgs struct {
	Key    string `json:"key"`
	Tenant string `json:"tenant"`
}

func (countedArgs) Kind() string { return "test.do" }

type countedWorker struct {
	river.WorkerDefaults[countedArgs]
	lane  *lane
	ended chan string // tenants, in the order in which their jobs ended
}

func (w *countedWorker) Work(ctx context.Context, job *river.Job[countedArgs]) error {
	return w.lane.carryOut(ctx, job.Args.Key, job.Args.Tenant, func(ctx context.Context) error {
		select {
		case <-time.After(20 * time.Millisecond): // the work
		case <-ctx.Done():
			return ctx.Err()
		}
		w.ended <- job.Args.Tenant
		return nil
	})
}

// TestAFloodStarvesNobody: a tenant has asked for 2,000 jobs, of which many have run, when ten others ask for one each. All ten are done
// before the flood's next 4 × 8 jobs: its places, for each of the workers, and that over again for the jobs that are fetched already.
func TestAFloodStarvesNobody(t *testing.T) {
	t.Parallel()
	h := newHall(t)
	h.lane.now = time.Now
	const flood, others, next = 2000, 10, perTenant * 8
	w := &countedWorker{lane: h.lane, ended: make(chan string, flood+others)}
	workers := river.NewWorkers()
	river.AddWorker(workers, w)
	queue, err := jobs.New(jobs.Config{Pool: h.pool, Workers: workers, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h.ask("flood", 0, flood, h.at)
	if err := queue.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := queue.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	deadline := time.After(time.Minute)
	ended := func() string {
		select {
		case tenant := <-w.ended:
			return tenant
		case <-deadline:
			t.Fatal("the jobs do not end in a minute")
			return ""
		}
	}
	for range 40 {
		ended()
	}
	for i := range others {
		h.ask(fmt.Sprintf("other%d", i), 0, 1, h.at)
	}
	before := len(w.ended) // ended while the others asked
	served, of := 0, 0
	for served < others {
		if ended() == "flood" {
			of++
		} else {
			served++
		}
	}
	t.Logf("%d jobs of the flood ended before the last of %d others, %d of them while those asked", of, others, before)
	if of-before > next {
		t.Errorf("%d jobs of the flood ended before the last of the others; at most %d were to", of-before, next)
	}
	if left := h.text(`select count(*)::text from saga.job where tenant = 'flood' and state = 'waiting'`); left == "0" {
		t.Error("the flood was over before the others asked; the test shows nothing")
	}
}
