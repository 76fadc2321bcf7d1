package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/tenant"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/archive"
	"github.com/factum-platform/factum/eventstore/copylog"
	"github.com/factum-platform/factum/eventstore/pgstore"
	"github.com/factum-platform/factum/infra/keyring"
	"github.com/factum-platform/factum/infra/tenants"
	"github.com/factum-platform/factum/projections/runner"
)

// TenantsImportCmd brings a tenant in.
type TenantsImportCmd struct {
	operated
	File       string `arg:"" help:"A file that 'factum tenants export' wrote."`
	Server     string `placeholder:"SERVER" help:"Database server to make the database on; without it, the one that is next. See 'factum servers list'."`
	Owner      string `placeholder:"USER_ID" help:"For a tenant that this platform does not know: the user who becomes its admin."`
	VerifyOnly bool   `name:"verify-only" help:"Only check the file; no server is needed."`
}

// Help says what happens.
func (TenantsImportCmd) Help() string {
	return "The file is checked completely before anything is written: its sums, the order of its events, that no stream has a gap. Then the tenant gets its keys, a database " +
		"and the log, which is compared at the end, and only then it is in service; read models are built by the processes that serve. A tenant that was deleted comes back with " +
		"the members that it had; if its old database is not dropped yet, that is taken into service again. A log that is there already must be a beginning of the file's, or the other " +
		"way round. The key-encryption key (FACTUM_KEYRING) must be that of the platform which wrote the file."
}

// Run implements the subcommand.
func (c TenantsImportCmd) Run(ctx context.Context) (err error) {
	a, err := archive.Open(c.File)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	if err := c.verify(ctx, a); err != nil || c.VerifyOnly {
		return err
	}
	return c.live(ctx, func(ctx context.Context, l *live) error {
		turn, err := l.dbs.Turn(ctx, string(a.Manifest.Tenant))
		if err != nil {
			return err
		}
		i := &arrival{live: l, turn: turn, a: a, m: a.Manifest, server: c.Server, owner: c.Owner}
		return errors.Join(i.run(ctx), turn.End(ctx))
	})
}

func (c TenantsImportCmd) verify(ctx context.Context, a *archive.Archive) error {
	meter := terminalMeter()
	m := a.Manifest
	done := meter.begin("check "+m.TenantID, m.Head)
	err := a.Verify(ctx, meter.progress)
	done()
	if err != nil {
		return fmt.Errorf("%w; nothing was written", err)
	}
	if m.TenantID != uuidText(string(m.Tenant)) {
		return fmt.Errorf("%s names the tenant %q and the log %q, which do not belong together; nothing was written", c.File, m.TenantID, m.Tenant)
	}
	fmt.Fprintf(os.Stderr, "%s: tenant %s, %q, %d events to position %d of %s, %d claims, %d keys, exported %s; the file is whole\n",
		c.File, m.TenantID, m.Name, m.Events, m.Head, m.Engine, m.Claims, m.Keys, m.MadeAt.UTC().Format("2006-01-02 15:04:05 UTC"))
	return nil
}

// arrival is a tenant that is brought in.
type arrival struct {
	*live
	turn          *tenants.Turn
	a             *archive.Archive
	m             archive.Manifest
	server, owner string
	state         tenant.State
}

func (i *arrival) run(ctx context.Context) (err error) {
	if i.state, err = i.executor.TenantState(ctx, i.m.TenantID); err != nil {
		return err
	}
	if err := i.mayBegin(ctx); err != nil {
		return fmt.Errorf("%w; nothing was written", err)
	}
	for k, err := range i.a.Keys() {
		if err != nil {
			return err
		}
		if err := i.keys.Import(ctx, string(i.m.Tenant), keyring.Wrapped{Purpose: k.Purpose, Owner: k.Owner, Key: k.Wrapped}); err != nil {
			return err
		}
	}
	moveStep("keys")
	back, err := i.turn.Reinstate(ctx, reopenAny)
	if err != nil {
		return err
	}
	placed, err := i.dbs.Placement(ctx, string(i.m.Tenant))
	switch {
	case errors.Is(err, tenants.ErrUnknownTenant):
		err = i.bringIn(ctx)
	case err == nil:
		if err = i.match(ctx, placed, back); err != nil && back {
			err = errors.Join(err, i.retire(ctx, i.turn, placed)) // as it was
		}
	}
	if err != nil {
		return err
	}
	return i.admit(ctx)
}

