// Package ratiotest tests the command line of a bench.
package ratiotest

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/factum-platform/factum/bench/ratio"
)

var lastLine = regexp.MustCompile(`(?m)^bars met: (\d+), missed: (\d+)\n\z`)

// Run measures everything in one round with tiny sizes, and these flags. It wants a result for every figure, a plot and a last line that
// says how many bars are met, and asserts no bar. The folder is that of the results.
func Run[O, S any](t *testing.T, c *ratio.Command[O, S], flags ...string) (folder string, results []ratio.Result) {
	t.Helper()
	folder = t.TempDir()
	var table, progress bytes.Buffer
	if err := c.Start(t.Context(), append([]string{"--quick", "--rounds", "1", "--out", folder}, flags...), &table, &progress); err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	t.Logf("\n%s", table.String())
	if !lastLine.MatchString(table.String()) {
		t.Error("the last line does not say how many bars are met")
	}
	raw, err := os.ReadFile(filepath.Join(folder, c.Name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var report ratio.Report
	if err := json.Unmarshal(raw, &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Results) != len(c.Figures) {
		t.Errorf("%d figures of %d", len(report.Results), len(c.Figures))
	}
	Plot(t, filepath.Join(folder, c.Name+".svg"))
	return folder, report.Results
}

// Measured wants one round whose ratio is a number above 0, or 0 if that may be.
func Measured(t *testing.T, r ratio.Result, mayBeZero bool) {
	t.Helper()
	if r.NotMeasured != "" || len(r.Rounds) != 1 || r.Median <= 0 && !mayBeZero || math.IsInf(r.Median, 0) || r.Rounds[0].Theirs <= 0 {
		t.Errorf("%+v is no ratio", r)
	}
}

// Plot wants a file of well-formed XML.
func Plot(t *testing.T, path string) {
	t.Helper()
	plot, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer plot.Close()
	for decoder := xml.NewDecoder(plot); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(path, err)
		}
	}
}

// WrongFlags wants an error for what no bench can be told, and for these arguments of its own; what it says is their key.
func WrongFlags[O, S any](t *testing.T, c *ratio.Command[O, S], own map[string][]string) {
	t.Helper()
	first, last := c.Figures[0].Name, c.Figures[len(c.Figures)-1].Name
	wrong := map[string][]string{
		`there is no figure "x"; there are ` + first + `, `: {"--only", last + ",x"},
		"at least one round":                 {"--rounds", "0"},
		"want flags only":                    {last},
		"give a folder on a disk with --dir": {"--dir", filepath.Join(t.TempDir(), "absent")},
	}
	maps.Copy(wrong, own)
	for want, args := range wrong {
		if err := c.Start(t.Context(), args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v; want %s", args, err, want)
		}
	}
}
