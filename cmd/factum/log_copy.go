package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/copylog"
	"github.com/factum-platform/factum/infra/keyring"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/tenants"
	"github.com/factum-platform/factum/projections/runner"
)

// LogCmd groups what works on the logs themselves.
type LogCmd struct {
	Copy LogCopyCmd `cmd:"" help:"Copy logs from one engine to another while nothing serves the platform, and compare them. It may be killed and repeated."`
}

// LogCopyCmd copies logs between engines. Both are compared at the end; with --switch the platform then uses the other engine.
type LogCopyCmd struct {
	logServers
	From       string   `required:"" enum:"postgres,eventstoredb" help:"Engine that holds the logs: ${enum}."`
	To         string   `required:"" enum:"postgres,eventstoredb" help:"Engine to copy them to: ${enum}."`
	Tenant     []string `placeholder:"ID" help:"A tenant's id, or 'platform'; may be repeated."`
	All        bool     `help:"The platform's log and those of all tenants."`
	Switch     bool     `help:"When all logs are the same, make the platform use the other engine from the next start on. Needs --all."`
	VerifyOnly bool     `name:"verify-only" help:"Copy nothing, only compare."`
}

// Run implements the subcommand. It fails if, at the end, any of the logs are not the same.
func (c LogCopyCmd) Run(ctx context.Context) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	log, err := c.logger()
	if err != nil {
		return err
	}
	st := newStack()
	defer func() { err = errors.Join(err, st.stop()) }()
	m, err := c.open(ctx, st, log)
	if err == nil {
		err = m.run(ctx)
	}
	if err != nil && ctx.Err() != nil {
		return errors.New("stopped before the end; the same command goes on where this one ended") // a failure, unlike the end of a server
	}
	return err
}

// check refuses flags that make no sense together.
func (c LogCopyCmd) check() error {
	switch {
	case c.All == (len(c.Tenant) > 0):
		return errors.New("give either --all or one or more --tenant")
	case c.Switch && (!c.All || c.VerifyOnly):
		return errors.New("--switch needs --all and cannot be had with --verify-only: the platform uses one engine for all logs")
	case c.From == c.To && !c.Switch:
		return errors.New("--from and --to name the same engine")
	}
	return c.validate(c.From, c.To)
}

// mover is an open copy.
type mover struct {
	c        LogCopyCmd
	admin    *pgx.Conn // holds the lock of the log
	platform *pgxpool.Pool
	dbs      *tenants.Databases
	from, to eventstore.Store
	out      io.Writer
	meter    *meter
}

func (c LogCopyCmd) open(ctx context.Context, st *stack, log *slog.Logger) (*mover, error) {
	d, err := c.prepare(ctx, false)
	if err != nil {
		return nil, err
	}
	m := &mover{c: c, out: os.Stdout, meter: terminalMeter()}
	if m.admin, err = connect(ctx, d.adminDSN); err != nil {
		return nil, err
	}
	st.started("lock of the log", m.admin.Close)
	if err := m.alone(ctx); err != nil {
		return nil, err
	}
	if err := m.rightSource(ctx); err != nil {
		return nil, err
	}
	if m.platform, err = postgres.Open(ctx, d.platformDSN, 4); err != nil {
		return nil, err
	}
	st.started("platform pool", func(context.Context) error { m.platform.Close(); return nil })
	if m.dbs, err = d.openTenants(ctx, m.platform, keyring.Open(m.platform, d.kek), tenants.Config{Logger: log}); err != nil {
		return nil, err
	}
	st.started("tenant pools", func(context.Context) error { m.dbs.Close(); return nil })
	if m.from, err = openStore(ctx, engine{c.From, c.ESDB}, m.dbs, nil, log); err != nil {
		return nil, err
	}
	st.started("source", func(context.Context) error { return m.from.Close() })
	if c.From == c.To {
		m.to = m.from
		return m, nil
	}
	if m.to, err = openStore(ctx, engine{c.To, c.ESDB}, m.dbs, nil, log); err != nil {
		return nil, err
	}
	st.started("target", func(context.Context) error { return m.to.Close() })
	return m, nil
}

// alone makes sure that nothing serves the platform meanwhile.
func (m *mover) alone(ctx context.Context) error {
	err := lockLog(ctx, m.admin, `pg_advisory_lock`)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == lockNotAvailable {
		return errors.New("a factum serve or factum dev, or another copy, works on these logs; stop it and start the copy again")
	}
	return err
}

// rightSource refuses to copy from an engine that does not hold the logs: its own may be old.
func (m *mover) rightSource(ctx context.Context) error {
	found, err := tenants.RememberedEngine(ctx, m.admin)
	if err != nil {
		return err
	}
	switch {
	case found.Name == "":
		return errors.New("the platform has no log yet: nothing has been served with these settings")
	case m.c.VerifyOnly:
		return nil
	case found.Name != m.c.From:
		return fmt.Errorf("since %s the logs of this platform lie in %s, so --from must name that", found.Since.UTC().Format("2006-01-02 15:04:05 UTC"), found.Name)
	case m.c.From == m.c.To && found.MovingTo == "":
		return errors.New("--from and --to name the same engine")
	case found.MovingTo != "" && m.c.From != m.c.To && found.MovingTo != m.c.To:
		return rightEngine(found, m.c.From)
	}
	return nil
}

