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
	"time"

	"github.com/factum-platform/factum/bench/ratio"
	"github.com/factum-platform/factum/bench/site"
	"github.com/factum-platform/factum/infra/devstack"
)

// options are the flags and the sizes that follow from them.
type options struct {
	site.Config

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

func main() {
	if devstack.RunChild() {
		return
	}
	command.Main()
}

var command = ratio.Command[options, *bench]{
	Name:   "projections",
	Title:  "Projections beside what they cost at the least",
	Files:  "the JSON and the plots",
	Wants:  "flags only, at least one round, two tenants, 100 events and a rate above 0",
	Rounds: 3,
	Full: options{
		tenants: 1000, pairs: 30, rest: 8 * time.Minute, idle: 20 * time.Second, window: 8 * time.Second, rate: 60,
		quiet: 99, noisy: 10 * time.Second, latencies: 200, burst: 30_000, events: 1_000_000,
	},
	Quick: options{
		tenants: 4, pairs: 1, idle: 300 * time.Millisecond, window: 600 * time.Millisecond, rate: 30,
		quiet: 3, noisy: 1500 * time.Millisecond, latencies: 5, burst: 1500, events: 2000,
	},
	Flags:  (*options).flags,
	Usable: (*options).usable,
	Figures: []ratio.Choice[*bench]{
		{Name: "create", Figure: (*bench).create},
		{Name: "rebuild", Figure: (*bench).rebuild}, // takes as long as a tenant is looked after once it was written to, so that idle need not wait
		{Name: "rebuildtime", Figure: (*bench).rebuildTime},
		{Name: "idle", Figure: (*bench).idleCPU},
		{Name: "idlepg", Figure: (*bench).idlePostgres},
		{Name: "latency2", Figure: func(b *bench) ratio.Figure { return b.latency("latency2", true) }}, // on a system that is at rest still
		{Name: "conns", Figure: (*bench).connections},
		{Name: "api", Figure: func(b *bench) ratio.Figure { return b.apiBesideOne("api", zipf, 1.25) }},
		{Name: "uniform", Figure: func(b *bench) ratio.Figure { return b.apiBesideOne("uniform", uniform, 0) }},
		{Name: "latency1", Figure: func(b *bench) ratio.Figure { return b.latency("latency1", false) }}, // from here on factum serve is stopped
		{Name: "noisy", Figure: (*bench).noisyNeighbour},
		{Name: "burst", Figure: (*bench).burstOfEvents},
	},
	Measure: measure,
}

func (o *options) flags(flags *flag.FlagSet) {
	o.Flags(flags)
	flags.IntVar(&o.tenants, "tenants", o.tenants, "tenants in the figures about many")
	flags.IntVar(&o.events, "events", o.events, "events in the log whose read model is rebuilt")
	flags.DurationVar(&o.rest, "rest", o.rest, "how long to wait at the most, before the figure idle, until no tenant has news")
	flags.Float64Var(&o.rate, "rate", o.rate, "requests per second to the API")
}

func (o *options) usable() bool { return o.tenants >= 2 && o.events >= 100 && o.rate > 0 }

// bench is the site and what the figures know of it.
type bench struct {
	options
	ratio.Told
	site     *site.Site
	platform *site.Platform
	serving  *site.Process // factum serve with all roles; nil while it does not run
	tenants  []site.Tenant
	timed    time.Duration // the last making of a tenant's database
	bare     int           // databases that are no tenant's
	rests    []rest        // what the figure idle has measured
	rebuilt  *rebuilding   // by the figure rebuild
	facts    []ratio.Fact  // of the site, and what the figures have found out
}

// measure starts the servers, takes the figures and stops them.
func measure(ctx context.Context, o options, told ratio.Told, take func(*bench) error) (_ []ratio.Fact, err error) {
	b := &bench{options: o, Told: told}
	b.Say("start", "starting PostgreSQL, an S3 server and a time-stamping authority")
	if b.site, err = site.Start(ctx, o.Config); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	if err := b.open(ctx); err != nil {
		return nil, err
	}
	if b.facts, err = b.site.Facts(ctx); err != nil {
		return nil, err
	}
	err = take(b)
	return b.facts, err
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
