package runner

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/eventstore"
)

// HoldStill keeps the read models of a tenant's database where they are for as long as the transaction lasts, and returns how far the foremost
// one is. Runners wait for it, for the database's lock_timeout, and try again. The role must be the administrator's.
func HoldStill(ctx context.Context, tx pgx.Tx) (eventstore.Position, error) {
	var at int64
	err := tx.QueryRow(ctx, `select coalesce(max(position), 0) from (select position from proj.checkpoint order by projection, generation, tenant for update) c`).Scan(&at)
	if err != nil {
		return 0, fmt.Errorf("runner: hold the read models still: %w", err)
	}
	return eventstore.Position(at), nil
}

// CarryOver makes the read models that were built in another database take the place of a tenant's: consumers that were paused stay so, and a
// runner that remembers the old ones finds out at its first move. Both connections are the administrator's.
func CarryOver(ctx context.Context, from, to *pgx.Conn) error {
	var revision int64
	if err := from.QueryRow(ctx, `select coalesce(max(revision), 0) from proj.checkpoint`).Scan(&revision); err != nil {
		return fmt.Errorf("runner: read the read models that are left: %w", err)
	}
	if _, err := to.Exec(ctx, `update proj.checkpoint set revision = greatest(revision, $1) + 1`, revision); err != nil {
		return fmt.Errorf("runner: carry the read models over: %w", err)
	}
	rows, err := from.Query(ctx, `select projection, tenant, by_actor, at from proj.paused`)
	if err != nil {
		return fmt.Errorf("runner: read who is paused: %w", err)
	}
	paused, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) ([]any, error) { return row.Values() })
	if err != nil {
		return fmt.Errorf("runner: read who is paused: %w", err)
	}
	for _, p := range paused {
		if _, err := to.Exec(ctx, `insert into proj.paused (projection, tenant, by_actor, at) values ($1, $2, $3, $4) on conflict do nothing`, p...); err != nil {
			return fmt.Errorf("runner: carry over who is paused: %w", err)
		}
	}
	return nil
}
