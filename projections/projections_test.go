// Package projections_test holds the read models to the rows that facts must lead to, in whatever order the logs are met.
package projections_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/domain"
	"github.com/factum-platform/factum/domain/document"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/file"
	"github.com/factum-platform/factum/domain/membership"
	"github.com/factum-platform/factum/domain/tenant"
	"github.com/factum-platform/factum/domain/timestamping"
	"github.com/factum-platform/factum/domain/user"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/memstore"
	"github.com/factum-platform/factum/eventstore/seal"
	"github.com/factum-platform/factum/infra/fulltext"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
	"github.com/factum-platform/factum/infra/readmodel"
	"github.com/factum-platform/factum/projections/audit"
	"github.com/factum-platform/factum/projections/directory"
	"github.com/factum-platform/factum/projections/documents"
	"github.com/factum-platform/factum/projections/runner"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	tenantID = "01234567-89ab-4def-8123-456789abcdef"
	log      = eventstore.TenantID("0123456789ab4def8123456789abcdef")
	userID   = "11111111-1111-4111-8111-111111111111"
	fileID   = "22222222-2222-4222-8222-222222222222"
	docA     = "33333333-3333-4333-8333-333333333333"
	docB     = "44444444-4444-4444-8444-444444444444"
)

var at = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

type world struct {
	t      *testing.T
	store  *memstore.Store
	codec  *seal.Codec
	pool   *pgxpool.Pool
	waiter *readmodel.Waiter
	n      int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	pool, err := postgres.Open(t.Context(), pgtest.Database(t, postgres.Migrations{Name: "proj", FS: runner.Migrations()}), 10)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	types, err := eventstore.NewRegistry(domain.Catalog()...)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, store: memstore.New(), codec: &seal.Codec{Registry: types, Keys: &seal.MemoryKeys{}}, pool: pool, waiter: readmodel.NewWaiter(nil)}
}

// says appends facts to a stream of a log.
func (w *world) says(t eventstore.TenantID, kind, id string, facts ...any) {
	w.t.Helper()
	s := eventstore.StreamID{Kind: kind, ID: id}
	version := eventstore.Version(0)
	for rec, err := range w.store.Tenant(t).ReadStream(w.t.Context(), s, 1) {
		if err != nil {
			w.t.Fatal(err)
		}
		version = rec.Version
	}
	for _, fact := range facts {
		w.n++
		command := fmt.Sprint("c", w.n)
		p, err := w.codec.Encode(w.t.Context(), t, s, eventstore.NewEventID(t, userID, command, 0), fact)
		if err != nil {
			w.t.Fatal(err)
		}
		p.Meta = eventstore.Meta{Command: command, Correlation: "test", Actor: userID, At: at}
		if _, err := w.store.Tenant(t).Append(w.t.Context(), eventstore.Write{Stream: s, Expected: eventstore.At(version), Events: []eventstore.Proposed{p}}); err != nil {
			w.t.Fatal(err)
		}
		version++
	}
}

