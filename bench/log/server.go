package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/bench/disk"
	"github.com/factum-platform/factum/bench/ratio"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/pgstore"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/cluster"
)

const (
	// connsPerTenant is what a tenant's pool has in production (infra/tenants).
	connsPerTenant = 4
	// template is the database that the tenants' are copied from.
	template = "log_template"
	// bare is the database of what the log is measured against.
	bare = "bare"
)

// settings differ from PostgreSQL's defaults so that no checkpoint falls into a round: one is made before each figure. They hold
// for both sides.
var settings = map[string]string{
	"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "512MB",
	"max_wal_size": "16GB", "min_wal_size": "2GB", "checkpoint_timeout": "1h",
}

// bareTables are what single rows go to: "one" has the primary key only, "same" the three unique indexes of es.events too.
const bareTables = `
create table one (
  pos bigint generated always as identity primary key, kind text not null, id text not null, version bigint not null,
  event_id uuid not null, type text not null, schema integer not null, data json not null, meta json not null,
  recorded_at timestamptz not null default clock_timestamp());
create table same (
  pos bigint primary key, kind text not null, id text not null, version bigint not null, event_id uuid not null, type text not null,
  schema integer not null, data json not null, meta json not null, recorded_at timestamptz not null default clock_timestamp(),
  unique (kind, id, version), unique (event_id))`

// server is the private PostgreSQL and the connections to it that all figures use.
type server struct {
	options
	say     ratio.Progress
	folder  string
	binDir  string
	cluster *cluster.Cluster
	admin   *pgxpool.Pool // to the database postgres; also what the store notifies through
	bare    *pgxpool.Pool
	made    int    // databases so far
	peer    string // the database that message-db is installed in; "" before that
	noPeer  error  // why message-db cannot be had, once that is known
}

// startServer starts it in a folder of its own that stop removes.
func startServer(ctx context.Context, o options, say ratio.Progress) (_ *server, err error) {
	s := &server{options: o, say: say}
	if s.binDir, err = cluster.FindBinaries(ctx, o.binDir); err != nil {
		return nil, err
	}
	parent, err := disk.Folder(o.dir)
	if err != nil {
		return nil, err
	}
	if s.folder, err = os.MkdirTemp(parent, "factum-bench-log-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	if s.cluster, err = cluster.Start(ctx, cluster.Config{Dir: filepath.Join(s.folder, "postgres"), BinDir: s.binDir, Settings: settings}); err != nil {
		return nil, err
	}
	if s.admin, err = postgres.Open(ctx, s.cluster.DSN(), 4); err != nil {
		return nil, err
	}
	for _, name := range []string{template, bare} {
		if _, err := s.admin.Exec(ctx, "create database "+name); err != nil {
			return nil, fmt.Errorf("create database %s: %w", name, err)
		}
	}
	if err := postgres.Migrate(ctx, s.dsn(template, ""), postgres.Migrations{Name: "es", FS: pgstore.Migrations()}); err != nil {
		return nil, err
	}
	if s.bare, err = postgres.Open(ctx, s.dsn(bare, ""), connsPerTenant); err != nil {
		return nil, err
	}
	if _, err := s.bare.Exec(ctx, bareTables); err != nil {
		return nil, fmt.Errorf("create the bare tables: %w", err)
	}
	return s, nil
}

// stop ends the server and removes its folder.
func (s *server) stop() error {
	var err error
	for _, pool := range []*pgxpool.Pool{s.bare, s.admin} {
		if pool != nil {
			pool.Close()
		}
	}
	if s.cluster != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err = s.cluster.Stop(ctx)
	}
	return errors.Join(err, os.RemoveAll(s.folder))
}

// dsn is the superuser's connection URL of a database; a role other than "" is taken at the start.
func (s *server) dsn(database, role string) string {
	u := s.url()
	u.Path = "/" + database
	if role != "" {
		values := u.Query()
		values.Set("role", role)
		u.RawQuery = values.Encode()
	}
	return u.String()
}

