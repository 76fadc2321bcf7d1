package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"

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

// ReadOn lets the consumers in the platform's database, which conn is connected to as the administrator, go on with a tenant's log that was
// brought back from an archive, and may be older than what they have seen: read models begin the log anew, which changes no row that is right,
// and sagas go on at its end, so that nothing is asked for again. It returns how many had seen more. Consumers that find their last event in
// its place are left alone; no runner may follow the log meanwhile.
func ReadOn(ctx context.Context, conn *pgx.Conn, t eventstore.TenantID, log eventstore.Log, readModels []Projection) (int, error) {
	var names []string
	for _, p := range readModels {
		names = append(names, p.Name)
	}
	rows, err := conn.Query(ctx, `select projection, generation, position, last_event from proj.checkpoint where tenant = $1 and last_event is not null`, string(t))
	if err != nil {
		return 0, fmt.Errorf("runner: read the checkpoints of %s: %w", t, err)
	}
	type row struct {
		Projection string
		Generation int
		Position   int64
		Last       [16]byte
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil {
		return 0, fmt.Errorf("runner: read the checkpoints of %s: %w", t, err)
	}
	moved := 0
	for _, r := range list {
		found, err := log.Page(ctx, eventstore.Position(r.Position)-1, 1)
		if err != nil {
			return moved, fmt.Errorf("runner: read the log of %s: %w", t, err)
		}
		if e := found.Events; len(e) == 1 && int64(e[0].Position) == r.Position && e[0].ID == r.Last {
			continue
		}
		to := checkpoint{}
		if !slices.Contains(names, r.Projection) {
			if to, err = endOf(ctx, log); err != nil {
				return moved, fmt.Errorf("runner: read the log of %s: %w", t, err)
			}
		}
		_, err = conn.Exec(ctx, `update proj.checkpoint set position = $4, last_event = $5, revision = revision + 1, error = null, waits = false
			where projection = $1 and generation = $2 and tenant = $3`, r.Projection, r.Generation, string(t), int64(to.position), to.lastEvent())
		if err != nil {
			return moved, fmt.Errorf("runner: set the checkpoint of %s of %s: %w", r.Projection, t, err)
		}
		moved++
	}
	return moved, nil
}

// endOf is a checkpoint on a log's last event.
func endOf(ctx context.Context, log eventstore.Log) (checkpoint, error) {
	head, err := log.Head(ctx)
	if err != nil || head == 0 {
		return checkpoint{}, err
	}
	last, err := log.Page(ctx, head-1, 1)
	if err != nil || len(last.Events) != 1 {
		return checkpoint{}, errors.Join(err, fmt.Errorf("%d events behind position %d", len(last.Events), head-1))
	}
	return checkpoint{position: last.Events[0].Position, last: last.Events[0].ID}, nil
}
