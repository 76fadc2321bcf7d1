package tenants

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// channel tells processes which placements changed; see the trigger placement.tell.
const channel = "placement"

// Between two attempts to listen again.
const (
	minDelay = 100 * time.Millisecond
	maxDelay = 5 * time.Second
)

// Placement says where a tenant's database is and how its role logs in.
type Placement struct {
	Tenant    string // id of its log
	Server    string
	Database  string
	Role      string
	Schema    Schema // as far as known
	CreatedAt time.Time

	password []byte // sealed
}

const placementColumns = `tenant, server, database, role, schema, created_at, password`

func scanPlacement(row pgx.CollectableRow) (p Placement, err error) {
	err = row.Scan(&p.Tenant, &p.Server, &p.Database, &p.Role, &p.Schema, &p.CreatedAt, &p.password)
	return p, err
}

// Placement looks the tenant up. Error: [ErrUnknownTenant].
func (d *Databases) Placement(ctx context.Context, tenant string) (Placement, error) {
	rows, err := d.c.Platform.Query(ctx, `select `+placementColumns+` from placement.databases where tenant = $1`, tenant)
	if err != nil {
		return Placement{}, fmt.Errorf("tenants: look up the database of %s: %w", tenant, err)
	}
	p, err := pgx.CollectExactlyOneRow(rows, scanPlacement)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, fmt.Errorf("%w: %s", ErrUnknownTenant, tenant)
	}
	if err != nil {
		return p, fmt.Errorf("tenants: look up the database of %s: %w", tenant, err)
	}
	return p, nil
}

// Placements lists all tenants' placements in the order of their making.
func (d *Databases) Placements(ctx context.Context) ([]Placement, error) {
	rows, err := d.c.Platform.Query(ctx, `select `+placementColumns+` from placement.databases order by created_at, tenant`)
	if err != nil {
		return nil, fmt.Errorf("tenants: list the databases: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanPlacement)
	if err != nil {
		return nil, fmt.Errorf("tenants: list the databases: %w", err)
	}
	return list, nil
}

// listen forgets what other processes changed, until ctx ends. While the connection is lost changes are missed, so that all is
// forgotten when there is one again.
func (d *Databases) listen(ctx context.Context, conn *pgx.Conn) {
	delay := minDelay
	for {
		err := d.hear(ctx, conn)
		for conn = nil; conn == nil; conn, err = d.startListening(ctx) {
			if ctx.Err() != nil {
				return
			}
			d.c.Logger.WarnContext(ctx, "tenants: the connection that tells of moved databases broke; it is opened again", "error", err)
			select {
			case <-time.After(delay/2 + rand.N(delay/2)):
			case <-ctx.Done():
				return
			}
			delay = min(2*delay, maxDelay)
		}
		delay = minDelay
		d.forget(func(*entry) bool { return true }, func(string) bool { return true })
	}
}

// startListening opens a connection that is no pool's, because it listens for ever.
func (d *Databases) startListening(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, d.c.Platform.Config().ConnConfig)
	if err != nil {
		return nil, fmt.Errorf("tenants: listen for moved databases: %w", err)
	}
	if _, err := conn.Exec(ctx, `listen `+channel); err != nil {
		return nil, errors.Join(fmt.Errorf("tenants: listen for moved databases: %w", err), conn.Close(context.WithoutCancel(ctx)))
	}
	return conn, nil
}

// hear acts on notifications until the connection breaks or ctx ends, and closes the connection.
func (d *Databases) hear(ctx context.Context, conn *pgx.Conn) (err error) {
	defer func() {
		bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		err = errors.Join(err, conn.Close(bye))
	}()
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		if name, ok := strings.CutPrefix(n.Payload, ":"); ok {
			d.forgetServer(name)
		} else {
			d.Forget(n.Payload)
		}
	}
}

// forgetServer makes the next use of a server look its URL up again.
func (d *Databases) forgetServer(name string) {
	d.mu.Lock()
	old, ok := d.servers[name]
	if ok && name != MainServer {
		delete(d.servers, name)
		d.replaced = append(d.replaced, old)
	}
	d.mu.Unlock()
	d.forget(func(e *entry) bool { return e.server.name == name }, func(string) bool { return false })
}

// ServerOf names the server of a tenant whose pool is open, "" for others. It asks nobody.
func (d *Databases) ServerOf(tenant string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e, ok := d.pools[tenant]; ok {
		return e.server.name
	}
	return ""
}
