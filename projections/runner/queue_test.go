package runner

import (
	"fmt"
	"testing"

	"github.com/factum-platform/factum/eventstore"
)

// TestServersAreForgivenWhenTheirTenantsAreDone: also when the tenant's server is not known any more by then.
func TestServersAreForgivenWhenTheirTenantsAreDone(t *testing.T) {
	known := true
	q := newQueue(func(string) string {
		if known {
			return "s"
		}
		return ""
	})
	take := func() eventstore.TenantID {
		t.Helper()
		id, _, ok := q.take()
		if !ok {
			t.Fatal("closed")
		}
		return id
	}
	for i := range stuckServer {
		q.add(eventstore.TenantID(fmt.Sprint("t", i)), rung)
	}
	var taken []eventstore.TenantID
	for range stuckServer {
		id := take()
		if !q.linger(id) {
			t.Fatal("there is room to linger")
		}
		taken = append(taken, id)
	}
	q.add("other", rung)
	if q.working != 0 || q.lingers != stuckServer || !q.isSlow("other") {
		t.Fatalf("working %d, lingering %d; the server is slow: %v", q.working, q.lingers, q.isSlow("other"))
	}
	known = false
	for _, id := range taken {
		q.done(id, false, true)
	}
	known = true
	if q.isSlow("other") || q.lingers != 0 || len(q.stuck) != 0 || len(q.slow) != 0 {
		t.Errorf("what is left: lingering %d, stuck %v, slow %v", q.lingers, q.stuck, q.slow)
	}
	if id := take(); id != "other" || q.working != 1 {
		t.Error(id, q.working)
	}
	q.done("other", true, true)
	if id := take(); id != "other" {
		t.Error("a tenant that is still dirty is not queued again")
	}
}
