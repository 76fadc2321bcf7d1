package projections_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"pgregory.net/rapid"

	"github.com/factum-platform/factum/domain/document"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/file"
	"github.com/factum-platform/factum/domain/membership"
	"github.com/factum-platform/factum/domain/tenant"
	"github.com/factum-platform/factum/domain/timestamping"
	"github.com/factum-platform/factum/domain/user"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/memstore"
	"github.com/factum-platform/factum/projections/audit"
	"github.com/factum-platform/factum/projections/directory"
	"github.com/factum-platform/factum/projections/documents"
	"github.com/factum-platform/factum/projections/runner"
)

// otherLog is a second tenant's.
const otherLog = eventstore.TenantID("fedcba9876544321a123456789abcdef")

// forget begins anew with an empty log and no read models.
func (w *world) forget() {
	w.t.Helper()
	w.store = memstore.New()
	_, err := w.pool.Exec(w.t.Context(), `do $$
		declare s text;
		begin
			truncate proj.live, proj.checkpoint, proj.parked;
			for s in select nspname from pg_namespace where nspname ~ '_g[0-9]+$' loop
				execute 'drop schema ' || s || ' cascade';
			end loop;
		end $$`)
	if err != nil {
		w.t.Fatal(err)
	}
}

// rebuild builds the projection anew beside what the runner made of it.
func (w *world) rebuild(p runner.Projection, home eventstore.TenantID, opt runner.RebuildOptions) (runner.Rebuilt, error) {
	o, err := runner.NewOperator(runner.Config{
		Store: w.store, Codec: w.codec, Projections: []runner.Projection{p}, Logger: slog.New(slog.DiscardHandler),
		Pool:    func(context.Context, string) (*pgxpool.Pool, error) { return w.pool, nil },
		Tenants: func(context.Context) ([]string, error) { return []string{string(log), string(otherLog)}, nil },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return o.Rebuild(w.t.Context(), p.Name, home, opt)
}

// dump is every row of a generation, whatever their order.
func (w *world) dump(schema string) string {
	w.t.Helper()
	rows, err := w.pool.Query(w.t.Context(), `select relname::text from pg_class where relnamespace = to_regnamespace($1) and relkind = 'r' order by 1`, schema)
	if err != nil {
		w.t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		w.t.Fatal(err)
	}
	var out strings.Builder
	for _, table := range tables {
		var all string
		err := w.pool.QueryRow(w.t.Context(), `select coalesce(string_agg(t::text, e'\n' order by t::text), '') from `+schema+`.`+table+` t`).Scan(&all)
		if err != nil {
			w.t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s:\n%s\n", table, all)
	}
	return out.String()
}

// teller writes random histories that the deciders could have written, but for what they forbid and projections do not mind.
type teller struct {
	w      *world
	stored map[string]bool // files, documents and tenants that were begun
}

var (
	fileIDs = []string{fileID, "22222222-2222-4222-8222-333333333333", "22222222-2222-4222-8222-444444444444"}
	docIDs  = []string{docA, docB, "33333333-3333-4333-8333-555555555555"}
)

// tell adds a random event to a tenant's log.
func (h *teller) tell(t *rapid.T, to eventstore.TenantID) {
	f, d := rapid.SampledFrom(fileIDs).Draw(t, "file"), rapid.SampledFrom(docIDs).Draw(t, "document")
	n := rapid.IntRange(1, 5).Draw(t, "attempt")
	when := at.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "ms")) * time.Millisecond)
	once := string(to) + f
	switch rapid.IntRange(0, 10).Draw(t, "what") {
	case 0, 1:
		if !h.stored[once] {
			h.stored[once] = true
			h.w.says(to, file.Kind, f, file.Stored{FileID: f, SHA256: "a", MD5: "b", Size: int64(n), ObjectKey: "k", StoredBy: userID, At: when})
		}
	case 2:
		h.w.says(to, file.Kind, f, file.Linked{FileID: f, DocumentID: d, At: when}, file.Unlinked{FileID: f, DocumentID: d, At: when}, file.Linked{FileID: f, DocumentID: d, At: when})
	case 3:
		h.w.says(to, file.Kind, f, file.TimestampRequested{FileID: f, SHA256: "a", By: userID, At: when})
	case 4:
		h.w.says(to, file.Kind, f, file.TimestampFailed{FileID: f, Attempt: n, Reason: "down", NextAttempt: when.Add(time.Hour), At: when})
	case 5:
		h.w.says(to, file.Kind, f, file.Timestamped{FileID: f, Response: []byte{1, byte(n)}, GenTime: when, Serial: "0x1", Policy: "1.2", Algorithm: "sha256", Authority: "CN=x", Attempt: n, At: when})
	case 6:
		h.w.says(to, file.Kind, f, file.TimestampAbandoned{FileID: f, Attempt: n, Reason: "badAlg", At: when})
	case 7, 8:
		if once := string(to) + d; !h.stored[once] {
			h.stored[once] = true
			h.w.says(to, document.Kind, d, document.Uploaded{DocumentID: d, FileID: f, Filename: es.Person(rapid.StringMatching(`[a-zé]{1,8}\.pdf`).Draw(t, "name")), MimeType: "application/pdf", UploadedBy: userID, At: when})
		}
	case 9:
		h.w.says(to, document.Kind, d, document.Deleted{DocumentID: d, FileID: f, DeletedBy: userID, At: when})
	case 10:
		if rapid.Bool().Draw(t, "on") {
			h.w.says(to, timestamping.Kind, timestamping.StreamID, timestamping.Enabled{Provider: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "provider"), By: userID, At: when})
		} else {
			h.w.says(to, timestamping.Kind, timestamping.StreamID, timestamping.Disabled{By: userID, At: when})
		}
	}
}

