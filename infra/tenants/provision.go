package tenants

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/infra/postgres"
)

// templateDatabase is what tenants' databases are copied from: it holds the schema and no rows.
const templateDatabase = "factum_tenant_template"

// templateLock is held alone by a process that migrates the template, and shared by those that copy it.
const templateLock = `hashtextextended('factum.template', 0)`

// provisionTimeout bounds the making of one tenant's database.
const provisionTimeout = 60 * time.Second

var (
	tenantForm   = regexp.MustCompile(`^[a-z0-9]{1,32}$`)
	databaseForm = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)
)

// Provision makes the tenant's database and its role, if they are missing. It may be repeated: after a crash at any line the
// next call finishes the work, and a finished tenant is left as it is. The placement is written last: until then the
// tenant is unknown to [Databases.Pool].
func (d *Databases) Provision(ctx context.Context, tenant, database string) error {
	if !tenantForm.MatchString(tenant) || tenant == Platform {
		return fmt.Errorf("tenants: %q is not a tenant id: want 1 to 32 of [a-z0-9]", tenant)
	}
	if !databaseForm.MatchString(database) {
		return fmt.Errorf("tenants: %q is not a database name: want up to 63 of [a-z0-9_], a letter first", database)
	}
	ctx, cancel := context.WithTimeout(ctx, provisionTimeout)
	defer cancel()
	conn, err := d.admin.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("tenants: provision %s: %w", tenant, err)
	}
	defer conn.Release()
	// The pool's connections wait for a lock for two seconds only, and another process may need longer to make the tenant.
	if _, err := conn.Exec(ctx, `set lock_timeout = '30s'`); err != nil {
		return fmt.Errorf("tenants: provision %s: %w", tenant, err)
	}
	// CREATE DATABASE cannot run in a transaction, so the lock is the session's.
	if _, err := conn.Exec(ctx, `select pg_advisory_lock(hashtextextended('factum.provision.' || $1, 0))`, tenant); err != nil {
		return fmt.Errorf("tenants: wait for another process that makes %s: %w", tenant, err)
	}
	// A database cannot be copied while somebody is connected to it, such as a process that starts and migrates the template.
	_, err = conn.Exec(ctx, `select pg_advisory_lock_shared(`+templateLock+`)`)
	if err == nil {
		err = d.provision(ctx, conn.Conn(), tenant, database)
	}
	if _, unlockErr := conn.Exec(context.WithoutCancel(ctx), `select pg_advisory_unlock_all()`); unlockErr != nil {
		// A connection that may still hold a lock must not go back to the pool.
		err = errors.Join(err, unlockErr, conn.Hijack().Close(context.WithoutCancel(ctx)))
	}
	if err != nil {
		return fmt.Errorf("tenants: provision %s: %w", tenant, err)
	}
	return nil
}

// provision does one statement after the other, each of which may be repeated.
func (d *Databases) provision(ctx context.Context, admin *pgx.Conn, tenant, database string) error {
	var placed string
	err := d.c.Platform.QueryRow(ctx, `select database from placement.databases where tenant = $1`, tenant).Scan(&placed)
	if err == nil {
		if placed != database {
			return fmt.Errorf("it has database %s already, not %s", placed, database)
		}
		return nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	role := "factum_t_" + tenant
	var secret [24]byte
	rand.Read(secret[:]) // never fails (Go 1.24)
	password := hex.EncodeToString(secret[:])
	sealed, err := d.c.Secrets.Seal(ctx, secretPurpose(tenant), []byte(password))
	if err != nil {
		return err
	}
	quotedRole, quotedDatabase := pgx.Identifier{role}.Sanitize(), pgx.Identifier{database}.Sanitize()

	exists, err := has(ctx, admin, `select exists (select from pg_roles where rolname = $1)`, role)
	if err != nil {
		return err
	}
	if !exists {
		if _, err := admin.Exec(ctx, `create role `+quotedRole); err != nil {
			return fmt.Errorf("create role %s: %w", role, err)
		}
	}
	// The password is hexadecimal, so it needs no quoting; DDL takes no parameters.
	if _, err := admin.Exec(ctx, `alter role `+quotedRole+` login password '`+password+`'; grant factum_tenant to `+quotedRole); err != nil {
		return fmt.Errorf("equip role %s: %w", role, err)
	}
	exists, err = has(ctx, admin, `select exists (select from pg_database where datname = $1)`, database)
	if err != nil {
		return err
	}
	if !exists {
		if _, err := admin.Exec(ctx, `create database `+quotedDatabase+` template `+templateDatabase); err != nil {
			return fmt.Errorf("create database %s: %w", database, err)
		}
	}
	if _, err := admin.Exec(ctx, `revoke all on database `+quotedDatabase+` from public; grant connect, create on database `+quotedDatabase+` to `+quotedRole); err != nil {
		return fmt.Errorf("close database %s to others: %w", database, err)
	}
	_, err = d.c.Platform.Exec(ctx, `insert into placement.databases (tenant, database, role, password) values ($1, $2, $3, $4)`,
		tenant, database, role, sealed)
	return err
}

// prepareTemplate creates the template and migrates it. Nobody may connect to it but the administrator. Processes that start at once
// take turns.
func (d *Databases) prepareTemplate(ctx context.Context) (err error) {
	c, err := pgx.ParseConfig(d.c.AdminDSN)
	if err != nil {
		return errors.New("tenants: the administrator's DSN cannot be read") // err might print its password
	}
	turn, err := pgx.ConnectConfig(ctx, c) // not the pool's: its connections wait for a lock for two seconds only
	if err != nil {
		return fmt.Errorf("tenants: the administrator's connection: %w", err)
	}
	defer func() { err = errors.Join(err, turn.Close(context.WithoutCancel(ctx))) }() // gives the lock back
	if _, err := turn.Exec(ctx, `select pg_advisory_lock(`+templateLock+`)`); err != nil {
		return fmt.Errorf("tenants: wait for another process that migrates the template: %w", err)
	}
	exists, err := has(ctx, d.admin, `select exists (select from pg_database where datname = $1)`, templateDatabase)
	if err != nil {
		return fmt.Errorf("tenants: look for the template: %w", err)
	}
	if !exists {
		if _, err := d.admin.Exec(ctx, `create database `+templateDatabase); err != nil {
			return fmt.Errorf("tenants: create the template: %w", err)
		}
	}
	if _, err := d.admin.Exec(ctx, `revoke all on database `+templateDatabase+` from public`); err != nil {
		return fmt.Errorf("tenants: close the template: %w", err)
	}
	dsn, err := d.dsn(templateDatabase, nil)
	if err != nil {
		return err
	}
	if err := postgres.Migrate(ctx, dsn, d.c.TenantMigrations...); err != nil {
		return fmt.Errorf("tenants: migrate the template: %w", err)
	}
	return nil
}

type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func has(ctx context.Context, q querier, sql, name string) (found bool, err error) {
	err = q.QueryRow(ctx, sql, name).Scan(&found)
	return found, err
}
