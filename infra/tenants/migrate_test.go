package tenants_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/cluster"
	"github.com/factum-platform/factum/infra/tenants"
)

// The files of the set "notes" as binaries grow.
var files = []string{
	"create table notes (v text);\ngrant select, insert on notes to factum_tenant;",
	"alter table notes add column at timestamptz;",
	"create table half (v text);\ncreate unique index notes_v on notes (v);", // fails where two notes are the same
	"-- +goose NO TRANSACTION\n-- +goose Up\ncreate table left_behind (v text);\nselect 1/0;",
}

// binary is a set of migrations up to a version; min is the oldest that it works with.
func binary(version int, min int64) []postgres.Migrations {
	out := fstest.MapFS{}
	for i, sql := range files[:version] {
		if !strings.Contains(sql, "+goose Up") {
			sql = "-- +goose Up\n" + sql
		}
		out[fmt.Sprintf("%05d_notes.sql", i+1)] = &fstest.MapFile{Data: []byte(sql + "\n")}
	}
	return []postgres.Migrations{{Name: "notes", FS: out, Min: min}}
}

// fleet is a platform on a server of its own, whose binaries come and go.
type fleet struct {
	t   *testing.T
	c   *cluster.Cluster
	dsn string
	key string
}

func newFleet(t *testing.T) *fleet {
	c := second(t)
	return &fleet{t, c, platformOn(t, c), t.TempDir() + "/kek.json"}
}

func (f *fleet) binary(version int, min int64) *tenants.Databases {
	f.t.Helper()
	d, _ := openOn(f.t, f.dsn, f.key, func(c *tenants.Config) { c.TenantMigrations = binary(version, min) })
	return d
}

// run migrates and returns the results by tenant, in order.
func (f *fleet) run(d *tenants.Databases, opt tenants.MigrateOptions) (tenants.MigrationRun, []tenants.MigratedSchema, error) {
	f.t.Helper()
	var results []tenants.MigratedSchema
	opt.Done = func(r tenants.MigratedSchema) { results = append(results, r) }
	run, err := d.Migrate(f.t.Context(), opt)
	return run, results, err
}

func (f *fleet) provision(d *tenants.Databases, n int) (list []string) {
	f.t.Helper()
	for i := range n {
		list = append(list, fmt.Sprintf("t%d", i))
		provision(f.t, d, list[i], fmt.Sprintf("tenant_%d", i))
	}
	return list
}

func use(t *testing.T, d *tenants.Databases, tenant string) error {
	t.Helper()
	pool, err := d.Pool(t.Context(), tenant)
	if err == nil {
		_, err = pool.Exec(t.Context(), `insert into notes (v) values ('of ' || $1)`, tenant)
	}
	return err
}

