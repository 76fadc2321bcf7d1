package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/tenants"
	"github.com/factum-platform/factum/projections/runner"
)

// KeepRetired is how long a generation stays after another one was promoted in its place, so that going back is one command.
const KeepRetired = 24 * time.Hour

// Dropper drops generations that nobody can go back to any more.
type Dropper interface {
	DropRetired(ctx context.Context, projection string, t eventstore.TenantID, generation int, age time.Duration) (dropped bool, err error)
}

// dropOrder asks for a generation to be dropped.
type dropOrder struct {
	Projection string `json:"projection"`
	Tenant     string `json:"tenant"`
	Generation int    `json:"generation"`
}

// Kind implements river.JobArgs.
func (dropOrder) Kind() string { return "projections.drop" }

// InsertOpts implements river.JobArgsWithInsertOpts: the job is due when the generation has been kept for long enough.
func (dropOrder) InsertOpts() river.InsertOpts {
	return river.InsertOpts{ScheduledAt: time.Now().Add(KeepRetired)}
}

// DropLater schedules the removal of a generation that is about to be retired. It may be called without that happening, and twice: the job
// looks again just before it acts.
func DropLater(ctx context.Context, pool *pgxpool.Pool, queue Queue, projection string, t eventstore.TenantID, generation int) error {
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		return queue.InsertTx(ctx, tx, []river.JobArgs{dropOrder{projection, string(t), generation}})
	})
	if err != nil {
		return fmt.Errorf("process: schedule the removal of generation %d of %s of %s: %w", generation, projection, t, err)
	}
	return nil
}

// dropWorker drops a generation a day after it was retired. One that is live again by then is left.
type dropWorker struct {
	river.WorkerDefaults[dropOrder]
	dropper Dropper
	log     *slog.Logger
}

// Work implements river.Worker.
func (w *dropWorker) Work(ctx context.Context, job *river.Job[dropOrder]) error {
	a := job.Args
	dropped, err := w.dropper.DropRetired(ctx, a.Projection, eventstore.TenantID(a.Tenant), a.Generation, KeepRetired)
	var early *runner.TooEarlyError
	switch {
	case errors.As(err, &early):
		return river.JobSnooze(max(time.Until(early.Until), time.Second))
	case errors.Is(err, tenants.ErrUnknownTenant): // its database is gone, and the generation with it
		return nil
	case err != nil:
		return err
	}
	if !dropped {
		w.log.InfoContext(ctx, "a generation was not to be dropped any more", "projection", a.Projection, "tenant", a.Tenant, "generation", a.Generation)
	}
	return nil
}
