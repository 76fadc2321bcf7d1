package tenants

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/infra/postgres"
)

const (
	// fenceFor is how long a log stays closed when nobody goes on with what it was closed for. It is shorter than appends wait.
	fenceFor = 3 * time.Second
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

// Place is where the database lies.
func (p Placement) Place() Place { return Place{p.Server, p.Database} }

// Fence announces that the tenant's log is about to be closed with the id that it returns. Who closes it has less than three seconds for what
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

// Withdraw ends what [Turn.Fence] announced, and tells whether [Turn.Switch] or [Turn.Retire] was decided under it. If not, it never will be.
func (t *Turn) Withdraw(ctx context.Context, fence [16]byte) (decided bool, err error) {
	// A connection of its own: a decision whose answer was lost with our connection may still be under way, and is waited for.
	err = t.d.within(ctx, Place{MainServer, ""}, func(admin *pgx.Conn) error {
		err := admin.QueryRow(ctx, `delete from placement.fences where tenant = $1 and fence = $2 returning used`, t.Tenant, fence).Scan(&decided)
		if errors.Is(err, pgx.ErrNoRows) { // its time was up, and others opened the log
			return nil
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("tenants: withdraw that the log of %s is closed: %w", t.Tenant, err)
	}
	return decided, nil
}

// Refresh looks up where the tenant lies, and forgets its pool if that leads elsewhere. Error: [ErrUnknownTenant].
func (d *Databases) Refresh(ctx context.Context, tenant string) (Placement, error) {
	p, err := d.Placement(ctx, tenant)
	if err != nil && !errors.Is(err, ErrUnknownTenant) {
		return p, err
	}
	d.mu.Lock()
	e, open := d.pools[tenant]
	stale := open && (e.server.name != p.Server || e.pool.Config().ConnConfig.Database != p.Database)
	d.mu.Unlock()
	if stale {
		d.Forget(tenant)
	}
	return p, err
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
func retire(ctx context.Context, tx pgx.Tx, tenant string, at Place, why string) error {
	tag, err := tx.Exec(ctx, `insert into placement.retired (server, database, tenant, role, password, schema, created_at, why, drop_at)
		select server, database, tenant, role, password, schema, created_at, $4, clock_timestamp() + $5
		  from placement.databases where tenant = $1 and server = $2 and database = $3`, tenant, at.Server, at.Database, why, keepFor)
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
		if err := retire(ctx, tx, t.Tenant, at, "deleted"); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `delete from placement.activity where tenant = $1`, t.Tenant); err != nil {
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

// BeginMove makes an empty database for the tenant on another server, or finds the one that an earlier attempt made, and returns where the
// tenant lies and where that database does. Nothing is changed for those who use the tenant. Errors: [ErrUnknownTenant], [ErrUnknownServer],
// *[ServerError].
func (t *Turn) BeginMove(ctx context.Context, server string) (from, to Placement, err error) {
	if from, err = t.d.Placement(ctx, t.Tenant); err != nil {
		return from, to, err
	}
	if _, err := t.d.server(ctx, server); err != nil {
		return from, to, err
	}
	begun, found, err := t.Begun(ctx)
	if err != nil {
		return from, to, err
	}
	if found && begun.Server != server {
		return from, to, fmt.Errorf("tenants: a move of %s to server %s was begun and not finished; finish it, or give it up by moving the tenant to %s, where it lies",
			t.Tenant, begun.Server, from.Server)
	}
	if !found {
		if begun, err = t.freeName(ctx, server, from.Database); err != nil {
			return from, to, err
		}
		_, err = t.admin.Exec(ctx, `insert into placement.moves (tenant, server, database) values ($1, $2, $3)`, t.Tenant, begun.Server, begun.Database)
		if err != nil {
			return from, to, fmt.Errorf("tenants: note that %s is about to move: %w", t.Tenant, err)
		}
	}
	to, err = t.d.ProvisionOn(ctx, t.Tenant, begun.Database, server)
	return from, to, err
}

// Begun tells whether a move of the tenant was begun and is not over, and where to.
func (t *Turn) Begun(ctx context.Context) (to Place, found bool, err error) {
	err = t.admin.QueryRow(ctx, `select server, database from placement.moves where tenant = $1`, t.Tenant).Scan(&to.Server, &to.Database)
	if errors.Is(err, pgx.ErrNoRows) {
		return to, false, nil
	}
	if err != nil {
		return to, false, fmt.Errorf("tenants: look for a move of %s: %w", t.Tenant, err)
	}
	return to, true, nil
}

// freeName is the database's name or, where a database of that name is still kept on the server, one like it.
func (t *Turn) freeName(ctx context.Context, server, name string) (Place, error) {
	name = numbered.ReplaceAllString(name, "")
	for i := 1; i < 100; i++ {
		at := Place{server, name}
		if i > 1 {
			suffix := fmt.Sprintf("_m%d", i)
			at.Database = name[:min(len(name), maxDatabase-len(suffix))] + suffix
		}
		var taken bool
		err := t.admin.QueryRow(ctx, `select exists (select from placement.retired where server = $1 and database = $2)
			or exists (select from placement.databases where database = $2 and tenant <> $3)
			or exists (select from placement.moves where database = $2 and tenant <> $3)`, at.Server, at.Database, t.Tenant).Scan(&taken)
		if err != nil {
			return at, fmt.Errorf("tenants: find a name for the database of %s: %w", t.Tenant, err)
		}
		if !taken {
			return at, nil
		}
	}
	return Place{}, fmt.Errorf("tenants: server %s keeps too many databases of %s that are out of service; see 'factum tenants show'", server, t.Tenant)
}

// maxDatabase is the length of the longest name of a database.
const maxDatabase = 63

var numbered = regexp.MustCompile(`_m[0-9]{1,2}$`)

// GiveUpMove drops what a move that was not finished has made, and forgets the move.
func (t *Turn) GiveUpMove(ctx context.Context) error {
	at, found, err := t.Begun(ctx)
	if err != nil || !found {
		return err
	}
	// As a database that is out of service it is dropped like others, and its role with it unless that is still used.
	err = pgx.BeginFunc(ctx, t.admin, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `insert into placement.retired (server, database, tenant, role, password, schema, created_at, why, drop_at)
			values ($1, $2, $3, $4, '', '{}', now(), 'moved', now())`, at.Server, at.Database, t.Tenant, roleOf(t.Tenant))
		if err == nil {
			_, err = tx.Exec(ctx, `delete from placement.moves where tenant = $1`, t.Tenant)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("tenants: give up the move of %s: %w", t.Tenant, err)
	}
	return t.d.Drop(ctx, at)
}

// Switch makes to the tenant's place, if it still lies at from, and takes the old database out of service, in one step that is decided under
// the fence; all processes are told to forget their pools. The log at the new place must be closed with the fence too, so that nobody
// writes there before all have heard: whoever switches opens it, or anybody a moment later. Error: [ErrFence].
func (t *Turn) Switch(ctx context.Context, fence [16]byte, from, to Placement) error {
	err := pgx.BeginFunc(ctx, t.admin, func(tx pgx.Tx) error {
		if err := use(ctx, tx, t.Tenant, fence); err != nil {
			return err
		}
		if err := retire(ctx, tx, t.Tenant, from.Place(), "moved"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `update placement.databases set server = $2, database = $3, role = $4, password = $5, schema = $6 where tenant = $1`,
			t.Tenant, to.Server, to.Database, to.Role, to.password, to.Schema)
		if err == nil {
			_, err = tx.Exec(ctx, `delete from placement.moves where tenant = $1`, t.Tenant)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("tenants: switch %s from %s to %s: %w", t.Tenant, from.Place(), to.Place(), err)
	}
	t.d.Forget(t.Tenant)
	return nil
}

// Make makes an empty database for a tenant that has none, on the server of that name or, for "", on the one that is next; it may be repeated.
// The tenant stays unknown until [Turn.Settle].
func (t *Turn) Make(ctx context.Context, database, server string) (Placement, error) {
	if server == "" {
		err := t.admin.QueryRow(ctx, chooseSQL, t.Tenant).Scan(&server)
		if errors.Is(err, pgx.ErrNoRows) {
			return Placement{}, ErrNoServer
		}
		if err != nil {
			return Placement{}, fmt.Errorf("tenants: choose a server for %s: %w", t.Tenant, err)
		}
	}
	at, err := t.freeName(ctx, server, database)
	if err != nil {
		return Placement{}, err
	}
	return t.d.ProvisionOn(ctx, t.Tenant, at.Database, server)
}

// Settle places a tenant that has no database yet.
func (t *Turn) Settle(ctx context.Context, p Placement) error {
	if _, err := t.admin.Exec(ctx, placeSQL, p.Tenant, p.Database, p.Role, p.password, p.Server, p.Schema); err != nil {
		return fmt.Errorf("tenants: note where %s lies: %w", t.Tenant, err)
	}
	return nil
}

// Connect opens a pool of the tenant's role to a placement that need not be the tenant's; the caller closes it.
func (d *Databases) Connect(ctx context.Context, p Placement) (*pgxpool.Pool, error) {
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
	pool, err := postgres.Open(ctx, dsn, 2*connsPerTenant)
	if err != nil {
		return nil, &ServerError{p.Server, err}
	}
	return pool, nil
}
