// Package tenants knows on which PostgreSQL server and in which database a tenant lives: it makes that database with a role of its own,
// brings its schema up to date, and hands out a lazily opened pool to it. All pools of a process share one budget of connections.
package tenants

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"github.com/factum-platform/factum/infra/postgres"
)

const (
	// Platform is the name of the control plane's log; its pool is the platform database's.
	Platform = "platform"
	// connsPerTenant bounds the connections of one tenant's pool in this process.
	connsPerTenant = 4
	// DefaultConnections bounds the connections of all tenants' pools of a process.
	DefaultConnections = 150
	// openTimeout bounds the look-up of one placement.
	openTimeout = 10 * time.Second
)

var (
	// ErrUnknownTenant says that no database was made for the tenant.
	ErrUnknownTenant = errors.New("tenants: no database was made for this tenant")

	errClosed = errors.New("tenants: closed")
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the goose files of the schema placement.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic("tenants: embedded migrations: " + err.Error())
	}
	return sub
}

// Secrets seals the passwords of the tenants' roles and the URLs of servers.
type Secrets interface {
	Seal(ctx context.Context, purpose string, plain []byte) ([]byte, error)
	Open(ctx context.Context, purpose string, sealed []byte) ([]byte, error)
}

// Config says where the platform's database is and what a tenant's database holds.
type Config struct {
	Platform         *pgxpool.Pool         // the application's pool; holds the placements
	AdminDSN         string                // a role that may create roles and databases, in the platform's database: the server "main"
	TenantMigrations []postgres.Migrations // the schema of a tenant's database
	Secrets          Secrets
	IdleAfter        time.Duration         // a pool that nobody used for so long is closed; 0 means 5 minutes
	Connections      int                   // to all tenants' databases together; 0 means [DefaultConnections]
	Metrics          prometheus.Registerer // factum_tenant_connection*; nil: none
	Logger           *slog.Logger          // nil means slog.Default()
}

// Databases is safe for concurrent use, also by several processes.
type Databases struct {
	c      Config
	sets   []known
	budget *budget
	tracer *otelpgx.Tracer
	open   singleflight.Group

	mu       sync.Mutex
	servers  map[string]*server
	replaced []*server // their URL has changed
	pools    map[string]*entry
	refused  map[string]*SchemaError // until the placement changes
	leaving  []*entry                // forgotten, and perhaps in use
	changes  uint64                  // of placements, heard so far
	closed   bool

	stop    context.CancelFunc
	running sync.WaitGroup
}

// entry is the pool of one tenant's database.
type entry struct {
	tenant string
	server *server
	pool   *pgxpool.Pool

	// Of Databases, under its lock.
	used     time.Time
	acquired int64 // connections so far, when the sweep looked last

	// Of the budget, under its lock.
	sockets int
	asked   time.Time // when the pool was last asked for
	weight  float64   // logarithm of how much it is used; see budget
}

// Open makes the template of tenants' databases if there is none on the main server, and returns the directory of databases.
func Open(ctx context.Context, c Config) (*Databases, error) {
	if c.IdleAfter == 0 {
		c.IdleAfter = 5 * time.Minute
	}
	if c.Connections == 0 {
		c.Connections = DefaultConnections
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	sets, err := knownSets(c.TenantMigrations)
	if err != nil {
		return nil, err
	}
	main := newServer(MainServer, c.AdminDSN)
	d := &Databases{
		c: c, sets: sets, budget: newBudget(c.Connections, c.Metrics), tracer: otelpgx.NewTracer(),
		servers: map[string]*server{MainServer: main}, pools: map[string]*entry{}, refused: map[string]*SchemaError{},
	}
	if err := d.prepare(ctx, main); err != nil {
		main.close()
		return nil, err
	}
	heard, err := d.startListening(ctx)
	if err != nil {
		main.close()
		return nil, err
	}
	background, stop := context.WithCancel(context.Background())
	d.stop = stop
	d.running.Go(func() { d.sweepIdle(background) })
	d.running.Go(func() { d.listen(background, heard) })
	return d, nil
}

// Pool returns the pool of the tenant's database, [Platform]'s included; it is opened at the first use. Use it at once and do
// not keep it: it is closed when nobody asked for it or used it for a while. Using it may wait for a free connection, as long as the
// caller's context allows. Errors: [ErrUnknownTenant], *[SchemaError]; here or at the first use *[ServerError].
func (d *Databases) Pool(ctx context.Context, tenant string) (*pgxpool.Pool, error) {
	if tenant == Platform {
		return d.c.Platform, nil
	}
	if pool, err := d.cached(tenant); pool != nil || err != nil {
		return pool, err
	}
	// The context of the first caller must not decide for the others that wait for the same pool.
	opened := d.open.DoChan(tenant, func() (any, error) { return d.openPool(context.WithoutCancel(ctx), tenant) })
	select {
	case r := <-opened:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*pgxpool.Pool), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// cached returns neither a pool nor an error when the tenant must be looked up.
func (d *Databases) cached(tenant string) (*pgxpool.Pool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	if refused, ok := d.refused[tenant]; ok {
		return nil, refused
	}
	e, ok := d.pools[tenant]
	if !ok {
		return nil, nil
	}
	e.used = time.Now()
	d.budget.touch(e)
	return e.pool, nil
}

func (d *Databases) openPool(ctx context.Context, tenant string) (*pgxpool.Pool, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	for {
		before := d.changesSoFar()
		p, err := d.Placement(ctx, tenant)
		if err == nil && !d.complete(p.Schema) {
			err = d.learn(ctx, &p)
		}
		if err != nil {
			return nil, err
		}
		if refused := d.judge(tenant, p.Schema); refused != nil {
			if d.refuse(refused, before) {
				return nil, refused
			}
			continue // it changed while we looked
		}
		e, err := d.newEntry(ctx, p)
		if err != nil {
			return nil, err
		}
		if kept, err := d.keep(e, before); kept || err != nil {
			return e.pool, err
		}
		e.pool.Close()
	}
}

// newEntry describes a pool; its connections are made when they are used.
func (d *Databases) newEntry(ctx context.Context, p Placement) (*entry, error) {
	s, err := d.server(ctx, p.Server)
	if err != nil {
		return nil, err
	}
	password, err := d.c.Secrets.Open(ctx, secretPurpose(p.Tenant), p.password)
	if err != nil {
		return nil, err
	}
	dsn, err := s.url(p.Database, url.UserPassword(p.Role, string(password)))
	if err != nil {
		return nil, err
	}
	c, err := postgres.Configure(dsn, connsPerTenant)
	if err != nil {
		return nil, fmt.Errorf("tenants: the database of %s: %w", p.Tenant, err)
	}
	e := &entry{tenant: p.Tenant, server: s, used: time.Now()}
	d.govern(c, e)
	if e.pool, err = pgxpool.NewWithConfig(ctx, c); err != nil {
		return nil, fmt.Errorf("tenants: the pool of %s: %w", p.Tenant, err)
	}
	return e, nil
}

// keep remembers a pool unless a placement changed since before.
func (d *Databases) keep(e *entry, before uint64) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		e.pool.Close()
		return false, errClosed
	}
	if d.changes != before {
		return false, nil
	}
	d.pools[e.tenant] = e
	d.budget.touch(e)
	return true, nil
}

