package ratio_test

import (
	"context"
	"flag"
	"io"
	"strings"
	"testing"

	"github.com/factum-platform/factum/bench/ratio"
	"github.com/factum-platform/factum/bench/ratio/ratiotest"
)

type sizes struct{ clients int }

// command is a bench that measures nothing: its figures are taken on the number of clients.
func command() *ratio.Command[sizes, int] {
	constant := func(name string) ratio.Choice[int] {
		return ratio.Choice[int]{Name: name, Figure: func(clients int) ratio.Figure {
			pair := [2]float64{float64(clients), 1}
			return figure(name, 1, false, pair, pair)
		}}
	}
	return &ratio.Command[sizes, int]{
		Name: "none", Title: "A title", Files: "the JSON", Wants: "flags only, at least one round and one client", Rounds: 2,
		Full: sizes{clients: 64}, Quick: sizes{clients: 2},
		Flags:   func(s *sizes, flags *flag.FlagSet) { flags.IntVar(&s.clients, "clients", s.clients, "at once") },
		Usable:  func(s *sizes) bool { return s.clients > 0 },
		Figures: []ratio.Choice[int]{constant("a"), constant("b"), constant("c")},
		Measure: func(_ context.Context, s sizes, told ratio.Told, take func(int) error) ([]ratio.Fact, error) {
			told.Say("start", "with %d clients", s.clients)
			return []ratio.Fact{{Name: "server", Value: "none"}}, take(s.clients)
		},
	}
}

func TestACommandIsQuickOnlyWhenAsked(t *testing.T) {
	for args, want := range map[string]string{
		"":                       "a=64 a=64 b=64 b=64 c=64 c=64",
		"--quick --rounds 1":     "a=2 b=2 c=2",
		"--rounds 1 -quick=true": "a=2 b=2 c=2",
		"-rounds=1 --quick=0":    "a=64 b=64 c=64",
		"--only c,a --clients 7": "a=7 a=7 c=7 c=7",
		"--clients 5 --quick":    "a=5 a=5 b=5 b=5 c=5 c=5",
	} {
		var progress strings.Builder
		if err := command().Start(t.Context(), append(strings.Fields(args), "--out", t.TempDir()), io.Discard, &progress); err != nil {
			t.Fatal(args, err)
		}
		var got []string
		for line := range strings.Lines(progress.String()) {
			if before, after, ok := strings.Cut(line, " over 1 x/s)"); ok && after == "\n" {
				got = append(got, strings.Fields(before)[2]+"="+before[strings.LastIndex(before, "(")+1:])
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s measured %v; want %s\n%s", args, got, want, progress.String())
		}
	}
}

func TestACommandSavesAndPrintsWhatItMeasured(t *testing.T) {
	_, results := ratiotest.Run(t, command())
	for _, r := range results {
		ratiotest.Measured(t, r, false)
	}
}

func TestACommandNamesWhatItWants(t *testing.T) {
	for want, args := range map[string]string{
		"want flags only, at least one round and one client; see --help": "--clients 0",
		"flags only":                       "a",
		"at least one round":               "--rounds 0",
		`no figure "x"; there are a, b, c`: "--only a,x",
	} {
		if err := command().Start(t.Context(), strings.Fields(args), io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", args, err, want)
		}
	}
}
