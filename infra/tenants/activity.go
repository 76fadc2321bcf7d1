package tenants

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Mark says that a tenant's log may have grown.
type Mark struct {
	Tenant string
	At     time.Time     // when it was made or renewed, by the database's clock
	Age    time.Duration // by the same clock, when it was read
}

// Activity remembers, in the platform's database, which tenants may have news for their projections. A new tenant is marked when it is placed.
// It is safe for concurrent use by many processes.
type Activity struct{ Pool *pgxpool.Pool }

// markFresh is how old a mark must be to be renewed: many processes may mark a tenant at once.
const markFresh = 15 * time.Second

// Mark marks the tenant; the mark is durable when it returns. One that is younger than 15 s is left as it is.
func (a Activity) Mark(ctx context.Context, tenant string) error {
	_, err := a.Pool.Exec(ctx, `insert into placement.activity as a (tenant) values ($1)
		on conflict (tenant) do update set marked_at = now() where a.marked_at < now() - $2::interval`, tenant, markFresh)
	if err != nil {
		return fmt.Errorf("tenants: mark %s as active: %w", tenant, err)
	}
	return nil
}

// MarkAll marks all tenants that have a database, the first time that it is called for the reason.
func (a Activity) MarkAll(ctx context.Context, reason string) error {
	_, err := a.Pool.Exec(ctx, `with first as (insert into placement.activity_reasons (reason) values ($1) on conflict do nothing returning 1)
		insert into placement.activity (tenant) select d.tenant from placement.databases d where exists (select from first)
		on conflict (tenant) do update set marked_at = now()`, reason)
	if err != nil {
		return fmt.Errorf("tenants: mark all as active: %w", err)
	}
	return nil
}

// Marked returns the marks, the oldest first.
func (a Activity) Marked(ctx context.Context) ([]Mark, error) {
	rows, err := a.Pool.Query(ctx, `select tenant, marked_at, clock_timestamp() - marked_at from placement.activity order by marked_at, tenant`)
	if err != nil {
		return nil, fmt.Errorf("tenants: read which are active: %w", err)
	}
	marks, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (m Mark, err error) {
		err = row.Scan(&m.Tenant, &m.At, &m.Age)
		return m, err
	})
	if err != nil {
		return nil, fmt.Errorf("tenants: read which are active: %w", err)
	}
	return marks, nil
}

// Unmark removes the mark, if it was not renewed since it was read.
func (a Activity) Unmark(ctx context.Context, m Mark) error {
	if _, err := a.Pool.Exec(ctx, `delete from placement.activity where tenant = $1 and marked_at = $2`, m.Tenant, m.At); err != nil {
		return fmt.Errorf("tenants: remove the mark of %s: %w", m.Tenant, err)
	}
	return nil
}
