package runner_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/projection"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/memstore"
	"github.com/factum-platform/factum/eventstore/seal"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
	"github.com/factum-platform/factum/infra/readmodel"
	"github.com/factum-platform/factum/projections/runner"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// added is the one event of these tests.
type added struct {
	N int `json:"n"`
}

// world is one tenant's log in memory and its database in PostgreSQL.
type world struct {
	t      *testing.T
	store  *memstore.Store
	codec  *seal.Codec
	pool   *pgxpool.Pool
	waiter *readmodel.Waiter
	moves  readmodel.Moves
	sent   int

	runners []*runner.Runner // that were started
	writer  eventstore.Store // what add appends through; nil: store
}

const tenant = eventstore.TenantID("t1")

func newWorld(t *testing.T) *world {
	t.Helper()
	pool, err := postgres.Open(t.Context(), pgtest.Database(t, postgres.Migrations{Name: "proj", FS: runner.Migrations()}), 16)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w := &world{t: t, store: memstore.New(), pool: pool, codec: codec(t)}
	w.waiter = readmodel.NewWaiter(&w.moves)
	return w
}

func codec(tb testing.TB) *seal.Codec {
	tb.Helper()
	registry, err := eventstore.NewRegistry(es.Event[added]("test.added"), es.Event[projection.EventSkipped]("projection.event_skipped"))
	if err != nil {
		tb.Fatal(err)
	}
	return &seal.Codec{Registry: registry, Keys: &seal.MemoryKeys{}}
}

// sums adds up what was added, stream by stream: applying an event twice or not at all shows.
func sums() runner.Projection {
	return runner.Projection{
		Name: "sums", Version: 1, Home: runner.TenantHome, Types: []string{"test.added"},
		DDL: `create table sums (stream text primary key, total bigint not null, events bigint not null)`, Indexes: `create index sums_total on sums (total)`,
		Apply: func(w *runner.Writes, rec eventstore.Recorded, fact any) error {
			n := fact.(added).N
			if n < 0 {
				return errors.New("a negative number")
			}
			w.Exec(`insert into `+w.Table("sums")+` as s values ($1, $2, 1) on conflict (stream) do update set total = s.total + excluded.total, events = s.events + 1`, rec.Stream.ID, n)
			return nil
		},
	}
}

// add appends one event with the number n to the stream.
func (w *world) add(stream string, n int) eventstore.Position {
	w.t.Helper()
	w.sent++
	log := w.store.Tenant(tenant)
	if w.writer != nil {
		log = w.writer.Tenant(tenant)
	}
	s := eventstore.StreamID{Kind: "test", ID: stream}
	version := eventstore.Version(0)
	for rec, err := range log.ReadStream(w.t.Context(), s, 1) {
		if err != nil {
			w.t.Fatal(err)
		}
		version = rec.Version
	}
	out, err := log.Append(w.t.Context(), eventstore.Write{Stream: s, Expected: eventstore.At(version), Events: []eventstore.Proposed{{
		ID: eventstore.NewEventID(tenant, "a", fmt.Sprint(w.sent), 0), Type: "test.added", Schema: 1, Data: fmt.Appendf(nil, `{"n":%d}`, n),
		Meta: eventstore.Meta{Command: fmt.Sprint(w.sent), Actor: "a", At: time.Now().UTC()},
	}}})
	if err != nil {
		w.t.Fatal(err)
	}
	return out[0].Position
}

// config is what a runner or an operator of the world needs.
func (w *world) config(change func(*runner.Config), projections ...runner.Projection) runner.Config {
	c := runner.Config{
		Store: w.store, Codec: w.codec, Projections: projections, Moves: &w.moves, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
		Pool:    func(context.Context, string) (*pgxpool.Pool, error) { return w.pool, nil },
		Tenants: func(context.Context) ([]string, error) { return []string{string(tenant)}, nil },
		Ring: func(_ context.Context, t string) error {
			for _, r := range w.runners {
				r.Look(eventstore.TenantID(t))
			}
			return nil
		},
	}
	if change != nil {
		change(&c)
	}
	return c
}

