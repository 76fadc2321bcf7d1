package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/copylog"
	"github.com/factum-platform/factum/eventstore/pgstore"
	"github.com/factum-platform/factum/infra/tenants"
	"github.com/factum-platform/factum/projections/runner"
)

// TenantsMoveCmd moves a tenant to another server.
type TenantsMoveCmd struct {
	operated
	Tenant  string `arg:"" help:"The tenant's id."`
	To      string `required:"" placeholder:"SERVER" help:"The database server to move it to; 'factum servers list' shows them."`
	DropOld bool   `name:"drop-old" help:"Drop the old database at once instead of a day later."`
}

// Help says what happens.
func (TenantsMoveCmd) Help() string {
	return "The log is copied and the read models are built on the other server while the tenant is used. Then writes wait, for less than a second, while the rest is " +
		"copied and the tenant is switched over; reads go on all the time. If anything fails before the switch, the tenant goes on where it was as if nothing had " +
		"happened, and the same command tries again; also when this command is killed. To give a move up, move the tenant to the server on which it is. " +
		"A stream that is parked must be mended first: read models are built without gaps, or not at all. With the logs on EventStoreDB only the read models move."
}

const (
	// pauseBudget bounds the time in which a log is closed before the switch; it is shorter than the fence holds.
	pauseBudget = 2 * time.Second
	// letGo bounds the wait, with the log closed, for processes to let go of the old database. Who is left then is cut off.
	letGo = 400 * time.Millisecond
	// closeTries is how often the log is closed for a switch that takes too long.
	closeTries = 5
	// nearEnd is how many events are left when the log is closed.
	nearEnd = 50
	// buildStill ends a move whose read models have not moved for so long.
	buildStill = 2 * time.Minute
	// lookEvery is how often read models and sessions are looked at.
	lookEvery = 5 * time.Millisecond
)

// moveStep is told where a move is; tests end the process there.
var moveStep = func(string) {}

// Run implements the subcommand.
func (c TenantsMoveCmd) Run(ctx context.Context) error { return c.live(ctx, c.move) }

func (c TenantsMoveCmd) move(ctx context.Context, l *live) error {
	id, log, err := tenantOf(c.Tenant)
	if err != nil {
		return err
	}
	turn, err := l.dbs.Turn(ctx, string(log))
	if err != nil {
		return err
	}
	m := &tenantMove{live: l, turn: turn, id: id, log: log}
	return errors.Join(m.run(ctx, c.To, c.DropOld), turn.End(ctx))
}

// tenantMove is one tenant on its way.
type tenantMove struct {
	*live
	turn     *tenants.Turn
	id       string
	log      eventstore.TenantID
	from, to tenants.Placement

	target   *pgxpool.Pool    // of the tenant's role
	store    eventstore.Store // the target's log; with the logs on EventStoreDB the platform's
	copier   *copylog.Copier  // nil with the logs on EventStoreDB
	compared eventstore.Position
	admins   [2]*pgx.Conn // the administrator's, at the source and at the target
	pause    time.Duration
}

func (m *tenantMove) run(ctx context.Context, server string, dropOld bool) error {
	placed, err := m.dbs.Placement(ctx, string(m.log))
	if errors.Is(err, tenants.ErrUnknownTenant) {
		return fmt.Errorf("there is no tenant %s in service; 'factum tenants list' shows them", m.id)
	}
	if err != nil {
		return err
	}
	if placed.Server == server {
		if err := m.settle(ctx, placed); err != nil {
			return err
		}
		return m.tidy(ctx, dropOld)
	}
	if m.from, m.to, err = m.turn.BeginMove(ctx, server); err != nil {
		return err
	}
	moveStep("made")
	if err := m.carry(ctx); err != nil {
		return fmt.Errorf("%w; %s goes on on server %s, and the same command tries again", err, m.id, m.from.Server)
	}
	fmt.Fprintf(m.out, "%s lives on server %s now; writes waited for %s.\n", m.id, m.to.Server, m.pause.Round(time.Millisecond))
	return m.tidy(ctx, dropOld)
}

// settle finishes what an earlier attempt that reached the switch left, or gives a move elsewhere up.
func (m *tenantMove) settle(ctx context.Context, placed tenants.Placement) error {
	to, begun, err := m.turn.Begun(ctx)
	if err != nil {
		return err
	}
	if m.engine.name == enginePostgres {
		if err := openAbandoned(ctx, m.dbs, placed); err != nil {
			return err
		}
	}
	if !begun {
		fmt.Fprintf(m.out, "%s lives on server %s.\n", m.id, placed.Server)
		return nil
	}
	if err := m.turn.GiveUpMove(ctx); err != nil {
		return err
	}
	fmt.Fprintf(m.out, "%s lives on server %s; its move to %s was given up, and what that had made was dropped.\n", m.id, placed.Server, to.Server)
	return nil
}

