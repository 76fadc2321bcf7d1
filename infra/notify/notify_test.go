package notify_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/infra/notify"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// hear opens a hub on the database and returns what it hears.
func hear(t *testing.T, dsn string) (*notify.Hub, *pgxpool.Pool, chan notify.Hint) {
	t.Helper()
	pool, err := postgres.Open(t.Context(), dsn, 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	heard := make(chan notify.Hint, 10_000)
	h := notify.Open(pool, slog.New(slog.DiscardHandler), map[string]func(notify.Hint){"news": func(hint notify.Hint) { heard <- hint }})
	t.Cleanup(h.Close)
	within(t, h.Ready())
	return h, pool, heard
}

func within[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing comes")
	}
	return v
}

func TestProcessesHearEachOther(t *testing.T) {
	dsn := pgtest.Database(t)
	a, pool, atA := hear(t, dsn)
	_, _, atB := hear(t, dsn)
	a.Send("other", notify.Hint{Key: "k"})
	a.Send("news", notify.Hint{Key: "k", Value: "1 and 2"})
	for _, heard := range []chan notify.Hint{atA, atB} {
		if got := within(t, heard); got != (notify.Hint{Key: "k", Value: "1 and 2"}) {
			t.Error("heard", got)
		}
	}
	if err := notify.Send(t.Context(), pool, "news", notify.Hint{Key: "only"}); err != nil {
		t.Fatal(err)
	}
	if got := within(t, atB); got != (notify.Hint{Key: "only"}) {
		t.Error("heard", got)
	}
}

func TestManyHintsAreAllHeardAndTheLastOfAKeyIs(t *testing.T) {
	dsn := pgtest.Database(t)
	a, _, _ := hear(t, dsn)
	_, _, heard := hear(t, dsn)
	long := strings.Repeat("x", 300)
	for round := range 3 {
		for i := range 500 {
			a.Send("news", notify.Hint{Key: fmt.Sprint(long, i), Value: fmt.Sprint(round)})
		}
	}
	last := map[string]string{}
	for full := 0; full < 500; {
		hint := within(t, heard)
		last[hint.Key] = hint.Value
		full = 0
		for _, v := range last {
			if v == "2" {
				full++
			}
		}
	}
}

func TestACutConnectionIsOpenedAgain(t *testing.T) {
	dsn := pgtest.Database(t)
	h, pool, heard := hear(t, dsn)
	cut := func() (n int) {
		t.Helper()
		err := pool.QueryRow(t.Context(), `select count(pg_terminate_backend(pid)) from pg_stat_activity
			where datname = current_database() and query like 'listen %'`).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := cut(); n != 1 {
		t.Fatal("connections that listen:", n)
	}
	deadline := time.After(20 * time.Second)
	for tick := time.Tick(20 * time.Millisecond); ; {
		h.Send("news", notify.Hint{Key: "again"})
		select {
		case <-heard:
			return
		case <-tick:
		case <-deadline:
			t.Fatal("it stays deaf")
		}
	}
}
