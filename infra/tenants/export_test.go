package tenants

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// ProvisionWith runs the statements of Provision over a connection of the test's.
func ProvisionWith(ctx context.Context, d *Databases, main *pgx.Conn, tenant, database string) error {
	return d.provision(ctx, main, tenant, database)
}
