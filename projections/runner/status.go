package runner

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/eventstore"
)

// Filter says which consumers to show; its zero value says all.
type Filter struct {
	Projection string
	Tenant     eventstore.TenantID // whose log
}

// Activity says what a consumer does.
type Activity string

// The activities. A generation that is retired has none.
const (
	ActivityRunning Activity = "running" // applies the log, or is at its end
	ActivityWaiting Activity = "waiting" // tries again in a moment: a server is away
	ActivityPaused  Activity = "paused"  // by an operator
	ActivityHalted  Activity = "halted"  // until somebody heals what Error says
	ActivityUnbuilt Activity = "unbuilt" // no projector has met it yet
	ActivityUnknown Activity = "unknown" // its database could not be asked; Error says why
)

// Status is one consumer, a projection of one tenant's log, in one of its generations.
type Status struct {
	Projection string
	Tenant     eventstore.TenantID // whose log
	Generation int                 // 0 when it is unbuilt or unknown
	Version    int                 // of the projection's code that writes it
	State      string              // of the generation: live, building or retired; "" when it is unbuilt or unknown
	Activity   Activity            // "" for a retired generation
	Position   eventstore.Position // the log is applied up to here
	Head       eventstore.Position // the log's end
	LagEvents  int64               // how many events are not applied
	LagAtLeast bool                // there may be more of them
	Lag        time.Duration       // age of the oldest event that is not applied
	Error      string              // why it stands still, "" when it does not
	PausedBy   string              // who paused it, "" when nobody did
	PausedAt   time.Time
	MovedAt    time.Time // when it last applied something
	RetiredAt  time.Time // of a retired generation
	Parked     []Parked
}

// Parked is a stream that is not applied from an event on.
type Parked struct {
	Stream      eventstore.StreamID
	FromVersion eventstore.Version
	Event       eventstore.EventID // that cannot be applied
	Error       string
	At          time.Time // of the last attempt
	Attempts    int
}

const (
	// statusAtOnce is how many tenants' databases are asked at the same time.
	statusAtOnce = 8
	// statusTimeout bounds the asking of one tenant's database.
	statusTimeout = 5 * time.Second
	// countBound is how many events are counted at most where positions have gaps.
	countBound = 10_000
)

// Status returns the consumers that the filter says, ordered by projection, tenant and generation. A tenant whose database cannot be asked has
// a row that says so. It opens the databases of all tenants that it shows.
func (o *Operator) Status(ctx context.Context, f Filter) ([]Status, error) {
	if f.Projection != "" {
		if _, err := o.projection(f.Projection); err != nil {
			return nil, err
		}
	}
	logs, err := o.logs(ctx, f.Tenant)
	if err != nil {
		return nil, fmt.Errorf("runner: status: %w", err)
	}
	s := &survey{operator: o, filter: f, logs: logs}
	turns := make(chan struct{}, statusAtOnce)
	var all sync.WaitGroup
	look := func(root eventstore.TenantID, logs ...eventstore.TenantID) {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			s.ask(ctx, root, logs)
		})
	}
	look(eventstore.PlatformTenant, logs...)
	for _, t := range logs {
		if t != eventstore.PlatformTenant {
			look(t, t)
		}
	}
	all.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("runner: status: %w", err)
	}
	slices.SortFunc(s.found, func(a, b Status) int {
		return cmp.Or(cmp.Compare(a.Projection, b.Projection), cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Generation, b.Generation))
	})
	return s.found, nil
}

// logs are the platform's and those of all tenants, or only the one.
func (o *Operator) logs(ctx context.Context, only eventstore.TenantID) ([]eventstore.TenantID, error) {
	if only != "" {
		return []eventstore.TenantID{only}, o.known(ctx, only)
	}
	names, err := o.config.Tenants(ctx)
	logs := []eventstore.TenantID{eventstore.PlatformTenant}
	for _, name := range names {
		logs = append(logs, eventstore.TenantID(name))
	}
	return logs, err
}

// survey collects what the databases say.
type survey struct {
	operator *Operator
	filter   Filter
	logs     []eventstore.TenantID
	mu       sync.Mutex
	found    []Status
}

