package runner

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
)

// LastEvents returns the events on which the checkpoints of the database stand, by the log. Checkpoints that have not begun have none.
func LastEvents(ctx context.Context, pool *pgxpool.Pool) (map[eventstore.TenantID][]eventstore.EventID, error) {
	rows, err := pool.Query(ctx, `select distinct tenant, last_event from proj.checkpoint where last_event is not null`)
	if err != nil {
		return nil, fmt.Errorf("runner: read the checkpoints: %w", err)
	}
	out := map[eventstore.TenantID][]eventstore.EventID{}
	var tenant string
	var last [16]byte
	_, err = pgx.ForEachRow(rows, []any{&tenant, &last}, func() error {
		out[eventstore.TenantID(tenant)] = append(out[eventstore.TenantID(tenant)], last)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("runner: read the checkpoints: %w", err)
	}
	return out, nil
}

// Relocate gives the checkpoints of the database the positions that their events have in a log that was moved to another engine; at holds
// them for each event that [LastEvents] named. So nothing is applied again, and no saga asks for anything again. Read models whose rows
// hold positions (see [Projection].Positions) are forgotten instead, and are built anew at the next start. It goes by the events' ids,
// so it may be repeated. No runner may work on the database meanwhile.
func Relocate(ctx context.Context, tx pgx.Tx, at map[eventstore.TenantID]map[eventstore.EventID]eventstore.Position, projections []Projection) error {
	for i := range projections {
		if !projections[i].Positions {
			continue
		}
		for _, table := range []string{"parked", "checkpoint", "live"} {
			if _, err := tx.Exec(ctx, `delete from proj.`+table+` where projection = $1`, projections[i].Name); err != nil {
				return fmt.Errorf("runner: forget the read model %s: %w", projections[i].Name, err)
			}
		}
	}
	var tenants []string
	var events [][16]byte
	var positions []int64
	for tenant, of := range at {
		for event, position := range of {
			tenants, events, positions = append(tenants, string(tenant)), append(events, event), append(positions, int64(position))
		}
	}
	// Every row with an event is written, so that the count shows one that has no position.
	var begun, relocated int64
	err := tx.QueryRow(ctx, `
		with moved as (
			update proj.checkpoint c set position = m.position from unnest($1::text[], $2::uuid[], $3::bigint[]) as m (tenant, event, position)
			 where c.tenant = m.tenant and c.last_event = m.event returning 1)
		select (select count(*) from proj.checkpoint where last_event is not null), (select count(*) from moved)`,
		tenants, events, positions).Scan(&begun, &relocated)
	if err != nil {
		return fmt.Errorf("runner: relocate the checkpoints: %w", err)
	}
	if begun != relocated {
		return fmt.Errorf("runner: %d of %d checkpoints stand on events that the log does not hold; delete those rows of proj.checkpoint, or restore the newer log", begun-relocated, begun)
	}
	return nil
}
