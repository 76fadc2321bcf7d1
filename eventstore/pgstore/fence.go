package pgstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/factum-platform/factum/eventstore"
)

// Querier is a connection, a pool or a transaction of the administrator on the database of a log: the application's role may not close it.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// ClosedError says that a log is closed to appends.
type ClosedError struct{ By [16]byte }

// Error implements error.
func (e *ClosedError) Error() string {
	return fmt.Sprintf("pgstore: the log is closed to appends (%s)", eventstore.EventID(e.By))
}

// closedError names who closed the log that refused an append.
func closedError(err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err
	}
	by, parseErr := eventstore.ParseEventID(pg.Detail)
	if parseErr != nil {
		return errors.Join(err, parseErr)
	}
	return &ClosedError{by}
}

// Close closes the log to appends, in all processes: whoever calls it names itself by a fresh id, and only [Reopen] with that id opens the log
// again. Appends that were on their way are in the log when it returns, at the head that it answers, and none comes after. Readers go
// on. Closing twice with one id is no error. Error: *[ClosedError] for a log that somebody else has closed.
func Close(ctx context.Context, q Querier, by [16]byte) (eventstore.Position, error) {
	var pos int64
	err := q.QueryRow(ctx, `update es.head set closed = $1 where closed is null or closed = $1 returning pos`, by).Scan(&pos)
	if errors.Is(err, pgx.ErrNoRows) {
		other, _, err := ClosedBy(ctx, q)
		if err != nil {
			return 0, err
		}
		return 0, &ClosedError{other}
	}
	if err != nil {
		return 0, fmt.Errorf("pgstore: close the log: %w", err)
	}
	return eventstore.Position(pos), nil
}

// Reopen opens the log to appends if it was closed with this id, and tells whether it was.
func Reopen(ctx context.Context, q Querier, by [16]byte) (bool, error) {
	tag, err := q.Exec(ctx, `update es.head set closed = null where closed = $1`, by)
	if err != nil {
		return false, fmt.Errorf("pgstore: open the log: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}

// ClosedBy tells whether the log is closed, and by whom.
func ClosedBy(ctx context.Context, q Querier) (by [16]byte, closed bool, err error) {
	var id *[16]byte
	if err := q.QueryRow(ctx, `select closed from es.head`).Scan(&id); err != nil {
		return by, false, fmt.Errorf("pgstore: look whether the log is closed: %w", err)
	}
	if id == nil {
		return by, false, nil
	}
	return *id, true, nil
}
