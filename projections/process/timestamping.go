package process

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/domain/file"
	"github.com/factum-platform/factum/infra/auth"
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
	WelcomeUser(ctx context.Context, userID string) error
	MailInvitation(ctx context.Context, invitationID string) error
	SendAskedLink(ctx context.Context, purpose auth.Purpose, loginKey string) error
}

// Sagas lists the sagas for the runner. queue may be one that only inserts.
func Sagas(queue Queue) []runner.Projection {
	return []runner.Projection{Projection(stamping(), queue), Projection(welcoming(), queue), Projection(inviting(), queue)}
}

// stampState is what the saga remembers of a file whose time-stamp is under way.
type stampState struct {
	Pending bool `json:"pending"`
}

// stampKind is the kind of the job that makes one attempt.
const stampKind = "tsa.stamp"

// stamping is the pure saga: a request asks for an attempt now, a failure for one when it is due.
func stamping() Process[stampState, file.Event] {
	return Process[stampState, file.Event]{
		Name:      "timestamping",
		Types:     []string{"file.timestamp_requested", "file.timestamped", "file.timestamp_failed", "file.timestamp_abandoned", "file.deleted"},
		Correlate: stampedFile,
		Initial:   func() stampState { return stampState{} },
		Evolve: func(s stampState, e file.Event) stampState {
			switch e.(type) {
			case file.TimestampRequested:
				s.Pending = true
			case file.Timestamped, file.TimestampAbandoned, file.Deleted:
				s.Pending = false
			}
			return s
		},
		React: func(s stampState, e file.Event) []Job {
			if !s.Pending {
				return nil
			}
			switch e := e.(type) {
			case file.TimestampRequested:
				return []Job{{stampKind, stampArgs{e.FileID, 1}, e.At}}
			case file.TimestampFailed:
				return []Job{{stampKind, stampArgs{e.FileID, e.Attempt + 1}, e.NextAttempt}}
			}
			return nil
		},
		Done: func(s stampState) bool { return !s.Pending },
	}
}

// stampedFile is the instance: a file has one time-stamp.
func stampedFile(e file.Event) (instance string, interested bool) {
	switch e := e.(type) {
	case file.TimestampRequested:
		return e.FileID, true
	case file.Timestamped:
		return e.FileID, true
	case file.TimestampFailed:
		return e.FileID, true
	case file.TimestampAbandoned:
		return e.FileID, true
	case file.Deleted:
		return e.FileID, true
	}
	return "", false
}

// stampArgs name one attempt. A job whose attempt is over must not make the next one, which is not due yet.
type stampArgs struct {
	File    string `json:"file"`
	Attempt int    `json:"attempt"` // from 1
}

// stampOrder is an [order] as its worker reads it.
type stampOrder struct {
	Key    string    `json:"key"`
	Tenant string    `json:"tenant"`
	Args   stampArgs `json:"args"`
}

// Kind implements river.JobArgs.
func (stampOrder) Kind() string { return stampKind }

// stampWorker makes one attempt per job. What the authority answers, good or bad, is a fact; River repeats the job only when the
// fact could not be recorded.
type stampWorker struct {
	river.WorkerDefaults[stampOrder]
	lane     *lane
	d        Deps
	attempts *prometheus.CounterVec
	seconds  prometheus.Histogram
}

// newStampWorker registers its metrics.
func newStampWorker(d Deps, l *lane) (*stampWorker, error) {
	w := &stampWorker{lane: l, d: d, attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "factum_timestamp_attempts_total", Help: "Attempts to obtain an RFC 3161 time-stamp, by outcome.",
	}, []string{"outcome"}), seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "factum_timestamp_seconds", Help: "Duration of an attempt to obtain an RFC 3161 time-stamp.",
	})}
	if d.Metrics == nil {
		return w, nil
	}
	for _, c := range []prometheus.Collector{w.attempts, w.seconds} {
		if err := d.Metrics.Register(c); err != nil {
			return nil, fmt.Errorf("process: metrics: %w", err)
		}
	}
	return w, nil
}

// Work implements river.Worker.
func (w *stampWorker) Work(ctx context.Context, job *river.Job[stampOrder]) error {
	return w.lane.carryOut(ctx, job.Args.Key, job.Args.Tenant, func(ctx context.Context) error {
		return w.stamp(ctx, job.Args.Key, job.Args.Tenant, job.Args.Args)
	})
}

// stamp makes the attempt, if it is still wanted, and reports.
func (w *stampWorker) stamp(ctx context.Context, key, tenant string, a stampArgs) error {
	sum, attempt, wanted, err := w.d.Commands.TimestampWanted(ctx, tenant, a.File)
	if err != nil {
		return err
	}
	if !wanted || attempt != a.Attempt {
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
		failed := commands.FailedAttempt{TenantID: tenant, FileID: a.File, Job: key, Attempt: attempt, Reason: "The time-stamping authority could not be asked."}
		var known *tsa.Error
		if errors.As(err, &known) {
			failed.Reason, failed.Permanent = known.Reason, known.Permanent
		}
		w.d.Logger.WarnContext(ctx, "time-stamp attempt failed", "tenant", tenant, "file", a.File, "attempt", attempt, "error", err)
		return w.d.Commands.RecordTimestampFailure(ctx, failed)
	}
	w.attempts.WithLabelValues("stamped").Inc()
	w.d.Logger.InfoContext(ctx, "file time-stamped", "tenant", tenant, "file", a.File, "attempt", attempt)
	return w.d.Commands.RecordTimestamp(ctx, commands.StampOutcome{
		TenantID: tenant, FileID: a.File, Job: key, Attempt: attempt, Response: stamp.Response, GenTime: stamp.GenTime,
		Serial: stamp.Serial, Policy: stamp.Policy, Algorithm: stamp.Algorithm, Authority: stamp.Authority,
	})
}
