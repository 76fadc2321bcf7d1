// Command projections measures what read models cost: building them anew beside COPY, a thousand tenants at rest and under traffic beside
// one, quiet tenants beside a noisy one. Every figure is a ratio, taken in alternating rounds of one run on one private server with fsync on.
// Run it with make bench-projections.
//
// It prints progress to stderr and a table to stdout, and writes projections.json, projections.svg and burst.svg. A missed bar is a number
// like any other: the exit code tells only whether everything was measured.
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

	tenants   int           // of the platform, in the figures about many
	pairs     int           // of a tenant and a bare database in a round that compares their making
	rest      time.Duration // to wait at the most until nothing is left to look after
	idle      time.Duration // in which processor time is measured
	window    time.Duration // in which requests are timed, after a warm-up of a third of it
	rate      float64       // requests per second
	quiet     int           // tenants beside the noisy one, each of which appends once a second
	noisy     time.Duration // in which their lag is timed, after a warm-up of a third of it
	latencies int           // appends of a round that measures latency
	burst     int           // events
	events    int           // in the log whose read model is rebuilt
}

func full() options {
	return options{
		tenants: 1000, pairs: 30, rest: 8 * time.Minute, idle: 20 * time.Second, window: 8 * time.Second, rate: 60,
		quiet: 99, noisy: 10 * time.Second, latencies: 200, burst: 30_000, events: 1_000_000,
	}
}

// quick proves in seconds that everything can be measured; its numbers mean nothing.
func quick() options {
	return options{
		tenants: 4, pairs: 1, idle: 300 * time.Millisecond, window: 600 * time.Millisecond, rate: 30,
		quiet: 3, noisy: 1500 * time.Millisecond, latencies: 5, burst: 1500, events: 2000,
	}
}

func main() {
	if devstack.RunChild() {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := start(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench/projections:", err)
		os.Exit(1)
	}
}

// start reads the flags and runs what they ask for.
func start(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o := full()
	if slices.Contains(args, "--quick") || slices.Contains(args, "-quick") { // it changes the defaults of the others
		o = quick()
	}
	flags := flag.NewFlagSet("bench/projections", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.Dir, "dir", "", "where the servers' `folder` is made; it must lie on a disk (default: a temporary folder)")
	flags.StringVar(&o.BinDir, "pg-bin", "", "`folder` of PostgreSQL's binaries (default: look for them)")
	flags.StringVar(&o.Program, "factum", "", "the factum `program` (default: build it)")
	flags.StringVar(&o.out, "out", "bench/projections/results", "`folder` for the JSON and the plots")
	only := flags.String("only", "", "measure only these `figures`, separated by commas: "+strings.Join(names(), ","))
	flags.IntVar(&o.rounds, "rounds", 3, "alternating rounds per figure")
	flags.IntVar(&o.tenants, "tenants", o.tenants, "tenants in the figures about many")
	flags.IntVar(&o.events, "events", o.events, "events in the log whose read model is rebuilt")
	flags.DurationVar(&o.rest, "rest", o.rest, "how long to wait at the most, before the figure idle, until no tenant has news")
	flags.Float64Var(&o.rate, "rate", o.rate, "requests per second to the API")
	flags.Bool("quick", false, "tiny sizes: shows that everything can be measured; the numbers mean nothing")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	if flags.NArg() > 0 || o.rounds < 1 || o.tenants < 2 || o.events < 100 || o.rate <= 0 {
		return errors.New("want flags only, at least one round, two tenants, 100 events and a rate above 0; see --help")
	}
	report, err := run(ctx, o, stderr)
	if err != nil {
		return err
	}
	if err := report.Save(o.out, "projections"); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "written: %s/projections.json, %s/projections.svg\n\n", o.out, o.out)
	return report.WriteTable(stdout)
}

// bench is the site and what the figures know of it.
type bench struct {
	options
	say      ratio.Progress
	site     *site.Site
	platform *site.Platform
	serving  *site.Process // factum serve with all roles; nil while it does not run
	tenants  []site.Tenant
	timed    time.Duration // the last making of a tenant's database
	bare     int           // databases that are no tenant's
	rests    []rest        // what the figure idle has measured
	rebuilt  *rebuilding   // by the figure rebuild
	facts    []ratio.Fact  // that the figures have found out
}

// run starts the servers, measures and stops them.
func run(ctx context.Context, o options, progress io.Writer) (report *ratio.Report, err error) {
	begun := time.Now()
	chosen, err := choose(o.only)
	if err != nil {
		return nil, err
	}
	b := &bench{options: o, say: ratio.NewProgress(progress)}
	b.say("start", "starting PostgreSQL, an S3 server and a time-stamping authority")
	if b.site, err = site.Start(ctx, o.Config); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	if err := b.open(ctx); err != nil {
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
		Title: "Projections beside what they cost at the least", Taken: begun, Took: time.Since(begun), Facts: append(facts, b.facts...), Results: results,
	}, nil
}

// open opens the platform in this process, anew if it is open: that closes what connections it holds.
func (b *bench) open(ctx context.Context) error {
	o := site.Options{Provision: func(ctx context.Context, next func(context.Context) error) error {
		begun := time.Now()
		err := next(ctx)
		b.timed = time.Since(begun)
		return err
	}}
	if b.platform != nil {
		o.Person = b.platform.Person
		if err := b.platform.Close(); err != nil {
			return err
		}
	}
	var err error
	b.platform, err = b.site.Open(ctx, o)
	return err
}

func (b *bench) stop() error {
	err := b.rested()
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
	{"create", (*bench).create},
	{"rebuild", (*bench).rebuild}, // takes as long as a tenant is looked after once it was written to, so that idle need not wait
	{"rebuildtime", (*bench).rebuildTime},
	{"idle", (*bench).idleCPU},
	{"idlepg", (*bench).idlePostgres},
	{"latency2", func(b *bench) ratio.Figure { return b.latency("latency2", true) }}, // on a system that is at rest still
	{"conns", (*bench).connections},
	{"api", func(b *bench) ratio.Figure { return b.apiBesideOne("api", zipf, 1.25) }},
	{"uniform", func(b *bench) ratio.Figure { return b.apiBesideOne("uniform", uniform, 0) }},
	{"latency1", func(b *bench) ratio.Figure { return b.latency("latency1", false) }}, // from here on factum serve is stopped
	{"noisy", (*bench).noisyNeighbour},
	{"burst", (*bench).burstOfEvents},
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
