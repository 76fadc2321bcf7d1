package tenants

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// fenceFor is how long a log stays closed when nobody goes on with what it was closed for. It is shorter than appends wait.
	fenceFor = 4 * time.Second
	// keepFor is how long a database is kept that is no tenant's any more.
	keepFor = 24 * time.Hour
)

// Place is where a tenant's database lies.
type Place struct{ Server, Database string }

// String returns "server/database".
func (p Place) String() string { return p.Server + "/" + p.Database }

// ErrTurn says that another process changes where the tenant lies.
var ErrTurn = errors.New("tenants: another process moves, imports or deletes this tenant; wait for its end and start again")

// ErrFence says that the time in which a log was kept closed is over: others may have opened it since. Nothing was changed.
var ErrFence = errors.New("tenants: it took too long while the log was closed; it is open again, and nothing was changed")

// Turn is the right to change where a tenant lies; one process has it at a time. It is for one goroutine.
type Turn struct {
	Tenant string
	d      *Databases
	admin  *pgx.Conn // on the platform's database; holds the lock
}

// Turn takes the turn of a tenant. Error: [ErrTurn].
func (d *Databases) Turn(ctx context.Context, tenant string) (*Turn, error) {
	if !tenantForm.MatchString(tenant) || tenant == Platform {
		return nil, fmt.Errorf("tenants: %q is not a tenant id: want 1 to 32 of [a-z0-9]", tenant)
	}
	admin, err := d.Admin(ctx, MainServer, "")
	if err != nil {
		return nil, err
	}
	var ours bool
	err = admin.QueryRow(ctx, `select pg_try_advisory_lock(hashtextextended('factum.turn.' || $1, 0))`, tenant).Scan(&ours)
	if err == nil && !ours {
		err = ErrTurn
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("tenants: take the turn of %s: %w", tenant, err), admin.Close(context.WithoutCancel(ctx)))
	}
	return &Turn{tenant, d, admin}, nil
}

// End gives the turn back.
func (t *Turn) End(ctx context.Context) error {
	if err := t.admin.Close(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("tenants: give the turn of %s back: %w", t.Tenant, err)
	}
	return nil
}

// Placed returns where the tenant's database lies. Error: [ErrUnknownTenant].
func (d *Databases) Placed(ctx context.Context, tenant string) (Place, error) {
	return placed(ctx, d.c.Platform, tenant)
}

func placed(ctx context.Context, q Querier, tenant string) (p Place, err error) {
	err = q.QueryRow(ctx, `select server, database from placement.databases where tenant = $1`, tenant).Scan(&p.Server, &p.Database)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, fmt.Errorf("%w: %s", ErrUnknownTenant, tenant)
	}
	if err != nil {
		return p, fmt.Errorf("tenants: look up the database of %s: %w", tenant, err)
	}
	return p, nil
}

// Fence announces that the tenant's log is about to be closed with the id that it returns. Who closes it has less than four seconds for what
// is to follow; after that anybody may open it.
func (t *Turn) Fence(ctx context.Context) (id [16]byte, err error) {
	rand.Read(id[:]) // never fails (Go 1.24)
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	_, err = t.admin.Exec(ctx, `insert into placement.fences (tenant, fence, until) values ($1, $2, clock_timestamp() + $3)
		on conflict (tenant) do update set fence = excluded.fence, until = excluded.until, used = false`, t.Tenant, id, fenceFor)
	if err != nil {
		return id, fmt.Errorf("tenants: announce that the log of %s is closed: %w", t.Tenant, err)
	}
	return id, nil
}

// Withdraw ends what [Turn.Fence] announced, once the log is open or nobody's any more.
func (t *Turn) Withdraw(ctx context.Context, fence [16]byte) error {
	if _, err := t.admin.Exec(ctx, `delete from placement.fences where tenant = $1 and fence = $2`, t.Tenant, fence); err != nil {
		return fmt.Errorf("tenants: withdraw that the log of %s is closed: %w", t.Tenant, err)
	}
	return nil
}

