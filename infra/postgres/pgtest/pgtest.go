// Package pgtest gives tests a real PostgreSQL: one private cluster for all test processes of a run, a fresh database for each
// test. It works with a plain "go test ./...": the first process starts the cluster, the last one stops it, and what a killed
// process left is cleaned up by the next. fsync is off: these databases are thrown away.
package pgtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/cluster"
)

// setUpTimeout bounds the start of the cluster and the making of a template.
const setUpTimeout = 2 * time.Minute

// shared is this process's hold on the cluster.
var shared struct {
	sync.Mutex
	dsn   string
	users *os.File // holds the shared lock as long as this process uses the cluster
	admin *pgx.Conn
}

// Main is the body of TestMain for packages that use PostgreSQL: it runs the tests, lets go of the cluster and fails when
// goroutines are left.
func Main(m *testing.M) {
	code := m.Run()
	if err := release(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		code = 1
	}
	if code == 0 {
		// fasthttp keeps the time for the header Date in a goroutine that never ends.
		if err := goleak.Find(goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1")); err != nil {
			fmt.Fprintln(os.Stderr, "pgtest: goroutines were left running:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// AdminDSN returns the superuser's DSN of the cluster's database postgres.
func AdminDSN(t testing.TB) string {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if err := acquire(); err != nil {
		t.Fatal("pgtest:", err)
	}
	return shared.dsn
}

// Database returns the superuser's DSN of a fresh database with the migrations applied. It is dropped, connections and all, when
// the test ends. Each distinct list of migrations is run once and then copied.
func Database(t testing.TB, sets ...postgres.Migrations) string {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if err := acquire(); err != nil {
		t.Fatal("pgtest:", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), setUpTimeout)
	defer cancel()
	template, err := ensureTemplate(ctx, sets)
	if err != nil {
		t.Fatal("pgtest:", err)
	}
	name := "t_" + randomHex()
	if _, err := shared.admin.Exec(ctx, "create database "+name+" template "+template); err != nil {
		t.Fatal("pgtest: create database:", err)
	}
	t.Cleanup(func() {
		shared.Lock()
		defer shared.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), setUpTimeout)
		defer cancel()
		if _, err := shared.admin.Exec(ctx, "drop database "+name+" with (force)"); err != nil {
			t.Error("pgtest: drop database:", err)
		}
	})
	return inDatabase(shared.dsn, name)
}

// acquire connects to the run's cluster, which is started if nobody has. The caller holds shared's lock.
func acquire() error {
	if shared.admin != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), setUpTimeout)
	defer cancel()
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("factum-pgtest-%d", os.Geteuid()))
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	turn, err := lockFile(filepath.Join(dir, "turn.lock"), syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer turn.Close() // closing releases the lock
	users, err := lockFile(filepath.Join(dir, "users.lock"), syscall.LOCK_SH)
	if err != nil {
		return err
	}
	dsn, err := running(ctx, dir)
	if err != nil {
		return errors.Join(err, users.Close())
	}
	admin, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return errors.Join(err, users.Close())
	}
	shared.dsn, shared.users, shared.admin = dsn, users, admin
	return nil
}

// running returns the DSN of the cluster in dir, which is started if it does not answer.
func running(ctx context.Context, dir string) (string, error) {
	note := filepath.Join(dir, "dsn")
	raw, err := os.ReadFile(note)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err == nil && cluster.Ping(ctx, string(raw)) == nil {
		return string(raw), nil
	}
	c, err := cluster.Start(ctx, cluster.Config{Dir: dir, Outlive: true, Settings: map[string]string{
		"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_wal_size": "4GB", "log_min_messages": "fatal",
	}})
	if err != nil {
		return "", err
	}
	if err := dropLeftovers(ctx, c.DSN()); err != nil {
		return "", err
	}
	return c.DSN(), os.WriteFile(note, []byte(c.DSN()), 0o600)
}

// dropLeftovers removes the databases and login roles of tests that were killed.
func dropLeftovers(ctx context.Context, dsn string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `select datname from pg_database where not datistemplate and datname <> 'postgres' and datname not like 'tpl\_%'`)
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := conn.Exec(ctx, "drop database "+pgx.Identifier{name}.Sanitize()+" with (force)"); err != nil {
			return err
		}
	}
	return nil
}

// release lets go of the cluster and stops it when no other process uses it.
func release() error {
	shared.Lock()
	defer shared.Unlock()
	if shared.admin == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), setUpTimeout)
	defer cancel()
	dir := filepath.Dir(shared.users.Name())
	turn, err := lockFile(filepath.Join(dir, "turn.lock"), syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer turn.Close()
	err = errors.Join(shared.admin.Close(ctx), shared.users.Close())
	shared.admin = nil
	last, lockErr := lockFile(filepath.Join(dir, "users.lock"), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(lockErr, syscall.EWOULDBLOCK) {
		return err // others go on
	}
	if lockErr != nil {
		return errors.Join(err, lockErr)
	}
	return errors.Join(err, cluster.StopOrphans(ctx, dir), last.Close())
}

// ensureTemplate returns the database that holds the migrations and nothing else. The caller holds shared's lock; other
// processes are kept out by an advisory lock.
func ensureTemplate(ctx context.Context, sets []postgres.Migrations) (name string, err error) {
	if len(sets) == 0 {
		return "template0", nil
	}
	hash := sha256.New()
	for _, set := range sets {
		fmt.Fprintf(hash, "set %s\n", set.Name)
		err := fs.WalkDir(set.FS, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			raw, err := fs.ReadFile(set.FS, path)
			fmt.Fprintf(hash, "file %s %d\n%s", path, len(raw), raw)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	name = "tpl_" + hex.EncodeToString(hash.Sum(nil)[:8])
	const key = 7001
	if _, err := shared.admin.Exec(ctx, "select pg_advisory_lock($1)", key); err != nil {
		return "", err
	}
	defer func() {
		_, unlockErr := shared.admin.Exec(ctx, "select pg_advisory_unlock($1)", key)
		err = errors.Join(err, unlockErr)
	}()
	var exists bool
	if err := shared.admin.QueryRow(ctx, "select exists (select from pg_database where datname = $1)", name).Scan(&exists); err != nil || exists {
		return name, err
	}
	// It gets its name when it is complete.
	half := "half_" + randomHex()
	if _, err := shared.admin.Exec(ctx, "create database "+half); err != nil {
		return "", err
	}
	if err := postgres.Migrate(ctx, inDatabase(shared.dsn, half), sets...); err != nil {
		_, dropErr := shared.admin.Exec(ctx, "drop database "+half+" with (force)")
		return "", errors.Join(err, dropErr)
	}
	_, err = shared.admin.Exec(ctx, "alter database "+half+" rename to "+name)
	return name, err
}

func inDatabase(dsn, name string) string {
	u, err := url.Parse(dsn)
	if err != nil {
		panic("pgtest: the cluster's DSN is not a URL")
	}
	u.Path = "/" + name
	return u.String()
}

func lockFile(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func randomHex() string {
	var b [8]byte
	rand.Read(b[:]) // never fails (Go 1.24)
	return strings.ToLower(hex.EncodeToString(b[:]))
}
