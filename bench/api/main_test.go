package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/factum-platform/factum/bench/ratio"
	"github.com/factum-platform/factum/infra/devstack"
)

func TestMain(m *testing.M) {
	if devstack.RunChild() || runBare() {
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
	raw, err := os.ReadFile(filepath.Join(out, "api.json"))
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
		if r.NotMeasured != "" || len(r.Rounds) != 1 || r.Median <= 0 || math.IsInf(r.Median, 0) || r.Rounds[0].Theirs <= 0 {
			t.Errorf("%+v is no ratio", r)
		}
	}
	plot, err := os.Open(filepath.Join(out, "api.svg"))
	if err != nil {
		t.Fatal(err)
	}
	defer plot.Close()
	for decoder := xml.NewDecoder(plot); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestWrongFlagsAreNamed(t *testing.T) {
	for want, args := range map[string][]string{
		`there is no figure "x"; there are list, `: {"--only", "login,x"},
		"at least one round":                       {"--rounds", "0"},
		"want flags only":                          {"login"},
		"one upload":                               {"--uploads", "0"},
		"give a folder on a disk with --dir":       {"--dir", filepath.Join(t.TempDir(), "absent")},
	} {
		if err := start(t.Context(), args, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v; want %s", args, err, want)
		}
	}
}

// serve answers every second request with the status, and the others with 200.
func serve(t *testing.T, status int, header string) string {
	t.Helper()
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1)%2 == 0 {
			if header != "" {
				w.Header().Set(header, "1")
			}
			w.WriteHeader(status)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestALoadTakesNothingButSuccessesAndRefusals(t *testing.T) {
	l := load{clients: 3, window: 150 * time.Millisecond, calls: []call{{method: http.MethodGet, path: "/"}}, refused: true}
	l.base = serve(t, http.StatusServiceUnavailable, "Retry-After")
	got, err := l.run(t.Context())
	if err != nil || got.refused == 0 || len(got.times) == 0 || got.perSecond != float64(len(got.times))/0.15 {
		t.Errorf("%d refused, %d answered, %g/s: %v", got.refused, len(got.times), got.perSecond, err)
	}
	l.refused = false
	if _, err := l.run(t.Context()); err == nil {
		t.Error("a refusal that was not allowed is no error")
	}
	l.refused = true
	for status, header := range map[int]string{http.StatusServiceUnavailable: "", http.StatusTooManyRequests: "Retry-After", http.StatusUnauthorized: ""} {
		l.base = serve(t, status, header)
		if _, err := l.run(t.Context()); err == nil || !strings.Contains(err.Error(), fmt.Sprint(status)) {
			t.Errorf("%d with header %q: %v", status, header, err)
		}
	}
}