// mayBegin finds what would stop the import later.
func (i *arrival) mayBegin(ctx context.Context) error {
	if !i.state.Exists && i.owner == "" {
		return fmt.Errorf("this platform does not know tenant %s: give --owner with the id of the user who becomes its admin", i.m.TenantID)
	}
	if !i.state.Exists {
		known, err := i.executor.UserExists(ctx, i.owner)
		if err != nil {
			return err
		}
		if !known {
			return fmt.Errorf("--owner: this platform has no user %s", i.owner)
		}
	}
	for k, err := range i.a.Keys() {
		if err != nil {
			return err
		}
		if err := i.keys.Opens(string(i.m.Tenant), keyring.Wrapped{Purpose: k.Purpose, Owner: k.Owner, Key: k.Wrapped}); err != nil {
			return fmt.Errorf("%w; give the --keyring (FACTUM_KEYRING) of the platform that wrote the file", err)
		}
	}
	return nil
}

// reopenAny opens a log whose tenant was deleted.
func reopenAny(ctx context.Context, admin *pgx.Conn) error {
	by, closed, err := pgstore.ClosedBy(ctx, admin)
	if err != nil || !closed {
		return err
	}
	_, err = pgstore.Reopen(ctx, admin, by)
	return err
}

// bringIn makes a database and fills the log; the tenant is placed when that is done.
func (i *arrival) bringIn(ctx context.Context) (err error) {
	made, err := i.turn.Make(ctx, i.databaseName(), i.server)
	if err != nil {
		return err
	}
	moveStep("database")
	store := i.raw
	if i.engine.name == enginePostgres {
		pool, err := i.dbs.Connect(ctx, made)
		if err != nil {
			return err
		}
		defer pool.Close()
		target, err := pgstore.Open(ctx, pgstore.Config{Databases: onePool{pool}, Logger: i.log})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, target.Close()) }()
		store = target
	}
	if err := i.fill(ctx, store); err != nil {
		return err
	}
	moveStep("filled")
	if err := i.platformReadsOn(ctx, store); err != nil { // before anybody follows the log
		return err
	}
	if err := i.turn.Settle(ctx, made); err != nil {
		return err
	}
	moveStep("settled")
	fmt.Fprintf(i.out, "%s has database %s.\n", i.m.TenantID, made.Place())
	return nil
}

var databaseText = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// databaseName is the one that the tenant had; the file may come from a stranger.
func (i *arrival) databaseName() string {
	for _, name := range []string{i.state.DatabaseName, i.m.Database} {
		if databaseText.MatchString(name) && strings.HasPrefix(name, "tenant_") {
			return name
		}
	}
	return "tenant_" + string(i.m.Tenant)
}

// fill copies what the log lacks and compares the whole.
func (i *arrival) fill(ctx context.Context, store eventstore.Store) error {
	from, stop := i.a.Log()
	defer stop()
	to := store.Tenant(i.m.Tenant)
	done := i.meter.begin("import "+i.m.TenantID, i.m.Head)
	c := copylog.Copier{
		Tenant: i.m.Tenant, From: from, To: to, Progress: i.meter.progress,
		MultiStream: store.Caps().MultiStream, SamePositions: store.Caps().Gapless && i.m.Engine == i.engine.name,
	}
	_, err := c.Run(ctx)
	done()
	if err != nil {
		return fmt.Errorf("%w; the tenant's log there is not a beginning of the file's", err)
	}
	done = i.meter.begin("compare "+i.m.TenantID, i.m.Head)
	r, err := copylog.Compare(ctx, i.m.Tenant, from, to, nil, i.meter.progress)
	done()
	if err != nil {
		return err
	}
	if !r.Same() || r.Sums[1] != i.m.LogSHA256 {
		return fmt.Errorf("the imported log is not the file's: %w", orDifferent(r.Difference))
	}
	fmt.Fprintf(i.out, "%s: %d events, %d claims, SHA-256 %s, the same as the file's.\n", i.m.TenantID, r.Events[1], r.Claims[1], r.Sums[1])
	return nil
}

