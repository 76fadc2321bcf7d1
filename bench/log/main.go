// Command log measures the log on PostgreSQL beside the plain thing that it is built on and beside another log of its kind: every
// figure is a ratio, taken in alternating rounds on one private server with fsync on. Run it with make bench-log.
//
// It prints progress to stderr and a table to stdout, and writes log.json and log.svg. A missed bar is a number like any other: the
// exit code tells only whether everything was measured.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/factum-platform/factum/bench/ratio"
)

// options are the flags and the sizes that follow from them.
type options struct {
	dir    string // where the server's folder is made; "" chooses one
	binDir string // PostgreSQL's binaries; "" looks for them
	out    string
	only   []string
	rounds int

	warmUp    time.Duration // of the writers, before a window
	window    time.Duration // in which acknowledged appends are counted
	pgbench   []string      // how long pgbench runs; nil follows from the window
	many      int           // tenants in the figures with many
	clients   int           // of pgbench, on two threads; writers are as many or eight times as many
	latencies int           // appends of one side in a round that compares latencies
	replay    int           // events in the log that is replayed
	small     int           // events in the two logs whose latencies are compared
	large     int
}

func full() options {
	return options{
		warmUp: 500 * time.Millisecond, window: 3 * time.Second, many: 16, clients: 64,
		latencies: 1000, replay: 200_000, small: 10_000, large: 2_000_000,
	}
}

// quick proves in seconds that everything can be measured; its numbers mean nothing.
func quick() options {
	return options{
		warmUp: 20 * time.Millisecond, window: 200 * time.Millisecond, pgbench: []string{"-t", "20"}, many: 3, clients: 8,
		latencies: 40, replay: 2000, small: 1000, large: 4000,
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := start(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench/log:", err)
		os.Exit(1)
	}
}

// start reads the flags and runs what they ask for.
func start(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("bench/log", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("dir", "", "where the server's `folder` is made; it must lie on a disk (default: a temporary folder)")
	binDir := flags.String("pg-bin", "", "`folder` of PostgreSQL's binaries (default: look for them)")
	out := flags.String("out", "bench/log/results", "`folder` for log.json and log.svg")
	only := flags.String("only", "", "measure only these `figures`, separated by commas: "+strings.Join(names(), ","))
	rounds := flags.Int("rounds", 5, "alternating rounds per figure")
	window := flags.Duration("window", 0, "how long appends are counted in a round (default 3s)")
	small := flags.Bool("quick", false, "tiny sizes: shows that everything can be measured; the numbers mean nothing")
	profile := flags.String("cpuprofile", "", "write a CPU profile of this process to `file`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	o := full()
	if *small {
		o = quick()
	}
	o.dir, o.binDir, o.out, o.rounds = *dir, *binDir, *out, *rounds
	if *window > 0 {
		o.window = *window
	}
	if o.pgbench == nil { // a second more, which does not count
		o.pgbench = []string{"-P", "1", "-T", strconv.Itoa(int(math.Ceil(o.window.Seconds())) + 1)}
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	if flags.NArg() > 0 || o.rounds < 1 {
		return fmt.Errorf("want flags only and at least one round; see --help")
	}
	if *profile != "" {
		file, err := os.Create(*profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer func() {
			pprof.StopCPUProfile()
			err = errors.Join(err, file.Close())
		}()
	}
	report, err := run(ctx, o, stderr)
	if err != nil {
		return err
	}
	if err := report.Save(o.out, "log"); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "written: %s/log.json, %s/log.svg\n\n", o.out, o.out)
	return report.WriteTable(stdout)
}

// run starts the server, measures and stops it.
func run(ctx context.Context, o options, progress io.Writer) (report *ratio.Report, err error) {
	begun := time.Now()
	chosen, err := choose(o.only)
	if err != nil {
		return nil, err
	}
	say := ratio.NewProgress(progress)
	s, err := startServer(ctx, o, say)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	facts, err := s.facts(ctx)
	if err != nil {
		return nil, err
	}
	figures := make([]ratio.Figure, len(chosen))
	for i, figure := range chosen {
		figures[i] = figure(s)
	}
	results, err := ratio.Run(ctx, say, o.rounds, figures)
	if err != nil {
		return nil, err
	}
	return &ratio.Report{Title: "The log beside its peers", Taken: begun, Took: time.Since(begun), Facts: facts, Results: results}, nil
}

// measurements are all that can be measured, in the order of the table.
var measurements = []struct {
	name   string
	figure func(*server) ratio.Figure
}{
	{"p64x16", func(s *server) ratio.Figure { return s.besidePgbench("p64x16", s.clients, s.many, 0.6) }},
	{"p512x16", func(s *server) ratio.Figure { return s.besidePgbench("p512x16", 8*s.clients, s.many, 1.3) }},
	{"p64x1", func(s *server) ratio.Figure { return s.besidePgbench("p64x1", s.clients, 1, 0.8) }},
	{"p512x1", func(s *server) ratio.Figure { return s.besidePgbench("p512x1", 8*s.clients, 1, 0.9) }},
	{"mdb1", func(s *server) ratio.Figure { return s.besideMessageDB("mdb1", 1, 5) }},
	{"mdb16", func(s *server) ratio.Figure { return s.besideMessageDB("mdb16", s.many, 1.5) }},
	{"batch", (*server).batchBesideCopy},
	{"replay", (*server).replayBesideScan},
	{"size", (*server).largeBesideSmall},
	{"locks16", func(s *server) ratio.Figure { return s.lockWaits("locks16", s.many) }},
	{"locks1", func(s *server) ratio.Figure { return s.lockWaits("locks1", 1) }},
	{"lone", (*server).loneBesideInsert},
}

func names() []string {
	var all []string
	for _, m := range measurements {
		all = append(all, m.name)
	}
	return all
}

// choose returns the measurements of these names, in the order of the table; all of them if there are none.
func choose(only []string) (figures []func(*server) ratio.Figure, err error) {
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
