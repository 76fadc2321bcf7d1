package tenants

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// dropTimeout bounds the dropping of one database.
const dropTimeout = time.Minute

// shutAfter is how long a process may need to let go of a database that it has been told to forget; whoever retired the database has usually
// shut it long before.
const shutAfter = 30 * time.Second

// Retired is a database that is no tenant's any more.
type Retired struct {
	Place
	Tenant    string
	Why       string // "moved" or "deleted"
	RetiredAt time.Time
	DropAt    time.Time
}

// Retired lists the databases that are kept for a while, of one tenant or, for "", of all, the oldest first.
func (d *Databases) Retired(ctx context.Context, tenant string) ([]Retired, error) {
	rows, err := d.c.Platform.Query(ctx, `select server, database, tenant, why, retired_at, drop_at from placement.retired
		where $1 in ('', tenant) order by retired_at, server, database`, tenant)
	if err != nil {
		return nil, fmt.Errorf("tenants: list the databases that are out of service: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Retired, err error) {
		return r, row.Scan(&r.Server, &r.Database, &r.Tenant, &r.Why, &r.RetiredAt, &r.DropAt)
	})
	if err != nil {
		return nil, fmt.Errorf("tenants: list the databases that are out of service: %w", err)
	}
	return list, nil
}

// Shut keeps everybody out of a database that was retired, and ends the sessions that are left in it. It may be repeated.
func (d *Databases) Shut(ctx context.Context, at Place) error {
	return d.locked(ctx, at, func(tx pgx.Tx, role string) error {
		err := d.within(ctx, Place{at.Server, ""}, func(admin *pgx.Conn) error {
			exists, err := has(ctx, admin, `select exists (select from pg_database where datname = $1)`, at.Database)
			if err != nil || !exists {
				return err
			}
			if _, err := admin.Exec(ctx, `revoke connect on database `+pgx.Identifier{at.Database}.Sanitize()+` from `+pgx.Identifier{role}.Sanitize()); err != nil {
				return err
			}
			return endSessions(ctx, admin, at.Database, role)
		})
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `update placement.retired set shut_at = now() where server = $1 and database = $2`, at.Server, at.Database)
		return err
	})
}

// endSessions ends the sessions of the tenant's role in the database. An administrator who is no superuser must have the role for that.
func endSessions(ctx context.Context, admin *pgx.Conn, database, role string) error {
	var exists, may bool
	err := admin.QueryRow(ctx, `select exists (select from pg_roles where rolname = $1),
		coalesce((select pg_has_role(oid, 'usage') from pg_roles where rolname = $1), false)`, role).Scan(&exists, &may)
	if err != nil || !exists {
		return err
	}
	if !may {
		if _, err := admin.Exec(ctx, `grant `+pgx.Identifier{role}.Sanitize()+` to current_user`); err != nil {
			return err
		}
	}
	_, err = admin.Exec(ctx, `select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and usename = $2`, database, role)
	return err
}

// Drop drops a database that was retired, at once, and the tenant's role on that server when nothing of the tenant is left there. One that
// is dropped already, or is in service again, is left alone.
func (d *Databases) Drop(ctx context.Context, at Place) error {
	ctx, cancel := context.WithTimeout(ctx, dropTimeout)
	defer cancel()
	return d.locked(ctx, at, func(tx pgx.Tx, role string) error {
		var used bool // a tenant has one role on a server, whatever databases
		err := tx.QueryRow(ctx, `select exists (select from placement.databases where server = $1 and role = $3)
			or exists (select from placement.moves where server = $1 and tenant = (select tenant from placement.retired where server = $1 and database = $2))
			or exists (select from placement.retired where server = $1 and role = $3 and database <> $2)`, at.Server, at.Database, role).Scan(&used)
		if err != nil {
			return err
		}
		err = d.within(ctx, Place{at.Server, ""}, func(admin *pgx.Conn) error {
			if err := endSessions(ctx, admin, at.Database, role); err != nil {
				return err
			}
			if _, err := admin.Exec(ctx, `drop database if exists `+pgx.Identifier{at.Database}.Sanitize()+` with (force)`); err != nil || used {
				return err
			}
			_, err := admin.Exec(ctx, `drop role if exists `+pgx.Identifier{role}.Sanitize())
			return err
		})
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `delete from placement.retired where server = $1 and database = $2`, at.Server, at.Database)
		return err
	})
}

// locked calls fn while it holds the row of a retired database, so that nobody else works on it or takes it into service; it does not call fn
// when there is no such row.
func (d *Databases) locked(ctx context.Context, at Place, fn func(tx pgx.Tx, role string) error) error {
	err := d.within(ctx, Place{MainServer, ""}, func(platform *pgx.Conn) error {
		return pgx.BeginFunc(ctx, platform, func(tx pgx.Tx) error {
			var role string
			err := tx.QueryRow(ctx, `select role from placement.retired where server = $1 and database = $2 for update`, at.Server, at.Database).Scan(&role)
			if errors.Is(err, pgx.ErrNoRows) {
				return nil
			}
			if err != nil {
				return err
			}
			return fn(tx, role)
		})
	})
	if err != nil {
		return fmt.Errorf("tenants: the database %s, which is out of service: %w", at, err)
	}
	return nil
}

// Tidy shuts the databases that were retired and not shut, and drops those whose time has come; it looks again just before it acts. It goes
// on after a failure, and joins the errors.
func (d *Databases) Tidy(ctx context.Context) (dropped []Retired, err error) {
	list, err := d.Retired(ctx, "")
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, r := range list {
		var due, shut bool
		err := d.c.Platform.QueryRow(ctx, `select drop_at <= now(), shut_at is not null or retired_at > now() - $3::interval
			from placement.retired where server = $1 and database = $2`, r.Server, r.Database, shutAfter).Scan(&due, &shut)
		switch {
		case errors.Is(err, pgx.ErrNoRows): // dropped, or in service again
			continue
		case err == nil && due:
			if err = d.Drop(ctx, r.Place); err == nil {
				dropped = append(dropped, r)
			}
		case err == nil && !shut:
			err = d.Shut(ctx, r.Place)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return dropped, errors.Join(errs...)
}

func roleOf(tenant string) string { return "factum_t_" + tenant }
