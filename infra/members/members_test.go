package members_test

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/infra/members"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func open(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool, err := postgres.Open(t.Context(), pgtest.Database(t), 8)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func join(t *testing.T, pool *pgxpool.Pool, group string) *members.Member {
	t.Helper()
	m, err := members.Join(t.Context(), pool, group, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// see waits until the member sees so many, and returns how long that took.
func see(t *testing.T, m *members.Member, want int) time.Duration {
	t.Helper()
	begun := time.Now()
	deadline := time.After(20 * time.Second)
	for {
		changed := m.Changed()
		if m.Count() == want {
			return time.Since(begun)
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("it sees %d members; want %d", m.Count(), want)
		}
	}
}

// owners counts, for each of many tenants, who says that it is his.
func owners(all ...*members.Member) (tenants []int, twice, nobody int) {
	tenants = make([]int, len(all))
	for i := range 1000 {
		found := 0
		for j, m := range all {
			if m.Mine(fmt.Sprintf("%032x", i)) {
				tenants[j]++
				found++
			}
		}
		if found > 1 {
			twice++
		}
		if found == 0 {
			nobody++
		}
	}
	return tenants, twice, nobody
}

func TestTenantsAreSpreadOverTheMembers(t *testing.T) {
	pool := open(t)
	a := join(t, pool, "g")
	defer a.Leave()
	if got, _, _ := owners(a); got[0] != 1000 {
		t.Fatal("alone it has", got)
	}
	b, c := join(t, pool, "g"), join(t, pool, "g")
	defer b.Leave()
	stranger := join(t, pool, "another group")
	defer stranger.Leave()
	for _, m := range []*members.Member{a, b, c} {
		see(t, m, 3)
	}
	got, twice, nobody := owners(a, b, c)
	if twice != 0 || nobody != 0 {
		t.Errorf("%d tenants have two owners, %d have none", twice, nobody)
	}
	for _, n := range got {
		if n < 250 || n > 420 {
			t.Errorf("the shares are %v", got)
		}
	}
	before := map[int]bool{}
	for i := range 1000 {
		before[i] = a.Mine(fmt.Sprintf("%032x", i))
	}
	c.Leave()
	for _, m := range []*members.Member{a, b} {
		if took := see(t, m, 2); took > lookBound {
			t.Errorf("an orderly leave was seen after %s", took)
		}
	}
	if got, twice, nobody := owners(a, b); twice != 0 || nobody != 0 {
		t.Errorf("after one left: %v, %d twice, %d nobody's", got, twice, nobody)
	}
	for i, mine := range before {
		if mine && !a.Mine(fmt.Sprintf("%032x", i)) {
			t.Fatal("a tenant moved between members that stayed")
		}
	}
	if stranger.Count() != 1 {
		t.Error("groups mix")
	}
}

// lookBound is how long the others may take to notice.
const lookBound = time.Second

// TestAMemberWhoseConnectionIsCut: the others see it gone, as when the process is killed, and see it again when it is back.
func TestAMemberWhoseConnectionIsCut(t *testing.T) {
	pool := open(t)
	watcher := join(t, pool, "g")
	defer watcher.Leave()
	var pids []int32
	if err := pool.QueryRow(t.Context(), `select array_agg(pid) from pg_locks where locktype = 'advisory' and objsubid = 2`).Scan(&pids); err != nil {
		t.Fatal(err)
	}
	other := join(t, pool, "g")
	defer other.Leave()
	see(t, watcher, 2)
	changed := watcher.Changed()
	begun := time.Now()
	var cut int
	err := pool.QueryRow(t.Context(), `select count(pg_terminate_backend(pid)) from pg_locks where locktype = 'advisory' and objsubid = 2
		and database = (select oid from pg_database where datname = current_database()) and not pid = any($1)`, pids).Scan(&cut)
	if err != nil || cut != 1 {
		t.Fatal(cut, err)
	}
	select {
	case <-changed:
	case <-time.After(20 * time.Second):
		t.Fatal("nobody noticed")
	}
	if took := time.Since(begun); took > lookBound {
		t.Errorf("it was noticed after %s", took)
	}
	deadline := time.After(20 * time.Second)
	for tick := time.Tick(10 * time.Millisecond); ; { // until they agree again
		got, twice, nobody := owners(watcher, other)
		if twice == 0 && nobody == 0 && got[1] > 0 {
			return
		}
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("%d tenants have two owners, %d none", twice, nobody)
		}
	}
}
