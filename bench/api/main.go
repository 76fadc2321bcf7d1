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
	"time"

	"github.com/factum-platform/factum/bench/ratio"
	"github.com/factum-platform/factum/bench/site"
	"github.com/factum-platform/factum/infra/devstack"
)

// options are the flags and the sizes that follow from them.
type options struct {
	site.Config

	events   int           // in the log of the tenant whose documents are listed
	lists    time.Duration // in which lists are counted, after a warm-up of a third of it
	uploads  int           // of a round
	accounts int           // that log in
	perCore  int           // clients at saturation
	logins   time.Duration // in which log-ins and hashes are counted, after a warm-up of a third of it
}

func main() {
	if devstack.RunChild() || runBare() {
		return
	}
	command.Main()
}

var command = ratio.Command[options, *bench]{
	Name:   "api",
	Title:  "The REST API beside what its work costs at the least",
	Files:  "the JSON and the plot",
	Wants:  "flags only, at least one round, 100 events, one upload and times above 0",
	Rounds: 3,
	Full:   options{events: 10_000, lists: 6 * time.Second, uploads: 100, accounts: 64, perCore: clientsPerCore, logins: 9 * time.Second},
	Quick:  options{events: 300, lists: 300 * time.Millisecond, uploads: 3, accounts: 4, perCore: 2, logins: time.Second},
	Flags:  (*options).flags,
	Usable: (*options).usable,
	Figures: []ratio.Choice[*bench]{
		{Name: "list", Figure: (*bench).list},
		{Name: "create", Figure: (*bench).create},
		{Name: "login", Figure: (*bench).login},
		{Name: "collapse", Figure: (*bench).collapse},
		{Name: "storm", Figure: (*bench).storm},
	},
	Measure: measure,
}

func (o *options) flags(flags *flag.FlagSet) {
	o.Flags(flags)
	flags.IntVar(&o.events, "events", o.events, "events in the log of the tenant whose documents are listed")
	flags.IntVar(&o.uploads, "uploads", o.uploads, "uploads of a round")
	flags.DurationVar(&o.lists, "lists", o.lists, "how long lists are counted")
	flags.DurationVar(&o.logins, "logins", o.logins, "how long log-ins are counted")
}

func (o *options) usable() bool {
	return o.events >= 100 && o.uploads >= 1 && o.lists > 0 && o.logins > 0
}

// bench is the site and what the figures know of it.
type bench struct {
	options
	say      ratio.Progress
	site     *site.Site
	platform *site.Platform
	serving  *site.Process // factum serve with all roles
	people   []person      // who log in; made by the first figure that needs them
	facts    []ratio.Fact  // of the site, and what the figures have found out
}

// measure starts the servers and the platform, takes the figures and stops them.
func measure(ctx context.Context, o options, told ratio.Told, take func(*bench) error) (_ []ratio.Fact, err error) {
	b := &bench{options: o, say: told.Say}
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
	if b.facts, err = b.site.Facts(ctx); err != nil {
		return nil, err
	}
	err = take(b)
	return b.facts, err
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

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
