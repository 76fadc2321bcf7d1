package runner_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/memstore"
	"github.com/factum-platform/factum/infra/readmodel"
	"github.com/factum-platform/factum/projections/runner"
)

func (w *world) rebuild(o *runner.Operator, opt runner.RebuildOptions) runner.Rebuilt {
	w.t.Helper()
	out, err := o.Rebuild(w.t.Context(), "sums", tenant, opt)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// states lists the generations with their states.
func (w *world) states() string {
	w.t.Helper()
	return w.one(`select coalesce(string_agg(distinct generation || ' ' || state, ', '), '') from proj.checkpoint`)
}

func (w *world) schemas() string {
	w.t.Helper()
	return w.one(`select coalesce(string_agg(nspname::text, ' ' order by nspname), '') from pg_namespace where nspname ~ '_g[0-9]+$'`)
}

func TestRebuildBesideTheLiveGeneration(t *testing.T) {
	w := newWorld(t)
	w.run(nil, sums())
	for i := range 30 {
		w.add(fmt.Sprint("s", i%4), i)
	}
	w.await("sums", w.add("last", 1))
	want := w.rows()
	var stages []string
	var last runner.Progress
	retiring := 0
	out := w.rebuild(w.operator(sums()), runner.RebuildOptions{
		Progress: func(p runner.Progress) {
			if len(stages) == 0 || stages[len(stages)-1] != p.Stage {
				stages = append(stages, p.Stage)
			}
			last = p
		},
		Retiring: func(_ context.Context, projection string, of eventstore.TenantID, generation int) error {
			if projection != "sums" || of != tenant {
				t.Error(projection, of)
			}
			retiring = generation
			return nil
		},
	})
	if out.Generation != 2 || out.Previous != 1 || out.Resumed || out.Events != 31 || retiring != 1 || !out.Compared.Same() || out.Compared.Skipped != "" {
		t.Fatalf("%+v, retiring %d", out, retiring)
	}
	if tables := out.Compared.Tables; len(tables) != 1 || tables[0].Table != "sums" || tables[0].Columns != 3 || tables[0].Live != 5 || tables[0].Built != 5 {
		t.Fatalf("%+v", tables)
	}
	if got := strings.Join(stages, " "); got != "building indexing building comparing promoting" || last.Events != 31 || last.At != 31 || last.Head != 31 {
		t.Fatalf("%s, %+v", got, last)
	}
	if got := w.rows(); got != want {
		t.Fatal(got, want)
	}
	if got := w.states() + "; " + w.schemas(); got != "1 retired, 2 live; sums_g1 sums_g2" {
		t.Fatal(got)
	}
	if got := w.one(`select count(*)::text from pg_indexes where schemaname = 'sums_g2'`); got != "2" {
		t.Fatal("indexes:", got)
	}
	w.await("sums", w.add("s0", 100)) // the runner goes on with the new one
	if got := w.one(`select total || ' ' || (select total from sums_g1.sums where stream = 's0') from sums_g2.sums where stream = 's0'`); got != "212 112" {
		t.Fatal(got)
	}
}

// TestRebuildUnderLoad: while events arrive and readers read, generations change and nobody sees a step back.
func TestRebuildUnderLoad(t *testing.T) {
	w := newWorld(t)
	w.run(nil, sums())
	w.await("sums", w.add("a", 1))
	ctx, stop := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	var reads, written atomic.Int64
	written.Store(1)
	longest := make([]time.Duration, 4)
	for i := range longest {
		busy.Go(func() {
			var position, events uint64
			for ctx.Err() == nil {
				begun := time.Now()
				var n uint64
				at, err := readmodel.Read(t.Context(), w.pool, "sums", string(tenant), 0, func(tx readmodel.Tx, schema string) error {
					return tx.QueryRow(t.Context(), `select coalesce(sum(events), 0) from `+schema+`.sums`).Scan(&n)
				})
				if err != nil || at < position || n < events || n < at {
					t.Errorf("position %d after %d, %d events after %d: %v", at, position, n, events, err)
					return
				}
				position, events = at, n
				longest[i] = max(longest[i], time.Since(begun))
				reads.Add(1)
			}
		})
	}
	busy.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			w.add(fmt.Sprint("s", i%10), 1)
			written.Add(1)
		}
	})
	o := w.operator(sums())
	var fenced time.Duration
	for i := range 5 {
		out := w.rebuild(o, runner.RebuildOptions{DropOld: true})
		if out.Generation != i+2 || !out.Dropped || out.Compared.Skipped != "" {
			t.Errorf("%+v", out)
		}
		fenced = max(fenced, out.Fenced)
	}
	stop()
	busy.Wait()
	head, err := w.store.Tenant(tenant).Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.await("sums", head)
	if got := w.one(`select sum(events)::text from sums_g6.sums`); got != fmt.Sprint(written.Load()) {
		t.Errorf("%s events, written %d", got, written.Load())
	}
	if got := w.schemas(); got != "sums_g6" {
		t.Error(got)
	}
	t.Logf("%d reads, the longest %v, %d events written, the live writer stopped for at most %v", reads.Load(), longest, written.Load(), fenced)
}