// Abandoned tells whether a log that is closed with this id at that place may be opened: the tenant lies there, and nobody goes on with what
// it was closed for. When it answers true, nobody ever will.
func (d *Databases) Abandoned(ctx context.Context, tenant string, at Place, fence [16]byte) (bool, error) {
	admin, err := d.Admin(ctx, MainServer, "")
	if err != nil {
		return false, err
	}
	defer admin.Close(context.WithoutCancel(ctx))
	_, err = admin.Exec(ctx, `delete from placement.fences where tenant = $1 and fence = $2 and until < clock_timestamp()`, tenant, fence)
	var abandoned bool
	if err == nil {
		err = admin.QueryRow(ctx, `select exists (select from placement.databases where tenant = $1 and server = $2 and database = $3)
			and not exists (select from placement.fences where tenant = $1 and fence = $4)`, tenant, at.Server, at.Database, fence).Scan(&abandoned)
	}
	if err != nil {
		return false, fmt.Errorf("tenants: who has closed the log of %s: %w", tenant, err)
	}
	return abandoned, nil
}

// use is the decision: it fails when the fence's time is up, and keeps it up for a moment more.
func use(ctx context.Context, tx pgx.Tx, tenant string, fence [16]byte) error {
	tag, err := tx.Exec(ctx, `update placement.fences set used = true, until = clock_timestamp() + $3
		where tenant = $1 and fence = $2 and not used and until > clock_timestamp()`, tenant, fence, fenceFor)
	if err == nil && tag.RowsAffected() != 1 {
		err = ErrFence
	}
	return err
}

// retire keeps what is known of a database that is no tenant's any more.
func retire(ctx context.Context, tx pgx.Tx, tenant string, at Place, why string, keep time.Duration) error {
	tag, err := tx.Exec(ctx, `insert into placement.retired (server, database, tenant, role, password, schema, created_at, why, drop_at)
		select server, database, tenant, role, password, schema, created_at, $4, clock_timestamp() + $5
		  from placement.databases where tenant = $1 and server = $2 and database = $3`, tenant, at.Server, at.Database, why, keep)
	if err == nil && tag.RowsAffected() != 1 {
		err = fmt.Errorf("it does not lie at %s any more", at)
	}
	return err
}

// Retire takes the tenant's database, which lies at that place, out of service: the tenant is unknown from then on, and the database is
// dropped a day later. It is decided under the fence. Error: [ErrFence].
func (t *Turn) Retire(ctx context.Context, fence [16]byte, at Place) error {
	err := pgx.BeginFunc(ctx, t.admin, func(tx pgx.Tx) error {
		if err := use(ctx, tx, t.Tenant, fence); err != nil {
			return err
		}
		if err := retire(ctx, tx, t.Tenant, at, "deleted", keepFor); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `delete from placement.databases where tenant = $1`, t.Tenant)
		return err
	})
	if err != nil {
		return fmt.Errorf("tenants: take the database of %s out of service: %w", t.Tenant, err)
	}
	return nil
}

// Reinstate takes the database of a tenant that was deleted into service again, if it was not dropped yet, and tells whether it was there. open
// opens its log, over the administrator's connection to that database.
func (t *Turn) Reinstate(ctx context.Context, open func(ctx context.Context, admin *pgx.Conn) error) (there bool, err error) {
	err = pgx.BeginFunc(ctx, t.admin, func(tx pgx.Tx) error {
		var at Place
		var role string
		// Who drops it meanwhile holds the row.
		err := tx.QueryRow(ctx, `select server, database, role from placement.retired where tenant = $1 and why = 'deleted'
			order by retired_at desc limit 1 for update`, t.Tenant).Scan(&at.Server, &at.Database, &role)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := t.d.within(ctx, at, func(admin *pgx.Conn) error {
			_, err := admin.Exec(ctx, `grant connect, create on database `+pgx.Identifier{at.Database}.Sanitize()+` to `+pgx.Identifier{role}.Sanitize())
			return errors.Join(err, open(ctx, admin))
		}); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `insert into placement.databases (tenant, server, database, role, password, schema, created_at)
			select tenant, server, database, role, password, schema, created_at from placement.retired where server = $1 and database = $2`, at.Server, at.Database)
		if err == nil {
			_, err = tx.Exec(ctx, `delete from placement.retired where server = $1 and database = $2`, at.Server, at.Database)
		}
		there = err == nil
		return err
	})
	if err != nil {
		return false, fmt.Errorf("tenants: take the database of %s into service again: %w", t.Tenant, err)
	}
	return there, nil
}

// within calls fn with a connection of the administrator to a database.
func (d *Databases) within(ctx context.Context, at Place, fn func(*pgx.Conn) error) error {
	conn, err := d.Admin(ctx, at.Server, at.Database)
	if err != nil {
		return err
	}
	return errors.Join(fn(conn), conn.Close(context.WithoutCancel(ctx)))
}
