package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/factum-platform/factum/bench/ratio/ratiotest"
	"github.com/factum-platform/factum/infra/postgres/cluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
	_, results := ratiotest.Run(t, &command, "--pg-bin", bin)
	for _, r := range results {
		if strings.HasPrefix(r.Name, "mdb") && r.NotMeasured != "" {
			t.Logf("%s: not measured: %s", r.Name, r.NotMeasured)
			continue
		}
		ratiotest.Measured(t, r, strings.HasPrefix(r.Name, "locks")) // nobody needs to wait for a lock
	}
}

func TestWrongFlagsAreNamed(t *testing.T) {
	ratiotest.WrongFlags(t, &command, map[string][]string{"a window above 0": {"--window", "0s"}})
}
