package tenants

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/infra/postgres"
)

// templateDatabase is what tenants' databases are copied from, on each server: it holds the schema and no rows. Its comment says which
// versions it has, and is missing while it is being migrated.
const templateDatabase = "factum_tenant_template"

// templateLock is held alone by a process that migrates a server's template, and shared by those that copy it. It lies on that server.
const templateLock = `hashtextextended('factum.template', 0)`

// provisionTimeout bounds the making of one tenant's database.
const provisionTimeout = 60 * time.Second

var (
	tenantForm   = regexp.MustCompile(`^[a-z0-9]{1,32}$`)
	databaseForm = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)
)

// ErrNoServer says that no server takes new tenants.
var ErrNoServer = errors.New("tenants: no database server accepts new tenants; see 'factum servers list' and 'factum servers accept'")

// Provision makes the tenant's database and its role, if they are missing, on the server that accepts new tenants and has the fewest. It
// may be repeated: after a crash at any line the next call finishes the work, and a finished tenant is left as it is. The placement is
// written last: until then the tenant is unknown to [Databases.Pool]. Errors: [ErrNoServer], *[ServerError], and *[SchemaError] when
// the template is not for this binary.
func (d *Databases) Provision(ctx context.Context, tenant, database string) error {
	return d.inTurn(ctx, tenant, database, func(ctx context.Context, main *pgx.Conn) error {
		return d.provision(ctx, main, tenant, database)
	})
}

// ProvisionOn makes an empty database and a role for a tenant that lives on another server, and returns the placement with which
// [Databases.Switch] would move it there. Nothing else is changed. It may be repeated; the role's password is another each time, so that
// earlier results do not hold any more.
func (d *Databases) ProvisionOn(ctx context.Context, tenant, database, server string) (made Placement, err error) {
	err = d.inTurn(ctx, tenant, database, func(ctx context.Context, main *pgx.Conn) error {
		placed, err := d.Placement(ctx, tenant)
		if err != nil && !errors.Is(err, ErrUnknownTenant) {
			return err
		}
		if placed.Server == server {
			return fmt.Errorf("it lives on server %s already", server)
		}
		s, err := d.server(ctx, server)
		if err != nil {
			return err
		}
		made = Placement{Tenant: tenant, Server: server, Database: database, CreatedAt: placed.CreatedAt}
		if err := d.make(ctx, s, main, &made); err != nil {
			return err
		}
		for set, version := range placed.Schema {
			if made.Schema[set] < version {
				return fmt.Errorf("it has version %d of the schema %s, and the template on server %s has %d; run 'factum tenants migrate' first", version, set, server, made.Schema[set])
			}
		}
		return nil
	})
	return made, err
}

// inTurn runs fn with the administrator's connection to the platform's database while no other process makes the tenant.
func (d *Databases) inTurn(ctx context.Context, tenant, database string, fn func(context.Context, *pgx.Conn) error) error {
	if !tenantForm.MatchString(tenant) || tenant == Platform {
		return fmt.Errorf("tenants: %q is not a tenant id: want 1 to 32 of [a-z0-9]", tenant)
	}
	if !databaseForm.MatchString(database) {
		return fmt.Errorf("tenants: %q is not a database name: want up to 63 of [a-z0-9_], a letter first", database)
	}
	ctx, cancel := context.WithTimeout(ctx, provisionTimeout)
	defer cancel()
	pool, err := d.mainAdmin(ctx)
	if err == nil {
		err = withLocks(ctx, pool, `select pg_advisory_lock(hashtextextended('factum.provision.`+tenant+`', 0))`,
			func(conn *pgx.Conn) error { return fn(ctx, conn) })
	}
	if err != nil {
		return fmt.Errorf("tenants: provision %s: %w", tenant, err)
	}
	return nil
}

// withLocks runs fn on a connection of the pool that holds locks of its session: CREATE DATABASE cannot run in a transaction.
func withLocks(ctx context.Context, pool *pgxpool.Pool, lock string, fn func(*pgx.Conn) error) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	// The pool's connections wait for a lock for two seconds only, and another process may need longer.
	_, err = conn.Exec(ctx, `set lock_timeout = '30s'; `+lock)
	if err != nil {
		err = fmt.Errorf("wait for another process: %w", err)
	} else {
		err = fn(conn.Conn())
	}
	if _, unlockErr := conn.Exec(context.WithoutCancel(ctx), `select pg_advisory_unlock_all()`); unlockErr != nil {
		// A connection that may still hold a lock must not go back to the pool.
		err = errors.Join(err, unlockErr, conn.Hijack().Close(context.WithoutCancel(ctx)))
	}
	return err
}

