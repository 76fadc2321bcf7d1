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

	"github.com/factum-platform/factum/eventstore"
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
		shown := []consumerStatus{}
		for _, s := range list {
			if !c.Problems || problematic(s) {
				shown = append(shown, newConsumerStatus(s))
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

// consumerStatus is a line of the list.
type consumerStatus struct {
	Projection string              `json:"projection"`
	Tenant     eventstore.TenantID `json:"tenant"`
	Generation int                 `json:"generation"`
	Version    int                 `json:"version"`
	State      string              `json:"state"`
	Position   eventstore.Position `json:"position"`
	Head       eventstore.Position `json:"head"`
	LagEvents  int64               `json:"lag_events"`
	LagAtLeast bool                `json:"lag_at_least"` // there may be more events
	LagSeconds float64             `json:"lag_seconds"`
	Error      string              `json:"error,omitempty"`
	PausedBy   string              `json:"paused_by,omitempty"`
	PausedAt   *time.Time          `json:"paused_at,omitempty"`
	MovedAt    *time.Time          `json:"moved_at,omitempty"`
	RetiredAt  *time.Time          `json:"retired_at,omitempty"`
	Parked     []parkedStream      `json:"parked"`
}

type parkedStream struct {
	Stream      string             `json:"stream"`
	FromVersion eventstore.Version `json:"from_version"`
	Event       string             `json:"event"`
	Error       string             `json:"error"`
	At          time.Time          `json:"at"`
	Attempts    int                `json:"attempts"`
}

func newConsumerStatus(s runner.Status) consumerStatus {
	state := s.State
	if s.State == "live" || s.State == "" {
		state = string(s.Activity)
	}
	out := consumerStatus{
		s.Projection, s.Tenant, s.Generation, s.Version, state, s.Position, s.Head, s.LagEvents, s.LagAtLeast, s.Lag.Seconds(), s.Error,
		s.PausedBy, known(s.PausedAt), known(s.MovedAt), known(s.RetiredAt),
		[]parkedStream{},
	}
	for _, p := range s.Parked {
		out.Parked = append(out.Parked, parkedStream{p.Stream.String(), p.FromVersion, p.Event.String(), p.Error, p.At.UTC(), p.Attempts})
	}
	return out
}

// known is nil for a time that is none.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func printConsumers(out io.Writer, list []consumerStatus, problems bool) {
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
