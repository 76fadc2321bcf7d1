package ratio

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Command is the command line of a bench. O are its sizes, of which its own flags change some; S is what its figures are taken on.
type Command[O, S any] struct {
	Name   string // of the results' files; the command itself is bench/Name
	Title  string // of the report
	Files  string // what goes to the folder of the results, beside the JSON file
	Wants  string // what is asked of the flags, in words
	Rounds int    // by default
	Full   O
	Quick  O // proves in seconds that everything can be measured; its numbers mean nothing
	// Flags declares the bench's own flags, which write into o; what o holds are their defaults.
	Flags func(o *O, flags *flag.FlagSet)
	// Usable tells whether the flags are what Wants says, as far as they are the bench's own; nil if all are.
	Usable func(o *O) bool
	// Figures are all that can be measured, in the order of the table.
	Figures []Choice[S]
	// Measure starts what the figures are taken on, lets take measure them and stops it. The facts are what the reader of the numbers
	// must know; the figures may have found some of them out.
	Measure func(ctx context.Context, o O, told Told, take func(S) error) (facts []Fact, err error)
}

// Choice is a figure that --only takes by its name.
type Choice[S any] struct {
	Name   string
	Figure func(S) Figure
}

// Told is what every bench is told.
type Told struct {
	Out    string // the folder of the results
	Rounds int
	Say    Progress
}

// Main runs a command with this process's arguments until it ends or a signal stops it. A failure goes to stderr and makes the exit code 1.
func Main(name string, start func(ctx context.Context, args []string, stdout, stderr io.Writer) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := start(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Main is [Main] with the bench.
func (c *Command[O, S]) Main() { Main("bench/"+c.Name, c.Start) }

// Start reads the flags, measures what they ask for, saves the results and prints them as a table to stdout; progress goes to stderr.
func (c *Command[O, S]) Start(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o := c.Full
	if slices.ContainsFunc(args, asksForQuick) { // it changes the defaults of the others
		o = c.Quick
	}
	told := Told{Say: NewProgress(stderr)}
	flags := flag.NewFlagSet("bench/"+c.Name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&told.Out, "out", "bench/"+c.Name+"/results", "`folder` for "+c.Files)
	flags.IntVar(&told.Rounds, "rounds", c.Rounds, "alternating rounds per figure")
	only := flags.String("only", "", "measure only these `figures`, separated by commas: "+strings.Join(c.names(), ","))
	flags.Bool("quick", false, "tiny sizes: shows that everything can be measured; the numbers mean nothing")
	c.Flags(&o, flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || told.Rounds < 1 || c.Usable != nil && !c.Usable(&o) {
		return fmt.Errorf("want %s; see --help", c.Wants)
	}
	chosen, err := c.choose(*only)
	if err != nil {
		return err
	}
	report := Report{Title: c.Title, Taken: time.Now()}
	report.Facts, err = c.Measure(ctx, o, told, func(subject S) (err error) {
		figures := make([]Figure, len(chosen))
		for i, choice := range chosen {
			figures[i] = choice.Figure(subject)
		}
		report.Results, err = Run(ctx, told.Say, told.Rounds, figures)
		report.Took = time.Since(report.Taken)
		return err
	})
	if err != nil {
		return err
	}
	if err := report.Save(told.Out, c.Name); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "written: %[1]s/%[2]s.json, %[1]s/%[2]s.svg\n\n", told.Out, c.Name)
	return report.WriteTable(stdout)
}

// asksForQuick tells whether an argument is the flag quick, in any of the ways that a flag is set.
func asksForQuick(arg string) bool {
	name, value, given := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-"), "=")
	if !strings.HasPrefix(arg, "-") || name != "quick" {
		return false
	}
	set, err := strconv.ParseBool(value)
	return !given || set && err == nil
}

func (c *Command[O, S]) names() []string {
	var all []string
	for _, choice := range c.Figures {
		all = append(all, choice.Name)
	}
	return all
}

// choose returns the figures of these names, which are separated by commas, in the order of the table; all of them for "".
func (c *Command[O, S]) choose(only string) (chosen []Choice[S], err error) {
	if only == "" {
		return c.Figures, nil
	}
	names := strings.Split(only, ",")
	for _, name := range names {
		if !slices.Contains(c.names(), name) {
			return nil, fmt.Errorf("there is no figure %q; there are %s", name, strings.Join(c.names(), ", "))
		}
	}
	for _, choice := range c.Figures {
		if slices.Contains(names, choice.Name) {
			chosen = append(chosen, choice)
		}
	}
	return chosen, nil
}
