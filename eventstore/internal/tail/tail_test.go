package tail_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/internal/tail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPause(t *testing.T) {
	for failures := range 100 {
		most := 5 * time.Second
		if failures < 5 {
			most = 200 * time.Millisecond << failures
		}
		if p := tail.Pause(failures); p < 100*time.Millisecond || p > most {
			t.Errorf("after %d failures %s; want 100ms to %s", failures, p, most)
		}
	}
}

// A transient failure costs a pause, not an event; a terminal one ends the following.
func TestFailures(t *testing.T) {
	transient, terminal := errors.New("transient"), errors.New("terminal")
	answers := []error{transient, nil, transient, nil, terminal}
	var asked []eventstore.Position
	s := tail.Source{
		Tenant: "a", Bell: &eventstore.Bell{}, Closed: context.Background(),
		Page: func(_ context.Context, after eventstore.Position) (eventstore.Batch, error) {
			asked = append(asked, after)
			return eventstore.Batch{Events: make([]eventstore.Recorded, 1), Through: after + 1}, answers[len(asked)-1]
		},
		Transient: func(err error) bool { return errors.Is(err, transient) },
	}
	var through []eventstore.Position
	var last error
	for b, err := range s.Follow(t.Context(), 5) {
		if last = err; err == nil {
			through = append(through, b.Through)
		}
	}
	if !errors.Is(last, terminal) || len(through) != 2 || through[0] != 6 || through[1] != 7 {
		t.Errorf("batches through %v, ended with %v; want 6, 7 and the terminal error", through, last)
	}
	if want := []eventstore.Position{5, 5, 6, 6, 7}; len(asked) != 5 || asked[1] != want[1] || asked[3] != want[3] || asked[4] != want[4] {
		t.Errorf("asked after %v; want %v", asked, want)
	}
}
