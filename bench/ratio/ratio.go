// Package ratio measures Factum beside something known, in alternating rounds of one run, and reports each figure as a ratio: a
// number that means something on any machine, as a rate alone does not.
package ratio

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"
)

// Figure is a ratio to be measured and the bar that it must meet.
type Figure struct {
	Name    string  // short, of [a-z0-9]; --only takes it
	What    string  // what is set against what, in one line
	Unit    string  // of the two numbers of a round
	Bar     float64 // of ours over theirs; 0 for a figure that is printed beside others and has none
	AtMost  bool    // the bar is a ceiling, not a floor
	Percent bool    // the ratio is printed as a percentage
	// Measure prepares both sides, calls rounds once and cleans up. It returns *[NotMeasuredError] when something that it needs
	// is not to be had on this machine; every other error ends the run.
	Measure func(ctx context.Context, rounds Rounds) error
}

// Rounds calls one as often as rounds were asked for and keeps what it answers: our number and theirs, both of the same round.
type Rounds func(one func(ctx context.Context) (ours, theirs float64, err error)) error

// NotMeasuredError says why a figure has no number. It counts as missed.
type NotMeasuredError struct{ Why string }

// Error implements error.
func (e *NotMeasuredError) Error() string { return "not measured: " + e.Why }

// Round is one round of a figure.
type Round struct {
	Ours   float64 `json:"ours"`
	Theirs float64 `json:"theirs"`
	Ratio  float64 `json:"ratio"`
}

// Result is a measured figure. Median, Min and Max are of the rounds' ratios; NotMeasured says why there are none. A figure without a
// bar (0) is neither met nor missed.
type Result struct {
	Name        string  `json:"name"`
	What        string  `json:"what"`
	Unit        string  `json:"unit"`
	Bar         float64 `json:"bar"`
	AtMost      bool    `json:"at_most"`
	Percent     bool    `json:"percent"`
	Rounds      []Round `json:"rounds"`
	Median      float64 `json:"median"`
	Min         float64 `json:"min"`
	Max         float64 `json:"max"`
	Met         bool    `json:"met"`
	NotMeasured string  `json:"not_measured,omitempty"`
}

// Fact is something about the machine or the server that the reader of the numbers must know.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Report is a whole run.
type Report struct {
	Title   string        `json:"title"`
	Taken   time.Time     `json:"taken"`
	Took    time.Duration `json:"took_ns"`
	Facts   []Fact        `json:"facts"`
	Results []Result      `json:"results"`
}

// Progress says, after the seconds since it was made, what goes on with a figure.
type Progress func(figure, format string, args ...any)

// NewProgress writes a line at each call. It is not safe for concurrent use.
func NewProgress(w io.Writer) Progress {
	begun := time.Now()
	return func(figure, format string, args ...any) {
		fmt.Fprintf(w, "%5.0f s  %-8s %s\n", time.Since(begun).Seconds(), figure, fmt.Sprintf(format, args...))
	}
}

// Run measures the figures one after the other. It ends at the first figure that fails.
func Run(ctx context.Context, say Progress, rounds int, figures []Figure) ([]Result, error) {
	var results []Result
	for i, f := range figures {
		say(f.Name, "%d of %d: %s", i+1, len(figures), f.What)
		r := Result{Name: f.Name, What: f.What, Unit: f.Unit, Bar: f.Bar, AtMost: f.AtMost, Percent: f.Percent}
		err := f.Measure(ctx, func(one func(context.Context) (float64, float64, error)) error {
			for k := range rounds {
				ours, theirs, err := one(ctx)
				if err != nil {
					return err
				}
				round := Round{ours, theirs, ours / theirs}
				if math.IsNaN(round.Ratio) || math.IsInf(round.Ratio, 0) || round.Ratio < 0 {
					return fmt.Errorf("round %d gave %g and %g %s, which is no ratio", k+1, ours, theirs, f.Unit)
				}
				r.Rounds = append(r.Rounds, round)
				say(f.Name, "round %d of %d: %s (%s over %s %s)", k+1, rounds, r.text(round.Ratio), number(ours), number(theirs), f.Unit)
			}
			return nil
		})
		var not *NotMeasuredError
		switch {
		case errors.As(err, &not):
			r.Rounds, r.NotMeasured = nil, not.Why
			say(f.Name, "not measured: %s", not.Why)
		case err != nil:
			return nil, fmt.Errorf("ratio: %s: %w", f.Name, err)
		case len(r.Rounds) == 0:
			return nil, fmt.Errorf("ratio: %s: its Measure ran no round", f.Name)
		default:
			r.sum()
		}
		results = append(results, r)
	}
	return results, nil
}

// sum fills in what follows from the rounds.
func (r *Result) sum() {
	ratios := make([]float64, len(r.Rounds))
	for i, round := range r.Rounds {
		ratios[i] = round.Ratio
	}
	r.Median, r.Min, r.Max = Median(ratios), slices.Min(ratios), slices.Max(ratios)
	switch {
	case r.Bar == 0:
	case r.AtMost:
		r.Met = r.Median <= r.Bar
	default:
		r.Met = r.Median >= r.Bar
	}
}

// Median returns the middle of the values, of an even number the mean of the middle two. It sorts them in place; there must be one.
func Median[T ~int64 | ~float64](values []T) T {
	slices.Sort(values)
	middle := len(values) / 2
	if len(values)%2 == 1 {
		return values[middle]
	}
	return (values[middle-1] + values[middle]) / 2
}

// Percentile returns the least of the values that this share of them (above 0, at most 1) does not exceed. It sorts them in place; there
// must be one.
func Percentile[T ~int64 | ~float64](values []T, share float64) T {
	slices.Sort(values)
	return values[min(len(values)-1, int(math.Ceil(share*float64(len(values))))-1)]
}

// text prints a ratio of the figure.
func (r *Result) text(ratio float64) string {
	if r.Percent {
		return fmt.Sprintf("%.1f %%", 100*ratio)
	}
	return fmt.Sprintf("%.2f", ratio)
}

// bar prints the bar with its direction.
func (r *Result) bar() string {
	if r.Bar == 0 {
		return "none"
	}
	if r.AtMost {
		return "<= " + r.text(r.Bar)
	}
	return ">= " + r.text(r.Bar)
}

// number prints a rate, a time or a count with three digits or so.
func number(v float64) string {
	switch {
	case v >= 99_950:
		return fmt.Sprintf("%.0fk", v/1000)
	case v >= 9_995:
		return fmt.Sprintf("%.1fk", v/1000)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	default:
		return fmt.Sprintf("%.3g", v)
	}
}

// Whole prints a number short if it is whole thousands or millions.
func Whole(n int) string {
	switch {
	case n >= 1_000_000 && n%1_000_000 == 0:
		return fmt.Sprintf("%dM", n/1_000_000)
	case n >= 1000 && n%1000 == 0:
		return fmt.Sprintf("%dk", n/1000)
	}
	return strconv.Itoa(n)
}
