// Command soak tortures the projections of a whole platform and checks what came of it. Run it with make soak-rebuild (requests are served
// while a read model of a million events is built anew) or make soak-projectors (projectors are killed with -9 again and again).
//
// Progress goes to stderr, what was found to stdout. The exit code is 1 when a request failed, an answer went backwards or a read model
// is not what its log says.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/factum-platform/factum/bench/ratio"
	"github.com/factum-platform/factum/bench/site"
	"github.com/factum-platform/factum/infra/devstack"
)

// options are the flags.
type options struct {
	site.Config
	events   int           // rebuild: in the log
	rate     float64       // requests per second
	around   time.Duration // rebuild: requests go on for so long before and after it
	during   time.Duration // projectors: how long they are killed
	tenants  int           // projectors: that are written to
	lifetime time.Duration // projectors: of one, at most
}

func main() {
	if devstack.RunChild() {
		return
	}
	ratio.Main("soak", start)
}

// runs are the subcommands and how many requests per second they send.
var runs = map[string]struct {
	run  func(*soak, context.Context) error
	rate float64
}{
	"rebuild":    {(*soak).rebuild, 200},
	"projectors": {(*soak).projectors, 25},
}

// start reads the arguments and runs what they ask for.
func start(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	name := ""
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	chosen, ok := runs[name]
	if !ok {
		return errors.New("want rebuild or projectors, and then flags")
	}
	var o options
	flags := flag.NewFlagSet("soak "+name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	o.Flags(flags)
	flags.Float64Var(&o.rate, "rate", chosen.rate, "requests per second")
	flags.IntVar(&o.events, "events", 1_000_000, "rebuild: events in the log")
	flags.DurationVar(&o.around, "around", 5*time.Second, "rebuild: how long requests are served before and after it")
	flags.DurationVar(&o.during, "during", 2*time.Minute, "projectors: how long they are killed")
	flags.IntVar(&o.tenants, "tenants", 6, "projectors: tenants that are written to")
	flags.DurationVar(&o.lifetime, "lifetime", 8*time.Second, "projectors: how long one lives at most")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || o.events < 100 || o.rate <= 0 || o.tenants < 1 || o.lifetime < 2*time.Millisecond {
		return errors.New("want at least 100 events, one tenant, a rate above 0 and a lifetime of 2ms; see --help")
	}
	return run(ctx, o, chosen.run, stdout, stderr)
}

// soak is the site and where to tell what.
type soak struct {
	options
	say      ratio.Progress
	out      io.Writer
	site     *site.Site
	platform *site.Platform
}

func run(ctx context.Context, o options, do func(*soak, context.Context) error, stdout, stderr io.Writer) (err error) {
	s := &soak{options: o, say: ratio.NewProgress(stderr), out: stdout}
	s.say("start", "starting PostgreSQL, an S3 server and a time-stamping authority")
	if s.site, err = site.Start(ctx, o.Config); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.site.Stop()) }()
	if s.platform, err = s.site.Open(ctx, site.Options{}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.platform.Close()) }()
	return do(s, ctx)
}

// found prints what was found, a line each.
func (s *soak) found(name, format string, args ...any) {
	fmt.Fprintf(s.out, "%-32s %s\n", name+":", fmt.Sprintf(format, args...))
}

// await asks again and again until behind answers "", and says what it answers from time to time.
func (s *soak) await(ctx context.Context, figure string, atMost time.Duration, behind func(context.Context) (string, error)) error {
	begun := time.Now()
	for told := begun; ; {
		what, err := behind(ctx)
		if err != nil || what == "" {
			return err
		}
		if time.Since(begun) > atMost {
			return fmt.Errorf("after %v still %s", atMost, what)
		}
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			s.say(figure, "%s", what)
		}
		if err := site.Pass(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// trouble collects what went wrong. It is not safe for concurrent use.
type trouble struct {
	count    int
	examples []string
}

func (t *trouble) add(what string) {
	if t.count++; len(t.examples) < 5 {
		t.examples = append(t.examples, what)
	}
}

// String names the number and the first examples.
func (t *trouble) String() string {
	return strings.Join(slices.Concat([]string{fmt.Sprint(t.count)}, t.examples), "\n  ")
}
