// Package jobs runs work outside of requests on River: jobs lie in the schema river of the platform's database, are inserted in
// the transaction that causes them and carried out at least once.
package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"
)

const (
	schema = "river"
	// jobTimeout bounds one run of a job; outside calls have shorter bounds of their own.
	jobTimeout = 50 * time.Second
	// rescueAfter is when a job whose worker vanished is given to another.
	rescueAfter = 2 * time.Minute
	// fetchCooldown is how soon after a fetch the next may follow. River also tells the workers of no job that is inserted that soon after
	// another: it would wait for the next poll, a second later.
	fetchCooldown = 2 * time.Millisecond
	// longestRetry bounds the delay after a run that failed.
	longestRetry = time.Minute
)

// migrationLock is the advisory lock under which processes take turns with River's migrations: "river" in ASCII.
const migrationLock = 0x7269766572

// Migrate brings River's schema up to date. Its owner is the group role factum_app, which must exist (postgres.Migrate creates
// it), so that River can maintain its tables. Several processes may call it at once: they take turns.
func Migrate(ctx context.Context, adminDSN string) (err error) {
	c, err := pgxpool.ParseConfig(adminDSN)
	if err != nil {
		return fmt.Errorf("jobs: the DSN cannot be read: %w", err)
	}
	turn, err := pgx.ConnectConfig(ctx, c.ConnConfig)
	if err != nil {
		return fmt.Errorf("jobs: migrate: %w", err)
	}
	defer func() { err = errors.Join(err, turn.Close(context.WithoutCancel(ctx))) }() // gives the lock back
	if _, err := turn.Exec(ctx, `select pg_advisory_lock($1)`, int64(migrationLock)); err != nil {
		return fmt.Errorf("jobs: migrate: wait for our turn: %w", err)
	}
	if _, err := turn.Exec(ctx, `create schema if not exists `+schema+` authorization factum_app`); err != nil {
		return fmt.Errorf("jobs: migrate: create the schema %s: %w", schema, err)
	}
	c.MaxConns = 2
	c.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `set role factum_app`)
		return err
	}
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return fmt.Errorf("jobs: migrate: %w", err)
	}
	defer pool.Close()
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Schema: schema, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fmt.Errorf("jobs: migrate: %w", err)
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("jobs: migrate: %w", err)
	}
	return nil
}

// Config describes a client. Pool is required.
type Config struct {
	Pool        *pgxpool.Pool
	Workers     *river.Workers        // nil: the client only inserts and cannot be started
	Concurrency int                   // jobs at once in this process; 0 means 8
	Logger      *slog.Logger          // nil means slog.Default()
	Metrics     prometheus.Registerer // nil: factum_jobs_ready is not measured
	// Exclusive says that no other process works on this database: jobs that are marked as running were left by a killed process
	// and are taken up again at Start, not minutes later.
	Exclusive bool
}

// Client inserts jobs and works on them. It is safe for concurrent use.
type Client struct {
	c     Config
	river *river.Client[pgx.Tx]
}

// New checks the configuration, registers the metric and starts nothing.
func New(c Config) (*Client, error) {
	if c.Pool == nil {
		return nil, errors.New("jobs: Pool is required")
	}
	if c.Concurrency == 0 {
		c.Concurrency = 8
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	rc := &river.Config{
		Schema:               schema,
		Logger:               c.Logger,
		FetchCooldown:        fetchCooldown,
		JobTimeout:           jobTimeout,
		RescueStuckJobsAfter: rescueAfter,
		RetryPolicy:          retry{},
		MaxAttempts:          math.MaxInt16, // the column's limit, 22 days: only failures of our own infrastructure count, and those are waited out
	}
	if c.Workers != nil {
		rc.Workers, rc.Queues = c.Workers, map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: c.Concurrency}}
	}
	client, err := river.NewClient(riverpgxv5.New(c.Pool), rc)
	if err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	if c.Metrics != nil {
		if err := c.Metrics.Register(ready{c.Pool, c.Logger}); err != nil {
			return nil, fmt.Errorf("jobs: metrics: %w", err)
		}
	}
	return &Client{c, client}, nil
}

// Start begins to work on jobs; it goes on until Stop, whatever becomes of ctx.
func (c *Client) Start(ctx context.Context) error {
	if c.c.Exclusive {
		_, err := c.c.Pool.Exec(ctx, `update `+schema+`.river_job set state = 'available' where state = 'running'`)
		if err != nil {
			return fmt.Errorf("jobs: take up what a killed process left: %w", err)
		}
	}
	if err := c.river.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("jobs: start: %w", err)
	}
	return nil
}

// Stop cancels the running jobs, which are run again later, and waits for them.
func (c *Client) Stop(ctx context.Context) error {
	if err := c.river.StopAndCancel(ctx); err != nil {
		return fmt.Errorf("jobs: stop: %w", err)
	}
	return nil
}

// InsertTx inserts the jobs with the transaction: they exist if, and only if, it commits, and are due at once.
func (c *Client) InsertTx(ctx context.Context, tx pgx.Tx, list []river.JobArgs) error {
	if len(list) == 0 {
		return nil
	}
	params := make([]river.InsertManyParams, len(list))
	for i, args := range list {
		params[i] = river.InsertManyParams{Args: args}
	}
	if _, err := c.river.InsertManyFastTx(ctx, tx, params); err != nil {
		return fmt.Errorf("jobs: insert: %w", err)
	}
	return nil
}

// LiveTx lists the values of an argument, at the top level of the JSON, of all jobs that have not ended; a job without it is left out.
func (c *Client) LiveTx(ctx context.Context, tx pgx.Tx, argument string) ([]string, error) {
	rows, err := tx.Query(ctx, `select args->>$1 from `+schema+`.river_job
		where state in ('available', 'pending', 'retryable', 'running', 'scheduled') and args->>$1 is not null`, argument)
	if err != nil {
		return nil, fmt.Errorf("jobs: list those that have not ended: %w", err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("jobs: list those that have not ended: %w", err)
	}
	return values, nil
}

// retry doubles the delay from one second to a minute.
type retry struct{}

// NextRetry implements river.ClientRetryPolicy.
func (retry) NextRetry(job *rivertype.JobRow) time.Time {
	delay := longestRetry
	if failed := len(job.Errors); failed < 6 {
		delay = time.Second << failed
	}
	return time.Now().Add(delay)
}
