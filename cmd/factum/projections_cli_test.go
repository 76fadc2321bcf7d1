package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/commands/rest"
)

// projections runs factum projections beside the platform and returns what it says.
func (s *site) projections(t *testing.T, code int, args ...string) string {
	t.Helper()
	all := append([]string{"projections"}, args...)
	return launchFactum(t, append(all, "--database-url="+s.flags["database-url"], "--keyring="+s.flags["keyring"])...).ended(t, code)
}

// in runs SQL in a tenant's database, as the administrator.
func (s *site) in(tenant, sql string) (out string) {
	s.t.Helper()
	config, err := pgx.ParseConfig(s.platform())
	must(s.t, err)
	platform, err := pgx.ConnectConfig(s.t.Context(), config)
	must(s.t, err)
	defer platform.Close(context.Background())
	must(s.t, platform.QueryRow(s.t.Context(), `select database from placement.databases where tenant = $1`, shortID(tenant)).Scan(&config.Database))
	conn, err := pgx.ConnectConfig(s.t.Context(), config)
	must(s.t, err)
	defer conn.Close(context.Background())
	rows, err := conn.Query(s.t.Context(), sql)
	must(s.t, err)
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(s.t, err)
	return strings.Join(list, " ")
}

// listed is the live generation of a consumer, as list --json shows it, once it is as it should be.
func (s *site) listed(t *testing.T, projection, tenant string, want func(rest.Consumer) bool) rest.Consumer {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		var list []rest.Consumer
		must(t, json.Unmarshal([]byte(s.projections(t, 0, "list", projection, "--tenant="+tenant, "--json")), &list))
		for _, c := range list {
			if c.State != "retired" && c.State != "building" && want(c) {
				return c
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the consumer is %+v", list)
		}
	}
}

