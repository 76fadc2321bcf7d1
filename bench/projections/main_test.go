package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/factum-platform/factum/bench/ratio"
	"github.com/factum-platform/factum/infra/devstack"
)

func TestMain(m *testing.M) {
	if devstack.RunChild() {
		return
	}
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, "goroutines were left running:", err)
		code = 1
	}
	os.Exit(code)
}

var lastLine = regexp.MustCompile(`(?m)^bars met: (\d+), missed: (\d+)\n\z`)

// TestEverythingCanBeMeasured runs the bench with tiny sizes. It asserts no bar.
func TestEverythingCanBeMeasured(t *testing.T) {
	out := t.TempDir()
	var table, progress bytes.Buffer
	if err := start(t.Context(), []string{"--quick", "--rounds", "1", "--out", out}, &table, &progress); err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	t.Logf("\n%s", table.String())
	if !lastLine.MatchString(table.String()) {
		t.Error("the last line does not say how many bars are met")
	}
	raw, err := os.ReadFile(filepath.Join(out, "projections.json"))
	if err != nil {
		t.Fatal(err)
	}
	var report ratio.Report
	if err := json.Unmarshal(raw, &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Results) != len(measurements) {
		t.Errorf("%d figures of %d", len(report.Results), len(measurements))
	}
	for _, r := range report.Results {
		positive := r.Median > 0 || strings.HasPrefix(r.Name, "idle") // a moment of rest may cost less than the kernel counts
		if r.NotMeasured != "" || len(r.Rounds) != 1 || !positive || math.IsInf(r.Median, 0) || r.Rounds[0].Theirs <= 0 {
			t.Errorf("%+v is no ratio", r)
		}
	}
	for _, name := range []string{"projections.svg", "burst.svg"} {
		plot, err := os.Open(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		defer plot.Close()
		for decoder := xml.NewDecoder(plot); ; {
			if _, err := decoder.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(name, err)
			}
		}
	}
}

func TestWrongFlagsAreNamed(t *testing.T) {
	for want, args := range map[string][]string{
		`there is no figure "x"; there are create, `: {"--only", "idle,x"},
		"at least one round":                         {"--rounds", "0"},
		"want flags only":                            {"idle"},
		"two tenants":                                {"--tenants", "1"},
		"give a folder on a disk with --dir":         {"--dir", filepath.Join(t.TempDir(), "absent")},
	} {
		if err := start(t.Context(), args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v; want %s", args, err, want)
		}
	}
}

func TestAgeIsThatOfTheOldestEventThatIsNotApplied(t *testing.T) {
	earlier := []burstPoint{{Seconds: 0, Appended: 10}, {Seconds: 1, Appended: 20, Applied: 5}, {Seconds: 2, Appended: 30, Applied: 15}}
	for want, now := range map[float64]burstPoint{
		2: {Seconds: 3, Appended: 30, Applied: 15}, // event 16 was there at 1 s
		1: {Seconds: 3, Appended: 30, Applied: 20},
		0: {Seconds: 3, Appended: 30, Applied: 30},
	} {
		if got := age(earlier, now); got != want {
			t.Errorf("%+v: %g s, want %g", now, got, want)
		}
	}
}

func TestOrdersReachAllTenantsAndRepeat(t *testing.T) {
	for name, to := range map[string]order{"zipf": zipf, "uniform": uniform} {
		counts := make([]int, 20)
		a, b := to(len(counts)), to(len(counts))
		for range 10_000 {
			k := a()
			if k != b() {
				t.Fatalf("%s: two draws of the same seed differ", name)
			}
			counts[k]++
		}
		for k, n := range counts {
			if n == 0 {
				t.Errorf("%s: tenant %d has no traffic", name, k)
			}
		}
		if busiest := float64(counts[0]) / float64(counts[9]); name == "zipf" && (busiest < 8 || busiest > 20) { // 10 to the power of 1.1 is 12.6
			t.Errorf("zipf: the first has %.1f times the traffic of the tenth", busiest)
		}
	}
}