func (s *server) url() *url.URL {
	u, err := url.Parse(s.cluster.DSN())
	if err != nil {
		panic("bench/log: the cluster's DSN is not a URL") // err would print its password
	}
	return u
}

// checkpoint writes down what earlier figures left in memory.
func (s *server) checkpoint(ctx context.Context) error {
	if _, err := s.admin.Exec(ctx, "checkpoint"); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// facts are what the numbers depend on.
func (s *server) facts(ctx context.Context) ([]ratio.Fact, error) {
	var version string
	if err := s.admin.QueryRow(ctx, "select current_setting('server_version')").Scan(&version); err != nil {
		return nil, err
	}
	rows, err := s.admin.Query(ctx, `select name || '=' || current_setting(name) from pg_settings
		where source not in ('default', 'client', 'override', 'session') and (name = any($1) or name in ('max_connections', 'jit')) order by name`, keys(settings))
	if err != nil {
		return nil, err
	}
	changed, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	sync, err := disk.SyncTime(s.folder)
	if err != nil {
		return nil, err
	}
	return []ratio.Fact{
		{Name: "server", Value: "PostgreSQL " + version + ", private, of this run; checkpoints only between figures"},
		{Name: "settings", Value: strings.Join(changed, " ")},
		{Name: "transport", Value: "TCP on 127.0.0.1 for both sides, without TLS"},
		{Name: "tenants", Value: fmt.Sprintf("a database each, %d connections at most, role factum_tenant", connsPerTenant)},
		{Name: "row", Value: fmt.Sprintf("%d bytes of data, %d of metadata, the same for both sides", len(payload), len(metaOf(sampleEvent().Meta)))},
		{Name: "machine", Value: fmt.Sprintf("%d CPUs for server and clients together, %s", runtime.NumCPU(), runtime.Version())},
		{Name: "disk", Value: fmt.Sprintf("writing and syncing 8 KiB takes %d µs (median)", sync.Microseconds())},
	}, nil
}

func keys(m map[string]string) []string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	return all
}

// logs is a store over fresh databases, one for each tenant.
type logs struct {
	store *pgstore.Store
	pools pools
	names []eventstore.TenantID
}

// pools places the tenants. It is filled before the store is opened and only read afterwards.
type pools map[string]*pgxpool.Pool

// Pool implements pgstore.Databases.
func (p pools) Pool(_ context.Context, tenant string) (*pgxpool.Pool, error) {
	pool, ok := p[tenant]
	if !ok {
		return nil, fmt.Errorf("tenant %s has no database", tenant)
	}
	return pool, nil
}

// openLogs makes the databases of so many tenants and opens a store over them, as the platform does it: a pool each, and the
// doorbell through another database.
func (s *server) openLogs(ctx context.Context, tenants int) (_ *logs, err error) {
	l := &logs{pools: pools{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	for range tenants {
		s.made++
		tenant := eventstore.TenantID(fmt.Sprintf("tenant%d", s.made))
		if _, err := s.admin.Exec(ctx, fmt.Sprintf("create database %s template %s", tenant, template)); err != nil {
			return nil, fmt.Errorf("create the database of %s: %w", tenant, err)
		}
		pool, err := postgres.Open(ctx, s.dsn(string(tenant), "factum_tenant"), connsPerTenant)
		if err != nil {
			return nil, err
		}
		l.pools[string(tenant)] = pool
		l.names = append(l.names, tenant)
	}
	l.store, err = pgstore.Open(ctx, pgstore.Config{Databases: l.pools, Notify: s.admin})
	return l, err
}

// close ends the store and its connections; the databases stay, and go with the server.
func (l *logs) close() (err error) {
	if l.store != nil {
		err = l.store.Close()
	}
	var closing sync.WaitGroup
	for _, pool := range l.pools {
		closing.Go(pool.Close)
	}
	closing.Wait()
	return err
}