func (f *fleet) version(d *tenants.Databases, tenant string) int64 {
	f.t.Helper()
	p, err := d.Placement(f.t.Context(), tenant)
	if err != nil {
		f.t.Fatal(err)
	}
	conn, err := d.Admin(f.t.Context(), p.Server, p.Database)
	if err != nil {
		f.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	found, err := postgres.Versions(f.t.Context(), conn, binary(1, 0)...)
	if err != nil {
		f.t.Fatal(err)
	}
	if noted := p.Schema["notes"]; noted != found["notes"] {
		f.t.Errorf("%s is noted to have version %d and has %d", tenant, noted, found["notes"])
	}
	return found["notes"]
}

func TestMigrateWhileOthersServe(t *testing.T) {
	f, other := newFleet(t), second(t)
	old := f.binary(1, 1)
	if err := old.AddServer(t.Context(), "east", other.DSN()); err != nil {
		t.Fatal(err)
	}
	list := f.provision(old, 6)
	for _, tenant := range list {
		if err := use(t, old, tenant); err != nil {
			t.Fatal(err)
		}
	}

	// A newer binary that needs version 2 refuses them and names the remedy.
	next := f.binary(2, 2)
	var schema *tenants.SchemaError
	if err := use(t, next, list[0]); !errors.As(err, &schema) || !schema.Older() || !strings.Contains(schema.Detail(), "factum tenants migrate") {
		t.Fatal(err)
	}
	if err := next.Provision(t.Context(), "n1", "tenant_n1"); !errors.As(err, &schema) {
		t.Fatal("a tenant was made from a template that this binary does not work with:", err)
	}
	if waiting, refused, err := next.Waiting(t.Context()); err != nil || waiting != 6 || refused != 6 {
		t.Fatal(waiting, refused, err)
	}
	dry, results, err := f.run(next, tenants.MigrateOptions{DryRun: true})
	if err != nil || dry.Migrated != 8 || dry.Failed != 0 || len(results) != 8 || f.version(old, list[0]) != 1 {
		t.Fatalf("%+v %+v %v", dry, results, err)
	}
	for _, r := range results {
		if r.Result != tenants.ResultWould || r.From["notes"] != 1 || r.To["notes"] != 2 {
			t.Fatalf("%+v", r)
		}
	}

	// The old binary serves all the while, and is told.
	running, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	refusals := make(chan error, 1)
	wg.Go(func() {
		for i := 0; running.Err() == nil; i++ {
			var newer *tenants.SchemaError
			if err := use(t, old, list[i%len(list)]); err != nil && !errors.As(err, &newer) {
				refusals <- err
				return
			}
		}
	})
	run, results, err := f.run(next, tenants.MigrateOptions{Canaries: 1, Parallel: 3, Binary: "v2"})
	stop()
	wg.Wait()
	select {
	case err := <-refusals:
		t.Error("while tenants were migrated:", err)
	default:
	}
	if err != nil || run.Migrated != 8 || run.Failed != 0 || run.Current != 0 {
		t.Fatalf("%+v %+v %v", run, results, err)
	}
	if results[0].Tenant != "" || results[1].Tenant != "" || results[2].Tenant != list[0] {
		t.Fatalf("templates, then the canary: %+v", results)
	}
	for _, tenant := range list {
		if v := f.version(next, tenant); v != 2 {
			t.Fatal(tenant, v)
		}
		if err := use(t, next, tenant); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool {
			err := use(t, old, tenant)
			return errors.As(err, &schema) && !schema.Older() && strings.Contains(schema.Detail(), "deploy the newer binary")
		})
	}
	if err := next.Provision(t.Context(), "n1", "tenant_n1"); err != nil || f.version(next, "n1") != 2 {
		t.Fatal("a new tenant is not up to date:", err)
	}

	// Again: nothing to do.
	again, results, err := f.run(next, tenants.MigrateOptions{Canaries: 1})
	if err != nil || again.Migrated != 0 || again.Current != 9 || len(results) != 2 {
		t.Fatalf("%+v %+v %v", again, results, err)
	}
	runs, err := next.MigrationRuns(t.Context(), 10)
	if err != nil || len(runs) != 2 || runs[1].ID != run.ID || runs[1].Migrated != 8 || runs[1].Binary != "v2" {
		t.Fatalf("%+v %v", runs, err)
	}
	kept, err := next.MigrationResults(t.Context(), run.ID)
	if err != nil || len(kept) != 8 || kept[2].Tenant != list[0] || kept[2].From["notes"] != 1 || kept[2].To["notes"] != 2 {
		t.Fatalf("%+v %v", kept, err)
	}
}

func TestAMigrationThatFailsStopsOnlyItself(t *testing.T) {
	f := newFleet(t)
	list := f.provision(f.binary(1, 0), 4)
	next := f.binary(3, 0)
	for range 2 { // t2 cannot have the unique index
		if err := use(t, next, list[2]); err != nil {
			t.Fatal(err)
		}
	}
	run, results, err := f.run(next, tenants.MigrateOptions{Canaries: 1, Parallel: 2})
	if err != nil || run.Migrated != 4 || run.Failed != 1 {
		t.Fatalf("%+v %+v %v", run, results, err)
	}
	at := slices.IndexFunc(results, func(r tenants.MigratedSchema) bool { return r.Tenant == list[2] })
	bad := results[at]
	for _, want := range []string{"00003_notes.sql", "SQLSTATE 23505", "notes_v", "rolled back", "stays at notes 2"} {
		if !strings.Contains(bad.Error, want) {
			t.Errorf("%q is missing in %q", want, bad.Error)
		}
	}
	if strings.Contains(bad.Error, "of t2") {
		t.Error("it tells what the rows hold:", bad.Error)
	}
	if v := f.version(next, list[2]); v != 2 || bad.From["notes"] != 1 || bad.To["notes"] != 2 {
		t.Fatalf("%d %+v", v, bad)
	}
	admin, err := next.Admin(t.Context(), "main", "tenant_2")
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	var half bool
	if err := admin.QueryRow(t.Context(), `select to_regclass('half') is not null`).Scan(&half); err != nil || half {
		t.Fatal("the failed file left something", err)
	}
	if _, err := admin.Exec(t.Context(), `delete from notes`); err != nil {
		t.Fatal(err)
	}
	run, results, err = f.run(next, tenants.MigrateOptions{Tenants: []string{list[2]}})
	if err != nil || run.Migrated != 1 || len(results) != 1 || f.version(next, list[2]) != 3 {
		t.Fatalf("%+v %+v %v", run, results, err)
	}
	if _, _, err := f.run(next, tenants.MigrateOptions{Tenants: []string{"nobody"}}); !errors.Is(err, tenants.ErrUnknownTenant) {
		t.Fatal(err)
	}
}