// TestProjections does what operators do, beside a running platform.
func TestProjections(t *testing.T) {
	s := newSite(t)
	_, info := s.start(t)
	c, tenant := tenantClient(t, info)
	upload := func(n int) acknowledged {
		t.Helper()
		up, err := uploadOne(t.Context(), c.base, c.token, tenant, n)
		must(t, err)
		return up
	}
	for n := range 5 {
		awaitStamped(t, c, tenant, upload(n).file)
	}
	before := everything(t, c, tenant)

	t.Run("list", func(t *testing.T) {
		out := s.projections(t, 0, "list")
		for _, want := range []string{"PROJECTION", "documents     " + shortID(tenant), "directory     platform", "timestamping  platform", "running"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
		if out := s.projections(t, 0, "list", "--problems"); !strings.HasPrefix(out, "No problems") {
			t.Error(out)
		}
	})
	t.Run("rebuild", func(t *testing.T) {
		for _, args := range [][]string{{"documents", "--tenant=" + tenant}, {"audit", "--all", "--parallel=3"}, {"directory"}} {
			out := s.projections(t, 0, append([]string{"rebuild"}, args...)...)
			if !strings.Contains(out, " live ") || !strings.Contains(out, "rows, same") || !strings.Contains(out, "1, kept for a day") {
				t.Errorf("%v: %s", args, out)
			}
		}
		if jobs := s.count(`select count(*) from river.river_job where kind = 'projections.drop' and state = 'scheduled' and scheduled_at > now() + interval '23 hours'`); jobs != 3 {
			t.Errorf("%d removals are scheduled; want 3", jobs)
		}
		awaitEverything(t, c, tenant, before)
		if got := s.in(tenant, `select projection || generation || state from proj.checkpoint order by 1`); got != "audit1retired audit2live documents1retired documents2live" {
			t.Error(got)
		}
	})
	t.Run("drop at once", func(t *testing.T) {
		if out := s.projections(t, 0, "rebuild", "audit", "--all", "--drop-old"); !strings.Contains(out, "2, dropped") {
			t.Error(out)
		}
		if got := s.in(tenant, `select nspname::text from pg_namespace where nspname like 'audit%' order by 1`); got != "audit_g1 audit_g3" {
			t.Error(got)
		}
	})
	t.Run("rollback", func(t *testing.T) {
		if out := s.projections(t, 0, "rollback", "documents", "--tenant="+tenant); !strings.Contains(out, "2, kept for a day") {
			t.Error(out)
		}
		awaitEverything(t, c, tenant, before)
		s.listed(t, "documents", tenant, func(c rest.Consumer) bool { return c.Generation == 1 && c.State == "running" })
	})
	t.Run("rows that differ", func(t *testing.T) {
		s.in(tenant, `update documents_g1.files set file_size = 77`)
		out := s.projections(t, 1, "rebuild", "documents", "--all")
		if !strings.Contains(out, "failed") || !strings.Contains(out, "table files has 5 rows in both, but not with the same values") || !strings.Contains(out, "1 of 1 failed") {
			t.Error(out)
		}
		if out := s.projections(t, 0, "rebuild", "documents", "--all", "--accept-differences"); !strings.Contains(out, "different: files") {
			t.Error(out)
		}
		awaitEverything(t, c, tenant, before)
	})
	t.Run("pause and resume", func(t *testing.T) {
		if out := s.projections(t, 0, "pause", "documents", "--tenant="+tenant); !strings.Contains(out, "paused") {
			t.Error(out)
		}
		up := upload(100)
		c := s.listed(t, "documents", tenant, func(c rest.Consumer) bool { return c.State == "paused" && c.LagEvents > 0 })
		if c.PausedBy != operatorActor || c.PausedAt == nil {
			t.Errorf("%+v", c)
		}
		if out := s.projections(t, 0, "list", "--problems"); !strings.Contains(out, "paused") || strings.Contains(out, "audit") {
			t.Error(out)
		}
		s.projections(t, 0, "resume", "documents", "--tenant="+tenant)
		s.listed(t, "documents", tenant, func(c rest.Consumer) bool { return c.State == "running" && c.LagEvents == 0 })
		if got := s.in(tenant, `select count(*)::text from documents_g3.documents where id = '`+up.document+`'`); got != "1" {
			t.Error(got)
		}
	})
	t.Run("parked, retried and skipped", func(t *testing.T) {
		generation := s.in(tenant, `select 'documents_g' || generation from proj.live where projection = 'documents'`)
		s.in(tenant, `alter table `+generation+`.documents add constraint broken check (mime_type <> 'text/plain') not valid`)
		upload(200)
		upload(201)
		parked := s.listed(t, "documents", tenant, func(c rest.Consumer) bool { return len(c.Parked) == 2 }).Parked
		if parked[0].Error != "SQLSTATE 23514, table documents, constraint broken" || parked[0].Attempts != 1 {
			t.Errorf("%+v", parked)
		}
		if out := s.projections(t, 0, "list", "--problems"); !strings.Contains(out, "parked: documents of "+shortID(tenant)+": stream "+parked[0].Stream) {
			t.Error(out)
		}
		if out := s.projections(t, 1, "retry", "documents", "--tenant="+tenant, "--all"); !strings.Contains(out, "2 of 2 streams could not be applied") {
			t.Error(out)
		}
		for range 2 { // skipping twice is no mistake
			out := s.projections(t, 0, "skip", "documents", "--tenant="+tenant, "--stream="+parked[0].Stream, "--event="+parked[0].Event, "--reason=a test broke it")
			if !strings.Contains(out, "passes over event "+parked[0].Event) {
				t.Error(out)
			}
		}
		s.in(tenant, `alter table `+generation+`.documents drop constraint broken`)
		if out := s.projections(t, 0, "retry", "documents", "--tenant="+tenant, "--stream="+parked[1].Stream); !strings.Contains(out, "applied") {
			t.Error(out)
		}
		s.listed(t, "documents", tenant, func(c rest.Consumer) bool { return len(c.Parked) == 0 && c.LagEvents == 0 })
		// A rebuild passes over the same event, and so comes to the same rows.
		if out := s.projections(t, 0, "rebuild", "documents", "--all"); !strings.Contains(out, "rows, same") {
			t.Error(out)
		}
		if got := s.in(tenant, `select count(*)::text from `+s.in(tenant, `select 'documents_g' || generation from proj.live where projection = 'documents'`)+`.documents`); got != "7" {
			t.Errorf("%s documents; want 5, and one that was paused, and one that was retried", got)
		}
		if got := s.in(tenant, `select type from es.events where kind = 'projection'`); got != "projection.event_skipped" {
			t.Error(got)
		}
	})
	t.Run("dropped after a day", func(t *testing.T) {
		s.in(tenant, `update proj.checkpoint set retired_at = retired_at - interval '25 hours' where state = 'retired'`)
		s.exec(`update river.river_job set scheduled_at = now() where kind = 'projections.drop'`)
		want := "audit1dropped audit2dropped audit3live documents1dropped documents2dropped documents3dropped documents4live"
		deadline := time.Now().Add(30 * time.Second)
		for got := ""; got != want; {
			if time.Now().After(deadline) {
				t.Fatal(got)
			}
			got = s.in(tenant, `select projection || generation || state from proj.checkpoint order by 1`)
		}
		if got := s.in(tenant, `select nspname::text from pg_namespace where nspname ~ '_g[0-9]' order by 1`); got != "audit_g3 documents_g4" {
			t.Error(got)
		}
		if out := s.projections(t, 1, "rollback", "documents", "--all"); !strings.Contains(out, "kept for a day") {
			t.Error(out)
		}
	})
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no such projection":       {[]string{"rebuild", "document", "--all"}, `there is no projection "document"; there are audit, directory, documents, inviting, timestamping`},
		"no such tenant":           {[]string{"rebuild", "documents", "--tenant=nobody"}, "there is no tenant nobody here; there are " + shortID(tenant)},
		"neither all nor a tenant": {[]string{"rebuild", "documents"}, "--tenant ID, which may be repeated, or --all"},
		"both":                     {[]string{"pause", "documents", "--all", "--tenant=" + tenant}, "not both"},
		"a tenant of the whole":    {[]string{"rebuild", "directory", "--tenant=" + tenant}, "rebuilt as a whole"},
		"the platform's documents": {[]string{"rebuild", "documents", "--tenant=platform"}, "there is no tenant platform here"},
		"a saga":                   {[]string{"rebuild", "timestamping"}, "is a saga and is never rebuilt"},
		"nothing at once":          {[]string{"rollback", "directory", "--parallel=0"}, "--parallel must be 1 to 50"},
		"not parked":               {[]string{"retry", "documents", "--tenant=" + tenant, "--stream=file-x"}, "has not parked the stream file-x"},
		"no stream":                {[]string{"retry", "documents", "--tenant=" + tenant, "--stream=x"}, "is not a stream"},
		"one or all":               {[]string{"retry", "documents", "--tenant=" + tenant}, "either --stream KIND-ID or --all"},
		"an event that is none":    {[]string{"skip", "documents", "--tenant=" + tenant, "--stream=file-x", "--event=1", "--reason=r"}, "is not the id of an event"},
		"an unknown event":         {[]string{"skip", "documents", "--tenant=" + tenant, "--stream=file-x", "--event=0f3c1a5e-0000-4000-8000-000000000000", "--reason=r"}, "The log holds no event"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if out := s.projections(t, 1, tc.args...); !strings.Contains(out, tc.want) {
				t.Fatal(out)
			}
		})
	}
}