// project runs the projection until it has applied the given logs.
func (w *world) project(p runner.Projection, logs ...eventstore.TenantID) {
	w.t.Helper()
	r, err := runner.New(runner.Config{
		Store: w.store, Codec: w.codec, Projections: []runner.Projection{p}, Logger: slog.New(slog.DiscardHandler),
		Pool: func(context.Context, string) (*pgxpool.Pool, error) { return w.pool, nil },
		Tenants: func(context.Context) ([]string, error) {
			var names []string
			for _, l := range logs {
				if l != eventstore.PlatformTenant {
					names = append(names, string(l))
				}
			}
			return names, nil
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- r.Run(running) }()
	for _, l := range logs {
		head, err := w.store.Tenant(l).Head(ctx)
		if err != nil {
			w.t.Fatal(err)
		}
		if err := w.waiter.Wait(ctx, w.pool, p.Name, string(l), uint64(head)); err != nil {
			w.t.Error(err)
		}
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		w.t.Error(err)
	}
}

// rows joins the one text column of a query over the live generation; $ stands for its schema.
func (w *world) rows(projection, sql string) string {
	w.t.Helper()
	var out []string
	_, err := readmodel.Read(w.t.Context(), w.pool, projection, "", 0, func(tx readmodel.Tx, schema string) error {
		rows, err := tx.Query(w.t.Context(), strings.ReplaceAll(sql, "$.", schema+"."))
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.Join(out, "\n")
}

func (w *world) is(projection, sql, want string) {
	w.t.Helper()
	if got := w.rows(projection, sql); got != want {
		w.t.Fatalf("%s\ngot  %s\nwant %s", sql, got, want)
	}
}

func TestDirectoryInAnyOrder(t *testing.T) {
	for _, tenantFirst := range []bool{false, true} {
		w := newWorld(t)
		policy := func() {
			w.says(log, timestamping.Kind, timestamping.StreamID, timestamping.Enabled{Provider: "digicert", By: userID, At: at}, timestamping.Disabled{By: userID, At: at})
		}
		platform := func() {
			w.says(eventstore.PlatformTenant, user.Kind, userID, user.Registered{
				UserID: userID, Email: es.Person("mina@plant.example"), FirstName: es.Person("Mina"), LastName: es.Person("Okoro"), At: at,
			})
			w.says(eventstore.PlatformTenant, tenant.Kind, tenantID,
				tenant.Created{TenantID: tenantID, Name: "North Mill", DatabaseName: "tenant_north", CreatedBy: userID, At: at}, tenant.Provisioned{TenantID: tenantID, At: at})
			w.says(eventstore.PlatformTenant, membership.Kind, "m", membership.Granted{TenantID: tenantID, UserID: userID, Role: "admin", GrantedBy: userID, At: at})
		}
		if tenantFirst {
			platform()
			w.project(directory.Projection(), eventstore.PlatformTenant)
			policy()
		} else {
			policy()
			w.project(directory.Projection(), log)
			platform()
		}
		w.project(directory.Projection(), eventstore.PlatformTenant, log)
		w.is("directory", `select format('%s %s %s %s', email, first_name, last_name, is_active) from $.users`, "mina@plant.example Mina Okoro t")
		w.is("directory", `select format('%s %s %s %s %s %s %s', id, name, database_name, provisioned, tsa_enabled, tsa_provider, created_by) from $.tenants`,
			tenantID+" North Mill tenant_north t f digicert "+userID)
		w.is("directory", `select format('%s %s %s', tenant_id, user_id, role) from $.memberships`, tenantID+" "+userID+" admin")
	}
}

// TestATenantThatLeavesIsHidden, and shown again when it returns.
func TestATenantThatLeavesIsHidden(t *testing.T) {
	w := newWorld(t)
	w.says(eventstore.PlatformTenant, tenant.Kind, tenantID,
		tenant.Created{TenantID: tenantID, Name: "North Mill", DatabaseName: "tenant_north", CreatedBy: userID, At: at}, tenant.Provisioned{TenantID: tenantID, At: at},
		tenant.Deleted{TenantID: tenantID, DeletedBy: "system", At: at.Add(time.Hour)})
	const shown = `select format('%s %s %s %s', name, provisioned, is_active, updated_at) from $.tenants`
	w.project(directory.Projection(), eventstore.PlatformTenant)
	w.is("directory", shown, "North Mill t f 2026-11-24 10:00:00+00")
	w.says(eventstore.PlatformTenant, tenant.Kind, tenantID, tenant.Restored{TenantID: tenantID, RestoredBy: "system", At: at.Add(2 * time.Hour)})
	w.project(directory.Projection(), eventstore.PlatformTenant)
	w.is("directory", shown, "North Mill t t 2026-11-24 11:00:00+00")
}

// TestMembersAndNames: roles change in place, those who leave have no row, those who return joined anew, and a log that is applied again
// from its beginning changes nothing.
func TestMembersAndNames(t *testing.T) {
	const other = "55555555-5555-4555-8555-555555555555"
	w := newWorld(t)
	later := at.Add(time.Hour)
	w.says(eventstore.PlatformTenant, tenant.Kind, tenantID,
		tenant.Created{TenantID: tenantID, Name: "North Mill", DatabaseName: "tenant_north", CreatedBy: userID, At: at}, tenant.Provisioned{TenantID: tenantID, At: at},
		tenant.Renamed{TenantID: tenantID, Name: "South Mill", RenamedBy: userID, At: later})
	w.says(eventstore.PlatformTenant, membership.Kind, tenantID,
		membership.Granted{TenantID: tenantID, UserID: userID, Role: "admin", GrantedBy: userID, At: at},
		membership.Granted{TenantID: tenantID, UserID: other, Role: "user", GrantedBy: userID, At: at},
		membership.RoleChanged{TenantID: tenantID, UserID: other, Role: "admin", ChangedBy: userID, At: later},
		membership.Removed{TenantID: tenantID, UserID: userID, RemovedBy: other, At: later})
	const members = `select format('%s %s %s', user_id, role, joined_at) from $.memberships order by user_id`
	w.project(directory.Projection(), eventstore.PlatformTenant)
	w.is("directory", `select format('%s %s %s', name, database_name, updated_at) from $.tenants`, "South Mill tenant_north 2026-11-24 10:00:00+00")
	w.is("directory", members, other+" admin 2026-11-24 09:00:00+00")
	w.says(eventstore.PlatformTenant, membership.Kind, tenantID, membership.Granted{TenantID: tenantID, UserID: userID, Role: "viewer", GrantedBy: other, At: later})
	w.project(directory.Projection(), eventstore.PlatformTenant)
	both := userID + " viewer 2026-11-24 10:00:00+00\n" + other + " admin 2026-11-24 09:00:00+00"
	w.is("directory", members, both)
	if _, err := w.pool.Exec(t.Context(), `update proj.checkpoint set position = 0, last_event = null where projection = 'directory'`); err != nil {
		t.Fatal(err)
	}
	w.project(directory.Projection(), eventstore.PlatformTenant)
	w.is("directory", members, both)
	w.is("directory", `select name from $.tenants`, "South Mill")
}

// story is a file with two documents, stamped at the second attempt.
func story(w *world) {
	w.says(log, file.Kind, fileID,
		file.Stored{FileID: fileID, SHA256: strings.Repeat("a", 64), MD5: strings.Repeat("b", 32), Size: 7, ObjectKey: "k", StoredBy: userID, At: at},
		file.Linked{FileID: fileID, DocumentID: docA, At: at}, file.Linked{FileID: fileID, DocumentID: docB, At: at},
		file.TimestampRequested{FileID: fileID, SHA256: strings.Repeat("a", 64), By: userID, At: at},
		file.TimestampFailed{FileID: fileID, Attempt: 1, Reason: "down", NextAttempt: at.Add(2 * time.Second), At: at})
	for _, id := range []string{docA, docB} {
		w.says(log, document.Kind, id, document.Uploaded{DocumentID: id, FileID: fileID, Filename: es.Person("secret plan.pdf"), MimeType: "application/pdf", UploadedBy: userID, At: at})
	}
}

func TestDocumentsAndFiles(t *testing.T) {
	w := newWorld(t)
	story(w)
	w.project(documents.Projection(), log)
	const stamp = `select format('%s %s %s %s', ts_status, ts_attempts, ts_reason, ts_next_attempt) from $.files`
	w.is("documents", stamp, "pending 1 down 2026-11-24 09:00:02+00")
	w.is("documents", `select format('%s %s %s %s', filename, mime_type, user_id, version) from $.documents where id = '`+docA+`'`, "secret plan.pdf application/pdf "+userID+" 1")
	w.says(log, file.Kind, fileID, file.Timestamped{FileID: fileID, Response: []byte{1, 2}, GenTime: at, Serial: "0x1", Policy: "1.2", Algorithm: "sha256", Authority: "CN=x", Attempt: 2, At: at})
	w.says(log, document.Kind, docA, document.Deleted{DocumentID: docA, FileID: fileID, DeletedBy: userID, At: at})
	w.says(log, file.Kind, fileID, file.Unlinked{FileID: fileID, DocumentID: docA, At: at})
	w.project(documents.Projection(), log)
	w.is("documents", stamp, "success 2  ")
	w.is("documents", `select format('%s %s %s %s %s', ts_response, ts_serial, ts_policy, ts_algorithm, ts_authority) from $.files`, `\x0102 0x1 1.2 sha256 CN=x`)
	w.is("documents", `select format('%s %s %s', file_size, document_count, s3_path) from $.files`, "7 1 k")
	w.is("documents", `select id::text from $.documents`, docB)
}

func TestDocumentsChangeAndAreFound(t *testing.T) {
	w := newWorld(t)
	story(w)
	later := at.Add(time.Hour)
	w.says(log, document.Kind, docA,
		document.Renamed{DocumentID: docA, Filename: es.Person("Pumpe-Süd_4.pdf"), RenamedBy: userID, At: at},
		document.MimeTypeChanged{DocumentID: docA, MimeType: "text/plain", ChangedBy: userID, At: at},
		document.MetadataSet{DocumentID: docA, Metadata: es.Person(`{"a":"1"}`), SetBy: userID, At: at},
		document.MetadataSet{DocumentID: docA, Metadata: es.Person(`{"plant":"North \"Mill\"","line":""}`), SetBy: userID, At: later})
	w.project(documents.Projection(), log)
	w.is("documents", `select format('%s %s %s %s %s', filename, mime_type, metadata, version, updated_at) from $.documents where id = '`+docA+`'`,
		`Pumpe-Süd_4.pdf text/plain {"line": "", "plant": "North \"Mill\""} 5 2026-11-24 10:00:00+00`)
	for query, want := range map[string]string{
		"pump": docA, "SÜD": docA, "plant north": docA, "mill pumpe": docA, "4": docA, "plan": docA + "\n" + docB, "secret plan": docB, "a": "", "1": "", "umpe": "", "pumpe secret": "",
	} {
		w.is("documents", `select id::text from $.documents where words @@ $q$`+fulltext.Query(query)+`$q$::tsquery order by id`, want)
	}
	w.says(log, document.Kind, docA, document.MetadataSet{DocumentID: docA, Metadata: es.Person(`{}`), SetBy: userID, At: later})
	w.project(documents.Projection(), log)
	w.is("documents", `select words::text from $.documents where id = '`+docA+`'`, "'4' 'pdf' 'pumpe' 'süd'")
}

// TestAFileThatIsDeletedAndComesAgain has one row, then none, then one for the new object, however many facts a slice holds.
func TestAFileThatIsDeletedAndComesAgain(t *testing.T) {
	for _, apart := range []bool{false, true} {
		w := newWorld(t)
		pause := func(want string) {
			if apart {
				w.project(documents.Projection(), log)
				w.is("documents", `select format('%s %s %s', s3_path, document_count, ts_status) from $.files`, want)
			}
		}
		stored := file.Stored{FileID: fileID, SHA256: "a", MD5: "b", Size: 7, ObjectKey: "k", StoredBy: userID, At: at}
		w.says(log, file.Kind, fileID, stored, file.Linked{FileID: fileID, DocumentID: docA, At: at}, file.TimestampRequested{FileID: fileID, SHA256: "a", By: userID, At: at},
			file.Unlinked{FileID: fileID, DocumentID: docA, At: at})
		pause("k 0 pending")
		w.says(log, file.Kind, fileID, file.Deleted{FileID: fileID, ObjectKey: "k", Size: 7, DeletedBy: userID, At: at})
		pause("")
		stored.ObjectKey = "k2"
		w.says(log, file.Kind, fileID, stored, file.Linked{FileID: fileID, DocumentID: docB, At: at})
		w.project(documents.Projection(), log)
		w.is("documents", `select format('%s %s %s', s3_path, document_count, ts_status) from $.files`, "k2 1 none")
	}
}

func TestAnAbandonedTimestampCanBeAskedForAgain(t *testing.T) {
	w := newWorld(t)
	story(w)
	w.says(log, file.Kind, fileID, file.TimestampAbandoned{FileID: fileID, Attempt: 2, Reason: "badAlg", At: at})
	w.project(documents.Projection(), log)
	const stamp = `select format('%s %s %s', ts_status, ts_attempts, ts_reason) from $.files`
	w.is("documents", stamp, "error 2 badAlg")
	w.says(log, file.Kind, fileID, file.TimestampRequested{FileID: fileID, SHA256: "a", By: userID, At: at})
	w.project(documents.Projection(), log)
	w.is("documents", stamp, "pending 0 ")
}

// TestAudit: every event has its row, in order, and none shows what is personal.
func TestAudit(t *testing.T) {
	w := newWorld(t)
	story(w)
	w.project(audit.Projection(), log)
	w.is("audit", `select string_agg(format('%s:%s', position, type), ' ' order by position) from $.entries`,
		"1:file.stored 2:file.linked 3:file.linked 4:file.timestamp_requested 5:file.timestamp_failed 6:document.uploaded 7:document.uploaded")
	all := w.rows("audit", `select row_to_json(e)::text from $.entries e`)
	if strings.Contains(all, "secret plan") || !strings.Contains(all, userID) {
		t.Fatal(all)
	}
}

// TestErasedPeople: rows of a person whose key was destroyed are built all the same, without the personal values.
func TestErasedPeople(t *testing.T) {
	w := newWorld(t)
	story(w)
	if err := w.codec.Keys.Erase(t.Context(), string(log), userID); err != nil {
		t.Fatal(err)
	}
	w.project(documents.Projection(), log)
	w.is("documents", `select format('%s|%s', filename, mime_type) from $.documents where id = '`+docA+`'`, "|application/pdf")
}