func TestACanaryThatFailsStopsTheRun(t *testing.T) {
	f := newFleet(t)
	list := f.provision(f.binary(1, 0), 3)
	next := f.binary(3, 0)
	for range 2 {
		if err := use(t, next, list[0]); err != nil {
			t.Fatal(err)
		}
	}
	run, results, err := f.run(next, tenants.MigrateOptions{Canaries: 1, Parallel: 2})
	var canary *tenants.CanaryError
	if !errors.As(err, &canary) || canary.Left != 2 || run.Failed != 1 || len(results) != 2 || f.version(next, list[1]) != 1 {
		t.Fatalf("%+v %+v %v", run, results, err)
	}
	// A file without a transaction leaves what it did, and that is said. The template meets it first.
	run, results, err = f.run(f.binary(4, 0), tenants.MigrateOptions{})
	if err == nil || !strings.Contains(err.Error(), "tenants were left as they are") || run.Failed != 1 || f.version(next, list[1]) != 1 {
		t.Fatalf("%+v %+v %v", run, results, err)
	}
	if !strings.Contains(results[0].Error, "without a transaction, so a part of it may be in place") {
		t.Fatal(results[0].Error)
	}
}

func TestMigrationsWaitBrieflyForLocksAndTryAgain(t *testing.T) {
	f := newFleet(t)
	list := f.provision(f.binary(1, 0), 1)
	next := f.binary(2, 0)
	admin, err := next.Admin(t.Context(), "main", "tenant_0")
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	busy, err := admin.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := busy.Exec(t.Context(), `lock table notes in access share mode`); err != nil {
		t.Fatal(err)
	}
	type outcome struct {
		run tenants.MigrationRun
		err error
	}
	ended := make(chan outcome, 1)
	go func() {
		run, err := next.Migrate(t.Context(), tenants.MigrateOptions{})
		ended <- outcome{run, err}
	}()
	watcher := connect(t, f.c.DSN())
	waits := func() (n int) {
		if err := watcher.QueryRow(t.Context(), `select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like 'alter table notes%'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	eventually(t, func() bool { return waits() == 1 })
	if _, err := f.binary(2, 0).Migrate(t.Context(), tenants.MigrateOptions{}); !errors.Is(err, tenants.ErrMigrating) {
		t.Fatal("a second run beside the first:", err)
	}
	eventually(t, func() bool { return waits() == 0 }) // it gave up for a while, so that others are not held up
	if err := busy.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := <-ended; out.err != nil || out.run.Failed != 0 || out.run.Migrated != 2 || f.version(next, list[0]) != 2 {
		t.Fatalf("%+v", out)
	}
}

func TestAMigrationMayBeStoppedAndRepeated(t *testing.T) {
	f := newFleet(t)
	list := f.provision(f.binary(1, 0), 4)
	next := f.binary(2, 0)
	ctx, stop := context.WithCancel(t.Context())
	run, err := next.Migrate(ctx, tenants.MigrateOptions{Done: func(r tenants.MigratedSchema) {
		if r.Tenant == list[1] {
			stop()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("%+v %v", run, err)
	}
	run, results, err := f.run(next, tenants.MigrateOptions{})
	if err != nil || run.Failed != 0 || run.Migrated == 0 || run.Migrated > 3 {
		t.Fatalf("%+v %+v %v", run, results, err)
	}
	for _, tenant := range list {
		if v := f.version(next, tenant); v != 2 {
			t.Fatal(tenant, v)
		}
	}
}

// TestATenantOfAnEarlierReleaseIsLookedInto has databases whose versions nobody noted.
func TestATenantOfAnEarlierReleaseIsLookedInto(t *testing.T) {
	f := newFleet(t)
	old := f.binary(1, 0)
	list := f.provision(old, 2)
	exec(t, f.dsn, `update placement.databases set schema = '{}'`)
	eventually(t, func() bool { return use(t, old, list[0]) == nil })
	if p, err := old.Placement(t.Context(), list[0]); err != nil || p.Schema["notes"] != 1 {
		t.Fatal(p, err)
	}
	next := f.binary(2, 2)
	var schema *tenants.SchemaError
	if err := use(t, next, list[1]); !errors.As(err, &schema) || schema.Have != 1 {
		t.Fatal(err)
	}
	exec(t, f.dsn, `update placement.databases set schema = '{}'; comment on database factum_tenant_template is null`)
	if run, results, err := f.run(next, tenants.MigrateOptions{}); err != nil || run.Migrated != 3 || run.Failed != 0 {
		t.Fatalf("%+v %+v %v", run, results, err)
	}
}
