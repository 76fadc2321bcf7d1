package process

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/domain/file"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/jobs"
	"github.com/factum-platform/factum/infra/tsa"
	"github.com/factum-platform/factum/projections/runner"
)

// stampTimeout bounds one conversation with the authority.
const stampTimeout = 30 * time.Second

// Stamper obtains a time-stamp that was verified completely.
type Stamper interface {
	Stamp(ctx context.Context, sha256Digest []byte) (tsa.Stamp, error)
}

// Reporter is where a job looks again before it acts, and reports to.
type Reporter interface {
	TimestampWanted(ctx context.Context, tenantID, fileID string) (sha256 string, attempt int, wanted bool, err error)
	RecordTimestamp(ctx context.Context, in commands.StampOutcome) error
	RecordTimestampFailure(ctx context.Context, in commands.FailedAttempt) error
}

// Deps is what the time-stamping saga needs. Logger and Metrics may be nil.
type Deps struct {
	Pool      *pgxpool.Pool // the platform's database
	Commands  Reporter
	TSA       Stamper
	Logger    *slog.Logger
	Metrics   prometheus.Registerer
	Exclusive bool // see [jobs.Config]
}

// Timestamping returns the saga that obtains time-stamps: the queue to start and the projection to run.
func Timestamping(d Deps) (*jobs.Client, runner.Projection, error) {
	if d.Commands == nil || d.TSA == nil {
		return nil, runner.Projection{}, errors.New("process: Commands and TSA are required")
	}
	if d.Logger == nil {
		d.Logger = slog.Default()
	}
	w := &stampWorker{d: d, attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "factum_timestamp_attempts_total", Help: "Attempts to obtain an RFC 3161 time-stamp, by outcome.",
	}, []string{"outcome"}), seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "factum_timestamp_seconds", Help: "Duration of an attempt to obtain an RFC 3161 time-stamp.",
	})}
	if d.Metrics != nil {
		for _, c := range []prometheus.Collector{w.attempts, w.seconds} {
			if err := d.Metrics.Register(c); err != nil {
				return nil, runner.Projection{}, fmt.Errorf("process: metrics: %w", err)
			}
		}
	}
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, w); err != nil {
		return nil, runner.Projection{}, fmt.Errorf("process: %w", err)
	}
	queue, err := jobs.New(jobs.Config{Pool: d.Pool, Workers: workers, Logger: d.Logger, Exclusive: d.Exclusive})
	if err != nil {
		return nil, runner.Projection{}, err
	}
	return queue, Projection(stamping(), queue), nil
}

// stampState is what the saga remembers of a file whose time-stamp is under way.
type stampState struct {
	Pending bool `json:"pending"`
}

// stamping is the pure saga: a request asks for an attempt now, a failure for one when it is due.
func stamping() Process[stampState] {
	return Process[stampState]{
		Name:  "timestamping",
		Types: []string{"file.timestamp_requested", "file.timestamped", "file.timestamp_failed", "file.timestamp_abandoned"},
		Correlate: func(rec eventstore.Recorded, _ any) (string, bool) {
			return rec.Stream.ID, rec.Stream.Kind == file.Kind
		},
		Evolve: func(s stampState, fact any) stampState {
			switch fact.(type) {
			case file.TimestampRequested:
				s.Pending = true
			case file.Timestamped, file.TimestampAbandoned:
				s.Pending = false
			}
			return s
		},
		React: func(s stampState, tenant eventstore.TenantID, fact any) []Job {
			if !s.Pending {
				return nil
			}
			switch f := fact.(type) {
			case file.TimestampRequested:
				return []Job{stampJob(tenant, f.FileID, f.At)}
			case file.TimestampFailed:
				return []Job{stampJob(tenant, f.FileID, f.NextAttempt)}
			}
			return nil
		},
		Done: func(s stampState) bool { return !s.Pending },
	}
}

func stampJob(tenant eventstore.TenantID, fileID string, due time.Time) Job {
	return Job{Make: func(key string) jobs.Job {
		return jobs.Job{Args: stampArgs{Key: key, Tenant: string(tenant), File: fileID}, Due: due}
	}}
}

// stampArgs are opaque ids only: jobs are kept for a day and shown to operators.
type stampArgs struct {
	Key    string `json:"key"`
	Tenant string `json:"tenant"`
	File   string `json:"file"`
}

// Kind implements river.JobArgs.
func (stampArgs) Kind() string { return "tsa.stamp" }

// stampWorker makes one attempt per job. What the authority answers, good or bad, is a fact; River repeats the job only when the
// fact could not be recorded.
type stampWorker struct {
	river.WorkerDefaults[stampArgs]
	d        Deps
	attempts *prometheus.CounterVec
	seconds  prometheus.Histogram
}

// Work implements river.Worker.
func (w *stampWorker) Work(ctx context.Context, job *river.Job[stampArgs]) error {
	a := job.Args
	sum, attempt, wanted, err := w.d.Commands.TimestampWanted(ctx, a.Tenant, a.File)
	if err != nil {
		return err
	}
	if !wanted {
		w.attempts.WithLabelValues("moot").Inc()
		return nil
	}
	digest, err := hex.DecodeString(sum)
	if err != nil {
		return fmt.Errorf("process: the hash of file %s: %w", a.File, err)
	}
	begun := time.Now()
	asking, cancel := context.WithTimeout(ctx, stampTimeout)
	defer cancel()
	stamp, err := w.d.TSA.Stamp(asking, digest)
	if ctx.Err() != nil {
		return ctx.Err() // we are stopping: that is no answer of the authority
	}
	w.seconds.Observe(time.Since(begun).Seconds())
	if err != nil {
		w.attempts.WithLabelValues("failed").Inc()
		failed := commands.FailedAttempt{TenantID: a.Tenant, FileID: a.File, Job: a.Key, Attempt: attempt, Reason: "The time-stamping authority could not be asked."}
		var known *tsa.Error
		if errors.As(err, &known) {
			failed.Reason, failed.Permanent = known.Reason, known.Permanent
		}
		w.d.Logger.WarnContext(ctx, "time-stamp attempt failed", "tenant", a.Tenant, "file", a.File, "attempt", attempt, "error", err)
		return w.d.Commands.RecordTimestampFailure(ctx, failed)
	}
	w.attempts.WithLabelValues("stamped").Inc()
	w.d.Logger.InfoContext(ctx, "file time-stamped", "tenant", a.Tenant, "file", a.File, "attempt", attempt)
	return w.d.Commands.RecordTimestamp(ctx, commands.StampOutcome{
		TenantID: a.Tenant, FileID: a.File, Job: a.Key, Attempt: attempt, Response: stamp.Response, GenTime: stamp.GenTime,
		Serial: stamp.Serial, Policy: stamp.Policy, Algorithm: stamp.Algorithm, Authority: stamp.Authority,
	})
}
