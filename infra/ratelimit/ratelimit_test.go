package ratelimit

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func pool(t *testing.T) *pgxpool.Pool {
	t.Helper()
	p, err := postgres.Open(t.Context(), pgtest.Database(t, postgres.Migrations{Name: "ratelimit", FS: Migrations()}), 8)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func mac(_ context.Context, scope, value string) ([]byte, error) {
	return []byte(scope + ":" + value), nil
}

func take(t *testing.T, l *Limiter, q Quota) Verdict {
	t.Helper()
	v, err := l.Take(t.Context(), "user", "mina", q)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestProcessesShareAQuota(t *testing.T) {
	p, q := pool(t), Quota{60, 10 * time.Minute} // one token in 10 s: none comes back during the test
	processes := []*Limiter{New(Config{Pool: p, MAC: mac}), New(Config{Pool: p, MAC: mac}), New(Config{Pool: p, MAC: mac})}
	var admitted atomic.Int64
	var group sync.WaitGroup
	for i := range 9 {
		group.Go(func() {
			for range 40 {
				if v, err := processes[i%3].Take(t.Context(), "user", "mina", q); err != nil {
					t.Error(err)
				} else if v.Admitted {
					admitted.Add(1)
				}
			}
		})
	}
	group.Wait()
	if n := admitted.Load(); n != 60 {
		t.Errorf("%d of 360 requests were admitted; want 60, all of the quota and no more", n)
	}
	for i, l := range processes {
		v := take(t, l, q)
		if v.Admitted || v.Remaining != 0 || v.After <= 0 || v.After > 10*time.Second || v.Reset < 9*time.Minute || v.Reset > 10*time.Minute {
			t.Errorf("process %d: %+v", i, v)
		}
	}
	if v, err := processes[0].Take(t.Context(), "user", "noor", q); err != nil || !v.Admitted {
		t.Errorf("somebody else: %+v, %v", v, err)
	}
	if v, err := processes[0].Take(t.Context(), "tenant", "mina", q); err != nil || !v.Admitted {
		t.Errorf("another scope: %+v, %v", v, err)
	}
}

func TestTokensComeBack(t *testing.T) {
	p, q := pool(t), Quota{20, time.Minute}
	l := New(Config{Pool: p, MAC: mac})
	for i := range 20 {
		if v := take(t, l, q); !v.Admitted || v.Remaining != 19-i {
			t.Fatalf("request %d: %+v", i+1, v)
		}
	}
	if v := take(t, l, q); v.Admitted {
		t.Fatal("21 of 20 were admitted")
	}
	// A third of a minute goes by: seven tokens, of which the first was due after 3 s.
	if _, err := p.Exec(t.Context(), `update ratelimit.buckets set used_until = used_until - interval '21 s'`); err != nil {
		t.Fatal(err)
	}
	fresh := New(Config{Pool: p, MAC: mac})
	for i := range 7 {
		if v := take(t, fresh, q); !v.Admitted {
			t.Fatalf("request %d after 21 s: %+v", i+1, v)
		}
	}
	if v := take(t, fresh, q); v.Admitted || v.After <= 0 || v.After > 3*time.Second {
		t.Errorf("the eighth: %+v", v)
	}
}

// TestALeaseSavesRoundTrips counts how often the database is asked.
func TestALeaseSavesRoundTrips(t *testing.T) {
	p, q := pool(t), Quota{2000, time.Hour}
	asked := 0
	l := New(Config{Pool: p, MAC: func(ctx context.Context, scope, value string) ([]byte, error) {
		asked++
		return mac(ctx, scope, value)
	}})
	for range 1000 {
		if v := take(t, l, q); !v.Admitted {
			t.Fatal("refused")
		}
	}
	if asked > 13 { // 20 + 40 + 80 and then 100 at a time
		t.Errorf("the database was asked %d times for 1,000 requests", asked)
	}
}

func TestALeaseThatIsNotSpentIsLostAndTheNextIsSmaller(t *testing.T) {
	p, q := pool(t), Quota{400, time.Minute}
	now := time.Now()
	l := New(Config{Pool: p, MAC: mac, Now: func() time.Time { return now }})
	for range 40 { // leases of 4, 8, 16 and 20
		take(t, l, q)
	}
	now = now.Add(q.Window/leaseShare + time.Second)
	take(t, l, q)
	var granted int
	if err := p.QueryRow(t.Context(), `select granted from ratelimit.buckets`).Scan(&granted); err != nil {
		t.Fatal(err)
	}
	if granted != 12 { // as many as were spent of the last one
		t.Errorf("a lease of %d tokens; want 12", granted)
	}
}

func TestFullBucketsAndIdleClientsAreForgotten(t *testing.T) {
	p, q := pool(t), Quota{100, time.Hour}
	now := time.Now()
	l := New(Config{Pool: p, MAC: mac, Now: func() time.Time { return now }})
	take(t, l, q)
	l.sweepAt, now = 1, now.Add(time.Hour)
	if _, err := l.Take(t.Context(), "user", "noor", q); err != nil {
		t.Fatal(err)
	}
	if len(l.clients) != 1 {
		t.Errorf("%d clients are remembered; want 1", len(l.clients))
	}
	if _, err := p.Exec(t.Context(), `update ratelimit.buckets set used_until = now() - interval '1 s' where key = 'user:mina'`); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := p.QueryRow(t.Context(), `select count(*) from ratelimit.buckets`).Scan(&left); err != nil || left != 1 {
		t.Errorf("%d buckets, %v; want 1", left, err)
	}
}

func TestAQuotaIsRead(t *testing.T) {
	for in, want := range map[string]Quota{"off": {}, "600/1m": {600, time.Minute}, "1/1s": {1, time.Second}, "100000/1h": {100000, time.Hour}} {
		var q Quota
		if err := q.UnmarshalText([]byte(in)); err != nil || q != want || (in == "off") != q.Off() {
			t.Errorf("%s: %+v, %v", in, q, err)
		}
	}
	for _, in := range []string{"", "600", "600/", "0/1m", "-1/1m", "1/1ms", "1/1500ms", "1/25h", "x/1m", "100001/1s"} {
		if err := new(Quota).UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%q was accepted", in)
		}
	}
}
