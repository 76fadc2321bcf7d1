package storetest

import (
	"context"
	"slices"
	"testing"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/memstore"
)

// careless is an engine with a fault.
type careless struct {
	*memstore.Store
	fault string
}

func (c careless) Tenant(t eventstore.TenantID) eventstore.Log {
	return carelessLog{c.Store.Tenant(t), c.fault}
}

type carelessLog struct {
	eventstore.Log
	fault string
}

func (l carelessLog) Append(ctx context.Context, writes ...eventstore.Write) ([]eventstore.Appended, error) {
	writes = slices.Clone(writes)
	for i := range writes {
		if v, exact := writes[i].Expected.Exact(); exact && v > 0 && l.fault == "expected versions are not checked" {
			writes[i].Expected = eventstore.StreamExists()
		}
		if l.fault == "claims are forgotten" {
			writes[i].Claims = nil
		}
	}
	out, err := l.Log.Append(ctx, writes...)
	if err == nil && l.fault == "versions are wrong" {
		out[0].Version++
	}
	return out, err
}

func (l carelessLog) Page(ctx context.Context, after eventstore.Position, limit int) (eventstore.Batch, error) {
	b, err := l.Log.Page(ctx, after, limit)
	if n := len(b.Events); n > 1 && l.fault == "an event is skipped" {
		b.Events = slices.Delete(b.Events, n-2, n-1)
	}
	return b, err
}

// TestConcurrentCatchesFaults proves that the concurrent model test can fail.
func TestConcurrentCatchesFaults(t *testing.T) {
	plans := make([][]step, 6)
	for i := range plans {
		for n := range 8 {
			plans[i] = append(plans[i], step{Streams: []int{0, 1 + n%3}, Events: 1 + n%2, Expected: n % 5, Claim: n % 4, Give: n > 5})
		}
	}
	for _, fault := range []string{"", "expected versions are not checked", "claims are forgotten", "versions are wrong", "an event is skipped"} {
		var err error
		for try := 0; try < 100 && err == nil; try++ { // what happens depends on who is faster
			model, engine := memstore.New(), careless{memstore.New(), fault}
			err = concurrently(t.Context(), model, engine, plans)
			if closeErr := model.Close(); closeErr != nil {
				t.Fatal(closeErr)
			}
			if closeErr := engine.Close(); closeErr != nil {
				t.Fatal(closeErr)
			}
		}
		if (err != nil) != (fault != "") {
			t.Errorf("fault %q: %v", fault, err)
		}
	}
}
