package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/riverqueue/river"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/tenants"
	"github.com/factum-platform/factum/projections/runner"
)

// dropperFunc is a [Dropper].
type dropperFunc func(projection string, t eventstore.TenantID, generation int, age time.Duration) (bool, error)

func (f dropperFunc) DropRetired(_ context.Context, projection string, t eventstore.TenantID, generation int, age time.Duration) (bool, error) {
	return f(projection, t, generation, age)
}

func TestDropJob(t *testing.T) {
	broken := errors.New("the server is away")
	for name, tc := range map[string]struct {
		dropped bool
		err     error
		want    func(error) bool
	}{
		"dropped":            {true, nil, func(err error) bool { return err == nil }},
		"live again":         {false, nil, func(err error) bool { return err == nil }},
		"the tenant is gone": {false, fmt.Errorf("reach: %w", tenants.ErrUnknownTenant), func(err error) bool { return err == nil }},
		"a failure":          {false, broken, func(err error) bool { return errors.Is(err, broken) }},
		"too early": {false, &runner.TooEarlyError{Until: time.Now().Add(time.Hour), Reason: "r"}, func(err error) bool {
			var snooze *river.JobSnoozeError
			return errors.As(err, &snooze) && snooze.Duration > 59*time.Minute && snooze.Duration <= time.Hour
		}},
		"too early, and the time has passed": {false, &runner.TooEarlyError{Until: time.Now().Add(-time.Hour), Reason: "r"}, func(err error) bool {
			var snooze *river.JobSnoozeError
			return errors.As(err, &snooze) && snooze.Duration == time.Second
		}},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			w := &dropWorker{log: slog.New(slog.DiscardHandler), dropper: dropperFunc(func(projection string, of eventstore.TenantID, generation int, age time.Duration) (bool, error) {
				calls++
				if projection != "documents" || of != "t1" || generation != 7 || age != 24*time.Hour {
					t.Error(projection, of, generation, age)
				}
				return tc.dropped, tc.err
			})}
			if err := w.Work(t.Context(), &river.Job[dropOrder]{Args: dropOrder{"documents", "t1", 7}}); !tc.want(err) || calls != 1 {
				t.Fatal(err, calls)
			}
		})
	}
}
