package runner_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/members"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
	"github.com/factum-platform/factum/infra/readmodel"
	"github.com/factum-platform/factum/infra/tenants"
	"github.com/factum-platform/factum/projections/runner"
)

// counted counts which tenants' logs are read.
type counted struct {
	eventstore.Store
	mu    sync.Mutex
	reads map[eventstore.TenantID]int
}

type countedLog struct {
	eventstore.Log
	count func()
}

func (c *counted) Tenant(t eventstore.TenantID) eventstore.Log {
	return countedLog{c.Store.Tenant(t), func() { c.count(t) }}
}

func (c *counted) count(t eventstore.TenantID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads[t]++
}

func (c *counted) of(t eventstore.TenantID) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reads[t]
}

func (l countedLog) Page(ctx context.Context, after eventstore.Position, limit int) (eventstore.Batch, error) {
	l.count()
	return l.Log.Page(ctx, after, limit)
}

func (l countedLog) Head(ctx context.Context) (eventstore.Position, error) {
	l.count()
	return l.Log.Head(ctx)
}

// placed is a world with the platform's table of marks.
func placed(t *testing.T) (*world, tenants.Activity) {
	t.Helper()
	w := newWorld(t)
	pool, err := postgres.Open(t.Context(), pgtest.Database(t, postgres.Migrations{Name: "placement", FS: tenants.Migrations()}), 8)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return w, tenants.Activity{Pool: pool}
}

func (w *world) marks(a tenants.Activity) (out string) {
	w.t.Helper()
	if err := a.Pool.QueryRow(w.t.Context(), `select coalesce(string_agg(tenant, ' ' order by tenant), '') from placement.activity`).Scan(&out); err != nil {
		w.t.Fatal(err)
	}
	return out
}

// deaf is a store whose bell nobody hears, as when the notification is lost.
type deaf struct {
	eventstore.Store
	bell eventstore.Bell
}

func (d *deaf) Bell() *eventstore.Bell { return &d.bell }

// TestATenantAtRestIsNotAsked: neither its log nor its database is, by nobody; and a mark brings it back, without a bell.
func TestATenantAtRestIsNotAsked(t *testing.T) {
	w, activity := placed(t)
	store := &counted{Store: &deaf{Store: w.store}, reads: map[eventstore.TenantID]int{}}
	var opened atomic.Int64
	w.add("a", 1)
	if err := activity.MarkAll(t.Context(), runner.Group([]runner.Projection{sums()})); err != nil { // no new set of projections: the sweep finds marks only
		t.Fatal(err)
	}
	sweeping := newShare()
	w.run(func(c *runner.Config) {
		c.Store, c.Marks, c.Share, c.SweepEvery = store, activity, sweeping, 5*time.Millisecond
		c.Pool = func(_ context.Context, tenant string) (*pgxpool.Pool, error) {
			if tenant != "platform" {
				opened.Add(1)
			}
			return w.pool, nil
		}
		c.Tenants = func(context.Context) ([]string, error) {
			return nil, errors.New("the list of all tenants is not for runners")
		}
	}, sums())
	sweeping.sweeps(t, 20)
	if n := opened.Load() + int64(store.of(tenant)); n != 0 {
		t.Fatalf("a tenant at rest was asked %d times", n)
	}

	w.writer = eventstore.Mark(w.store, func(ctx context.Context, t eventstore.TenantID) error { return activity.Mark(ctx, string(t)) })
	w.await("sums", w.add("a", 2))

	// Once the mark is old, and the tenant at rest, it is removed, and nobody asks again.
	if _, err := activity.Pool.Exec(t.Context(), `update placement.activity set marked_at = now() - interval '170 seconds'`); err != nil {
		t.Fatal(err)
	}
	sweeping.sweeps(t, 5)
	if got := w.marks(activity); got != string(tenant) {
		t.Fatal("a young mark was removed")
	}
	if _, err := activity.Pool.Exec(t.Context(), `update placement.activity set marked_at = now() - interval '190 seconds'`); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(20 * time.Second)
	for w.marks(activity) != "" {
		sweeping.sweeps(t, 1)
		select {
		case <-deadline:
			t.Fatal("the mark stays")
		default:
		}
	}
	sweeping.sweeps(t, 3)
	before := opened.Load() + int64(store.of(tenant))
	sweeping.sweeps(t, 20)
	if n := opened.Load() + int64(store.of(tenant)); n != before {
		t.Fatalf("a tenant at rest was asked %d times", n-before)
	}
}

// TestAnOldMarkStaysWhileSomethingIsLeftToDo: what stands still is looked after.
func TestAnOldMarkStaysWhileSomethingIsLeftToDo(t *testing.T) {
	w, activity := placed(t)
	sweeping := newShare()
	if err := activity.Mark(t.Context(), string(tenant)); err != nil {
		t.Fatal(err)
	}
	w.add("bad", -1)
	last := w.add("a", 1)
	w.run(func(c *runner.Config) { c.Marks, c.Share, c.SweepEvery = activity, sweeping, 5*time.Millisecond }, sums())
	w.await("sums", last)
	if _, err := activity.Pool.Exec(t.Context(), `update placement.activity set marked_at = now() - interval '1 hour'`); err != nil {
		t.Fatal(err)
	}
	sweeping.sweeps(t, 10)
	if got := w.marks(activity); got != string(tenant) {
		t.Fatal("the mark of a tenant with a parked stream was removed")
	}
}

