package tenants

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/factum-platform/factum/infra/postgres"
)

const (
	// lockWait bounds how long a migration waits for a lock in a tenant's database; all who come after it wait too meanwhile.
	lockWait = "3s"
	// lockTries is how often a migration is tried that did not get its lock; the pauses between double from lockPause on.
	lockTries = 5
	lockPause = time.Second
)

// migrateLock is held by the process that migrates the platform's tenants.
const migrateLock = `hashtextextended('factum.migrate', 0)`

// ErrMigrating says that another process migrates the tenants.
var ErrMigrating = errors.New("tenants: another process migrates the tenants' databases; nothing was changed, wait until it has ended")

// MigrateOptions say which databases are migrated, and how.
type MigrateOptions struct {
	Tenants  []string // ids of logs; empty: the servers' templates and all tenants
	Canaries int      // so many tenants are migrated first, one after the other; a failure there ends the run
	Parallel int      // tenants at once; less than 1 means 1
	DryRun   bool     // only find out what would be done
	Binary   string   // version of this binary, for the history

	Begin func(databases int)  // is told how many databases there are to do; optional
	Done  func(MigratedSchema) // is told of each, one at a time; optional
}

// The results of one database.
const (
	ResultMigrated = "migrated"
	ResultCurrent  = "current" // nothing was to be done
	ResultFailed   = "failed"
	ResultWould    = "would migrate" // a dry run
)

// MigratedSchema is what became of one database.
type MigratedSchema struct {
	Tenant   string // "" for a server's template
	Server   string
	Database string
	From, To Schema
	Began    time.Time
	Took     time.Duration
	Result   string
	Error    string // of a failure: what happened, what was left, without values of the database

	err error
}

// MigrationRun sums up a run.
type MigrationRun struct {
	ID       string
	Began    time.Time
	Took     time.Duration
	Binary   string
	Migrated int
	Current  int
	Failed   int
}

// CanaryError says that a canary failed, so that the other tenants were left as they are.
type CanaryError struct{ Left int }

// Error implements error.
func (e *CanaryError) Error() string {
	return fmt.Sprintf("tenants: a canary could not be migrated; %d other databases were left as they are", e.Left)
}

// Migrate brings databases up to date: the servers' templates, then the canaries, then the others. It may be killed and repeated: what is up
// to date is left alone. A database that fails does not end the run unless it is a template's or a canary's. Processes that serve
// go on meanwhile and are told of each tenant. Errors: [ErrMigrating], [ErrUnknownTenant], *[CanaryError]; a database that failed otherwise is
// counted in the run.
func (d *Databases) Migrate(ctx context.Context, opt MigrateOptions) (run MigrationRun, err error) {
	run = MigrationRun{ID: rand.Text(), Began: time.Now(), Binary: opt.Binary}
	main, err := d.server(ctx, MainServer)
	if err != nil {
		return run, err
	}
	turn, err := main.connect(ctx, "")
	if err != nil {
		return run, err
	}
	defer func() { err = errors.Join(err, turn.Close(context.WithoutCancel(ctx))) }() // gives the lock back
	var alone bool
	if err := turn.QueryRow(ctx, `select pg_try_advisory_lock(`+migrateLock+`)`).Scan(&alone); err != nil {
		return run, fmt.Errorf("tenants: take the lock of migrations: %w", err)
	}
	if !alone {
		return run, ErrMigrating
	}
	m := &migration{d: d, opt: opt, run: &run}
	err = m.do(ctx)
	run.Took = time.Since(run.Began)
	return run, err
}

// migration is one run.
type migration struct {
	d   *Databases
	opt MigrateOptions

	mu  sync.Mutex
	run *MigrationRun
}

func (m *migration) do(ctx context.Context) error {
	list, current, err := m.toDo(ctx)
	if err != nil {
		return err
	}
	m.run.Current = current
	var templates []string
	if len(m.opt.Tenants) == 0 {
		if templates, err = m.templates(ctx); err != nil {
			return err
		}
	}
	if m.opt.Begin != nil {
		m.opt.Begin(len(templates) + len(list))
	}
	for _, name := range templates {
		r := m.template(ctx, name)
		var gone *ServerError
		if !m.ended(ctx, r) && !errors.As(r.err, &gone) { // what one template does not take, no tenant will
			return fmt.Errorf("tenants: the template on server %s could not be migrated; the tenants were left as they are", name)
		}
	}
	canaries := min(m.opt.Canaries, len(list))
	for i, p := range list[:canaries] {
		if !m.ended(ctx, m.tenant(ctx, p)) {
			return &CanaryError{Left: len(list) - i - 1}
		}
	}
	m.waves(ctx, list[canaries:])
	return ctx.Err()
}

func (m *migration) waves(ctx context.Context, list []Placement) {
	var wg sync.WaitGroup
	next := make(chan Placement)
	for range max(m.opt.Parallel, 1) {
		wg.Go(func() {
			for p := range next {
				m.ended(ctx, m.tenant(ctx, p))
			}
		})
	}
	for _, p := range list {
		if ctx.Err() != nil {
			break
		}
		next <- p
	}
	close(next)
	wg.Wait()
}

