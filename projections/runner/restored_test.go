package runner_test

import (
	"sync/atomic"
	"testing"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/memstore"
	"github.com/factum-platform/factum/projections/runner"
)

// exchanged is a store whose logs can be replaced under a running process, as a restore from a backup does. Its bell stays.
type exchanged struct {
	*memstore.Store
	now atomic.Pointer[memstore.Store]
}

func (e *exchanged) Tenant(t eventstore.TenantID) eventstore.Log { return e.now.Load().Tenant(t) }

func TestALogThatIsRestoredUnderARunningProcessIsNoticed(t *testing.T) {
	for name, events := range map[string]int{
		"shorter than what was applied": 1,
		"as long":                       3,
		"grown past it since":           6,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			store := &exchanged{Store: w.store}
			store.now.Store(w.store)
			w.run(func(c *runner.Config) { c.Store = store }, sums())
			for range 2 {
				w.add("a", 1)
			}
			w.await("sums", w.add("a", 1))
			bell := w.store.Bell()
			w.store = memstore.New()
			for range events {
				w.add("b", 1)
			}
			store.now.Store(w.store)
			bell.Ring(tenant)
			awaitText(t, w, `select coalesce(max(error), '') from proj.checkpoint`, "restored from an older backup")
			if got := w.rows(); got != "a=3/3" {
				t.Fatal("it went on:", got)
			}
		})
	}
}

func TestAnArgumentThatPostgresRefusesParksWithoutQuotingIt(t *testing.T) {
	w := newWorld(t)
	p := sums()
	apply := p.Apply
	p.Apply = func(wr *runner.Writes, rec eventstore.Recorded, fact any) error {
		if fact.(added).N < 0 {
			wr.Exec(`select $1::uuid`, "ada@example.org") // stands for a value that must not be stored or logged
			return nil
		}
		return apply(wr, rec, fact)
	}
	w.add("good", 1)
	w.add("bad", -1)
	w.run(nil, p)
	w.await("sums", w.add("good", 2))
	if got := w.rows(); got != "good=3/2" {
		t.Fatal(got)
	}
	if got := w.one(`select stream_id || ' ' || error from proj.parked`); got != "bad SQLSTATE 22P02" {
		t.Fatal(got)
	}
}