// tidy keeps everybody out of the databases that the tenant has left, or drops them.
func (m *tenantMove) tidy(ctx context.Context, dropOld bool) error {
	kept, err := m.dbs.Retired(ctx, string(m.log))
	if err != nil {
		return err
	}
	for _, r := range kept {
		if dropOld {
			if err := m.dbs.Drop(ctx, r.Place); err != nil {
				return err
			}
			fmt.Fprintf(m.out, "The old database %s was dropped.\n", r.Place)
			continue
		}
		if err := m.dbs.Shut(ctx, r.Place); err != nil {
			return err
		}
		fmt.Fprintf(m.out, "The old database %s is dropped after %s.\n", r.Place, r.DropAt.UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	return nil
}

// carry brings everything over and switches.
func (m *tenantMove) carry(ctx context.Context) (err error) {
	if m.target, err = m.dbs.Connect(ctx, m.to); err != nil {
		return err
	}
	defer m.target.Close()
	if err := m.connectAdmins(ctx); err != nil {
		return err
	}
	defer func() {
		for _, conn := range m.admins {
			err = errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
		}
	}()
	m.store = m.raw
	if m.engine.name == enginePostgres {
		target, err := pgstore.Open(ctx, pgstore.Config{Databases: onePool{m.target}, Logger: m.live.log})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, target.Close()) }()
		m.store = target
		m.copier = &copylog.Copier{
			Tenant: m.log, From: m.raw.Tenant(m.log), To: target.Tenant(m.log), MultiStream: true, SamePositions: true, Progress: m.meter.progress,
		}
	}
	if err := m.reopen(ctx); err != nil {
		return err
	}
	if err := m.copy(ctx, "copy "+m.id); err != nil {
		return err
	}
	moveStep("copied")
	return m.switchOver(ctx)
}

// reopen opens the logs that an earlier attempt left closed. The target's is nobody's but ours.
func (m *tenantMove) reopen(ctx context.Context) error {
	if m.copier == nil {
		return nil
	}
	if err := reclaim(ctx, m.dbs, m.turn, m.from, m.admins[0]); err != nil {
		return err
	}
	by, closed, err := pgstore.ClosedBy(ctx, m.admins[1])
	if err != nil || !closed {
		return err
	}
	_, err = pgstore.Reopen(ctx, m.admins[1], by)
	return err
}

func (m *tenantMove) connectAdmins(ctx context.Context) error {
	for i, p := range []tenants.Placement{m.from, m.to} {
		conn, err := m.dbs.Admin(ctx, p.Server, p.Database)
		if err != nil {
			for _, open := range m.admins[:i] {
				err = errors.Join(err, open.Close(context.WithoutCancel(ctx)))
			}
			return err
		}
		m.admins[i] = conn
	}
	return nil
}

// onePool is the one database of a store.
type onePool struct{ pool *pgxpool.Pool }

// Pool implements [pgstore.Databases].
func (o onePool) Pool(context.Context, string) (*pgxpool.Pool, error) { return o.pool, nil }

// copy copies until little is left, and compares what was copied.
func (m *tenantMove) copy(ctx context.Context, title string) error {
	if m.copier == nil {
		return nil
	}
	for {
		head, err := m.copier.From.Head(ctx)
		if err != nil {
			return err
		}
		done := m.meter.begin(title, head)
		out, err := m.copier.Run(ctx)
		done()
		if err != nil {
			return err
		}
		if out.Added <= nearEnd {
			break
		}
	}
	head, err := m.copier.To.Head(ctx)
	if err != nil {
		return err
	}
	done := m.meter.begin("compare "+m.id, head)
	defer done()
	return m.compare(ctx, head)
}

// compare compares what was not compared yet, up to the target's head.
func (m *tenantMove) compare(ctx context.Context, head eventstore.Position) error {
	if err := copylog.CompareEvents(ctx, m.log, m.copier.From, m.copier.To, m.compared, head, m.meter.progress); err != nil {
		return err
	}
	m.compared = head
	return nil
}

// switchOver builds the read models, closes the log, carries the rest over and switches, again if that takes too long.
func (m *tenantMove) switchOver(ctx context.Context) error {
	for try := 1; ; try++ {
		err := m.buildAndSwitch(ctx)
		slow := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, tenants.ErrFence)
		if err == nil || !slow || try == closeTries || ctx.Err() != nil {
			return err
		}
		fmt.Fprintf(m.out, "%s: it took too long while writes waited; writes go on, and the switch is tried again (%d of %d).\n", m.id, try+1, closeTries)
	}
}

