package tenants

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Querier is a pool, a connection or a transaction on the platform's database.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Engine is what the platform's database remembers of the engine that holds the logs. To start on another one would look as if all
// accounts were lost.
type Engine struct {
	Name     string // "" when no log was begun yet
	MovingTo string // the engine that the logs are being moved to; "" when no move is under way
	Since    time.Time
}

// RememberedEngine reads it.
func RememberedEngine(ctx context.Context, q Querier) (Engine, error) {
	var e Engine
	err := q.QueryRow(ctx, `select engine, coalesce(moving_to, ''), since from placement.log`).Scan(&e.Name, &e.MovingTo, &e.Since)
	if errors.Is(err, pgx.ErrNoRows) {
		return Engine{}, nil
	}
	if err != nil {
		return Engine{}, fmt.Errorf("tenants: which engine holds the logs: %w", err)
	}
	return e, nil
}

// RememberEngine notes the engine of the first start, and returns what is remembered. It needs the administrator's rights.
func RememberEngine(ctx context.Context, q Querier, name string) (Engine, error) {
	if _, err := q.Exec(ctx, `insert into placement.log (engine) values ($1) on conflict do nothing`, name); err != nil {
		return Engine{}, fmt.Errorf("tenants: remember the engine of the logs: %w", err)
	}
	return RememberedEngine(ctx, q)
}

// BeginMove notes that checkpoints are about to be translated to the positions of another engine: until [EndMove], checkpoints of both
// engines may lie in the databases. It may be repeated. It needs the administrator's rights.
func BeginMove(ctx context.Context, q Querier, from, to string) error {
	return moved(ctx, q, `update placement.log set moving_to = $2 where engine = $1`, from, to)
}

// EndMove notes that the logs are the other engine's from now on, and marks all tenants, because read models that hold positions are to be
// built anew. It needs the administrator's rights.
func EndMove(ctx context.Context, q Querier, from, to string) error {
	_, err := q.Exec(ctx, `insert into placement.activity (tenant) select d.tenant from placement.databases d on conflict (tenant) do update set marked_at = now()`)
	if err != nil {
		return fmt.Errorf("tenants: mark all as active: %w", err)
	}
	return moved(ctx, q, `update placement.log set engine = $2, moving_to = null, since = now() where engine = $1 and moving_to = $2`, from, to)
}

func moved(ctx context.Context, q Querier, sql, from, to string) error {
	tag, err := q.Exec(ctx, sql, from, to)
	if err == nil && tag.RowsAffected() != 1 {
		err = errors.New("another process has moved them meanwhile")
	}
	if err != nil {
		return fmt.Errorf("tenants: note that the logs move from %s to %s: %w", from, to, err)
	}
	return nil
}
