package ratio

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"
)

// WriteTable prints the facts, a line per figure and, last, how many bars are met.
func (r *Report) WriteTable(w io.Writer) error {
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s, %s, took %s\n", r.Title, r.Taken.UTC().Format("2006-01-02 15:04 UTC"), r.Took.Round(time.Second))
	for _, f := range r.Facts {
		fmt.Fprintf(&text, "  %s: %s\n", f.Name, f.Value)
	}
	fmt.Fprintln(&text)
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "figure\tratio\tspread\tbar\t\tours\ttheirs\tunit\twhat")
	met, missed := 0, 0
	for _, f := range r.Results {
		verdict := ""
		switch {
		case f.Bar == 0:
		case f.Met:
			verdict = "met"
			met++
		default:
			verdict = "MISSED"
			missed++
		}
		if f.NotMeasured != "" {
			fmt.Fprintf(table, "%s\t-\t-\t%s\t%s\t-\t-\t%s\tnot measured: %s (%s)\n", f.Name, f.bar(), verdict, f.Unit, f.NotMeasured, f.What)
			continue
		}
		ours, theirs := f.sides()
		fmt.Fprintf(table, "%s\t%s\t%s..%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			f.Name, f.text(f.Median), f.text(f.Min), f.text(f.Max), f.bar(), verdict, number(ours), number(theirs), f.Unit, f.What)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("ratio: print the table: %w", err)
	}
	fmt.Fprintln(&text, "\nratio: the median of the rounds' ratios; spread: the least and the greatest; ours, theirs: medians of the rounds.")
	fmt.Fprintf(&text, "bars met: %d, missed: %d\n", met, missed)
	if _, err := w.Write(text.Bytes()); err != nil {
		return fmt.Errorf("ratio: print the table: %w", err)
	}
	return nil
}

// sides returns the medians of both sides' numbers.
func (r *Result) sides() (ours, theirs float64) {
	var a, b []float64
	for _, round := range r.Rounds {
		a, b = append(a, round.Ours), append(b, round.Theirs)
	}
	return Median(a), Median(b)
}

// Save writes <name>.json and <name>.svg into the folder, which is made when absent.
func (r *Report) Save(dir, name string) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		base := filepath.Join(dir, name)
		err = errors.Join(os.WriteFile(base+".json", append(raw, '\n'), 0o644), os.WriteFile(base+".svg", r.svg(), 0o644))
	}
	if err != nil {
		return fmt.Errorf("ratio: save the results: %w", err)
	}
	return nil
}
