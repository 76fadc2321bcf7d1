package site

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/pgstore"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/tsa"
)

// Apart is a tenant's database that the platform does not know, so that none of its processes looks after it. It has the schema, the group
// role and the number of connections that tenants' databases have.
type Apart struct {
	Tenant Tenant
	Store  eventstore.Store

	platform *Platform
	pool     *pgxpool.Pool
}

// NewApart makes one; name is of [a-z].
func (p *Platform) NewApart(ctx context.Context, name string) (_ *Apart, err error) {
	a := &Apart{Tenant: Tenant{ID: name, Log: eventstore.TenantID(name), Database: name}, platform: p}
	quoted := pgx.Identifier{name}.Sanitize()
	for _, sql := range []string{"create database " + quoted + " template " + Template, "grant create on database " + quoted + " to factum_tenant"} {
		if _, err := p.site.admin.Exec(ctx, sql); err != nil {
			return nil, fmt.Errorf("make database %s: %w", name, err)
		}
	}
	u, err := url.Parse(p.site.DSN(name))
	if err != nil {
		return nil, errors.New("the DSN of database " + name + " is not a URL") // err would print its password
	}
	values := u.Query()
	values.Set("role", "factum_tenant")
	u.RawQuery = values.Encode()
	if a.pool, err = postgres.Open(ctx, u.String(), 4); err != nil {
		return nil, err
	}
	if a.Store, err = pgstore.Open(ctx, pgstore.Config{Databases: a}); err != nil {
		a.pool.Close()
		return nil, err
	}
	return a, nil
}

// Pool implements pgstore.Databases.
func (a *Apart) Pool(_ context.Context, tenant string) (*pgxpool.Pool, error) {
	if tenant != string(a.Tenant.Log) {
		return nil, fmt.Errorf("there is only %s here, and no %s", a.Tenant.Log, tenant)
	}
	return a.pool, nil
}

// Tenants is the one that there is.
func (a *Apart) Tenants(context.Context) ([]string, error) {
	return []string{string(a.Tenant.Log)}, nil
}

// Fill is [Platform.Fill] for its log.
func (a *Apart) Fill(ctx context.Context, events int, stamp *tsa.Stamp) (int, error) {
	return a.platform.fill(ctx, a.Store.Tenant(a.Tenant.Log), a.Tenant, events, stamp, nil)
}

// Upload is [Platform.Upload] for its log.
func (a *Apart) Upload(ctx context.Context) (Uploaded, error) {
	return a.platform.upload(ctx, a.Store.Tenant(a.Tenant.Log), a.Tenant)
}

// Close closes its connections. The database stays.
func (a *Apart) Close() error {
	err := a.Store.Close()
	a.pool.Close()
	return err
}
