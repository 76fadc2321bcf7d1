package tenants

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// ProvisionOn runs the statements of Provision over a connection of the test's.
func ProvisionOn(ctx context.Context, d *Databases, admin *pgx.Conn, tenant, database string) error {
	return d.provision(ctx, admin, tenant, database)
}
