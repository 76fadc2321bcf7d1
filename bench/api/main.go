// Command api measures what the REST API costs beside what its work costs at the least: lists beside the same SQL in a bare handler, uploads
// beside the sum of their parts, log-ins beside the bare hash. Every figure is a ratio, taken in alternating rounds of one run, against the
// real factum serve. Run it with make bench-api.
//
// It prints progress to stderr and a table to stdout, and writes api.json and api.svg. A missed bar is a number like any other: the exit
// code tells only whether everything was measured.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/factum-platform/factum/bench/ratio"
	"github.com/factum-platform/factum/bench/site"
	"github.com/factum-platform/factum/infra/devstack"
)

// options are the flags and the sizes that follow from them.
type options struct {
	site.Config
	out    string
	only   []string
	rounds int

	events   int           // in the log of the tenant whose documents are listed
	lists    time.Duration // in which lists are counted, after a warm-up of a third of it
	uploads  int           // of a round
	accounts int           // that log in
	perCore  int           // clients at saturation
	logins   time.Duration // in which log-ins and hashes are counted, after a warm-up of a third of it
}

func full() options {
	return options{events: 10_000, lists: 6 * time.Second, uploads: 100, accounts: 64, perCore: clientsPerCore, logins: 9 * time.Second}
}

// quick proves in seconds that everything can be measured; its numbers mean nothing.
func quick() options {
	return options{events: 300, lists: 300 * time.Millisecond, uploads: 3, accounts: 4, perCore: 2, logins: time.Second}
}

func main() {
	if devstack.RunChild() || runBare() {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := start(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench/api:", err)
		os.Exit(1)
	}
}

// start reads the flags and runs what they ask for.
func start(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o := full()
	if slices.Contains(args, "--quick") || slices.Contains(args, "-quick") { // it changes the defaults of the others
		o = quick()
	}
	flags := flag.NewFlagSet("bench/api", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.Dir, "dir", "", "where the servers' `folder` is made; it must lie on a disk (default: a temporary folder)")
	flags.StringVar(&o.BinDir, "pg-bin", "", "`folder` of PostgreSQL's binaries (default: look for them)")
	flags.StringVar(&o.Program, "factum", "", "the factum `program` (default: build it)")
	flags.StringVar(&o.out, "out", "bench/api/results", "`folder` for the JSON and the plot")
	only := flags.String("only", "", "measure only these `figures`, separated by commas: "+strings.Join(names(), ","))
	flags.IntVar(&o.rounds, "rounds", 3, "alternating rounds per figure")
	flags.IntVar(&o.events, "events", o.events, "events in the log of the tenant whose documents are listed")
	flags.IntVar(&o.uploads, "uploads", o.uploads, "uploads of a round")
	flags.DurationVar(&o.lists, "lists", o.lists, "how long lists are counted")
	flags.DurationVar(&o.logins, "logins", o.logins, "how long log-ins are counted")
	flags.Bool("quick", false, "tiny sizes: shows that everything can be measured; the numbers mean nothing")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	if flags.NArg() > 0 || o.rounds < 1 || o.events < 100 || o.uploads < 1 || o.lists <= 0 || o.logins <= 0 {
		return errors.New("want flags only, at least one round, 100 events, one upload and times above 0; see --help")
	}
	report, err := run(ctx, o, stderr)
	if err != nil {
		return err
	}
	if err := report.Save(o.out, "api"); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "written: %s/api.json, %s/api.svg\n\n", o.out, o.out)
	return report.WriteTable(stdout)
}

// bench is the site and what the figures know of it.
type bench struct {
	options
	say      ratio.Progress
	site     *site.Site
	platform *site.Platform
	serving  *site.Process // factum serve with all roles
	people   []person      // who log in; made by the first figure that needs them
	facts    []ratio.Fact  // that the figures have found out
}

// run starts the servers and the platform, measures and stops them.
func run(ctx context.Context, o options, progress io.Writer) (report *ratio.Report, err error) {
	begun := time.Now()
	chosen, err := choose(o.only)
	if err != nil {
		return nil, err
	}
	b := &bench{options: o, say: ratio.NewProgress(progress)}
	b.say("start", "starting PostgreSQL, an S3 server, a time-stamping authority and factum serve")
	if b.site, err = site.Start(ctx, o.Config); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	if b.platform, err = b.site.Open(ctx, site.Options{}); err != nil {
		return nil, err
	}
	if b.serving, err = b.site.Serve(ctx); err != nil {
		return nil, err
	}
	facts, err := b.site.Facts(ctx)
	if err != nil {
		return nil, err
	}
	figures := make([]ratio.Figure, len(chosen))
	for i, figure := range chosen {
		figures[i] = figure(b)
	}
	results, err := ratio.Run(ctx, b.say, o.rounds, figures)
	if err != nil {
		return nil, err
	}
	return &ratio.Report{
		Title: "The REST API beside what its work costs at the least", Taken: begun, Took: time.Since(begun), Facts: append(facts, b.facts...), Results: results,
	}, nil
}

func (b *bench) stop() (err error) {
	if b.serving != nil {
		err = b.serving.Stop()
	}
	if b.platform != nil {
		err = errors.Join(err, b.platform.Close())
	}
	return errors.Join(err, b.site.Stop())
}

// measurements are all that can be measured, in the order of the table.
var measurements = []struct {
	name   string
	figure func(*bench) ratio.Figure
}{
	{"list", (*bench).list},
	{"create", (*bench).create},
	{"login", (*bench).login},
	{"collapse", (*bench).collapse},
	{"storm", (*bench).storm},
}

func names() []string {
	var all []string
	for _, m := range measurements {
		all = append(all, m.name)
	}
	return all
}

// choose returns the measurements of these names, in the order of the table; all of them if there are none.
func choose(only []string) (figures []func(*bench) ratio.Figure, err error) {
	for _, name := range only {
		if !slices.Contains(names(), name) {
			return nil, fmt.Errorf("there is no figure %q; there are %s", name, strings.Join(names(), ", "))
		}
	}
	for _, m := range measurements {
		if len(only) == 0 || slices.Contains(only, m.name) {
			figures = append(figures, m.figure)
		}
	}
	return figures, nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
