package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/factum-platform/factum/cmd/factum/steering"
	"github.com/factum-platform/factum/commands/rest"
	"github.com/factum-platform/factum/projections/runner"
)

// lagProblem is from which age of the oldest event that is not applied on --problems shows a consumer.
const lagProblem = 10 * time.Second

// ProjectionsListCmd shows the consumers.
type ProjectionsListCmd struct {
	operated
	Name     string `arg:"" optional:"" help:"Only this projection."`
	Tenant   string `placeholder:"ID" help:"Only the consumers of this tenant's log; 'platform' is the log of users and tenants."`
	Problems bool   `help:"Only what stands still, is parked, or is 10 s behind."`
	JSON     bool   `help:"As JSON, one array."`
}

// Help implements kong.HelpProvider.
func (ProjectionsListCmd) Help() string {
	return `A consumer is a projection of one tenant's log. It opens the databases of all tenants that it shows.

  factum projections list --problems
  factum projections list documents --tenant 0f3c1a5e-… --json

STATE is running, waiting (a server is away; it tries again by itself), paused, halted (until what ERROR says is mended), unbuilt (no projector has
met it yet), unknown (its database cannot be asked), or, of a generation beside the live one, building or retired.`
}

// Run implements the subcommand.
func (c ProjectionsListCmd) Run(ctx context.Context) error {
	return c.with(ctx, func(ctx context.Context, o *operations) error {
		filter := runner.Filter{Projection: c.Name}
		if c.Tenant != "" {
			known, err := o.logs(ctx)
			if err != nil {
				return err
			}
			chosen, err := chooseTenants([]string{c.Tenant}, known)
			if err != nil {
				return err
			}
			filter.Tenant = chosen[0]
		}
		list, err := o.Status(ctx, filter)
		if err != nil {
			return err
		}
		shown := []rest.Consumer{}
		for _, s := range list {
			if !c.Problems || problematic(s) {
				shown = append(shown, steering.Consumer(s))
			}
		}
		if c.JSON {
			return printJSON(os.Stdout, shown)
		}
		printConsumers(os.Stdout, shown, c.Problems)
		return nil
	})
}

// problematic tells whether somebody should look.
func problematic(s runner.Status) bool {
	if s.State == "retired" || s.State == "building" {
		return false
	}
	return len(s.Parked) > 0 || s.Lag >= lagProblem || (s.Activity != runner.ActivityRunning && s.Activity != runner.ActivityUnbuilt)
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func printConsumers(out io.Writer, list []rest.Consumer, problems bool) {
	if len(list) == 0 {
		if problems {
			fmt.Fprintln(out, "No problems: every consumer runs, none is behind, nothing is parked.")
		} else {
			fmt.Fprintln(out, "There are no consumers.")
		}
		return
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PROJECTION\tTENANT\tGEN\tVERSION\tSTATE\tPOSITION\tLAG EVENTS\tLAG\tPARKED\tERROR")
	var parked strings.Builder
	for _, s := range list {
		lag, events := time.Duration(s.LagSeconds*float64(time.Second)).Round(100*time.Millisecond).String(), fmt.Sprint(s.LagEvents)
		if s.LagAtLeast {
			events += "+"
		}
		if s.State == "retired" {
			lag, events = "", ""
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%s\t%d\t%s\t%s\t%d\t%s\n", s.Projection, s.Tenant, s.Generation, s.Version, s.State, s.Position, events, lag, len(s.Parked), s.Error)
		for _, p := range s.Parked {
			fmt.Fprintf(&parked, "parked: %s of %s: stream %s from version %d on, %d attempts, the last %s; event %s: %s\n",
				s.Projection, s.Tenant, p.Stream, p.FromVersion, p.Attempts, p.At.Format(time.RFC3339), p.Event, p.Error)
		}
	}
	_ = table.Flush() // as little as a line that cannot be printed
	fmt.Fprint(out, parked.String())
}
