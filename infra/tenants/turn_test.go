package tenants_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/infra/tenants"
)

func turnOf(t *testing.T, d *tenants.Databases, tenant string) *tenants.Turn {
	t.Helper()
	turn, err := d.Turn(t.Context(), tenant)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := turn.End(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return turn
}

// TestAFenceIsDecidedOnce: of those who want to switch under a fence, to withdraw it, or to open the log because its time is up, one wins.
func TestAFenceIsDecidedOnce(t *testing.T) {
	cleanUp(t, []string{name("tenant_fence")}, []string{tenantA})
	d, pool := open(t, nil)
	provision(t, d, tenantA, name("tenant_fence"))
	at := tenants.Place{Server: "main", Database: name("tenant_fence")}
	turn := turnOf(t, d, tenantA)
	if _, err := d.Turn(t.Context(), tenantA); !errors.Is(err, tenants.ErrTurn) {
		t.Error("two have the turn:", err)
	}
	fence := func() [16]byte {
		t.Helper()
		id, err := turn.Fence(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	abandoned := func(id [16]byte, want bool) {
		t.Helper()
		if got, err := d.Abandoned(t.Context(), tenantA, at, id); err != nil || got != want {
			t.Fatalf("abandoned: %v, %v; want %v", got, err, want)
		}
	}
	expire := func() {
		t.Helper()
		if _, err := connect(t, pool.Config().ConnString()).Exec(t.Context(), `update placement.fences set until = now() - interval '1 s'`); err != nil {
			t.Fatal(err)
		}
	}

	id := fence()
	abandoned(id, false)
	if decided, err := turn.Withdraw(t.Context(), id); err != nil || decided {
		t.Fatal(decided, err)
	}
	abandoned(id, true)
	if err := turn.Retire(t.Context(), id, at); !errors.Is(err, tenants.ErrFence) {
		t.Fatal("decided after it was withdrawn:", err)
	}

	id = fence()
	expire()
	if err := turn.Retire(t.Context(), id, at); !errors.Is(err, tenants.ErrFence) {
		t.Fatal("decided after its time:", err)
	}
	abandoned(id, true)

	id, old := fence(), id
	abandoned(old, true) // another fence is not its
	abandoned(id, false)
	if err := turn.Retire(t.Context(), id, tenants.Place{Server: "main", Database: "elsewhere"}); err == nil || !strings.Contains(err.Error(), "does not lie at main/elsewhere") {
		t.Fatal(err)
	}
	if err := turn.Retire(t.Context(), id, at); err != nil {
		t.Fatal(err)
	}
	abandoned(id, false) // it lies nowhere
	if decided, err := turn.Withdraw(t.Context(), id); err != nil || !decided {
		t.Fatal(decided, err)
	}
	abandoned(id, false)
}

// TestADatabaseIsRetiredAndComesBack: out of service nobody connects to it as its tenant; it is taken into service again, or dropped when its
// time has come, and not before.
func TestADatabaseIsRetiredAndComesBack(t *testing.T) {
	cleanUp(t, []string{name("tenant_gone")}, []string{tenantA})
	d, pool := open(t, nil)
	provision(t, d, tenantA, name("tenant_gone"))
	p, err := d.Pool(t.Context(), tenantA)
	if err != nil {
		t.Fatal(err)
	}
	held, err := p.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := tenants.Place{Server: "main", Database: name("tenant_gone")}
	turn := turnOf(t, d, tenantA)
	retire := func() {
		t.Helper()
		id, err := turn.Fence(t.Context())
		if err == nil {
			err = turn.Retire(t.Context(), id, at)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	retire()
	d.Forget(tenantA)
	if _, err := d.Pool(t.Context(), tenantA); !errors.Is(err, tenants.ErrUnknownTenant) {
		t.Fatal("it is served:", err)
	}
	if err := held.Ping(t.Context()); err != nil {
		t.Fatal("a session was ended too early:", err)
	}
	for range 2 {
		if err := d.Shut(t.Context(), at); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() bool { return held.Ping(t.Context()) != nil })
	held.Release()
	if err := p.Ping(t.Context()); err == nil {
		t.Fatal("the role still connects")
	}
	if dropped, err := d.Tidy(t.Context()); err != nil || len(dropped) != 0 {
		t.Fatal("dropped before its time:", dropped, err)
	}
	opened := 0
	for _, want := range []bool{true, false} {
		there, err := turn.Reinstate(t.Context(), func(ctx context.Context, admin *pgx.Conn) error {
			opened++
			return admin.Ping(ctx)
		})
		if err != nil || there != want || opened != 1 {
			t.Fatal(there, opened, err)
		}
	}
	if p, err = d.Pool(t.Context(), tenantA); err != nil {
		t.Fatal(err)
	}
	if err := p.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	retire()
	kept, err := d.Retired(t.Context(), tenantA)
	if err != nil || len(kept) != 1 || kept[0].Why != "deleted" || time.Until(kept[0].DropAt) < 23*time.Hour {
		t.Fatal(kept, err)
	}
	if _, err := connect(t, pool.Config().ConnString()).Exec(t.Context(), `update placement.retired set drop_at = now()`); err != nil {
		t.Fatal(err)
	}
	dropped, err := d.Tidy(t.Context())
	if err != nil || len(dropped) != 1 || dropped[0].Place != at {
		t.Fatal(dropped, err)
	}
	var left int
	err = pool.QueryRow(t.Context(), `select (select count(*) from pg_database where datname = $1) + (select count(*) from pg_roles where rolname = $2)`, name("tenant_gone"), "factum_t_"+tenantA).Scan(&left)
	if err != nil || left != 0 {
		t.Fatal("something is left:", left, err)
	}
	if err := d.Drop(t.Context(), at); err != nil {
		t.Fatal("dropping it again:", err)
	}
}