// crash lets every statement from the n-th on fail, which leaves what a process that was killed before it would leave.
type crash struct{ left *atomic.Int64 }

func (c crash) strike(ctx context.Context) context.Context {
	if c.left.Add(-1) >= 0 {
		return ctx
	}
	dead, cancel := context.WithCancel(ctx)
	cancel()
	return dead
}

func (c crash) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return c.strike(ctx)
}
func (crash) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (c crash) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return c.strike(ctx)
}
func (crash) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (crash) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// mortal returns an operator whose process dies before its n-th statement.
func (w *world) mortal(n int, projections ...runner.Projection) (o *runner.Operator, gone func()) {
	w.t.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	c := w.pool.Config().Copy()
	c.ConnConfig.Tracer = crash{&left}
	pool, err := pgxpool.NewWithConfig(w.t.Context(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	o, err = runner.NewOperator(w.config(func(c *runner.Config) {
		c.Pool = func(context.Context, string) (*pgxpool.Pool, error) { return pool, nil }
	}, projections...))
	if err != nil {
		w.t.Fatal(err)
	}
	return o, pool.Close
}

// TestRebuildIsResumedAfterACrashAnywhere kills a rebuild before each of its statements, and lets another finish it.
func TestRebuildIsResumedAfterACrashAnywhere(t *testing.T) {
	w := newWorld(t)
	w.run(nil, sums())
	for i := range 20 {
		w.add(fmt.Sprint("s", i%3), i)
	}
	w.await("sums", w.add("last", 1))
	want := w.rows()
	crashes, resumed, promoted := 0, 0, 0
	for n := 0; ; n++ {
		live := w.one(`select generation::text from proj.live`)
		dying, gone := w.mortal(n, sums())
		_, err := dying.Rebuild(t.Context(), "sums", tenant, runner.RebuildOptions{})
		gone()
		if got := w.rows(); got != want {
			t.Fatalf("killed before statement %d: %s", n, got)
		}
		if err == nil {
			break
		}
		crashes++
		if w.one(`select generation::text from proj.live`) != live {
			promoted++ // and died before it could say so
			continue
		}
		out := w.rebuild(w.operator(sums()), runner.RebuildOptions{DropOld: true})
		if out.Resumed {
			resumed++
		}
		if got := w.rows(); got != want || !out.Dropped {
			t.Fatalf("killed before statement %d: %s, %+v", n, got, out)
		}
	}
	if crashes < 30 || resumed < 20 {
		t.Fatalf("%d crashes, %d resumed, %d after the promotion", crashes, resumed, promoted)
	}
	w.await("sums", w.add("last", 1))
	if got := w.one(`select events::text from ` + w.one(`select 'sums_g' || generation from proj.live`) + `.sums where stream = 'last'`); got != "2" {
		t.Fatal(got)
	}
	t.Logf("%d crashes, %d resumed, %d after the promotion", crashes, resumed, promoted)
}

func TestTwoRebuildsAtOnce(t *testing.T) {
	w := newWorld(t)
	w.run(nil, sums())
	w.await("sums", w.add("a", 1))
	slow := sums()
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	apply := slow.Apply
	slow.Apply = func(wr *runner.Writes, rec eventstore.Recorded, fact any) error {
		once.Do(func() { close(entered) })
		<-release
		return apply(wr, rec, fact)
	}
	done := make(chan error, 1)
	first := w.operator(slow)
	go func() {
		_, err := first.Rebuild(t.Context(), "sums", tenant, runner.RebuildOptions{})
		done <- err
	}()
	<-entered
	for name, call := range map[string]func() (runner.Rebuilt, error){
		"rebuild": func() (runner.Rebuilt, error) {
			return w.operator(sums()).Rebuild(t.Context(), "sums", tenant, runner.RebuildOptions{})
		},
		"rollback": func() (runner.Rebuilt, error) {
			return w.operator(sums()).Rollback(t.Context(), "sums", tenant, runner.RebuildOptions{})
		},
	} {
		if _, err := call(); !errors.Is(err, runner.ErrRebuildRuns) {
			t.Errorf("a second %s: %v", name, err)
		}
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := w.states(); got != "1 retired, 2 live" {
		t.Fatal(got)
	}
}

// poisonOf is the event that stopped a rebuild.
func poisonOf(t *testing.T, err error) *runner.PoisonError {
	t.Helper()
	var poisoned *runner.PoisonError
	if !errors.As(err, &poisoned) {
		t.Fatal(err)
	}
	return poisoned
}

func TestPoisonFailsARebuildAndTheLiveGenerationStays(t *testing.T) {
	w := newWorld(t)
	w.run(nil, sums())
	for i := range 10 {
		w.add("a", i)
	}
	w.await("sums", w.add("b", 5))
	strict := sums()
	apply := strict.Apply
	strict.Apply = func(wr *runner.Writes, rec eventstore.Recorded, fact any) error {
		if fact.(added).N == 7 {
			return errors.New("sevens are not wanted")
		}
		return apply(wr, rec, fact)
	}
	_, err := w.operator(strict).Rebuild(t.Context(), "sums", tenant, runner.RebuildOptions{})
	var poisoned *runner.PoisonError
	if !errors.As(err, &poisoned) || poisoned.Event.Version != 8 || poisoned.Reason != "apply test.added: sevens are not wanted" || !strings.Contains(err.Error(), "factum projections skip sums --tenant t1 --stream test-a --event "+poisoned.Event.ID.String()) {
		t.Fatal(err)
	}
	if got := w.states(); got != "1 live, 2 building" {
		t.Fatal(got)
	}
	w.await("sums", w.add("b", 1)) // it is still written
	if got := w.rows(); got != "a=45/10 b=6/2" {
		t.Fatal(got)
	}
	if out := w.rebuild(w.operator(sums()), runner.RebuildOptions{}); !out.Resumed || out.Generation != 2 || out.Events != 5 {
		t.Fatalf("%+v", out)
	}
}

func TestRowsThatDifferAreNotPromoted(t *testing.T) {
	w := newWorld(t)
	w.run(nil, sums())
	w.add("a", 1)
	w.add("b", 2)
	w.add("bad", 1)
	w.await("sums", w.add("bad", -1)) // parked
	w.exec(`update sums_g1.sums set total = 100 where stream = 'a'`)
	lenient := sums() // what is parked live can be applied here
	lenient.Apply = func(wr *runner.Writes, rec eventstore.Recorded, fact any) error {
		wr.Exec(`insert into `+wr.Table("sums")+` as s values ($1, $2, 1) on conflict (stream) do update set total = s.total + excluded.total, events = s.events + 1`, rec.Stream.ID, fact.(added).N)
		return nil
	}
	o := w.operator(lenient)
	for range 2 {
		_, err := o.Rebuild(t.Context(), "sums", tenant, runner.RebuildOptions{})
		var different *runner.DifferenceError
		if !errors.As(err, &different) || different.Compared.Parked != 1 || !strings.Contains(err.Error(), "table sums has 3 rows in both, but not with the same values") ||
			!strings.Contains(err.Error(), "1 streams are parked") || !strings.Contains(err.Error(), "--accept-differences") {
			t.Fatal(err)
		}
	}
	if got := w.rows() + "; " + w.states(); got != "a=100/1 b=2/1 bad=1/1; 1 live, 2 building" {
		t.Fatal(got)
	}
	out := w.rebuild(o, runner.RebuildOptions{AcceptDifferences: true})
	if !out.Resumed || out.Compared.Same() || out.Compared.Skipped != "" {
		t.Fatalf("%+v", out)
	}
	if got := w.rows(); got != "a=1/1 b=2/1 bad=0/2" {
		t.Fatal(got)
	}
}

func TestAGenerationCanBeMadeAnew(t *testing.T) {
	w := newWorld(t)
	stop := w.run(nil, sums())
	w.await("sums", w.add("a", 1))
	stop()
	wrong := sums()
	wrong.Apply = func(wr *runner.Writes, rec eventstore.Recorded, fact any) error {
		wr.Exec(`insert into `+wr.Table("sums")+` as s values ($1, 0, 1) on conflict do nothing`, rec.Stream.ID)
		return nil
	}
	if _, err := w.operator(wrong).Rebuild(t.Context(), "sums", tenant, runner.RebuildOptions{}); err == nil {
		t.Fatal("promoted")
	}
	out := w.rebuild(w.operator(sums()), runner.RebuildOptions{Anew: true})
	if got := fmt.Sprintf("%v %d %s; %s; %s", out.Resumed, out.Generation, w.rows(), w.states(), w.schemas()); got != "false 3 a=1/1; 1 retired, 2 dropped, 3 live; sums_g1 sums_g3" {
		t.Fatal(got)
	}
}

// TestAnotherVersionIsBuiltBesideTheOldOne: the old binary serves until the new version is there; then it stands still.
func TestAnotherVersionIsBuiltBesideTheOldOne(t *testing.T) {
	w := newWorld(t)
	stop := w.run(nil, sums())
	w.await("sums", w.add("a", 4))
	doubled := sums()
	doubled.Version = 2
	doubled.DDL = `create table sums (stream text primary key, total numeric not null, events bigint not null)`
	doubled.Apply = func(wr *runner.Writes, rec eventstore.Recorded, fact any) error {
		wr.Exec(`insert into `+wr.Table("sums")+` as s values ($1, $2, 1) on conflict (stream) do update set total = s.total + excluded.total, events = s.events + 1`, rec.Stream.ID, 2*fact.(added).N)
		return nil
	}
	// A generation of a third version that was never finished does not stand in the way.
	abandoned := doubled
	abandoned.Version, abandoned.Apply = 3, func(*runner.Writes, eventstore.Recorded, any) error { return errors.New("not ready") }
	if _, err := w.operator(abandoned).Rebuild(t.Context(), "sums", tenant, runner.RebuildOptions{}); err == nil {
		t.Fatal("promoted")
	}
	out := w.rebuild(w.operator(doubled), runner.RebuildOptions{})
	// Only stream and events have the same type in both, and there they agree.
	if c := out.Compared; c.SameVersion || !c.Same() || len(c.Tables) != 1 || c.Tables[0].Columns != 2 || out.Generation != 3 {
		t.Fatalf("%+v", out)
	}
	if got := w.rows() + "; " + w.states(); got != "a=8/1; 1 retired, 2 dropped, 3 live" {
		t.Fatal(got)
	}
	stop()
	w.run(nil, doubled)
	w.await("sums", w.add("a", 1))
	if got := w.rows(); got != "a=10/2" {
		t.Fatal(got)
	}
	// Back is possible with the old version's code only.
	if _, err := w.operator(doubled).Rollback(t.Context(), "sums", tenant, runner.RebuildOptions{}); err == nil || !strings.Contains(err.Error(), "generation 1 was written by version 1 of the projection, and this binary has version 2") {
		t.Fatal(err)
	}
	back, err := w.operator(sums()).Rollback(t.Context(), "sums", tenant, runner.RebuildOptions{})
	if err != nil || back.Generation != 1 || back.Previous != 3 || back.Events != 1 {
		t.Fatalf("%+v, %v", back, err)
	}
	if got := w.rows(); got != "a=5/2" {
		t.Fatal(got)
	}
}

func TestRebuildOfALogThatWasRestored(t *testing.T) {
	w := newWorld(t)
	stop := w.run(nil, sums())
	w.add("a", 1)
	w.await("sums", w.add("a", 2))
	stop()
	w.store = memstore.New()
	w.add("b", 5)
	o := w.operator(sums())
	_, err := o.Rebuild(t.Context(), "sums", tenant, runner.RebuildOptions{})
	var different *runner.DifferenceError
	if !errors.As(err, &different) || !strings.Contains(err.Error(), "restored from an older backup") {
		t.Fatal(err)
	}
	w.rebuild(o, runner.RebuildOptions{AcceptDifferences: true})
	w.run(nil, sums())
	w.await("sums", w.add("b", 1))
	if got := w.rows(); got != "b=6/2" {
		t.Fatal(got)
	}
}

// What was being built when the log was exchanged is of no use.
func TestALogThatIsRestoredWhileItIsRebuilt(t *testing.T) {
	w := newWorld(t)
	w.add("a", 1)
	w.add("a", -1)
	o := w.operator(sums())
	var poisoned *runner.PoisonError
	if _, err := o.Rebuild(t.Context(), "sums", tenant, runner.RebuildOptions{}); !errors.As(err, &poisoned) {
		t.Fatal(err)
	}
	w.store = memstore.New()
	w.add("b", 5)
	w.add("b", 6)
	if out := w.rebuild(w.operator(sums()), runner.RebuildOptions{}); out.Resumed || out.Generation != 2 {
		t.Fatalf("%+v", out)
	}
	if got := w.rows() + "; " + w.states(); got != "b=11/2; 1 dropped, 2 live" {
		t.Fatal(got)
	}
}

func TestRebuildWithoutALiveGeneration(t *testing.T) {
	w := newWorld(t)
	head := w.add("a", 1)
	if out := w.rebuild(w.operator(sums()), runner.RebuildOptions{}); out.Generation != 1 || out.Previous != 0 || out.Compared.Skipped == "" {
		t.Fatalf("%+v", out)
	}
	w.run(nil, sums())
	w.await("sums", head)
	w.await("sums", w.add("a", 2))
	if got := w.rows() + "; " + w.states(); got != "a=3/2; 1 live" {
		t.Fatal(got)
	}
}

func TestWhatCannotBeRebuilt(t *testing.T) {
	w := newWorld(t)
	everywhere := sums()
	everywhere.Name, everywhere.Home = "everywhere", runner.PlatformHome
	saga := runner.Projection{
		Name: "saga", Version: 1, Home: runner.PlatformHome, Effects: true,
		InTx: func(context.Context, pgx.Tx, eventstore.TenantID, []runner.Fact) error { return nil },
	}
	o := w.operator(sums(), everywhere, saga)
	for _, c := range []struct {
		projection string
		tenant     eventstore.TenantID
		want       string
	}{
		{"sum", tenant, `there is no projection "sum"; there are everywhere, saga, sums`},
		{"saga", eventstore.PlatformTenant, "never rebuilt"},
		{"everywhere", tenant, "rebuilt as a whole"},
		{"sums", eventstore.PlatformTenant, "does not consume the log of platform"},
	} {
		if _, err := o.Rebuild(t.Context(), c.projection, c.tenant, runner.RebuildOptions{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s of %s: %v", c.projection, c.tenant, err)
		}
	}
}