// refuse remembers why a tenant is refused unless a placement changed since before.
func (d *Databases) refuse(refused *SchemaError, before uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.changes == before {
		d.refused[refused.Tenant] = refused
	}
	return d.changes == before
}

func (d *Databases) changesSoFar() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changes
}

// Forget makes the next [Databases.Pool] of the tenant look its placement up again. Idle connections of its pool are closed; those in use
// stay until they are given back.
func (d *Databases) Forget(tenant string) {
	d.forget(func(e *entry) bool { return e.tenant == tenant }, func(t string) bool { return t == tenant })
}

func (d *Databases) forget(pool func(*entry) bool, refused func(tenant string) bool) {
	d.mu.Lock()
	d.changes++
	var left []*entry
	for tenant, e := range d.pools {
		if pool(e) {
			delete(d.pools, tenant)
			e.used = time.Now()
			left = append(left, e)
		}
	}
	d.leaving = append(d.leaving, left...)
	for tenant := range d.refused {
		if refused(tenant) {
			delete(d.refused, tenant)
		}
	}
	d.mu.Unlock()
	for _, e := range left {
		e.pool.Reset()
	}
}

// Tenants lists the tenants that have a database, in no order that means anything.
func (d *Databases) Tenants(ctx context.Context) ([]string, error) {
	rows, err := d.c.Platform.Query(ctx, `select tenant from placement.databases order by tenant`)
	if err != nil {
		return nil, fmt.Errorf("tenants: list: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("tenants: list: %w", err)
	}
	return list, nil
}

// Close closes all pools but the platform's. It waits until their connections are returned.
func (d *Databases) Close() {
	d.stop()
	d.running.Wait()
	d.mu.Lock()
	d.closed = true
	pools, servers := d.leaving, d.replaced
	for _, e := range d.pools {
		pools = append(pools, e)
	}
	for _, s := range d.servers {
		servers = append(servers, s)
	}
	d.pools, d.leaving = map[string]*entry{}, nil
	d.mu.Unlock()
	for _, e := range pools {
		e.pool.Close()
	}
	for _, s := range servers {
		s.close()
	}
	d.budget.wait()
}

func (d *Databases) sweepIdle(ctx context.Context) {
	tick := time.NewTicker(max(d.c.IdleAfter/10, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			for _, e := range d.takeIdle() {
				e.pool.Close()
			}
		case <-ctx.Done():
			return
		}
	}
}

// takeIdle removes the pools that nobody asked for or used for IdleAfter; a pool that was handed out is in use until then.
func (d *Databases) takeIdle() (idle []*entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for tenant, e := range d.pools {
		if d.isIdle(e) {
			idle = append(idle, e)
			delete(d.pools, tenant)
		}
	}
	stay := d.leaving[:0]
	for _, e := range d.leaving {
		if d.isIdle(e) {
			idle = append(idle, e)
		} else {
			stay = append(stay, e)
		}
	}
	clear(d.leaving[len(stay):])
	d.leaving = stay
	return idle
}

func (d *Databases) isIdle(e *entry) bool {
	stat := e.pool.Stat()
	if stat.AcquiredConns() > 0 || stat.ConstructingConns() > 0 || stat.AcquireCount() != e.acquired {
		e.used, e.acquired = time.Now(), stat.AcquireCount()
	}
	return time.Since(e.used) >= d.c.IdleAfter
}

func secretPurpose(tenant string) string { return "tenant-role:" + tenant }

func serverPurpose(server string) string { return "database-server:" + server }
