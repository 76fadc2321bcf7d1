package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"

	"github.com/factum-platform/factum/infra/jobs"
)

// Deps is what the sagas' jobs need. Logger and Metrics may be nil.
type Deps struct {
	Pool      *pgxpool.Pool // the platform's database
	Commands  Reporter
	TSA       Stamper
	Retired   Dropper // of generations of read models
	Logger    *slog.Logger
	Metrics   prometheus.Registerer
	Exclusive bool // see [jobs.Config]
}

// Worker carries out the jobs of the sagas, and admits those that come due. Several may work on one platform.
type Worker struct {
	queue *jobs.Client
	lane  *lane
	stop  context.CancelFunc // nil before Start
	ended chan struct{}
}

// NewWorker checks what it is given, registers the metrics and starts nothing.
func NewWorker(d Deps) (*Worker, error) {
	if d.Commands == nil || d.TSA == nil || d.Retired == nil {
		return nil, errors.New("process: Commands, TSA and Retired are required")
	}
	if d.Logger == nil {
		d.Logger = slog.Default()
	}
	inserts, err := jobs.New(jobs.Config{Pool: d.Pool, Logger: d.Logger})
	if err != nil {
		return nil, err
	}
	l := &lane{pool: d.Pool, queue: inserts, log: d.Logger, now: time.Now}
	stamps, err := newStampWorker(d, l)
	if err != nil {
		return nil, err
	}
	workers := river.NewWorkers()
	err = errors.Join(
		river.AddWorkerSafely(workers, stamps),
		river.AddWorkerSafely(workers, &welcomeWorker{lane: l, d: d}),
		river.AddWorkerSafely(workers, &invitationWorker{lane: l, d: d}),
		river.AddWorkerSafely(workers, &linkWorker{d: d}),
	)
	if err != nil {
		return nil, fmt.Errorf("process: %w", err)
	}
	if err := river.AddWorkerSafely(workers, &dropWorker{dropper: d.Retired, log: d.Logger}); err != nil {
		return nil, fmt.Errorf("process: %w", err)
	}
	if d.Metrics != nil {
		if err := d.Metrics.Register(backlog{d.Pool, d.Logger}); err != nil {
			return nil, fmt.Errorf("process: metrics: %w", err)
		}
	}
	queue, err := jobs.New(jobs.Config{Pool: d.Pool, Workers: workers, Logger: d.Logger, Metrics: d.Metrics, Exclusive: d.Exclusive})
	if err != nil {
		return nil, err
	}
	return &Worker{queue: queue, lane: l, ended: make(chan struct{})}, nil
}

// Start begins to work; it goes on until Stop, whatever becomes of ctx. It is called once.
func (w *Worker) Start(ctx context.Context) error {
	if err := w.queue.Start(ctx); err != nil {
		return err
	}
	var keeping context.Context
	keeping, w.stop = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(w.ended)
		w.lane.keep(keeping)
	}()
	return nil
}

// Stop cancels the running jobs, which are run again later, and waits for them.
func (w *Worker) Stop(ctx context.Context) error {
	if w.stop != nil {
		w.stop()
		<-w.ended
	}
	return w.queue.Stop(ctx)
}
