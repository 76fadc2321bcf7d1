package tenants

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/infra/postgres"
)

// TraceAdmin makes the administrator's statements on a server visible to a tracer.
func TraceAdmin(ctx context.Context, d *Databases, name string, tracer pgx.QueryTracer) error {
	s, err := d.server(ctx, name)
	if err != nil {
		return err
	}
	c, err := postgres.Configure(s.dsn, 1)
	if err != nil {
		return err
	}
	c.ConnConfig.Tracer = tracer
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.admin != nil {
		s.admin.Close()
	}
	s.admin, err = pgxpool.NewWithConfig(ctx, c)
	return err
}
