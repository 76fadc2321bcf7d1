package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/projections/runner"
)

// ProjectionsRebuildCmd rebuilds read models while the platform serves.
type ProjectionsRebuildCmd struct {
	operated
	choice
	Name              string `arg:"" help:"The projection, such as documents."`
	Parallel          int    `default:"2" help:"How many tenants, or logs of a projection that consumes all of them, are read at once."`
	DropOld           bool   `name:"drop-old" help:"Drop the generation that was live at once, as soon as nobody reads it any more, and not after a day. There is no way back then."`
	AcceptDifferences bool   `name:"accept-differences" help:"Promote although the new rows differ from the live ones. Look at them first: a refused rebuild leaves both."`
	Anew              bool   `help:"Begin anew, in place of going on with what an earlier, unfinished rebuild has built."`
}

// Help implements kong.HelpProvider.
func (ProjectionsRebuildCmd) Help() string {
	return `A new generation is built from the beginning of the log in a schema of its own, indexed, compared with the live one at the same position, and
promoted in one step. Queries go on all the while and never see half of it. The previous generation stays for a day: see rollback.

  factum projections rebuild documents --tenant 0f3c1a5e-…        one tenant
  factum projections rebuild audit --all --parallel 4             every tenant, four at a time
  factum projections rebuild directory                            users, tenants and memberships: one for the platform
  factum projections rebuild documents --all --data .factum       of a running 'factum dev'

It may be stopped or killed at any point: the same command goes on. An event that cannot be applied, or rows that differ though the code has
the same version, fail it, and the live generation stays. One tenant's failure does not stop the others; the exit code is then 1.`
}

// Run implements the subcommand.
func (c ProjectionsRebuildCmd) Run(ctx context.Context) error {
	if err := checkParallel(c.Parallel); err != nil {
		return err
	}
	return c.with(ctx, func(ctx context.Context, o *operations) error {
		w := &works{verb: "rebuild", name: c.Name, parallel: c.Parallel, out: os.Stdout, do: o.Rebuild}
		w.opt = runner.RebuildOptions{
			Parallel: c.Parallel, DropOld: c.DropOld, AcceptDifferences: c.AcceptDifferences, Anew: c.Anew, Retiring: o.retiring(o.queue),
		}
		return w.run(ctx, o, c.choice)
	})
}

// ProjectionsRollbackCmd goes back to the previous generation.
type ProjectionsRollbackCmd struct {
	operated
	choice
	Name     string `arg:"" help:"The projection, such as documents."`
	Parallel int    `default:"2" help:"How many tenants, or logs of a projection that consumes all of them, are read at once."`
}

// Help implements kong.HelpProvider.
func (ProjectionsRollbackCmd) Help() string {
	return `The generation that was live before catches up with the log and is promoted; the one that is live now is kept for a day in its place, so that
the same command also goes forward again. It needs the release whose version of the projection wrote that generation.

  factum projections rollback documents --tenant 0f3c1a5e-…`
}

// Run implements the subcommand.
func (c ProjectionsRollbackCmd) Run(ctx context.Context) error {
	if err := checkParallel(c.Parallel); err != nil {
		return err
	}
	return c.with(ctx, func(ctx context.Context, o *operations) error {
		w := &works{verb: "roll back", name: c.Name, parallel: c.Parallel, out: os.Stdout, do: o.Rollback}
		w.opt = runner.RebuildOptions{Parallel: c.Parallel, Retiring: o.retiring(o.queue)}
		return w.run(ctx, o, c.choice)
	})
}

// mostParallel bounds --parallel: each rebuild keeps a connection for itself, and needs another one now and then.
const mostParallel = 50

func checkParallel(n int) error {
	if n < 1 || n > mostParallel {
		return fmt.Errorf("--parallel must be 1 to %d", mostParallel)
	}
	return nil
}

// works are rebuilds or rollbacks of a projection of several tenants.
type works struct {
	verb, name string
	parallel   int
	opt        runner.RebuildOptions
	do         func(ctx context.Context, projection string, t eventstore.TenantID, opt runner.RebuildOptions) (runner.Rebuilt, error)
	out        io.Writer

	mu      sync.Mutex
	meter   *meter
	reached map[eventstore.TenantID]runner.Progress
	ended   int
	results map[eventstore.TenantID]result
}

type result struct {
	rebuilt runner.Rebuilt
	err     error
}

