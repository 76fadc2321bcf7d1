package ratio_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/factum-platform/factum/bench/ratio"
	"github.com/factum-platform/factum/bench/ratio/ratiotest"
)

// figure answers these pairs of ours and theirs, one a round.
func figure(name string, bar float64, atMost bool, pairs ...[2]float64) ratio.Figure {
	return ratio.Figure{Name: name, What: "this & that", Unit: "x/s", Bar: bar, AtMost: atMost, Measure: func(_ context.Context, rounds ratio.Rounds) error {
		k := 0
		return rounds(func(context.Context) (float64, float64, error) {
			k++
			return pairs[k-1][0], pairs[k-1][1], nil
		})
	}}
}

func absent(name string) ratio.Figure {
	return ratio.Figure{Name: name, What: "a missing peer", Unit: "x/s", Bar: 1, Measure: func(context.Context, ratio.Rounds) error {
		return &ratio.NotMeasuredError{Why: "npm is missing"}
	}}
}

func TestRatiosAreTakenPerRound(t *testing.T) {
	var progress strings.Builder
	results, err := ratio.Run(t.Context(), ratio.NewProgress(&progress), 3, []ratio.Figure{
		figure("floor", 0.6, false, [2]float64{50, 100}, [2]float64{140, 200}, [2]float64{6, 10}), // 0.5, 0.7, 0.6
		figure("ceiling", 1.8, true, [2]float64{19, 10}, [2]float64{20, 10}, [2]float64{1, 1}),    // 1.9, 2, 1
		absent("peer"),
		figure("beside", 0, true, [2]float64{3, 2}, [2]float64{3, 2}, [2]float64{3, 2}),
	})
	if err != nil {
		t.Fatal(err)
	}
	report := ratio.Report{Title: "A title", Taken: time.Unix(0, 0), Took: time.Minute, Facts: []ratio.Fact{{"server", "of this test"}}, Results: results}
	var table strings.Builder
	if err := report.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	const want = `A title, 1970-01-01 00:00 UTC, took 1m0s
  server: of this test

figure   ratio  spread      bar              ours  theirs  unit  what
floor    0.60   0.50..0.70  >= 0.60  met     50    100     x/s   this & that
ceiling  1.90   1.00..2.00  <= 1.80  MISSED  19    10      x/s   this & that
peer     -      -           >= 1.00  MISSED  -     -       x/s   not measured: npm is missing (a missing peer)
beside   1.50   1.50..1.50  none             3     2       x/s   this & that

ratio: the median of the rounds' ratios; spread: the least and the greatest; ours, theirs: medians of the rounds.
bars met: 1, missed: 2
`
	if table.String() != want {
		t.Errorf("got\n%s\nwant\n%s", table.String(), want)
	}
	if !strings.Contains(progress.String(), "round 2 of 3: 0.70 (140 over 200 x/s)") {
		t.Errorf("progress:\n%s", progress.String())
	}

	dir := filepath.Join(t.TempDir(), "results")
	if err := report.Save(dir, "x"); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "x.json"))
	if err != nil {
		t.Fatal(err)
	}
	var back ratio.Report
	if err := json.Unmarshal(raw, &back); err != nil || len(back.Results) != 4 || back.Results[1].Median != 1.9 || len(back.Results[1].Rounds) != 3 {
		t.Errorf("the JSON reads back as %+v, %v", back, err)
	}
	ratiotest.Plot(t, filepath.Join(dir, "x.svg"))
}

func TestWhatIsNoRatioEndsTheRun(t *testing.T) {
	boom := errors.New("boom")
	for name, f := range map[string]ratio.Figure{
		"division by zero": figure("a", 1, false, [2]float64{1, 0}),
		"0 of 0":           figure("a", 1, false, [2]float64{0, 0}),
		"no round":         {Name: "a", Measure: func(context.Context, ratio.Rounds) error { return nil }},
		"an error":         {Name: "a", Measure: func(context.Context, ratio.Rounds) error { return boom }},
		"in a round": {Name: "a", Measure: func(_ context.Context, rounds ratio.Rounds) error {
			return rounds(func(context.Context) (float64, float64, error) { return 0, 0, boom })
		}},
	} {
		if _, err := ratio.Run(t.Context(), ratio.NewProgress(io.Discard), 1, []ratio.Figure{f}); err == nil || !strings.HasPrefix(err.Error(), "ratio: a: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMedian(t *testing.T) {
	if got := ratio.Median([]float64{3, 1, 2}); got != 2 {
		t.Errorf("of three: %g", got)
	}
	if got := ratio.Median([]time.Duration{4, 1, 2, 10}); got != 3 {
		t.Errorf("of four: %d", got)
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(100 - i)
	}
	if got := ratio.Percentile(hundred, 0.99); got != 99 {
		t.Errorf("of 100: %d", got)
	}
	if got := ratio.Percentile([]time.Duration{7}, 0.99); got != 7 {
		t.Errorf("of one: %d", got)
	}
}
