package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/factum-platform/factum/bench/ratio"
	"github.com/factum-platform/factum/infra/postgres/cluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var lastLine = regexp.MustCompile(`(?m)^bars met: (\d+), missed: (\d+)\n\z`)

// TestEverythingCanBeMeasured runs the bench with tiny sizes. It asserts no bar.
func TestEverythingCanBeMeasured(t *testing.T) {
	bin, err := cluster.FindBinaries(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(bin, "pgbench")); err != nil {
		if _, err := exec.LookPath("pgbench"); err != nil {
			t.Skip("pgbench is missing; on Debian it comes with the package postgresql")
		}
	}
	out := t.TempDir()
	var table, progress bytes.Buffer
	if err := start(t.Context(), []string{"--quick", "--rounds", "1", "--pg-bin", bin, "--out", out}, &table, &progress); err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	t.Logf("\n%s", table.String())
	if !lastLine.MatchString(table.String()) {
		t.Error("the last line does not say how many bars are met")
	}
	raw, err := os.ReadFile(filepath.Join(out, "log.json"))
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
		if strings.HasPrefix(r.Name, "mdb") && r.NotMeasured != "" {
			t.Logf("%s: not measured: %s", r.Name, r.NotMeasured)
			continue
		}
		positive := r.Median > 0 || strings.HasPrefix(r.Name, "locks") // nobody needs to wait for a lock
		if r.NotMeasured != "" || len(r.Rounds) != 1 || !positive || math.IsInf(r.Median, 0) || r.Rounds[0].Theirs <= 0 {
			t.Errorf("%+v is no ratio", r)
		}
	}
	plot, err := os.Open(filepath.Join(out, "log.svg"))
	if err != nil {
		t.Fatal(err)
	}
	defer plot.Close()
	for decoder := xml.NewDecoder(plot); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal("the SVG:", err)
		}
	}
}

func TestWrongFlagsAreNamed(t *testing.T) {
	for want, args := range map[string][]string{
		`there is no figure "x"; there are p64x16, `: {"--only", "lone,x"},
		"at least one round":                         {"--rounds", "0"},
		"flags only":                                 {"lone"},
		"give a folder on a disk with --dir":         {"--dir", filepath.Join(t.TempDir(), "absent")},
	} {
		if err := start(t.Context(), args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v; want %s", args, err, want)
		}
	}
}
