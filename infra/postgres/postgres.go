// Package postgres opens pools with the guards that every connection of the application has, and migrates schemas.
package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// connectTimeout bounds one connection attempt.
	connectTimeout = 5 * time.Second
	// idleFor is how long an unused connection is kept, and idleCheck how often that is looked at.
	idleFor   = time.Minute
	idleCheck = 15 * time.Second
)

// Open returns a pool of at most maxConns connections, as [Configure] describes it, and checks that the server answers. The DSN's
// password does not occur in errors.
func Open(ctx context.Context, dsn string, maxConns int32) (*pgxpool.Pool, error) {
	c, err := Configure(dsn, maxConns)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("postgres: open a pool to %s: %w", where(c), err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("postgres: connect to %s: %w", where(c), err)
	}
	return pool, nil
}

// Configure describes a pool of at most maxConns connections; none is kept that was idle for a minute. Each connection has the guards of
// a server application: statements end after 30 s, waits for a lock after 2 s, idle transactions after 10 s.
func Configure(dsn string, maxConns int32) (*pgxpool.Config, error) {
	c, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("postgres: the DSN cannot be read: %w", err) // pgx redacts the password
	}
	c.MaxConns = maxConns
	c.MinConns = 0
	c.MaxConnIdleTime, c.HealthCheckPeriod = idleFor, idleCheck
	c.ConnConfig.ConnectTimeout = connectTimeout
	c.ConnConfig.Tracer = otelpgx.NewTracer()
	for setting, value := range map[string]string{
		"application_name":                    "factum",
		"timezone":                            "UTC",
		"statement_timeout":                   "30s",
		"lock_timeout":                        "2s",
		"idle_in_transaction_session_timeout": "10s",
	} {
		c.ConnConfig.RuntimeParams[setting] = value
	}
	return c, nil
}

func where(c *pgxpool.Config) string {
	return fmt.Sprintf("%s:%d/%s as %s", c.ConnConfig.Host, c.ConnConfig.Port, c.ConnConfig.Database, c.ConnConfig.User)
}