// run starts a runner and returns what stops it.
func (w *world) run(change func(*runner.Config), projections ...runner.Projection) (stop func()) {
	w.t.Helper()
	r, err := runner.New(w.config(change, projections...))
	if err != nil {
		w.t.Fatal(err)
	}
	w.runners = append(w.runners, r)
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
	}
	w.t.Cleanup(stop)
	return stop
}

func (w *world) await(projection string, position eventstore.Position) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	if err := w.waiter.Wait(ctx, w.pool, projection, string(tenant), uint64(position)); err != nil {
		var text *string
		if scanErr := w.pool.QueryRow(w.t.Context(), `select max(error) from proj.checkpoint`).Scan(&text); scanErr != nil {
			w.t.Fatal(scanErr)
		}
		w.t.Fatal(err, text)
	}
}

// rows is what the live generation says.
func (w *world) rows() string {
	w.t.Helper()
	var out []string
	_, err := readmodel.Read(w.t.Context(), w.pool, "sums", "", 0, func(tx readmodel.Tx, schema string) error {
		rows, err := tx.Query(w.t.Context(), `select format('%s=%s/%s', stream, total, events) from `+schema+`.sums order by stream`)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.pool.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatal(sql, err)
	}
}

func (w *world) one(sql string) (out string) {
	w.t.Helper()
	if err := w.pool.QueryRow(w.t.Context(), sql).Scan(&out); err != nil {
		w.t.Fatal(sql, err)
	}
	return out
}

func TestRowsFollowTheLog(t *testing.T) {
	w := newWorld(t)
	w.add("a", 1)
	w.add("b", 10)
	stop := w.run(nil, sums())
	w.await("sums", w.add("a", 2)) // appended while it runs: the bell wakes it
	if got := w.rows(); got != "a=3/2 b=10/1" {
		t.Fatal(got)
	}
	stop()
	w.add("a", 4)
	w.run(nil, sums())
	w.await("sums", w.add("a", 8))
	if got := w.rows(); got != "a=15/4 b=10/1" {
		t.Fatal(got)
	}
}

// TestEveryPrefixAsCheckpoint: a runner that begins anywhere ends with the same rows.
func TestEveryPrefixAsCheckpoint(t *testing.T) {
	w := newWorld(t)
	for i := range 12 {
		last := w.add(fmt.Sprint("s", i%3), i)
		stop := w.run(nil, sums())
		w.await("sums", last)
		stop()
	}
	want := w.rows()
	w.exec(`truncate proj.live, proj.checkpoint`)
	w.run(nil, sums())
	w.await("sums", 12)
	if got := w.rows(); got != want || got != "s0=18/4 s1=22/4 s2=26/4" {
		t.Fatal(got, want)
	}
}

func TestLargeBacklogIsAppliedInSlices(t *testing.T) {
	w := newWorld(t)
	events := make([]eventstore.Proposed, 700)
	for round := range 2 {
		for i := range events {
			events[i] = eventstore.Proposed{
				ID: eventstore.NewEventID(tenant, "bulk", fmt.Sprint(round), i), Type: "test.added", Schema: 1, Data: []byte(`{"n":1}`),
				Meta: eventstore.Meta{Command: fmt.Sprint(round), Actor: "bulk", At: time.Now().UTC()},
			}
		}
		_, err := w.store.Tenant(tenant).Append(t.Context(), eventstore.Write{
			Stream: eventstore.StreamID{Kind: "test", ID: fmt.Sprint(round)}, Expected: eventstore.NoStream(), Events: events,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	w.run(nil, sums())
	w.await("sums", 1400)
	if got := w.rows(); got != "0=700/700 1=700/700" {
		t.Fatal(got)
	}
}

// TestRunnersThatRaceCountOnce runs three runners over one tenant while events arrive.
func TestRunnersThatRaceCountOnce(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		w.run(nil, sums())
	}
	total := 0
	var last eventstore.Position
	for i := range 300 {
		total += i
		last = w.add("a", i)
	}
	w.await("sums", last)
	if got := w.rows(); got != fmt.Sprintf("a=%d/300", total) {
		t.Fatal(got)
	}
}

// TestACrashBetweenRowsAndCommitLosesNothing breaks the transaction after the rows were written, again and again.
func TestACrashBetweenRowsAndCommitLosesNothing(t *testing.T) {
	w := newWorld(t)
	var crashes atomic.Int64
	p := sums()
	p.InTx = func(ctx context.Context, tx pgx.Tx, _ eventstore.TenantID, _ []runner.Fact) error {
		if crashes.Add(1) <= 3 {
			return tx.Conn().Close(ctx) // as if the process had been killed: PostgreSQL rolls back
		}
		return nil
	}
	last := w.add("a", 1)
	last = max(last, w.add("a", 2))
	w.run(nil, p)
	w.await("sums", last)
	if got := w.rows(); got != "a=3/2" || crashes.Load() < 4 {
		t.Fatal(got, crashes.Load())
	}
}

func TestPoisonParksItsStreamOnly(t *testing.T) {
	w := newWorld(t)
	w.add("good", 1)
	w.add("bad", 5)
	w.add("bad", -1)
	w.add("good", 2)
	last := w.add("bad", 7) // a later event of a parked stream must not make a row with a hole
	stop := w.run(nil, sums())
	w.await("sums", last)
	if got := w.rows(); got != "bad=5/1 good=3/2" {
		t.Fatal(got)
	}
	if got := w.one(`select format('%s %s %s', stream_id, from_version, error) from proj.parked`); got != "bad 2 apply test.added: a negative number" {
		t.Fatal(got)
	}
	stop()
	w.run(nil, sums())
	w.await("sums", w.add("bad", 1)) // parked across a restart
	if got := w.rows(); got != "bad=5/1 good=3/2" {
		t.Fatal(got)
	}
}

func TestPoisonHaltsWhereTheProjectionWantsIt(t *testing.T) {
	w := newWorld(t)
	strict := sums()
	strict.Halt = true
	good := w.add("a", 1)
	w.add("a", -1)
	w.run(nil, strict)
	w.await("sums", good)
	awaitText(t, w, `select coalesce(max(error), '') from proj.checkpoint`, "cannot apply event")
	if got := w.rows(); got != "a=1/1" {
		t.Fatal(got)
	}
}

// awaitText polls a query until its answer holds the text.
func awaitText(t *testing.T, w *world, sql, want string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for tick := time.Tick(20 * time.Millisecond); ; {
		if got := w.one(sql); strings.Contains(got, want) {
			return
		}
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("%s never answers %q", sql, want)
		}
	}
}

func TestAnEventOfTheFutureHalts(t *testing.T) {
	w := newWorld(t)
	_, err := w.store.Tenant(tenant).Append(t.Context(), eventstore.Write{
		Stream: eventstore.StreamID{Kind: "test", ID: "a"}, Expected: eventstore.NoStream(), Events: []eventstore.Proposed{{
			ID: eventstore.NewEventID(tenant, "a", "c", 0), Type: "test.added", Schema: 2, Data: []byte(`{}`), Meta: eventstore.Meta{Command: "c"},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.run(nil, sums())
	awaitText(t, w, `select coalesce(max(error), '') from proj.checkpoint`, "deploy readers before writers")
}

func TestALogOlderThanItsReadModelsIsNoticed(t *testing.T) {
	w := newWorld(t)
	stop := w.run(nil, sums())
	w.await("sums", w.add("a", 1))
	stop()
	w.store = memstore.New() // restored from a backup that does not have the event
	w.add("b", 1)
	w.run(nil, sums())
	awaitText(t, w, `select coalesce(max(error), '') from proj.checkpoint`, "restored from an older backup")
}

func TestWhatWasDeletedByHandIsBuiltAgain(t *testing.T) {
	for name, sql := range map[string]string{
		"rows, checkpoints and pointers": `truncate sums_g1.sums, proj.live, proj.checkpoint`,
		"the pointer":                    `delete from proj.live`,
		"the checkpoint":                 `delete from proj.checkpoint`,
		"the schema":                     `drop schema sums_g1 cascade`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			stop := w.run(nil, sums())
			w.await("sums", w.add("a", 1))
			stop()
			w.exec(sql)
			w.run(nil, sums())
			w.await("sums", w.add("a", 2))
			if got := w.rows(); got != "a=3/2" {
				t.Fatal(got)
			}
			if got := w.one(`select string_agg(nspname::text, ' ' order by nspname) from pg_namespace where nspname like 'sums%'`); name != "the schema" && got != "sums_g2" {
				t.Fatal("generations:", got)
			}
		})
	}
}

func TestAnotherVersionIsNotWrittenOver(t *testing.T) {
	w := newWorld(t)
	stop := w.run(nil, sums())
	w.await("sums", w.add("a", 1))
	stop()
	newer := sums()
	newer.Version = 2
	halted := make(chan struct{})
	w.run(func(c *runner.Config) { c.Logger = slog.New(tell{halted}) }, newer)
	select {
	case <-halted:
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on")
	}
	if got := w.rows(); got != "a=1/1" {
		t.Fatal(got)
	}
}

// What a newer binary wrote stops the reader with a message, before anything later is applied: nothing is dropped.
func TestWhatThisBinaryDoesNotKnowHalts(t *testing.T) {
	for name, test := range map[string]struct {
		kind   string
		schema uint16
		says   string
	}{
		"a newer schema": {"test.added", 2, "test.added has schema 2, this binary knows up to 1"},
		"a newer type":   {"test.multiplied", 1, `unknown event type "test.multiplied"`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.add("a", 1)
			_, err := w.store.Tenant(tenant).Append(t.Context(), eventstore.Write{
				Stream: eventstore.StreamID{Kind: "test", ID: "new"}, Expected: eventstore.NoStream(),
				Events: []eventstore.Proposed{{ID: eventstore.NewEventID(tenant, "a", "newer", 0), Type: test.kind, Schema: test.schema, Data: []byte(`{"n":5}`)}},
			})
			if err != nil {
				t.Fatal(err)
			}
			w.add("b", 3)
			halted := make(chan struct{})
			w.run(func(c *runner.Config) { c.Logger = slog.New(tell{halted}) }, sums())
			select {
			case <-halted:
			case <-time.After(20 * time.Second):
				t.Fatal("it goes on")
			}
			w.await("sums", 1) // what lies before is applied
			if got := w.rows(); got != "a=1/1" {
				t.Error("the rows are", got)
			}
			got := ""
			for end := time.Now().Add(20 * time.Second); got == "" && time.Now().Before(end); { // it is stored after it is logged
				got = w.one(`select coalesce(error, '') from proj.checkpoint`)
			}
			if !strings.Contains(got, test.says) {
				t.Errorf("the checkpoint says %q; want %q in it", got, test.says)
			}
		})
	}
}

// tell is a log handler that closes its channel at the first error.
type tell struct{ halted chan struct{} }

func (h tell) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelError }
func (h tell) WithAttrs([]slog.Attr) slog.Handler           { return h }
func (h tell) WithGroup(string) slog.Handler                { return h }
func (h tell) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "projection halted" {
		close(h.halted)
	}
	return nil
}

func TestWaitIsBounded(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := w.waiter.Wait(ctx, w.pool, "sums", string(tenant), 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	w.run(func(c *runner.Config) { c.Moves = nil }, sums()) // as another process would: only polling can tell
	w.await("sums", w.add("a", 1))
}

func TestConfigIsChecked(t *testing.T) {
	w := newWorld(t)
	good := runner.Config{
		Store: w.store, Codec: w.codec, Pool: func(context.Context, string) (*pgxpool.Pool, error) { return w.pool, nil },
		Tenants: func(context.Context) ([]string, error) { return nil, nil },
	}
	for name, change := range map[string]func(*runner.Config){
		"no store":  func(c *runner.Config) { c.Store = nil },
		"same name": func(c *runner.Config) { c.Projections = []runner.Projection{sums(), sums()} },
		"bad name":  func(c *runner.Config) { p := sums(); p.Name = "a b"; c.Projections = []runner.Projection{p} },
		"no home":   func(c *runner.Config) { p := sums(); p.Home = 0; c.Projections = []runner.Projection{p} },
		"idle":      func(c *runner.Config) { p := sums(); p.Apply = nil; c.Projections = []runner.Projection{p} },
		"saga DDL":  func(c *runner.Config) { p := sums(); p.Effects = true; c.Projections = []runner.Projection{p} },
	} {
		c := good
		change(&c)
		if _, err := runner.New(c); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
