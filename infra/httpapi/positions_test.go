package httpapi

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
	"github.com/factum-platform/factum/infra/readmodel"
)

// readable is a server over a database with two generations of the directory, of which the first is live.
func readable(t *testing.T) (*Server, *pgxpool.Pool) {
	t.Helper()
	sql := `-- +goose Up
create schema proj;
create table proj.live (projection text primary key, generation int not null);
create table proj.checkpoint (projection text, generation int, tenant text, position bigint, primary key (projection, generation, tenant));
insert into proj.live values ('directory', 1);
insert into proj.checkpoint values ('directory', 1, 'platform', 5), ('directory', 2, 'platform', 6);
create schema directory_g1;
create table directory_g1.numbers as select 1 as n;
create schema directory_g2;
create table directory_g2.numbers as select 2 as n;
`
	pool, err := postgres.Open(t.Context(), pgtest.Database(t, postgres.Migrations{Name: "readtest", FS: fstest.MapFS{"00001_proj.sql": {Data: []byte(sql)}}}), 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return New(Config{Platform: pool}), pool
}

func TestAReadIsBegunAnewWhenWhatItReadIsGone(t *testing.T) {
	for name, c := range map[string]struct {
		strike string // what another session does once the read has begun
		want   int
	}{
		"its generation was dropped": {`update proj.live set generation = 2; drop schema directory_g1 cascade`, 2},
		"its connection was lost": {`select pg_terminate_backend(pid) from pg_stat_activity
			where datname = current_database() and state = 'idle in transaction' and pid <> pg_backend_pid()`, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s, pool := readable(t)
			calls, got := 0, 0
			read := func(tx readmodel.Tx, schema string) error {
				if calls++; calls == 1 {
					if _, err := pool.Exec(t.Context(), c.strike); err != nil {
						t.Fatal(err)
					}
				}
				return tx.QueryRow(t.Context(), `select n from `+schema+`.numbers`).Scan(&got)
			}
			if _, err := s.Read(t.Context(), Directory(), 0, read); err != nil || got != c.want || calls != 2 {
				t.Errorf("read %d in %d calls, %v; want %d in 2", got, calls, err, c.want)
			}
		})
	}
}

func TestAReadIsNotBegunAnewForEver(t *testing.T) {
	s, _ := readable(t)
	for sql, want := range map[string]int{`select n from gone`: 3, `select 1 / 0`: 1} {
		calls := 0
		_, err := s.Read(t.Context(), Directory(), 0, func(tx readmodel.Tx, _ string) error {
			calls++
			var n int
			return tx.QueryRow(t.Context(), sql).Scan(&n)
		})
		if err == nil || calls != want {
			t.Errorf("%s: %v after %d calls; want %d", sql, err, calls, want)
		}
	}
}

func TestAMissingReadModelIsTold(t *testing.T) {
	s, pool := readable(t)
	if _, err := pool.Exec(t.Context(), `delete from proj.live`); err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 1)
	s.c.Unbuilt = func(tenant string) { // stands for the projector that hears of it
		if _, err := pool.Exec(t.Context(), `insert into proj.live values ('directory', 2) on conflict do nothing`); err != nil {
			t.Error(err)
		}
		told <- tenant
	}
	at, err := s.Read(t.Context(), Directory(), 0, func(readmodel.Tx, string) error { return nil })
	if err != nil || at.Position != "6" {
		t.Error(at, err)
	}
	if got := <-told; !strings.Contains(got, "platform") {
		t.Error("told of", got)
	}
}