func (m *tenantMove) buildAndSwitch(ctx context.Context) error {
	build, err := m.build(ctx)
	if err != nil {
		return err
	}
	err = build.await(ctx, m.meter)
	if err == nil {
		moveStep("built")
		err = m.copy(ctx, "catch up "+m.id)
	}
	if err == nil {
		err = build.await(ctx, m.meter)
	}
	if err == nil {
		err = m.tryToSwitch(ctx, build)
	}
	return errors.Join(err, build.stop())
}

// tryToSwitch is what happens while writes wait. Once the switch is decided it goes on to the end, also when ctx ends.
func (m *tenantMove) tryToSwitch(ctx context.Context, build *building) error {
	began := time.Now()
	fence, err := m.turn.Fence(ctx)
	if err != nil {
		return err
	}
	budget, cancel := context.WithTimeout(ctx, pauseBudget)
	err = m.decide(budget, build, fence)
	cancel()
	ctx = context.WithoutCancel(ctx)
	if err != nil {
		decided, undoErr := m.undo(ctx, fence)
		if !decided {
			return errors.Join(err, undoErr)
		}
	}
	moveStep("switched")
	if err := m.open(ctx, fence); err != nil {
		return err // the tenant has moved; what is missing is done a moment later by its first writer
	}
	m.pause = time.Since(began)
	moveStep("opened")
	return nil
}

// decide does all that must be done before the switch, and the switch.
func (m *tenantMove) decide(ctx context.Context, build *building, fence [16]byte) error {
	var head eventstore.Position
	var err error
	if m.copier != nil {
		if head, err = pgstore.Close(ctx, m.admins[0], fence); err != nil {
			return err
		}
		moveStep("closed")
		if _, err := m.copier.Run(ctx); err != nil {
			return err
		}
		if err := m.compare(ctx, head); err != nil {
			return err
		}
		if err := copylog.CompareClaims(ctx, m.log, m.copier.From, m.copier.To); err != nil {
			return err
		}
		if copied, err := pgstore.Close(ctx, m.admins[1], fence); err != nil || copied != head {
			return errors.Join(fmt.Errorf("the log of %s ends at %d and its copy at %d", m.id, head, copied), err)
		}
	} else {
		// Nobody moves the read models at the source until this connection lets go, or ends.
		tx, err := m.admins[0].Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(context.WithoutCancel(ctx))
		if head, err = runner.HoldStill(ctx, tx); err != nil {
			return err
		}
	}
	if err := build.reach(ctx, head); err != nil {
		return err
	}
	if err := build.stop(); err != nil {
		return err
	}
	if err := runner.CarryOver(ctx, m.admins[0], m.admins[1]); err != nil {
		return err
	}
	moveStep("caught up")
	return m.turn.Switch(ctx, fence, m.from, m.to)
}

// undo opens the log again after a failure, unless the switch was decided and only its answer was lost.
func (m *tenantMove) undo(ctx context.Context, fence [16]byte) (decided bool, err error) {
	if decided, err = m.turn.Withdraw(ctx, fence); err != nil || decided {
		return decided, err
	}
	placed, err := m.dbs.Placement(ctx, string(m.log))
	if err != nil || placed.Place() == m.to.Place() {
		return err == nil, err
	}
	if m.copier == nil {
		return false, nil
	}
	for _, admin := range m.admins {
		if _, reopenErr := pgstore.Reopen(ctx, admin, fence); reopenErr != nil {
			err = errors.Join(err, reopenErr)
		}
	}
	return false, err
}

// open lets writers in at the target, once all have let go of the source, or were cut off: nobody reads there what is old by then.
func (m *tenantMove) open(ctx context.Context, fence [16]byte) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for deadline := time.Now().Add(letGo); time.Now().Before(deadline); {
		var sessions int
		err := m.admins[0].QueryRow(ctx, `select count(*) from pg_stat_activity where datname = current_database() and usename = $1`, m.from.Role).Scan(&sessions)
		if err != nil {
			return err
		}
		if sessions == 0 {
			break
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := m.dbs.Shut(ctx, m.from.Place()); err != nil {
		return err
	}
	if m.copier != nil {
		if _, err := pgstore.Reopen(ctx, m.admins[1], fence); err != nil {
			return err
		}
	}
	_, err := m.turn.Withdraw(ctx, fence)
	return err
}