// TestATenantThatIsGoneIsForgotten: its database was dropped and its placement with it.
func TestATenantThatIsGoneIsForgotten(t *testing.T) {
	w, activity := placed(t)
	for _, id := range []string{"gone", string(tenant)} {
		if err := activity.Mark(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	last := w.add("a", 1)
	w.run(func(c *runner.Config) {
		c.Marks = activity
		c.Pool = func(_ context.Context, id string) (*pgxpool.Pool, error) {
			if id == "gone" {
				return nil, fmt.Errorf("%w: %s", tenants.ErrUnknownTenant, id)
			}
			return w.pool, nil
		}
	}, sums())
	w.await("sums", last)
	deadline := time.After(20 * time.Second)
	for tick := time.Tick(10 * time.Millisecond); w.marks(activity) != string(tenant); {
		select {
		case <-tick:
		case <-deadline:
			t.Fatal("marked:", w.marks(activity))
		}
	}
}

// TestNewProjectionsMeetAllTenants: a set of projections that is new marks every tenant once.
func TestNewProjectionsMeetAllTenants(t *testing.T) {
	w, activity := placed(t)
	if _, err := activity.Pool.Exec(t.Context(), `insert into placement.databases (tenant, database, role, password) values ('t1', 'd', 'r', ''); delete from placement.activity`); err != nil {
		t.Fatal(err)
	}
	last := w.add("a", 1)
	stop := w.run(func(c *runner.Config) { c.Marks = activity }, sums())
	w.await("sums", last)
	stop()
	if _, err := activity.Pool.Exec(t.Context(), `delete from placement.activity`); err != nil {
		t.Fatal(err)
	}
	if err := activity.MarkAll(t.Context(), runner.Group([]runner.Projection{sums()})); err != nil {
		t.Fatal(err)
	}
	if got := w.marks(activity); got != "" {
		t.Error("a set of projections that is known marked", got)
	}
}

// share gives all tenants to one runner, and tells the test when it sweeps.
type share struct{ swept chan struct{} }

func newShare() *share { return &share{make(chan struct{})} }

func (s *share) Mine(string) bool { return true }

// Changed is called at the beginning of each sweep.
func (s *share) Changed() <-chan struct{} {
	select {
	case s.swept <- struct{}{}:
	default:
	}
	return nil
}

// sweeps waits for so many sweeps.
func (s *share) sweeps(t *testing.T, n int) {
	t.Helper()
	for range n {
		select {
		case <-s.swept:
		case <-time.After(20 * time.Second):
			t.Fatal("nobody sweeps")
		}
	}
}

// TestRunnersShareTenantsWithoutRaces: four processes over many tenants apply each batch once in the steady state, and when one is gone the others
// take over what was its.
func TestRunnersShareTenantsWithoutRaces(t *testing.T) {
	w, activity := placed(t)
	const processes, logs = 4, 24
	var ids []eventstore.TenantID
	pools := map[string]*pgxpool.Pool{}
	for i := range logs {
		id := eventstore.TenantID(fmt.Sprintf("t%d", i))
		ids = append(ids, id)
		pool, err := postgres.Open(t.Context(), pgtest.Database(t, postgres.Migrations{Name: "proj", FS: runner.Migrations()}), 3)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		pools[string(id)] = pool
	}
	pools["platform"] = w.pool
	store := eventstore.Mark(w.store, func(ctx context.Context, t eventstore.TenantID) error { return activity.Mark(ctx, string(t)) })
	n := 0
	add := func(id eventstore.TenantID) {
		n++
		_, err := store.Tenant(id).Append(t.Context(), eventstore.Write{
			Stream: eventstore.StreamID{Kind: "test", ID: fmt.Sprint(n)}, Expected: eventstore.NoStream(), Events: []eventstore.Proposed{{
				ID: eventstore.NewEventID(id, "a", fmt.Sprint(n), 0), Type: "test.added", Schema: 1, Data: []byte(`{"n":1}`), Meta: eventstore.Meta{Command: "c", Actor: "a"},
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	settle := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		for _, id := range ids {
			head, err := w.store.Tenant(id).Head(ctx)
			if err == nil {
				err = readmodel.NewWaiter(nil).Wait(ctx, pools[string(id)], "sums", string(id), uint64(head))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	type process struct {
		member  *members.Member
		metrics *prometheus.Registry
		stop    func()
	}
	var all []process
	for range processes {
		m, err := members.Join(t.Context(), activity.Pool, "g", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.Leave)
		p := process{member: m, metrics: prometheus.NewRegistry()}
		p.stop = w.run(func(c *runner.Config) {
			c.Marks, c.Share, c.Registerer, c.Moves = activity, m, p.metrics, nil
			c.Pool = func(_ context.Context, tenant string) (*pgxpool.Pool, error) { return pools[tenant], nil }
		}, sums())
		all = append(all, p)
	}
	for _, p := range all {
		for p.member.Count() != processes {
			<-p.member.Changed()
		}
	}
	for _, id := range ids {
		add(id)
	}
	settle()
	races := func() (sum float64) {
		for _, p := range all {
			sum += metric(t, p.metrics, "factum_projection_lost_races_total")
		}
		return sum
	}
	before := races()
	for range 20 {
		for _, id := range ids {
			add(id)
		}
	}
	settle()
	if lost := races() - before; lost != 0 {
		t.Errorf("%v slices were applied by two processes", lost)
	}

	all[0].stop()
	all[0].member.Leave()
	for _, id := range ids { // its tenants are taken over by those that are left
		add(id)
	}
	settle()
	for _, id := range ids {
		var events int
		if err := pools[string(id)].QueryRow(t.Context(), `select sum(events) from sums_g1.sums`).Scan(&events); err != nil || events != 22 {
			t.Errorf("%s has %d events, %v", id, events, err)
		}
	}
}

// metric is the value of a counter or gauge, over all its labels.
func metric(t *testing.T, r *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if f.GetType() == dto.MetricType_COUNTER {
				sum += m.GetCounter().GetValue()
			} else {
				sum += m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