// toDo lists the tenants that are not up to date, as far as is known, and counts the others.
func (m *migration) toDo(ctx context.Context) (list []Placement, current int, err error) {
	all, err := m.d.Placements(ctx)
	if err != nil {
		return nil, 0, err
	}
	wanted := map[string]bool{}
	for _, t := range m.opt.Tenants {
		wanted[t] = true
	}
	for _, p := range all {
		if len(m.opt.Tenants) > 0 && !wanted[p.Tenant] {
			continue
		}
		delete(wanted, p.Tenant)
		if m.d.current(p.Schema) {
			current++
		} else {
			list = append(list, p)
		}
	}
	for t := range wanted {
		return nil, 0, fmt.Errorf("%w: %s", ErrUnknownTenant, t)
	}
	return list, current, nil
}

// current tells whether there is nothing that this binary could migrate.
func (d *Databases) current(have Schema) bool {
	for _, set := range d.sets {
		if v, ok := have[set.Name]; !ok || v < set.latest {
			return false
		}
	}
	return true
}

// Waiting counts the tenants whose databases are older than this binary, or of which that is not known, and those that it refuses.
func (d *Databases) Waiting(ctx context.Context) (waiting, refused int, err error) {
	list, err := d.Placements(ctx)
	if err != nil {
		return 0, 0, err
	}
	for _, p := range list {
		if !d.current(p.Schema) {
			waiting++
		}
		if d.Refusal(p) != nil {
			refused++
		}
	}
	return waiting, refused, nil
}