// TestARebuildThatIsStoppedGoesOn ends the command in the middle by its signals and by -9.
func TestARebuildThatIsStoppedGoesOn(t *testing.T) {
	s := newSite(t)
	_, info := s.start(t)
	c, tenant := tenantClient(t, info)
	up, err := uploadOne(t.Context(), c.base, c.token, tenant, 1)
	must(t, err)
	awaitStamped(t, c, tenant, up.file)
	before := everything(t, c, tenant)
	// A lock on the checkpoint of a new generation holds a rebuild up as long as we like.
	for i, end := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		config, err := pgx.ParseConfig(s.platform())
		must(t, err)
		config.Database = s.in(tenant, `select current_database()::text`)
		gate, err := pgx.ConnectConfig(t.Context(), config)
		must(t, err)
		_, err = gate.Exec(t.Context(), `begin; lock table proj.live in access exclusive mode`)
		must(t, err)
		halted := launchFactum(t, "projections", "rebuild", "documents", "--all", "--database-url="+s.flags["database-url"], "--keyring="+s.flags["keyring"])
		deadline := time.Now().Add(20 * time.Second)
		for s.in(tenant, `select count(*)::text from pg_locks where relation = 'proj.live'::regclass and not granted`) == "0" {
			if time.Now().After(deadline) {
				t.Fatal("it does not begin:", halted.output)
			}
		}
		code := halted.kill(end)
		must(t, gate.Close(context.Background()))
		if code == 0 || (end != syscall.SIGKILL && !strings.Contains(halted.output.String(), "the same command goes on where this one ended")) {
			t.Fatal(code, halted.output)
		}
		if out := s.projections(t, 0, "rebuild", "documents", "--all"); !strings.Contains(out, fmt.Sprintf("%d, kept for a day", i+1)) {
			t.Fatal(out)
		}
	}
	awaitEverything(t, c, tenant, before)
}

func TestSettingsFromADataFolder(t *testing.T) {
	dir := t.TempDir()
	c := operated{Data: dir}
	if err := c.fromData(); err == nil || !strings.Contains(err.Error(), "no 'factum dev' has run on this folder") {
		t.Fatal(err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "dev.json"), []byte(`{"database_url":"postgres://a@127.0.0.1:1/factum"}`), 0o600))
	must(t, c.fromData())
	if c.DatabaseURL != "postgres://a@127.0.0.1:1/factum" || c.Keyring != filepath.Join(dir, "keyring.json") {
		t.Fatalf("%+v", c)
	}
}
