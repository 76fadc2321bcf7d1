package site

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLoadKeepsItsRateAndWaitsForItsCalls(t *testing.T) {
	window, end := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer end()
	var begun, ended atomic.Int64
	err := Load(t.Context(), window, 200, func(ctx context.Context, _ int) error {
		begun.Add(1)
		defer ended.Add(1)
		return Pass(ctx, 50*time.Millisecond) // longer than the time between two calls
	})
	if n := begun.Load(); err != nil || n == 0 || n > 61 || ended.Load() != n { // 60 fit; a busy machine may be late
		t.Errorf("%d calls, of them %d ended: %v", n, ended.Load(), err)
	}
}

func TestLoadEndsWithTheFirstError(t *testing.T) {
	boom := errors.New("boom")
	err := Load(t.Context(), t.Context(), 1000, func(_ context.Context, n int) error {
		if n == 3 {
			return boom
		}
		return nil
	})
	if !errors.Is(err, boom) {
		t.Error(err)
	}
}

func TestProcessorTimeIsThatOfTheProcess(t *testing.T) {
	before, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; { // work until the kernel has counted 50 ms of it
		for i, x := 0, 1; i < 1_000_000; i++ {
			x = x*31 + i
		}
		now, err := CPU(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if now >= before+50*time.Millisecond {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("from %v to %v only", before, now)
		}
	}
	if _, err := CPU(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a process that is not there: %v", err)
	}
}
