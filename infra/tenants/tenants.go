// Package tenants knows which PostgreSQL database a tenant has: it makes that database with a role of its own, and hands out a
// bounded, lazily opened pool to it.
package tenants

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/singleflight"

	"github.com/factum-platform/factum/infra/postgres"
)

const (
	// Platform is the name of the control plane's log; its pool is the platform database's.
	Platform = "platform"
	// connsPerTenant bounds the connections of one tenant's pool in this process.
	connsPerTenant = 4
)

// ErrUnknownTenant says that no database was made for the tenant.
var ErrUnknownTenant = errors.New("tenants: no database was made for this tenant")

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

// Secrets seals the passwords of the tenants' roles.
type Secrets interface {
	Seal(ctx context.Context, purpose string, plain []byte) ([]byte, error)
	Open(ctx context.Context, purpose string, sealed []byte) ([]byte, error)
}

// Config says where the platform's database is and what a tenant's database holds.
type Config struct {
	Platform         *pgxpool.Pool         // the application's pool; holds the placements
	AdminDSN         string                // a role that may create roles and databases
	TenantMigrations []postgres.Migrations // the schema of the template that tenants' databases are copied from
	Secrets          Secrets
	IdleAfter        time.Duration // a pool unused for so long is closed; 0 means 5 minutes
	MaxPools         int           // open pools at most, as far as none is in use; 0 means 200
}

// Databases is safe for concurrent use, also by several processes.
type Databases struct {
	c     Config
	admin *pgxpool.Pool
	open  singleflight.Group

	mu     sync.Mutex
	pools  map[string]*entry
	closed bool
	stop   context.CancelFunc
	swept  chan struct{}
}

type entry struct {
	pool *pgxpool.Pool
	used time.Time
}

// Open brings the template of tenants' databases up to date and returns the directory of databases.
func Open(ctx context.Context, c Config) (*Databases, error) {
	if c.IdleAfter == 0 {
		c.IdleAfter = 5 * time.Minute
	}
	if c.MaxPools == 0 {
		c.MaxPools = 200
	}
	admin, err := postgres.Open(ctx, c.AdminDSN, 2)
	if err != nil {
		return nil, fmt.Errorf("tenants: the administrator's connection: %w", err)
	}
	d := &Databases{c: c, admin: admin, pools: map[string]*entry{}, swept: make(chan struct{})}
	if err := d.prepareTemplate(ctx); err != nil {
		admin.Close()
		return nil, err
	}
	sweep, stop := context.WithCancel(context.Background())
	d.stop = stop
	go d.sweepIdle(sweep)
	return d, nil
}

// Pool returns the pool of the tenant's database, [Platform]'s included; it is opened at the first use. Use it at once and do
// not keep it: it is closed when nobody asked for it for a while. Error: [ErrUnknownTenant].
func (d *Databases) Pool(ctx context.Context, tenant string) (*pgxpool.Pool, error) {
	if tenant == Platform {
		return d.c.Platform, nil
	}
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil, errors.New("tenants: closed")
	}
	if e, ok := d.pools[tenant]; ok {
		e.used = time.Now()
		d.mu.Unlock()
		return e.pool, nil
	}
	d.mu.Unlock()
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

func (d *Databases) openPool(ctx context.Context, tenant string) (*pgxpool.Pool, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var database, role string
	var sealed []byte
	err := d.c.Platform.QueryRow(ctx, `select database, role, password from placement.databases where tenant = $1`, tenant).
		Scan(&database, &role, &sealed)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("%w: %s", ErrUnknownTenant, tenant)
	}
	if err != nil {
		return nil, fmt.Errorf("tenants: look up the database of %s: %w", tenant, err)
	}
	password, err := d.c.Secrets.Open(ctx, secretPurpose(tenant), sealed)
	if err != nil {
		return nil, err
	}
	dsn, err := d.dsn(database, url.UserPassword(role, string(password)))
	if err != nil {
		return nil, err
	}
	pool, err := postgres.Open(ctx, dsn, connsPerTenant)
	if err != nil {
		return nil, fmt.Errorf("tenants: open the database of %s: %w", tenant, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		pool.Close()
		return nil, errors.New("tenants: closed")
	}
	d.pools[tenant] = &entry{pool, time.Now()}
	return pool, nil
}

// Tenants returns the tenants that have a database, without [Platform], in the order in which they got it.
func (d *Databases) Tenants(ctx context.Context) ([]string, error) {
	rows, err := d.c.Platform.Query(ctx, `select tenant from placement.databases order by created_at, tenant`)
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
	<-d.swept
	d.mu.Lock()
	d.closed = true
	pools := d.pools
	d.pools = map[string]*entry{}
	d.mu.Unlock()
	for _, e := range pools {
		e.pool.Close()
	}
	d.admin.Close()
}

func (d *Databases) sweepIdle(ctx context.Context) {
	defer close(d.swept)
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

// takeIdle removes the pools that nobody used for IdleAfter, and beyond MaxPools the least recently used ones. A pool with a
// connection in use stays, as does one that was handed out within the last second or a tenth of IdleAfter.
func (d *Databases) takeIdle() []*entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []*entry
	grace := min(time.Second, d.c.IdleAfter/10)
	for {
		oldest := ""
		for tenant, e := range d.pools {
			if time.Since(e.used) < grace || e.pool.Stat().AcquiredConns() > 0 {
				continue
			}
			if oldest == "" || e.used.Before(d.pools[oldest].used) {
				oldest = tenant
			}
		}
		if oldest == "" || (time.Since(d.pools[oldest].used) < d.c.IdleAfter && len(d.pools) <= d.c.MaxPools) {
			return out
		}
		out = append(out, d.pools[oldest])
		delete(d.pools, oldest)
	}
}

// dsn is the administrator's DSN with another database and user.
func (d *Databases) dsn(database string, user *url.Userinfo) (string, error) {
	u, err := url.Parse(d.c.AdminDSN)
	if err != nil {
		return "", errors.New("tenants: the administrator's DSN is not a URL") // err would print its password
	}
	u.Path = "/" + database
	if user != nil {
		u.User = user
	}
	return u.String(), nil
}

func secretPurpose(tenant string) string { return "tenant-role:" + tenant }
