package pgstore_test

import (
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"reflect"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/postgres/cluster"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
)

// A tenant leaves: its log is exported with PostgreSQL's own tools, opens elsewhere with all that was in it, and is dropped, while
// another tenant goes on writing.
func TestATenantsLogIsExportedAndDropped(t *testing.T) {
	bin, err := cluster.FindBinaries(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath(filepath.Join(bin, "pg_dump")); err != nil {
		t.Skip("no pg_dump beside the server:", err) // the download from Maven Central has none; Debian's package does
	}
	d := newDatabases(t)
	s := d.open(nil)
	staying := s.Tenant("beta")
	first := one("0", "first", eventstore.NoStream())
	if _, err := staying.Append(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() {
		for n := 1; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := staying.Append(t.Context(), one(fmt.Sprint("other ", n), fmt.Sprint(n), eventstore.NoStream())); err != nil {
				t.Errorf("the tenant that stays: %v", err)
				return
			}
		}
	})
	defer others.Wait()
	defer close(stop)

	leaving := s.Tenant("alpha")
	claimed := one("1", "a", eventstore.NoStream())
	claimed.Claims = []eventstore.Claim{{Scope: "name", Key: "\xff"}}
	for _, w := range []eventstore.Write{claimed, one("2", "a", eventstore.At(1)), one("3", "b", eventstore.NoStream())} {
		if _, err := leaving.Append(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	before := contents(t, leaving)
	home := d.pools["alpha"].Config().ConnConfig.Database
	dsn := pgtest.AdminDSN(t)
	dump := filepath.Join(t.TempDir(), "alpha.dump")
	run(t, bin, "pg_dump", "--format=custom", "--file="+dump, "--dbname="+withDatabase(t, dsn, home))
	elsewhere := pgtest.Database(t)
	run(t, bin, "pg_restore", "--exit-on-error", "--dbname="+elsewhere, dump)

	pool, err := pgxpool.New(t.Context(), elsewhere+"&role="+d.role)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	d.pools["alpha"].Close()
	d.pools["alpha"] = pool // where the tenant is from now on
	admin, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(t.Context())
	for _, sql := range []string{"drop database " + home, "create database " + home} { // the test's clean-up expects one of that name
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if after := contents(t, leaving); !reflect.DeepEqual(after, before) {
		t.Errorf("elsewhere the log holds %+v; want %+v", after, before)
	}
	if out, err := leaving.Append(t.Context(), one("4", "a", eventstore.At(2))); err != nil || out[0].Position != 4 {
		t.Errorf("the next append elsewhere: %+v, %v; want position 4", out, err)
	}
}

// contents is all that a log holds.
func contents(t *testing.T, l eventstore.Log) (all []any) {
	t.Helper()
	page, err := l.Page(t.Context(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range page.Events {
		all = append(all, rec)
	}
	for held, err := range l.Claims(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, held)
	}
	return all
}

func run(t *testing.T, bin, program string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), filepath.Join(bin, program), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

func withDatabase(t *testing.T, dsn, name string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}