// run works on the tenants, several at once, and prints a table of what came of it.
func (w *works) run(ctx context.Context, o *operations, c choice) error {
	p, err := findProjection(w.name)
	if err != nil {
		return err
	}
	if p.Home == runner.PlatformHome && len(c.Tenant) == 0 { // there is one for all
		c = choice{Tenant: []string{string(eventstore.PlatformTenant)}}
	}
	list, err := c.consumers(ctx, o, w.name)
	if err != nil {
		return err
	}
	w.meter = &meter{out: os.Stderr, terminal: term.IsTerminal(int(os.Stderr.Fd()))}
	w.reached, w.results = map[eventstore.TenantID]runner.Progress{}, map[eventstore.TenantID]result{}
	head, err := w.heads(ctx, o, list)
	if err != nil {
		return err
	}
	done := w.meter.begin(w.title(list), head)
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(w.parallel)
	for _, t := range list {
		group.Go(func() error {
			if gctx.Err() != nil {
				return gctx.Err()
			}
			opt := w.opt
			opt.Progress = func(p runner.Progress) { w.progress(list, t, p) }
			out, err := w.do(gctx, w.name, t, opt)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.results[t] = result{out, err}
			w.ended++
			return nil // one failure stops only itself
		})
	}
	stopped := group.Wait()
	done()
	failed := w.print(ctx, list)
	switch {
	case ctx.Err() != nil || stopped != nil:
		return errors.New("stopped before the end; the same command goes on where this one ended")
	case failed > 0:
		return fmt.Errorf("%d of %d failed; what is live there was left as it is; see above", failed, len(list))
	}
	return nil
}

// heads is how far all of them together have to come, so that the time that is left can be told.
func (w *works) heads(ctx context.Context, o *operations, list []eventstore.TenantID) (eventstore.Position, error) {
	var sum eventstore.Position
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(w.parallel)
	for _, t := range list {
		group.Go(func() error {
			head, err := o.store.Tenant(t).Head(gctx)
			if err != nil {
				return nil // a tenant whose database is away fails on its own, later and with its reason
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.reached[t] = runner.Progress{Head: head}
			sum += head
			return nil
		})
	}
	return sum, group.Wait()
}

func (w *works) title(list []eventstore.TenantID) string {
	if len(list) == 1 {
		return fmt.Sprintf("%s %s of %s", w.verb, w.name, list[0])
	}
	return fmt.Sprintf("%s %s: %d of %d tenants", w.verb, w.name, w.ended, len(list))
}

// progress shows where all of them are.
func (w *works) progress(list []eventstore.TenantID, t eventstore.TenantID, p runner.Progress) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.Head = max(p.Head, w.reached[t].Head)
	w.reached[t] = p
	var all runner.Progress
	for _, of := range w.reached {
		all.Events, all.At, all.Head = all.Events+of.Events, all.At+of.At, all.Head+of.Head
	}
	w.meter.title = w.title(list)
	if len(list) == 1 && p.Stage != "building" {
		w.meter.title += ", " + p.Stage
	}
	w.meter.reach(all.Head)
	w.meter.progress(all.Events, all.At)
}

// print writes the table and then the failures in full, and counts them.
func (w *works) print(ctx context.Context, list []eventstore.TenantID) (failed int) {
	table := tabwriter.NewWriter(w.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "TENANT\tRESULT\tGENERATION\tEVENTS\tTIME\tEVENTS/S\tCOMPARED\tPREVIOUS")
	var details strings.Builder
	for _, t := range list {
		r, begun := w.results[t]
		name, generation, compared, previous := "live", fmt.Sprint(r.rebuilt.Generation), comparedWords(r.rebuilt.Compared), previousWords(r.rebuilt)
		switch {
		case !begun || r.err != nil && ctx.Err() != nil:
			name, generation, compared, previous = "stopped", "", "", ""
		case r.err != nil:
			failed++
			name, generation, compared, previous = "failed", "", "", ""
			fmt.Fprintf(&details, "%s: %v\n", t, r.err)
		}
		rate := float64(r.rebuilt.Events) / max(r.rebuilt.Took.Seconds(), 0.001)
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\t%.0f\t%s\t%s\n", t, name, generation, r.rebuilt.Events, r.rebuilt.Took.Round(time.Millisecond), rate, compared, previous)
	}
	_ = table.Flush() // as little as a line that cannot be printed
	fmt.Fprint(w.out, details.String())
	return failed
}

func comparedWords(c runner.Comparison) string {
	var rows int64
	var different []string
	for _, t := range c.Tables {
		rows += t.Built
		if !t.Same {
			different = append(different, t.Table)
		}
	}
	switch {
	case c.Skipped != "":
		return "no: " + c.Skipped
	case len(different) > 0:
		return "different: " + strings.Join(different, ", ")
	case !c.SameVersion:
		return fmt.Sprintf("%d rows agree where both versions have them", rows)
	default:
		return fmt.Sprintf("%d rows, same", rows)
	}
}

func previousWords(r runner.Rebuilt) string {
	switch {
	case r.Previous == 0:
		return "none"
	case r.Dropped:
		return fmt.Sprintf("%d, dropped", r.Previous)
	case r.Kept != "":
		return fmt.Sprintf("%d, kept for a day: %s", r.Previous, r.Kept)
	default:
		return fmt.Sprintf("%d, kept for a day", r.Previous)
	}
}
