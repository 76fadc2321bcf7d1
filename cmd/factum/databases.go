package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/factum-platform/factum/eventstore/pgstore"
	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/idempotency"
	"github.com/factum-platform/factum/infra/jobs"
	"github.com/factum-platform/factum/infra/keyring"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/ratelimit"
	"github.com/factum-platform/factum/infra/tenants"
	"github.com/factum-platform/factum/projections/process"
	"github.com/factum-platform/factum/projections/runner"
)

// platformDatabase is the name of the control plane's database.
const platformDatabase = "factum"

// appLogin is the role that serves the platform database; it can neither change nor delete events.
const appLogin = "factum_api"

// databases says how the platform's database and its keys are reached.
type databases struct {
	adminDSN    string // may create databases and roles; used for provisioning and migrations only
	platformDSN string // the application's role on the platform database
	kek         tink.AEAD
}

// openTenants opens the directory of the tenants' databases; c says how much of it this process may use.
func (d databases) openTenants(ctx context.Context, platform *pgxpool.Pool, keys *keyring.Keyring, c tenants.Config) (*tenants.Databases, error) {
	c.Platform, c.AdminDSN, c.TenantMigrations, c.Secrets = platform, d.adminDSN, logMigrations(), keys
	return tenants.Open(ctx, c)
}

// logMigrations are the schemas that every database with a log needs. Min is raised when the code needs what a migration brings: tenants that
// were not migrated are refused then.
func logMigrations() []postgres.Migrations {
	return []postgres.Migrations{{Name: "es", FS: pgstore.Migrations(), Min: 1}, {Name: "proj", FS: runner.Migrations(), Min: 3}}
}

// prepareDatabases creates and migrates the control plane's database and its login role; processes that start at once take turns. The
// role's password is drawn once and kept in the database, sealed under the key-encryption key of the file keys, which is made at the
// very first start.
func prepareDatabases(ctx context.Context, clusterDSN, keys string) (databases, error) {
	if err := createPlatformDatabase(ctx, clusterDSN); err != nil {
		return databases{}, err
	}
	return prepareExisting(ctx, clusterDSN, keys)
}

func createPlatformDatabase(ctx context.Context, clusterDSN string) error {
	conn, err := connect(ctx, clusterDSN)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	exists, err := platformExists(ctx, conn)
	if err != nil || exists {
		return err
	}
	_, err = conn.Exec(ctx, `create database `+platformDatabase)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && (pg.Code == "42P04" || pg.Code == "23505") {
		return nil // another process was faster
	}
	if err != nil {
		return fmt.Errorf("create database %s: %w", platformDatabase, err)
	}
	return nil
}

func platformExists(ctx context.Context, conn *pgx.Conn) (exists bool, err error) {
	if err := conn.QueryRow(ctx, `select exists (select from pg_database where datname = $1)`, platformDatabase).Scan(&exists); err != nil {
		return false, fmt.Errorf("look for database %s: %w", platformDatabase, err)
	}
	return exists, nil
}

// prepareExisting brings the platform's database, which is there, up to date.
func prepareExisting(ctx context.Context, clusterDSN, keys string) (d databases, err error) {
	if d.adminDSN, err = platformURL(clusterDSN, nil); err != nil {
		return d, err
	}
	conn, err := connect(ctx, d.adminDSN)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "3D000" {
		return d, fmt.Errorf("there is no database %s: no platform has been served from this server", platformDatabase)
	}
	if err != nil {
		return d, err
	}
	defer conn.Close(context.WithoutCancel(ctx)) // gives the lock back
	if _, err := conn.Exec(ctx, `select pg_advisory_lock(hashtextextended('factum.prepare', 0))`); err != nil {
		return d, fmt.Errorf("wait for another process that prepares database %s: %w", platformDatabase, err)
	}
	sets := append(logMigrations(),
		postgres.Migrations{Name: "auth", FS: auth.Migrations()},
		postgres.Migrations{Name: "placement", FS: tenants.Migrations()},
		postgres.Migrations{Name: "keyring", FS: keyring.Migrations()},
		postgres.Migrations{Name: "idempotency", FS: idempotency.Migrations()},
		postgres.Migrations{Name: "ratelimit", FS: ratelimit.Migrations()},
		postgres.Migrations{Name: "saga", FS: process.Migrations()})
	if err := postgres.Migrate(ctx, d.adminDSN, sets...); err != nil {
		return d, err
	}
	if err := jobs.Migrate(ctx, d.adminDSN); err != nil {
		return d, err
	}
	if d.kek, err = loadKEK(ctx, conn, keys); err != nil {
		return d, err
	}
	password, err := tenants.Login(ctx, conn, keyring.Open(nil, d.kek), appLogin) // to seal needs the key only
	if err != nil {
		return d, err
	}
	_, err = conn.Exec(ctx, fmt.Sprintf(`
revoke connect on database %[2]s from public;
grant connect, create on database %[2]s to %[1]s;`, appLogin, platformDatabase))
	if err != nil {
		return d, fmt.Errorf("open database %s to role %s: %w", platformDatabase, appLogin, err)
	}
	d.platformDSN, err = platformURL(clusterDSN, url.UserPassword(appLogin, password))
	return d, err
}

// loadKEK reads the key-encryption key. It makes one only for a database that has no keys yet: under a new key nothing of the old could
// be read.
func loadKEK(ctx context.Context, admin *pgx.Conn, file string) (tink.AEAD, error) {
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		used, err := tenants.HasLogin(ctx, admin, appLogin)
		if err != nil {
			return nil, err
		}
		if used {
			return nil, fmt.Errorf("the key file %s does not exist, but database %s holds keys that are sealed under one; put that file there", file, platformDatabase)
		}
	}
	return keyring.LoadOrCreateKEK(file)
}

// connect opens one connection of the administrator.
func connect(ctx context.Context, dsn string) (*pgx.Conn, error) {
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("the PostgreSQL URL cannot be read: %w", err) // pgx redacts the password
	}
	c.ConnectTimeout = connectTimeout
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return nil, &unreachableError{fmt.Errorf("connect to PostgreSQL: %w", err)}
	}
	return conn, nil
}

// unreachableError says that a server could not be reached, or does not let us in.
type unreachableError struct{ error }

// Error implements error, in one line: pgx writes one for each attempt.
func (e *unreachableError) Error() string {
	lines := strings.FieldsFunc(e.error.Error(), func(r rune) bool { return r == '\n' || r == '\t' })
	return strings.Join(slices.Compact(lines), " ")
}

// Unwrap makes the cause visible to errors.Is and errors.As.
func (e *unreachableError) Unwrap() error { return e.error }

// platformURL returns the cluster's DSN with the platform's database, and another user if one is given.
func platformURL(dsn string, user *url.Userinfo) (string, error) {
	u, err := url.Parse(dsn)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		return "", errors.New("the PostgreSQL DSN is not a URL such as postgres://user:password@host:5432/postgres") // err would hold the password
	}
	u.Path = "/" + platformDatabase
	if user != nil {
		u.User = user
	}
	return u.String(), nil
}