// govern adds a random event to the platform's log.
func (h *teller) govern(t *rapid.T) {
	when := at.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "ms")) * time.Millisecond)
	id := rapid.SampledFrom([]string{tenantID, "fedcba98-7654-4321-a123-456789abcdef"}).Draw(t, "tenant")
	switch rapid.IntRange(0, 3).Draw(t, "what") {
	case 0:
		who := rapid.SampledFrom([]string{userID, docA}).Draw(t, "user")
		h.w.says(eventstore.PlatformTenant, user.Kind, who, user.Registered{UserID: who, Email: es.Person(who + "@plant.example"), FirstName: es.Person("Mina"), LastName: es.Person("O"), At: when})
	case 1:
		if !h.stored[id] {
			h.stored[id] = true
			h.w.says(eventstore.PlatformTenant, tenant.Kind, id, tenant.Created{TenantID: id, Name: "Mill", DatabaseName: "tenant_x", CreatedBy: userID, At: when})
		}
	case 2:
		if h.stored[id] {
			h.w.says(eventstore.PlatformTenant, tenant.Kind, id, tenant.Provisioned{TenantID: id, At: when})
		}
	case 3:
		h.w.says(eventstore.PlatformTenant, membership.Kind, "m"+id, membership.Granted{TenantID: id, UserID: userID, Role: rapid.SampledFrom([]string{"admin", "viewer"}).Draw(t, "role"), GrantedBy: userID, At: when})
	}
}

// TestRebuildEqualsIncremental: whatever the history and wherever the projector stopped in it, a rebuild comes to the same rows.
func TestRebuildEqualsIncremental(t *testing.T) {
	for _, c := range []struct {
		projection runner.Projection
		home       eventstore.TenantID
		logs       []eventstore.TenantID
	}{
		{documents.Projection(), log, []eventstore.TenantID{log}},
		{audit.Projection(), log, []eventstore.TenantID{log}},
		{directory.Projection(), eventstore.PlatformTenant, []eventstore.TenantID{eventstore.PlatformTenant, log, otherLog}},
	} {
		t.Run(c.projection.Name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			rapid.Check(t, func(rt *rapid.T) {
				w.forget()
				h := teller{w, map[string]bool{}}
				w.says(c.logs[len(c.logs)-1], timestamping.Kind, timestamping.StreamID, timestamping.Enabled{Provider: "a", By: userID, At: at})
				for range rapid.IntRange(1, 2).Draw(rt, "portions") {
					for range rapid.SampledFrom([]int{1, 3, 9, 40}).Draw(rt, "events") { // few and many are written in different ways
						to := rapid.SampledFrom(c.logs).Draw(rt, "log")
						if to == eventstore.PlatformTenant {
							h.govern(rt)
						} else {
							h.tell(rt, to)
						}
					}
					w.project(c.projection, c.logs...)
				}
				out, err := w.rebuild(c.projection, c.home, runner.RebuildOptions{Parallel: 2})
				if err != nil || !out.Compared.Same() || out.Compared.Skipped != "" {
					rt.Fatalf("%+v, %v", out, err)
				}
				was := w.dump(fmt.Sprintf("%s_g%d", c.projection.Name, out.Previous))
				is := w.dump(fmt.Sprintf("%s_g%d", c.projection.Name, out.Generation))
				if was != is {
					rt.Fatalf("incremental\n%s\nrebuilt\n%s", was, is)
				}
			})
		})
	}
}
