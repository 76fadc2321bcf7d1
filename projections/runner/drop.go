package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
)

const (
	// dropPatience is how long a drop waits for transactions that may still read the generation.
	dropPatience = 30 * time.Second
	dropPoll     = 50 * time.Millisecond
)

// TooEarlyError says that a retired generation cannot be dropped yet. Nothing was changed.
type TooEarlyError struct {
	Until  time.Time // when to try again
	Reason string
}

// Error implements error.
func (e *TooEarlyError) Error() string { return "runner: too early to drop: " + e.Reason }

// DropRetired drops a generation that was retired at least age ago, with its schema and its parked streams; its number is not used again. It
// waits, at most half a minute, until no transaction is open in the database that began while it could still be read, and takes locks only
// for as long as nobody waits for them: no reader does. A generation that is not retired, because it is live again, being rolled back to or
// gone, is left as it is: dropped is false and there is no error. It fails with a *[TooEarlyError] when it should be tried again later.
func (o *Operator) DropRetired(ctx context.Context, projection string, t eventstore.TenantID, generation int, age time.Duration) (dropped bool, err error) {
	if !nameForm.MatchString(projection) {
		return false, fmt.Errorf("runner: %q is not the name of a projection", projection)
	}
	pool, err := o.config.Pool(ctx, string(t))
	if err != nil {
		return false, fmt.Errorf("runner: drop %s_g%d of %s: reach the database: %w", projection, generation, t, err)
	}
	var now time.Time
	var retired *time.Time
	err = pool.QueryRow(ctx, `select clock_timestamp(), max(retired_at) from proj.checkpoint where projection = $1 and generation = $2 and state = 'retired'`,
		projection, generation).Scan(&now, &retired)
	if err != nil {
		return false, fmt.Errorf("runner: drop %s_g%d of %s: %w", projection, generation, t, err)
	}
	if retired == nil {
		return false, nil
	}
	if until := retired.Add(age); now.Before(until) {
		return false, &TooEarlyError{until, fmt.Sprintf("%s_g%d is kept until %s", projection, generation, until.UTC().Format(time.RFC3339))}
	}
	// It is retired, so whoever begins to read from here on reads another one.
	deadline := time.Now().Add(dropPatience)
	for tick := time.NewTicker(dropPoll); ; {
		reason, err := o.dropOnce(ctx, pool, projection, generation, now)
		if err != nil {
			tick.Stop()
			return false, fmt.Errorf("runner: drop %s_g%d of %s: %w", projection, generation, t, err)
		}
		if reason == "" {
			tick.Stop()
			o.config.Logger.Info("projection dropped a generation", "projection", projection, "tenant", t, "generation", generation)
			return true, nil
		}
		if time.Now().After(deadline) {
			tick.Stop()
			return false, &TooEarlyError{time.Now().Add(time.Minute), fmt.Sprintf("%s_g%d may still be read: %s", projection, generation, reason)}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return false, ctx.Err()
		}
	}
}

// dropOnce drops the generation, or says what still keeps it.
func (o *Operator) dropOnce(ctx context.Context, pool *pgxpool.Pool, projection string, generation int, retired time.Time) (reason string, err error) {
	err = pool.QueryRow(ctx, `select coalesce((select format('a transaction of process %s has been open since %s', pid, date_trunc('second', xact_start))
		from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend' and xact_start < $1
		order by xact_start limit 1), '')`, retired).Scan(&reason)
	if err != nil || reason != "" {
		return reason, err
	}
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `set local lock_timeout = '200ms'`); err != nil {
			return err
		}
		return discard(ctx, tx, projection, generation, "retired")
	})
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "55P03" { // lock_not_available: somebody whom we cannot see uses a table
		return "a lock of a table cannot be had", nil
	}
	return "", err
}

// discard drops a generation that is in the given state, and fails if it is not. Its checkpoints stay, so that its number is not used again.
func discard(ctx context.Context, tx pgx.Tx, projection string, generation int, state string) error {
	tag, err := tx.Exec(ctx, `update proj.checkpoint set state = 'dropped', error = null where projection = $1 and generation = $2 and state = $3`,
		projection, generation, state)
	if err == nil && tag.RowsAffected() == 0 {
		err = errMovedAway
	}
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, fmt.Sprintf(`drop schema if exists %s_g%d cascade`, projection, generation)); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `delete from proj.parked where projection = $1 and generation = $2`, projection, generation)
	return err
}
