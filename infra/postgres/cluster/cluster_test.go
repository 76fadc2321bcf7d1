package cluster_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/infra/postgres/cluster"
)

func start(t *testing.T, dir string) *cluster.Cluster {
	t.Helper()
	c, err := cluster.Start(t.Context(), cluster.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func query(t *testing.T, dsn, sql string) (answer string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), sql).Scan(&answer); err != nil {
		t.Fatal(sql, err)
	}
	return answer
}

func exec(t *testing.T, dsn, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(sql, err)
	}
}

func postmaster(t *testing.T, dir string) int {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.SplitN(string(raw), "\n", 2)[0])
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// TestClusterSurvives walks one cluster through what happens to it in real life, because making one takes a second.
func TestClusterSurvives(t *testing.T) {
	// Below a folder that only its owner may enter; when run as root, the server's account cannot walk to it.
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(closed, "pg")
	// What a crash in the middle of initdb leaves.
	if err := os.MkdirAll(filepath.Join(dir, "data.new", "base"), 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.StopOrphans(context.Background(), dir); err != nil {
			t.Error(err)
		}
	})
	first := start(t, dir)
	if got := query(t, first.DSN(), "show fsync"); got != "on" {
		t.Fatalf("fsync is %s", got)
	}
	exec(t, first.DSN(), "create table kept as select 'kept'::text as v")

	t.Run("a wrong password is refused", func(t *testing.T) {
		wrong := strings.Replace(first.DSN(), "factum_admin:", "factum_admin:x", 1)
		if conn, err := pgx.Connect(t.Context(), wrong); err == nil {
			t.Fatal("logged in with a wrong password", conn.Close(t.Context()))
		}
	})
	t.Run("an orphaned server is ended and the data are there again", func(t *testing.T) {
		orphan := postmaster(t, dir)
		second := start(t, dir)
		if now := postmaster(t, dir); now == orphan {
			t.Fatal("the orphan still runs")
		}
		if got := query(t, second.DSN(), "select v from kept"); got != "kept" {
			t.Fatal(got)
		}
	})
	t.Run("a killed server leaves backends and a stale pid file", func(t *testing.T) {
		conn, err := pgx.Connect(t.Context(), first.DSN())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		if err := syscall.Kill(postmaster(t, dir), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		again := start(t, dir)
		if got := query(t, again.DSN(), "select v from kept"); got != "kept" {
			t.Fatal(got)
		}
	})
	t.Run("a pid file that names somebody else's process harms nobody", func(t *testing.T) {
		if err := cluster.StopOrphans(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		pid := strconv.Itoa(os.Getpid())
		if err := os.WriteFile(filepath.Join(dir, "data", "postmaster.pid"), []byte(pid+"\n/nowhere\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		owner, err := os.Stat(filepath.Join(dir, "data"))
		if err != nil {
			t.Fatal(err)
		}
		id := owner.Sys().(*syscall.Stat_t)
		if err := os.Chown(filepath.Join(dir, "data", "postmaster.pid"), int(id.Uid), int(id.Gid)); err != nil {
			t.Fatal(err)
		}
		again := start(t, dir)
		if got := query(t, again.DSN(), "select v from kept"); got != "kept" {
			t.Fatal(got)
		}
	})
}

func TestStartSaysWhatIsWrong(t *testing.T) {
	_, err := cluster.Start(t.Context(), cluster.Config{Dir: t.TempDir(), BinDir: "/nowhere"})
	if err == nil || !strings.Contains(err.Error(), "no PostgreSQL server in /nowhere") {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = cluster.Start(t.Context(), cluster.Config{Dir: filepath.Join(file, "pg")})
	if err == nil || !strings.Contains(err.Error(), "choose another data folder") {
		t.Fatal(err)
	}
}
