package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/factum-platform/factum/eventstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func next(t *testing.T, l *eventstore.Listener) eventstore.TenantID {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	tenant, err := l.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return tenant
}

func quiet(t *testing.T, l *eventstore.Listener) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if tenant, err := l.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("heard %q, %v; want silence", tenant, err)
	}
}

func TestBellCoalescesInTheOrderOfFirstRings(t *testing.T) {
	var bell eventstore.Bell
	bell.Ring("early") // nobody listens
	l := bell.Listen()
	defer l.Close()
	quiet(t, l)
	for _, tenant := range []eventstore.TenantID{"b", "a", "b", "c", "a"} {
		bell.Ring(tenant)
	}
	for _, want := range []eventstore.TenantID{"b", "a", "c"} {
		if got := next(t, l); got != want {
			t.Errorf("heard %q; want %q", got, want)
		}
	}
	quiet(t, l)
	bell.Ring("b") // again, after it was heard
	if got := next(t, l); got != "b" {
		t.Errorf("heard %q; want b", got)
	}
}

func TestBellReachesEveryListener(t *testing.T) {
	var bell eventstore.Bell
	one, two := bell.Listen(), bell.Listen()
	defer two.Close()
	bell.Ring("a")
	if next(t, one) != "a" || next(t, two) != "a" {
		t.Error("a listener did not hear the ring")
	}
	one.Close()
	bell.Ring("b")
	quiet(t, one)
	if next(t, two) != "b" {
		t.Error("the other listener did not hear the ring")
	}
}

func TestBellLosesNoRingOfManyGoroutines(t *testing.T) {
	var bell eventstore.Bell
	l := bell.Listen()
	defer l.Close()
	var ringers sync.WaitGroup
	for i := range 8 {
		ringers.Go(func() {
			for j := range 50 {
				bell.Ring(eventstore.TenantID(fmt.Sprintf("t%dx%d", i, j)))
			}
		})
	}
	heard := map[eventstore.TenantID]bool{}
	for len(heard) < 400 {
		heard[next(t, l)] = true
	}
	ringers.Wait()
	quiet(t, l)
}
