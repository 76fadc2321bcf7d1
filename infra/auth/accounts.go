package auth

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// ErrInactive says that the account is switched off.
var ErrInactive = errors.New("auth: the account is not active")

// Deactivate switches an account off: all its sessions end, in all API processes, and one that a log-in under way begins does not
// hold. Deactivating twice is no error.
func (a *Auth) Deactivate(ctx context.Context, userID string) error {
	return a.switchAccount(ctx, userID, `insert into auth.inactive (user_id, since) values ($1, $2) on conflict (user_id) do nothing`, a.now())
}

// Activate switches an account on again, which its owner notices by logging in: sessions stay ended. Activating twice is no error, and ends
// no session.
func (a *Auth) Activate(ctx context.Context, userID string) error {
	return a.switchAccount(ctx, userID, `delete from auth.inactive where user_id = $1`)
}

func (a *Auth) switchAccount(ctx context.Context, userID, change string, args ...any) error {
	defer a.ended.Add(1)
	err := pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, change, append([]any{userID}, args...)...)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		_, err = tx.Exec(ctx, endSessions, userID, a.now(), nobody)
		return err
	})
	if err != nil {
		return fmt.Errorf("auth: switch an account on or off: %w", err)
	}
	return nil
}

// active refuses an account that is switched off. Error: [ErrInactive].
func (a *Auth) active(ctx context.Context, userID string) error {
	var off bool
	if err := a.pool.QueryRow(ctx, `select exists (select from auth.inactive where user_id = $1)`, userID).Scan(&off); err != nil {
		return fmt.Errorf("auth: look up an account: %w", err)
	}
	if off {
		return ErrInactive
	}
	return nil
}
