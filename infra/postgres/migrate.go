package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
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
}

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

// Migrate brings the sets up to date in the DSN's database, in order; each file runs in a transaction of its own. Several
// processes may call it at once: they take turns. The DSN's role must be allowed to create roles and schemas.
func Migrate(ctx context.Context, dsn string, sets ...Migrations) (err error) {
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		return fmt.Errorf("postgres: the DSN cannot be read: %w", err)
	}
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
	return err
}
