package runner

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/eventstore"
)

// Rollback makes the generation that was live before the live one again: it catches up with the log, and is promoted like one that was built.
// Streams that cannot be applied are parked, as a live generation does. It may be killed at any point and called again. It needs the version
// of the projection that wrote that generation; nothing is changed without it.
func (o *Operator) Rollback(ctx context.Context, projection string, t eventstore.TenantID, opt RebuildOptions) (Rebuilt, error) {
	b, err := o.begin(ctx, projection, t, opt)
	if err != nil {
		return Rebuilt{}, err
	}
	defer b.end()
	b.parks, b.indexed = true, true
	if err := b.turn(ctx, func(tx pgx.Tx) error { return b.revive(ctx, tx) }); err != nil {
		return b.result(), b.failed("find the generation to go back to", err)
	}
	err = b.load(ctx)
	if err == nil {
		b.stage("building")
		err = b.catchUp(ctx, b.toLive)
	}
	var exchanged *exchangedError
	if errors.As(err, &exchanged) {
		return b.result(), fmt.Errorf("%w; it is too old to go back to: rebuild %s instead", err, b.p.Name)
	}
	if err != nil {
		return b.result(), err
	}
	b.compared.Skipped = "going back does not compare"
	return b.finish(ctx)
}

// revive marks the previous generation as being built. One that an earlier call has marked is gone on with.
func (b *building) revive(ctx context.Context, tx pgx.Tx) error {
	if err := b.pointer(ctx, tx); err != nil {
		return err
	}
	begun, err := b.unfinished(ctx, tx)
	if err != nil {
		return err
	}
	for _, u := range begun {
		if u.note == rolledBack && u.version == b.p.Version {
			b.fresh, b.resumed = u.generation, true
			continue
		}
		if u.note == rolledBack {
			return b.otherVersion(u.generation, u.version)
		}
		if err := discard(ctx, tx, b.p.Name, u.generation, "building"); err != nil {
			return err
		}
	}
	if b.resumed {
		return nil
	}
	var version int
	err = tx.QueryRow(ctx, `select generation, min(version) from proj.checkpoint
		where projection = $1 and state = 'retired' and to_regnamespace($1 || '_g' || generation) is not null
		group by generation order by max(retired_at) desc, generation desc limit 1`, b.p.Name).Scan(&b.fresh, &version)
	if errors.Is(err, pgx.ErrNoRows) {
		return errors.New("there is none: the previous generation is kept for a day after a rebuild and then dropped; 'factum projections rebuild' makes a new one")
	}
	if err != nil {
		return err
	}
	if version != b.p.Version {
		return b.otherVersion(b.fresh, version)
	}
	_, err = tx.Exec(ctx, `update proj.checkpoint set state = 'building', retired_at = null where projection = $1 and generation = $2 and state = 'retired'`, b.p.Name, b.fresh)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `comment on schema `+b.schema(b.fresh)+` is '`+rolledBack+`'`)
	return err
}

func (b *building) otherVersion(generation, version int) error {
	return fmt.Errorf("generation %d was written by version %d of the projection, and this binary has version %d; run the rollback with the release that has version %[2]d",
		generation, version, b.p.Version)
}