func orDifferent(d *copylog.DifferenceError) error {
	if d == nil {
		return errors.New("its sum is another")
	}
	return d
}

// match compares the file with the log of a tenant that has a database. What the file has more is added to a tenant that nobody uses.
func (i *arrival) match(ctx context.Context, placed tenants.Placement, back bool) error {
	if back {
		fmt.Fprintf(i.out, "%s has its database %s again.\n", i.m.TenantID, placed.Place())
	}
	log := i.raw.Tenant(i.m.Tenant)
	head, err := log.Head(ctx)
	if err != nil {
		return err
	}
	used := i.state.Exists && i.state.Provisioned && !i.state.Deleted
	from, stop := i.a.Log()
	defer stop()
	n, err := copylog.CommonBeginning(ctx, i.m.Tenant, from, log)
	if err != nil {
		return fmt.Errorf("tenant %s has another log than the file's: %w", i.m.TenantID, err)
	}
	switch {
	case n == i.m.Events:
		fmt.Fprintf(i.out, "%s: the log holds all %d events of the file, and ends at position %d.\n", i.m.TenantID, n, head)
		return nil
	case used:
		return fmt.Errorf("tenant %s is in use, and its log holds %d of the file's %d events: 'factum tenants delete' it first, and then import; it was left as it is", i.m.TenantID, n, i.m.Events)
	default:
		if err := i.fill(ctx, i.raw); err != nil {
			return err
		}
		return i.platformReadsOn(ctx, i.raw)
	}
}

// platformReadsOn lets the platform's own consumers of the tenant's log go on with a log that may be older than what they have seen.
func (i *arrival) platformReadsOn(ctx context.Context, store eventstore.Store) error {
	conn, err := i.dbs.Admin(ctx, tenants.MainServer, "")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	behind, err := runner.ReadOn(ctx, conn, i.m.Tenant, store.Tenant(i.m.Tenant), readModels())
	if err == nil && behind > 0 {
		fmt.Fprintf(i.out, "%s: %d consumers of the platform had seen more of the log than there is now; they go on at its end.\n", i.m.TenantID, behind)
	}
	return err
}

// admit makes the platform show the tenant.
func (i *arrival) admit(ctx context.Context) error {
	by := operatorCaller("factum tenants import")
	placed, err := i.dbs.Placement(ctx, string(i.m.Tenant))
	if err != nil {
		return err
	}
	var receipt commands.Receipt
	if !i.state.Exists || i.owner != "" { // the latter perhaps to finish what was killed
		name := strings.TrimSpace(i.m.Name)
		if name == "" {
			name = i.m.TenantID
		}
		receipt, err = i.executor.AdoptTenant(ctx, by, commands.AdoptedTenant{ID: i.m.TenantID, Name: name, DatabaseName: placed.Database, Owner: i.owner})
		var refusal *es.Refusal
		if i.state.Exists && errors.As(err, &refusal) && refusal.Code == "tenant.exists" {
			err = nil // it was made here, and has its members
		}
	}
	if err == nil && i.state.Deleted {
		receipt, err = i.executor.RestoreTenant(ctx, by, i.m.TenantID)
	}
	if err != nil {
		return err
	}
	if receipt.Position > 0 {
		i.awaitDirectory(ctx, receipt.Position, "it is shown")
	}
	fmt.Fprintf(i.out, "%s is in service.\n", i.m.TenantID)
	return nil
}
