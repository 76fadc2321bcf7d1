package main

import (
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/factum-platform/factum/bench/ratio/ratiotest"
	"github.com/factum-platform/factum/infra/devstack"
)

func TestMain(m *testing.M) {
	if devstack.RunChild() {
		return
	}
	goleak.VerifyTestMain(m)
}

// TestEverythingCanBeMeasured runs the bench with tiny sizes. It asserts no bar.
func TestEverythingCanBeMeasured(t *testing.T) {
	folder, results := ratiotest.Run(t, &command)
	for _, r := range results {
		ratiotest.Measured(t, r, strings.HasPrefix(r.Name, "idle")) // a moment of rest may cost less than the kernel counts
	}
	ratiotest.Plot(t, filepath.Join(folder, "burst.svg"))
}

func TestWrongFlagsAreNamed(t *testing.T) {
	ratiotest.WrongFlags(t, &command, map[string][]string{"two tenants": {"--tenants", "1"}})
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
