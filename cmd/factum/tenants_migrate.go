package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/factum-platform/factum/infra/tenants"
)

// historyRuns is how many runs --history shows.
const historyRuns = 20

// TenantsMigrateCmd migrates tenants' databases.
type TenantsMigrateCmd struct {
	operated
	DryRun   bool     `name:"dry-run" xor:"what" help:"Show what would be done; the platform's own database is brought up to date all the same, as by every command."`
	History  bool     `xor:"what" help:"Show what earlier runs did."`
	Tenant   []string `placeholder:"ID" help:"Only this tenant; may be repeated. Default: the servers' templates and all tenants."`
	Canary   int      `default:"1" help:"So many tenants go first, one after the other; if one fails, the others are left as they are."`
	Parallel int      `default:"4" help:"So many of the others at once, at most 32."`
}

// Validate refuses wrong usage before anything is done.
func (c TenantsMigrateCmd) Validate() error {
	if c.Canary < 0 || c.Parallel < 1 || c.Parallel > 32 {
		return errors.New("--canary is 0 or more, --parallel 1 to 32")
	}
	return nil
}

// Run implements the subcommand. It fails if any database could not be migrated.
func (c TenantsMigrateCmd) Run(ctx context.Context) error {
	return c.with(ctx, func(ctx context.Context, o *operations) error {
		if c.History {
			return o.printHistory(ctx, os.Stdout)
		}
		return c.migrate(ctx, o)
	})
}

func (c TenantsMigrateCmd) migrate(ctx context.Context, o *operations) error {
	var wanted []string
	for _, id := range c.Tenant {
		wanted = append(wanted, shortID(id))
	}
	show := &migrationMeter{out: os.Stderr, terminal: term.IsTerminal(int(os.Stderr.Fd()))}
	var results []tenants.MigratedSchema
	run, err := o.dbs.Migrate(ctx, tenants.MigrateOptions{
		Tenants: wanted, Canaries: c.Canary, Parallel: c.Parallel, DryRun: c.DryRun, Binary: version, Begin: show.begin,
		Done: func(r tenants.MigratedSchema) { results = append(results, r); show.done(r) },
	})
	show.end()
	printMigrations(os.Stdout, results)
	summary := fmt.Sprintf("%d migrated, %d were up to date, %d failed, in %s", run.Migrated, run.Current, run.Failed, run.Took.Round(time.Millisecond))
	var canary *tenants.CanaryError
	switch {
	case errors.Is(err, tenants.ErrUnknownTenant):
		return fmt.Errorf("%w; 'factum tenants list' shows those that there are", err)
	case errors.As(err, &canary):
		return fmt.Errorf("a canary failed, so %d other tenants were left as they are; mend what the table says, then run the same command again", canary.Left)
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("stopped before the end (%s); the same command goes on where this one ended", summary)
	case err != nil:
		return err
	case run.Failed > 0:
		return fmt.Errorf("%s; mend what the table says, then run the same command again: it does only what is left", summary)
	case c.DryRun && run.Migrated > 0:
		fmt.Printf("%d databases would be migrated, %d are up to date. Nothing was changed.\n", run.Migrated, run.Current)
	case run.Migrated == 0:
		fmt.Printf("Nothing to do: all %d databases are up to date.\n", run.Current)
	default:
		fmt.Println(strings.ToUpper(summary[:1]) + summary[1:] + ".")
	}
	return nil
}

// printMigrations shows what became of each database; those that were up to date are only counted.
func printMigrations(out io.Writer, results []tenants.MigratedSchema) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	shown := false
	for _, r := range results {
		if r.Result == tenants.ResultCurrent {
			continue
		}
		if !shown {
			fmt.Fprintln(table, "DATABASE OF\tSERVER\tFROM\tTO\tSECONDS\tRESULT")
			shown = true
		}
		result := r.Result
		if r.Error != "" {
			result += ": " + strings.Join(strings.Fields(r.Error), " ")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%.2f\t%s\n", databaseOf(r), r.Server, r.From, r.To, r.Took.Seconds(), result)
	}
	_ = table.Flush() // as little as a line that cannot be printed
}

func databaseOf(r tenants.MigratedSchema) string {
	if r.Tenant == "" {
		return "(template)"
	}
	return longID(r.Tenant)
}

func (o *operations) printHistory(ctx context.Context, out io.Writer) error {
	runs, err := o.dbs.MigrationRuns(ctx, historyRuns)
	if err != nil {
		return err
	}
	if len(runs) == 0 {
		fmt.Fprintln(out, "No migration has run yet.")
		return nil
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "BEGAN\tBINARY\tMIGRATED\tUP TO DATE\tFAILED\tTOOK")
	for _, r := range runs {
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%s\n", r.Began.UTC().Format(time.DateTime), r.Binary, r.Migrated, r.Current, r.Failed, r.Took.Round(time.Millisecond))
	}
	_ = table.Flush() // as little as a line that cannot be printed
	results, err := o.dbs.MigrationResults(ctx, runs[0].ID)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "\nThe latest:")
	printMigrations(out, results)
	return nil
}

// migrationMeter shows how far a run is: a bar on a terminal, else a line now and then. Its methods are called one at a time.
type migrationMeter struct {
	out      io.Writer
	terminal bool

	bar          *progressbar.ProgressBar
	all, at, bad int
	shown        time.Time
}

func (m *migrationMeter) begin(databases int) {
	m.all, m.shown = databases, time.Now()
	if m.terminal && databases > 1 {
		m.bar = progressbar.NewOptions(databases, progressbar.OptionSetWriter(m.out), progressbar.OptionSetDescription("databases"),
			progressbar.OptionSetPredictTime(true), progressbar.OptionShowCount(), progressbar.OptionSetWidth(30), progressbar.OptionClearOnFinish())
	}
}

func (m *migrationMeter) done(r tenants.MigratedSchema) {
	m.at++
	if r.Result == tenants.ResultFailed {
		m.bad++
	}
	switch {
	case m.bar != nil:
		_ = m.bar.Add(1) // only the terminal can fail
	case time.Since(m.shown) >= lineEvery:
		m.shown = time.Now()
		fmt.Fprintf(m.out, "%d of %d databases, %d failed\n", m.at, m.all, m.bad)
	}
}

func (m *migrationMeter) end() {
	if m.bar != nil {
		_ = m.bar.Clear() // only the terminal can fail
	}
}

// migrateTenants brings all tenants up to date, for a process that is alone on its databases. One that cannot be migrated is not served, and
// the log says so.
func (p *platform) migrateTenants(ctx context.Context) error {
	_, err := p.dbs.Migrate(ctx, tenants.MigrateOptions{Parallel: 2, Binary: version, Done: func(r tenants.MigratedSchema) {
		switch r.Result {
		case tenants.ResultFailed:
			p.log.Error("a database could not be migrated", "tenant", r.Tenant, "server", r.Server, "error", r.Error)
		case tenants.ResultMigrated:
			p.log.Info("a database was migrated", "tenant", r.Tenant, "server", r.Server, "from", r.From.String(), "to", r.To.String())
		}
	}})
	return err
}

// tellWaiting says how many tenants wait for 'factum tenants migrate'.
func tellWaiting(ctx context.Context, dbs *tenants.Databases, log *slog.Logger) error {
	waiting, refused, err := dbs.Waiting(ctx)
	if err != nil {
		return err
	}
	if waiting > 0 || refused > 0 {
		log.Warn("tenants' databases are not at the schema of this binary; run 'factum tenants migrate', or deploy the newer binary where they are newer",
			"older", waiting, "refused", refused)
	}
	return nil
}