// tenantIDs are the logs to work on, the platform's last: it is the one whose accounts know of the others.
func (m *mover) tenantIDs(ctx context.Context) ([]eventstore.TenantID, error) {
	known, err := m.dbs.Tenants(ctx)
	if err != nil {
		return nil, err
	}
	known = append(known, tenants.Platform)
	if m.c.All {
		return ids(known), nil
	}
	return chooseTenants(m.c.Tenant, known)
}

func ids(list []string) []eventstore.TenantID {
	out := make([]eventstore.TenantID, len(list))
	for i, id := range list {
		out[i] = eventstore.TenantID(id)
	}
	return out
}

// positions are where events lie in the target: of those that are asked for.
type positions map[eventstore.TenantID]map[eventstore.EventID]eventstore.Position

// run copies, compares and switches.
func (m *mover) run(ctx context.Context) error {
	list, err := m.tenantIDs(ctx)
	if err != nil {
		return err
	}
	at := positions{}
	if m.c.Switch {
		if at, err = m.checkpoints(ctx, list); err != nil {
			return err
		}
	}
	different := 0
	for i, t := range list {
		same, err := m.move(ctx, t, fmt.Sprintf("%s (%d of %d)", t, i+1, len(list)), at[t])
		if err != nil {
			return fmt.Errorf("%w; the same command goes on where this one ended", err)
		}
		if !same {
			different++
		}
	}
	if different > 0 {
		return fmt.Errorf("%d of %d logs differ; see above", different, len(list))
	}
	if !m.c.Switch {
		return nil
	}
	if err := m.switchTo(ctx, list, at); err != nil {
		return fmt.Errorf("%w; the same command goes on where this one ended", err)
	}
	fmt.Fprintf(m.out, "The platform uses %[1]s from now on: start it with --event-store %[1]s.\n", m.c.To)
	return nil
}

// move copies one log and compares it.
func (m *mover) move(ctx context.Context, t eventstore.TenantID, title string, at map[eventstore.EventID]eventstore.Position) (same bool, err error) {
	from, to := m.from.Tenant(t), m.to.Tenant(t)
	head, err := from.Head(ctx)
	if err != nil {
		return false, err
	}
	if !m.c.VerifyOnly {
		done := m.meter.begin("copy "+title, head)
		_, err = copylog.Copy(ctx, t, from, to, m.meter.progress)
		done()
		var different *copylog.DifferenceError
		if errors.As(err, &different) {
			fmt.Fprintf(m.out, "%s\n  different: %s\n", t, different.Reason)
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	done := m.meter.begin("compare "+title, head)
	r, err := copylog.Compare(ctx, t, from, to, func(_, there eventstore.Recorded) {
		if _, wanted := at[there.ID]; wanted {
			at[there.ID] = there.Position
		}
	}, m.meter.progress)
	done()
	if err != nil {
		return false, err
	}
	fmt.Fprintln(m.out, t)
	for i, name := range []string{m.c.From, m.c.To} {
		fmt.Fprintf(m.out, "  %-12s  %d events, %d claims, SHA-256 %s\n", name, r.Events[i], r.Claims[i], r.Sums[i])
	}
	if !r.Same() {
		fmt.Fprintf(m.out, "  different: %s\n", r.Difference.Reason)
		return false, nil
	}
	fmt.Fprintln(m.out, "  same")
	return true, nil
}

// checkpoints asks for the events on which checkpoints stand, in the platform's database and the tenants'.
func (m *mover) checkpoints(ctx context.Context, list []eventstore.TenantID) (positions, error) {
	at := positions{}
	for _, t := range list {
		pool, err := m.dbs.Pool(ctx, string(t))
		if err != nil {
			return nil, err
		}
		last, err := runner.LastEvents(ctx, pool)
		if err != nil {
			return nil, err
		}
		for of, events := range last {
			if at[of] == nil {
				at[of] = map[eventstore.EventID]eventstore.Position{}
			}
			for _, id := range events {
				at[of][id] = 0
			}
		}
	}
	return at, nil
}

// switchTo translates all checkpoints to the target's positions and remembers the target. A crash in between leaves a note that keeps the
// platform from being served until this was done again.
func (m *mover) switchTo(ctx context.Context, list []eventstore.TenantID, at positions) error {
	for _, of := range at {
		for id, position := range of {
			if position == 0 {
				delete(of, id) // not in the log: Relocate says so
			}
		}
	}
	if err := tenants.BeginMove(ctx, m.admin, m.c.From, m.c.To); err != nil {
		return err
	}
	for _, t := range list {
		if t == eventstore.PlatformTenant {
			continue
		}
		pool, err := m.dbs.Pool(ctx, string(t))
		if err != nil {
			return err
		}
		err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			return runner.Relocate(ctx, tx, positions{t: at[t]}, readModels())
		})
		if err != nil {
			return fmt.Errorf("tenant %s: %w", t, err)
		}
	}
	// The platform's checkpoints are those of all logs. They and the note are one transaction, the last.
	return pgx.BeginFunc(ctx, m.admin, func(tx pgx.Tx) error {
		if err := runner.Relocate(ctx, tx, at, readModels()); err != nil {
			return err
		}
		return tenants.EndMove(ctx, tx, m.c.From, m.c.To)
	})
}
