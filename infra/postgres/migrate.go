package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/lock"
)

// Migrations is one component's schema: goose SQL files at the root of FS, whose versions are kept in
// public.migrations_<Name>. Name is [a-z]+.
type Migrations struct {
	Name string
	FS   fs.FS
	Min  int64 // the oldest version that this binary works with; 0: any
}

// Latest is the version that the files lead to: the highest number of a file.
func (m Migrations) Latest() (int64, error) {
	files, err := fs.Glob(m.FS, "*.sql")
	if err != nil {
		return 0, fmt.Errorf("postgres: the files of migration set %s: %w", m.Name, err)
	}
	latest := int64(0)
	for _, name := range files {
		version, err := goose.NumericComponent(name)
		if err != nil {
			return 0, fmt.Errorf("postgres: file %s of migration set %s: %w", name, m.Name, err)
		}
		latest = max(latest, version)
	}
	return latest, nil
}

// FailedMigration says which file could not be applied. What the files before it did stays.
type FailedMigration struct {
	Set     string
	File    string
	Version int64
	Whole   bool // the file runs in a transaction, so that nothing of it was left
	Err     error
}

// Error implements error.
func (e *FailedMigration) Error() string {
	return fmt.Sprintf("file %s of migration set %s: %v", e.File, e.Set, e.Err)
}

// Unwrap makes the cause visible to errors.Is and errors.As.
func (e *FailedMigration) Unwrap() error { return e.Err }

var setForm = regexp.MustCompile(`^[a-z]+$`)

// groupRoles are what migrations grant to: the application on the platform's database, and on a tenant's.
const groupRoles = `
do $$
declare r text;
begin
  foreach r in array array['factum_app', 'factum_tenant'] loop
    if not exists (select from pg_roles where rolname = r) then
      begin
        execute format('create role %I nologin', r);
      exception when duplicate_object or unique_violation then null; -- another process was faster
      end;
    end if;
  end loop;
end $$`

// Versions reads which version of each set the database of the connection has; a set that was never applied is 0. The role must be
// allowed to read public.migrations_<Name>.
func Versions(ctx context.Context, conn *pgx.Conn, sets ...Migrations) (map[string]int64, error) {
	out := map[string]int64{}
	for _, set := range sets {
		if !setForm.MatchString(set.Name) {
			return nil, fmt.Errorf("postgres: the name %q of a set of migrations is not [a-z]+", set.Name)
		}
		table := "public.migrations_" + set.Name
		var exists bool
		if err := conn.QueryRow(ctx, `select to_regclass($1) is not null`, table).Scan(&exists); err != nil {
			return nil, fmt.Errorf("postgres: look for %s: %w", table, err)
		}
		var version int64
		if exists {
			if err := conn.QueryRow(ctx, `select coalesce(max(version_id), 0) from `+table+` where is_applied`).Scan(&version); err != nil {
				return nil, fmt.Errorf("postgres: read %s: %w", table, err)
			}
		}
		out[set.Name] = version
	}
	return out, nil
}

// Migrate brings the sets up to date in the DSN's database, in order; each file runs in a transaction of its own. Several
// processes may call it at once: they take turns. The DSN's role must be allowed to create roles and schemas. Error: *[FailedMigration]
// for a file that could not be applied.
func Migrate(ctx context.Context, dsn string, sets ...Migrations) error {
	return MigrateGently(ctx, dsn, "0", sets...)
}

// MigrateGently is [Migrate] in a database that serves: no statement waits for a lock longer than lockWait ("3s"; "0": for ever), because
// all who come after it would wait too.
func MigrateGently(ctx context.Context, dsn, lockWait string, sets ...Migrations) (err error) {
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		return fmt.Errorf("postgres: the DSN cannot be read: %w", err)
	}
	c.RuntimeParams["lock_timeout"] = lockWait
	db := stdlib.OpenDB(*c)
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.ExecContext(ctx, groupRoles); err != nil {
		return fmt.Errorf("postgres: create the group roles in %s: %w", c.Database, err)
	}
	for _, set := range sets {
		if err := migrate(ctx, db, set); err != nil {
			return fmt.Errorf("postgres: migrate %s in %s: %w", set.Name, c.Database, err)
		}
	}
	return nil
}

func migrate(ctx context.Context, db *sql.DB, set Migrations) error {
	if !setForm.MatchString(set.Name) {
		return fmt.Errorf("the name %q of a set of migrations is not [a-z]+", set.Name)
	}
	versions, err := database.NewStore(database.DialectPostgres, "public.migrations_"+set.Name)
	if err != nil {
		return err
	}
	turns, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectCustom, db, set.FS, goose.WithStore(versions), goose.WithSessionLocker(turns))
	if err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	var partial *goose.PartialError
	if errors.As(err, &partial) {
		return failed(set, partial)
	}
	return err
}

func failed(set Migrations, partial *goose.PartialError) error {
	source := partial.Failed.Source
	out := &FailedMigration{Set: set.Name, File: path.Base(source.Path), Version: source.Version, Err: partial.Err}
	if raw, err := fs.ReadFile(set.FS, out.File); err == nil {
		out.Whole = !withoutTransaction.Match(raw)
	}
	return out
}

var withoutTransaction = regexp.MustCompile(`(?mi)^--\s*\+goose\s+no\s+transaction`)
