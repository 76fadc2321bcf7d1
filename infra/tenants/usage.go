package tenants

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
)

// Usage is what a tenant's database takes up on its server.
type Usage struct {
	Bytes       int64
	Connections int // of all processes
}

// Usage asks each server once for what the databases take up. What is missing in the answer lies on a server that could not be asked;
// failed says why, by server.
func (d *Databases) Usage(ctx context.Context, list []Placement) (usage map[string]Usage, failed map[string]error) {
	byServer := map[string][]Placement{}
	for _, p := range list {
		byServer[p.Server] = append(byServer[p.Server], p)
	}
	usage, failed = map[string]Usage{}, map[string]error{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for server, placed := range byServer {
		wg.Go(func() {
			found, err := d.usageOn(ctx, server, placed)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed[server] = err
			}
			for _, p := range placed {
				if u, ok := found[p.Database]; ok {
					usage[p.Tenant] = u
				}
			}
		})
	}
	wg.Wait()
	return usage, failed
}

// usageOn answers by database.
func (d *Databases) usageOn(ctx context.Context, server string, list []Placement) (_ map[string]Usage, err error) {
	names := make([]string, len(list))
	for i, p := range list {
		names[i] = p.Database
	}
	conn, err := d.Admin(ctx, server, "")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	rows, err := conn.Query(ctx, `select d.datname, pg_database_size(d.oid), (select count(*) from pg_stat_activity a where a.datid = d.oid)
		from pg_database d where d.datname = any($1)`, names)
	if err != nil {
		return nil, fmt.Errorf("tenants: the sizes of databases on server %s: %w", server, err)
	}
	out := map[string]Usage{}
	var name string
	var u Usage
	_, err = pgx.ForEachRow(rows, []any{&name, &u.Bytes, &u.Connections}, func() error { out[name] = u; return nil })
	if err != nil {
		return nil, fmt.Errorf("tenants: the sizes of databases on server %s: %w", server, err)
	}
	return out, nil
}