// ask looks into the database of root at what lies there of the logs.
func (s *survey) ask(ctx context.Context, root eventstore.TenantID, logs []eventstore.TenantID) {
	expected := map[[2]string]bool{} // projection and log
	for i := range s.operator.config.Projections {
		p := &s.operator.config.Projections[i]
		for _, t := range logs {
			if p.consumes(t) && p.root(t) == root && (s.filter.Projection == "" || s.filter.Projection == p.Name) {
				expected[[2]string{p.Name, string(t)}] = true
			}
		}
	}
	if len(expected) == 0 {
		return
	}
	asking, cancel := context.WithTimeout(ctx, statusTimeout)
	list, err := s.read(asking, root)
	cancel()
	missing := Status{Activity: ActivityUnbuilt}
	if err != nil {
		missing = Status{Activity: ActivityUnknown, Error: describe(err)}
	}
	list = slices.DeleteFunc(list, func(st Status) bool { return !expected[[2]string{st.Projection, string(st.Tenant)}] })
	for i := range list {
		if list[i].State == stateLive {
			delete(expected, [2]string{list[i].Projection, string(list[i].Tenant)})
		}
		if list[i].State != "retired" {
			s.measure(ctx, &list[i])
		}
	}
	for key := range expected {
		missing.Projection, missing.Tenant = key[0], eventstore.TenantID(key[1])
		list = append(list, missing)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found = append(s.found, list...)
}

// measure adds how far the consumer is behind, or why that is not known.
func (s *survey) measure(ctx context.Context, st *Status) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	store := s.operator.config.Store
	l, err := lagOf(ctx, store.Tenant(st.Tenant), store.Caps(), st.Position, countBound)
	if err != nil {
		st.LagAtLeast = true
		st.Error = cmp.Or(st.Error, "the log cannot be read: "+describe(err))
		return
	}
	st.Head, st.LagEvents, st.LagAtLeast = l.head, l.events, l.atLeast
	if !l.oldest.IsZero() {
		st.Lag = max(time.Since(l.oldest), 0)
	}
}

const statusSQL = `select c.projection, c.generation, c.tenant, c.position, c.state, c.version, c.moved_at, coalesce(c.error, ''), c.waits,
	coalesce(p.by_actor, ''), p.at, c.retired_at
	from proj.checkpoint c left join proj.paused p on p.projection = c.projection and p.tenant = c.tenant
	where c.state <> 'dropped' and ($1 = '' or c.projection = $1) and ($2 = '' or c.tenant = $2)
	order by c.projection, c.generation, c.tenant`

const parkedSQL = `select projection, generation, tenant, kind, stream_id, from_version, event_id, error, at, attempts
	from proj.parked where ($1 = '' or projection = $1) and ($2 = '' or tenant = $2) order by at, kind, stream_id`

// read returns what the database holds.
func (s *survey) read(ctx context.Context, root eventstore.TenantID) ([]Status, error) {
	pool, err := s.operator.config.Pool(ctx, string(root))
	if err != nil {
		return nil, err
	}
	rows, err := pool.Query(ctx, statusSQL, s.filter.Projection, string(s.filter.Tenant))
	if err != nil {
		return nil, err
	}
	type key struct {
		projection string
		generation int
		tenant     eventstore.TenantID
	}
	index := map[key]int{}
	list, err := pgx.CollectRows(rows, scanStatus)
	if err != nil {
		return nil, err
	}
	for i := range list {
		index[key{list[i].Projection, list[i].Generation, list[i].Tenant}] = i
	}
	rows, err = pool.Query(ctx, parkedSQL, s.filter.Projection, string(s.filter.Tenant))
	if err != nil {
		return nil, err
	}
	var k key
	var p Parked
	var event [16]byte
	_, err = pgx.ForEachRow(rows, []any{&k.projection, &k.generation, &k.tenant, &p.Stream.Kind, &p.Stream.ID, &p.FromVersion, &event, &p.Error, &p.At, &p.Attempts}, func() error {
		if i, ok := index[k]; ok {
			p.Event = event
			list[i].Parked = append(list[i].Parked, p)
		}
		return nil
	})
	return list, err
}

func scanStatus(row pgx.CollectableRow) (st Status, err error) {
	var waits bool
	var pausedAt, retiredAt *time.Time
	err = row.Scan(&st.Projection, &st.Generation, &st.Tenant, &st.Position, &st.State, &st.Version, &st.MovedAt, &st.Error, &waits, &st.PausedBy, &pausedAt, &retiredAt)
	if err != nil {
		return st, err
	}
	if retiredAt != nil {
		st.RetiredAt = *retiredAt
	}
	switch {
	case st.State == "retired":
	case pausedAt != nil:
		st.Activity, st.PausedAt = ActivityPaused, *pausedAt
	case st.Error == "":
		st.Activity = ActivityRunning
	case waits:
		st.Activity = ActivityWaiting
	default:
		st.Activity = ActivityHalted
	}
	return st, nil
}
