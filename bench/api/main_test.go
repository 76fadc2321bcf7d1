package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/factum-platform/factum/bench/ratio/ratiotest"
	"github.com/factum-platform/factum/infra/devstack"
)

func TestMain(m *testing.M) {
	if devstack.RunChild() || runBare() {
		return
	}
	goleak.VerifyTestMain(m)
}

// TestEverythingCanBeMeasured runs the bench with tiny sizes. It asserts no bar.
func TestEverythingCanBeMeasured(t *testing.T) {
	_, results := ratiotest.Run(t, &command)
	for _, r := range results {
		ratiotest.Measured(t, r, false)
	}
}

func TestWrongFlagsAreNamed(t *testing.T) {
	ratiotest.WrongFlags(t, &command, map[string][]string{"one upload": {"--uploads", "0"}})
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
