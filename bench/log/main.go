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
	"math"
	"os"
	"runtime/pprof"
	"strconv"
	"time"

	"github.com/factum-platform/factum/bench/ratio"
)

// options are the flags and the sizes that follow from them.
type options struct {
	dir     string // where the server's folder is made; "" chooses one
	binDir  string // PostgreSQL's binaries; "" looks for them
	profile string // the file of a CPU profile; "" for none

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

func main() { command.Main() }

var command = ratio.Command[options, *server]{
	Name:   "log",
	Title:  "The log beside its peers",
	Files:  "log.json and log.svg",
	Wants:  "flags only, at least one round and a window above 0",
	Rounds: 5,
	Full: options{
		warmUp: 500 * time.Millisecond, window: 3 * time.Second, many: 16, clients: 64,
		latencies: 1000, replay: 200_000, small: 10_000, large: 2_000_000,
	},
	Quick: options{
		warmUp: 20 * time.Millisecond, window: 200 * time.Millisecond, pgbench: []string{"-t", "20"}, many: 3, clients: 8,
		latencies: 40, replay: 2000, small: 1000, large: 4000,
	},
	Flags:  (*options).flags,
	Usable: func(o *options) bool { return o.window > 0 },
	Figures: []ratio.Choice[*server]{
		{Name: "p64x16", Figure: func(s *server) ratio.Figure { return s.besidePgbench("p64x16", s.clients, s.many, 0.6) }},
		{Name: "p512x16", Figure: func(s *server) ratio.Figure { return s.besidePgbench("p512x16", 8*s.clients, s.many, 1.3) }},
		{Name: "p64x1", Figure: func(s *server) ratio.Figure { return s.besidePgbench("p64x1", s.clients, 1, 0.8) }},
		{Name: "p512x1", Figure: func(s *server) ratio.Figure { return s.besidePgbench("p512x1", 8*s.clients, 1, 0.9) }},
		{Name: "mdb1", Figure: func(s *server) ratio.Figure { return s.besideMessageDB("mdb1", 1, 5) }},
		{Name: "mdb16", Figure: func(s *server) ratio.Figure { return s.besideMessageDB("mdb16", s.many, 1.5) }},
		{Name: "batch", Figure: (*server).batchBesideCopy},
		{Name: "replay", Figure: (*server).replayBesideScan},
		{Name: "size", Figure: (*server).largeBesideSmall},
		{Name: "locks16", Figure: func(s *server) ratio.Figure { return s.lockWaits("locks16", s.many) }},
		{Name: "locks1", Figure: func(s *server) ratio.Figure { return s.lockWaits("locks1", 1) }},
		{Name: "lone", Figure: (*server).loneBesideInsert},
	},
	Measure: measure,
}

func (o *options) flags(flags *flag.FlagSet) {
	flags.StringVar(&o.dir, "dir", "", "where the server's `folder` is made; it must lie on a disk (default: a temporary folder)")
	flags.StringVar(&o.binDir, "pg-bin", "", "`folder` of PostgreSQL's binaries (default: look for them)")
	flags.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile of this process to `file`")
	flags.DurationVar(&o.window, "window", o.window, "how long appends are counted in a round")
}

// measure starts the server, takes the figures and stops it.
func measure(ctx context.Context, o options, told ratio.Told, take func(*server) error) (facts []ratio.Fact, err error) {
	if o.pgbench == nil { // a second more, which does not count
		o.pgbench = []string{"-P", "1", "-T", strconv.Itoa(int(math.Ceil(o.window.Seconds())) + 1)}
	}
	if o.profile != "" {
		var file *os.File
		if file, err = os.Create(o.profile); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		if err := pprof.StartCPUProfile(file); err != nil {
			return nil, err
		}
		defer pprof.StopCPUProfile()
	}
	s, err := startServer(ctx, o, told.Say)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if facts, err = s.facts(ctx); err != nil {
		return nil, err
	}
	return facts, take(s)
}