// templates lists the servers that tenants are made on: those that accept some.
func (m *migration) templates(ctx context.Context) ([]string, error) {
	rows, err := m.d.c.Platform.Query(ctx, `select name from placement.servers where accepting order by name <> 'main', name`)
	if err != nil {
		return nil, fmt.Errorf("tenants: list the servers: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("tenants: list the servers: %w", err)
	}
	return names, nil
}

// ended counts and keeps a result; it tells whether it is none of a failure.
func (m *migration) ended(ctx context.Context, r MigratedSchema) bool {
	r.Took = time.Since(r.Began)
	if !m.opt.DryRun {
		if err := m.d.remember(context.WithoutCancel(ctx), m.run.ID, m.opt.Binary, r); err != nil {
			r.Result, r.Error = ResultFailed, strings.TrimPrefix(r.Error+"; "+err.Error(), "; ")
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch r.Result {
	case ResultFailed:
		m.run.Failed++
	case ResultCurrent:
		m.run.Current++
	default:
		m.run.Migrated++
	}
	if m.opt.Done != nil {
		m.opt.Done(r)
	}
	return r.Result != ResultFailed
}

func (m *migration) template(ctx context.Context, name string) MigratedSchema {
	r := MigratedSchema{Server: name, Database: templateDatabase, Began: time.Now()}
	s, err := m.d.server(ctx, name)
	if err == nil {
		r.From, r.To, err = m.d.withTemplate(ctx, s, func(have Schema) bool { return !m.opt.DryRun && !m.d.current(have) })
	}
	return m.result(ctx, r, err)
}

func (m *migration) tenant(ctx context.Context, p Placement) MigratedSchema {
	r := MigratedSchema{Tenant: p.Tenant, Server: p.Server, Database: p.Database, Began: time.Now()}
	s, err := m.d.server(ctx, p.Server)
	if err == nil {
		r.From, err = m.d.inspect(ctx, s, p.Database)
	}
	r.To = r.From
	if err == nil && !m.opt.DryRun {
		if !m.d.current(r.From) {
			err = m.d.migrateDatabase(ctx, s, p.Database)
			found, lookErr := m.d.inspect(context.WithoutCancel(ctx), s, p.Database)
			if lookErr == nil {
				r.To = found
			}
			err = errors.Join(err, lookErr)
		}
		p.Schema = r.To
		err = errors.Join(err, m.d.note(context.WithoutCancel(ctx), p)) // also of a failure: what it left is what counts
	}
	return m.result(ctx, r, err)
}

func (m *migration) result(ctx context.Context, r MigratedSchema, err error) MigratedSchema {
	r.err = err
	switch {
	case err != nil:
		r.Result, r.Error = ResultFailed, m.d.explain(ctx, err, r.To)
	case m.opt.DryRun && !m.d.current(r.From):
		r.Result, r.To = ResultWould, m.d.target(r.From)
	case maps.Equal(r.From, r.To):
		r.Result = ResultCurrent
	default:
		r.Result = ResultMigrated
	}
	return r
}

// target is what a migration makes of a schema.
func (d *Databases) target(from Schema) Schema {
	to := maps.Clone(from)
	if to == nil {
		to = Schema{}
	}
	for _, set := range d.sets {
		to[set.Name] = max(to[set.Name], set.latest)
	}
	return to
}

// migrateDatabase waits for no lock longer than lockWait, because all who want the same table wait behind it; it tries again later instead.
func (d *Databases) migrateDatabase(ctx context.Context, s *server, database string) error {
	dsn, err := s.url(database, nil)
	if err != nil {
		return err
	}
	pause := lockPause
	for try := 1; ; try++ {
		err := postgres.MigrateGently(ctx, dsn, lockWait, d.c.TenantMigrations...)
		var pg *pgconn.PgError
		if err == nil || try == lockTries || !errors.As(err, &pg) || (pg.Code != lockNotAvailable && pg.Code != deadlockDetected) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
		pause *= 2
	}
}

// PostgreSQL's codes of waits that may end well another time.
const (
	lockNotAvailable = "55P03"
	deadlockDetected = "40P01"
)

// explain says what happened and what was left, in words that may be stored: values that PostgreSQL quotes are left out.
func (d *Databases) explain(ctx context.Context, err error, left Schema) string {
	var failed *postgres.FailedMigration
	var pg *pgconn.PgError
	why := err.Error()
	if errors.As(err, &pg) {
		why = describe(pg)
	}
	switch {
	case errors.As(err, &failed) && failed.Whole:
		return fmt.Sprintf("file %s of the schema %s: %s; its transaction was rolled back, and the database stays at %s", failed.File, failed.Set, why, left)
	case errors.As(err, &failed):
		return fmt.Sprintf("file %s of the schema %s: %s; the file runs without a transaction, so a part of it may be in place; the database counts as %s",
			failed.File, failed.Set, why, left)
	case ctx.Err() != nil:
		return "stopped before its end; the database stays at " + left.String()
	default:
		return why
	}
}

// describe leaves out what PostgreSQL quotes of rows: messages of the classes 22 and 23 do.
func describe(pg *pgconn.PgError) string {
	if !strings.HasPrefix(pg.Code, "22") && !strings.HasPrefix(pg.Code, "23") {
		return fmt.Sprintf("%s (SQLSTATE %s)", pg.Message, pg.Code)
	}
	text := "SQLSTATE " + pg.Code
	for _, part := range []struct{ what, name string }{{"table", pg.TableName}, {"column", pg.ColumnName}, {"constraint", pg.ConstraintName}} {
		if part.name != "" {
			text += ", " + part.what + " " + part.name
		}
	}
	return text
}

// remember keeps a result in the history.
func (d *Databases) remember(ctx context.Context, run, binary string, r MigratedSchema) error {
	pool, err := d.mainAdmin(ctx)
	if err != nil {
		return err
	}
	_, err = pool.Exec(ctx, `insert into placement.migrations (run, tenant, server, began_at, seconds, from_schema, to_schema, result, error, binary_version)
		values ($1, $2, $3, $4, $5, $6, $7, $8, nullif($9, ''), $10)`,
		run, r.Tenant, r.Server, r.Began, r.Took.Seconds(), orEmpty(r.From), orEmpty(r.To), r.Result, r.Error, binary)
	if err != nil {
		return fmt.Errorf("tenants: keep the result in placement.migrations: %w", err)
	}
	return nil
}

func orEmpty(s Schema) Schema {
	if s == nil {
		return Schema{}
	}
	return s
}

// MigrationRuns lists the latest runs, the newest first.
func (d *Databases) MigrationRuns(ctx context.Context, limit int) ([]MigrationRun, error) {
	pool, err := d.mainAdmin(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := pool.Query(ctx, `select run, min(began_at), extract(epoch from max(began_at + make_interval(secs => seconds)) - min(began_at))::float8,
		max(binary_version), count(*) filter (where result = 'migrated'), count(*) filter (where result = 'current'), count(*) filter (where result = 'failed')
		from placement.migrations group by run order by min(began_at) desc limit $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("tenants: read the history of migrations: %w", err)
	}
	runs, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r MigrationRun, err error) {
		var seconds float64
		err = row.Scan(&r.ID, &r.Began, &seconds, &r.Binary, &r.Migrated, &r.Current, &r.Failed)
		r.Took = time.Duration(seconds * float64(time.Second))
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("tenants: read the history of migrations: %w", err)
	}
	return runs, nil
}

// MigrationResults lists what became of the databases of a run, in order.
func (d *Databases) MigrationResults(ctx context.Context, run string) ([]MigratedSchema, error) {
	pool, err := d.mainAdmin(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := pool.Query(ctx, `select tenant, server, began_at, seconds, from_schema, to_schema, result, coalesce(error, '')
		from placement.migrations where run = $1 order by began_at, tenant`, run)
	if err != nil {
		return nil, fmt.Errorf("tenants: read the history of migrations: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r MigratedSchema, err error) {
		var seconds float64
		err = row.Scan(&r.Tenant, &r.Server, &r.Began, &seconds, &r.From, &r.To, &r.Result, &r.Error)
		r.Took = time.Duration(seconds * float64(time.Second))
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("tenants: read the history of migrations: %w", err)
	}
	return list, nil
}