// chooseSQL remembers where the tenant is being made. After a crash it goes on there, unless that server was closed to new tenants.
const chooseSQL = `
with best as (
  select s.name from placement.servers s
    left join (select x.server, count(*) as n from (select server from placement.databases union all select server from placement.begun) x group by x.server) c
      on c.server = s.name
   where s.accepting order by coalesce(c.n, 0), s.name <> 'main', s.name limit 1)
insert into placement.begun as b (tenant, server) select $1, name from best
on conflict (tenant) do update set server =
  case when (select s.accepting from placement.servers s where s.name = b.server) then b.server else excluded.server end
returning server`

// provision does one statement after the other, each of which may be repeated. main is the administrator's connection to the
// platform's database.
func (d *Databases) provision(ctx context.Context, main *pgx.Conn, tenant, database string) error {
	var placed string
	err := main.QueryRow(ctx, `select database from placement.databases where tenant = $1`, tenant).Scan(&placed)
	if err == nil {
		if placed != database {
			return fmt.Errorf("it has database %s already, not %s", placed, database)
		}
		return nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	var chosen string
	err = main.QueryRow(ctx, chooseSQL, tenant).Scan(&chosen)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrNoServer
	}
	if err != nil {
		return fmt.Errorf("choose a server: %w", err)
	}
	s, err := d.server(ctx, chosen)
	if err != nil {
		return err
	}
	p := Placement{Tenant: tenant, Server: chosen, Database: database}
	if err := d.make(ctx, s, main, &p); err != nil {
		return err
	}
	if _, err := main.Exec(ctx, placeSQL, p.Tenant, p.Database, p.Role, p.password, p.Server, p.Schema); err != nil {
		return fmt.Errorf("note the placement: %w", err)
	}
	return nil
}

const placeSQL = `with made as (insert into placement.databases (tenant, database, role, password, server, schema) values ($1, $2, $3, $4, $5, $6))
	delete from placement.begun where tenant = $1`

// make makes the placement's database and role on its server, and completes the placement.
func (d *Databases) make(ctx context.Context, s *server, main *pgx.Conn, p *Placement) error {
	if err := d.prepare(ctx, s); err != nil {
		return err
	}
	const lock = `select pg_advisory_lock_shared(` + templateLock + `)`
	if s.name == MainServer {
		if _, err := main.Exec(ctx, lock); err != nil {
			return fmt.Errorf("wait for the template: %w", err)
		}
		return d.copyTemplate(ctx, main, p)
	}
	pool, err := s.adminPool(ctx)
	if err != nil {
		return err
	}
	return withLocks(ctx, pool, lock, func(conn *pgx.Conn) error { return d.copyTemplate(ctx, conn, p) })
}

// copyTemplate needs the template's lock: a database cannot be copied while somebody is connected to it, such as a process that
// migrates it.
func (d *Databases) copyTemplate(ctx context.Context, admin *pgx.Conn, p *Placement) error {
	p.Role = "factum_t_" + p.Tenant
	var hasRole, hasDatabase bool
	var described *string
	err := admin.QueryRow(ctx, `select exists (select from pg_roles where rolname = $1), exists (select from pg_database where datname = $2),
		(select shobj_description(oid, 'pg_database') from pg_database where datname = $3)`, p.Role, p.Database, templateDatabase).
		Scan(&hasRole, &hasDatabase, &described)
	if err != nil {
		return err
	}
	if p.Schema, err = readComment(described); err != nil {
		return err
	}
	if refused := d.judge(p.Tenant, p.Schema); refused != nil {
		return refused
	}
	var secret [24]byte
	rand.Read(secret[:]) // never fails (Go 1.24)
	password := hex.EncodeToString(secret[:])
	if p.password, err = d.c.Secrets.Seal(ctx, secretPurpose(p.Tenant), []byte(password)); err != nil {
		return err
	}
	role, database := pgx.Identifier{p.Role}.Sanitize(), pgx.Identifier{p.Database}.Sanitize()
	equip := `create role ` + role + ` login password '` + verifier(password) + `' in role factum_tenant`
	if hasRole {
		equip = `alter role ` + role + ` login password '` + verifier(password) + `'; grant factum_tenant to ` + role
	}
	// Not waited for: CREATE DATABASE flushes all that was written before it.
	if _, err := admin.Exec(ctx, `set local synchronous_commit = off; `+equip); err != nil {
		return fmt.Errorf("equip role %s: %w", p.Role, err)
	}
	if !hasDatabase {
		if _, err := admin.Exec(ctx, `create database `+database+` template `+templateDatabase); err != nil {
			return fmt.Errorf("create database %s: %w", p.Database, err)
		}
	}
	if _, err := admin.Exec(ctx, `revoke all on database `+database+` from public; grant connect, create on database `+database+` to `+role); err != nil {
		return fmt.Errorf("close database %s to others: %w", p.Database, err)
	}
	return nil
}

// prepare makes the template on the server if there is none that is whole. One that is there is left as it is: 'factum tenants migrate'
// brings it up to date, so that a new binary makes no tenants that the older ones beside it do not know.
func (d *Databases) prepare(ctx context.Context, s *server) error {
	s.mu.Lock()
	ready := s.ready
	s.mu.Unlock()
	if ready {
		return nil
	}
	_, _, err := d.withTemplate(ctx, s, func(Schema) bool { return false })
	return err
}

// withTemplate makes the server's template if there is none that is whole, and migrates it if wanted says so of its versions. Nobody may
// connect to it but the administrator. Processes that start at once take turns.
func (d *Databases) withTemplate(ctx context.Context, s *server, wanted func(Schema) bool) (from, to Schema, err error) {
	turn, err := s.connect(ctx, "") // not the pool's: its connections wait for a lock for two seconds only
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, turn.Close(context.WithoutCancel(ctx))) }() // gives the lock back
	if _, err := turn.Exec(ctx, `select pg_advisory_lock(`+templateLock+`)`); err != nil {
		return nil, nil, fmt.Errorf("tenants: wait for another process that migrates the template: %w", err)
	}
	var exists bool
	var described *string
	err = turn.QueryRow(ctx, `select count(*) > 0, max(shobj_description(oid, 'pg_database')) from pg_database where datname = $1`, templateDatabase).
		Scan(&exists, &described)
	if err != nil {
		return nil, nil, fmt.Errorf("tenants: look for the template: %w", err)
	}
	from, incomplete := readComment(described)
	to = from
	if incomplete != nil || wanted(from) {
		if to, err = d.migrateTemplate(ctx, s, turn, exists); err != nil {
			return from, to, fmt.Errorf("tenants: the template on server %s: %w", s.name, err)
		}
	}
	s.mu.Lock()
	s.ready = true
	s.mu.Unlock()
	return from, to, nil
}

func (d *Databases) migrateTemplate(ctx context.Context, s *server, admin *pgx.Conn, exists bool) (_ Schema, err error) {
	if !exists {
		if _, err := admin.Exec(ctx, `create database `+templateDatabase); err != nil {
			return nil, fmt.Errorf("create it: %w", err)
		}
	}
	if _, err := admin.Exec(ctx, `revoke all on database `+templateDatabase+` from public; comment on database `+templateDatabase+` is null`); err != nil {
		return nil, fmt.Errorf("close it: %w", err)
	}
	dsn, err := s.url(templateDatabase, nil)
	if err != nil {
		return nil, err
	}
	if err := postgres.Migrate(ctx, dsn, d.c.TenantMigrations...); err != nil {
		return nil, err
	}
	found, err := d.inspect(ctx, s, templateDatabase)
	if err != nil {
		return nil, err
	}
	comment, err := json.Marshal(found)
	if err != nil {
		return nil, fmt.Errorf("describe it: %w", err)
	}
	// Letters, digits and JSON's marks: it needs no quoting.
	if _, err := admin.Exec(ctx, `comment on database `+templateDatabase+` is '`+string(comment)+`'`); err != nil {
		return nil, fmt.Errorf("describe it: %w", err)
	}
	return found, nil
}

// readComment reads a template's versions; a template that is not described is not whole.
func readComment(comment *string) (Schema, error) {
	var s Schema
	if comment == nil || json.Unmarshal([]byte(*comment), &s) != nil {
		return nil, fmt.Errorf("database %s is not whole; run 'factum tenants migrate'", templateDatabase)
	}
	return s, nil
}

// mainAdmin is the administrator's pool in the platform's database.
func (d *Databases) mainAdmin(ctx context.Context) (*pgxpool.Pool, error) {
	s, err := d.server(ctx, MainServer)
	if err != nil {
		return nil, err
	}
	return s.adminPool(ctx)
}

type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func has(ctx context.Context, q querier, sql, name string) (found bool, err error) {
	err = q.QueryRow(ctx, sql, name).Scan(&found)
	return found, err
}
