package apitest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/infra/httpapi"
)

var micros = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$`)

// stamp does what the saga's job does.
func (w *world) stamp(tenant, file string) {
	w.t.Helper()
	sum, attempt, wanted, err := w.commands.TimestampWanted(w.t.Context(), tenant, file)
	if err != nil || !wanted {
		w.t.Fatalf("wanted %v, %v", wanted, err)
	}
	digest, err := hex.DecodeString(sum)
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := w.stamper.Stamp(w.t.Context(), digest)
	if err != nil {
		w.t.Fatal(err)
	}
	err = w.commands.RecordTimestamp(w.t.Context(), commands.StampOutcome{
		TenantID: tenant, FileID: file, Job: "job-" + strconv.Itoa(attempt), Attempt: attempt, Response: s.Response, GenTime: s.GenTime, Serial: s.Serial,
		Policy: s.Policy, Algorithm: s.Algorithm, Authority: s.Authority,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.settle(tenant)
}

// settle waits until the tenant's read models have everything.
func (w *world) settle(tenant string) string {
	w.t.Helper()
	head, err := w.store.Tenant(commands.LogOf(tenant)).Head(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if s := w.server.Settle(w.t.Context(), uint64(head), httpapi.Documents(tenant), httpapi.Audit(tenant), httpapi.DirectoryOf(tenant)); s.Pending != "" {
		w.t.Fatal("not settled:", s.Pending)
	}
	return strconv.FormatUint(uint64(head), 10)
}

func TestTheMainJob(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	me := w.want(w.call("GET", "/api/users/me", mina.token, nil), 200)
	if me.text("data.email") != mina.email || me.at("data.is_active") != true || !micros.MatchString(me.text("data.created_at")) || me.Header.Get("Factum-Position") == "" {
		t.Errorf("%s", me.body)
	}

	made := w.want(w.call("POST", "/api/tenants", mina.token, map[string]any{"name": " North Mill "}), 201)
	tenant := made.text("data.id")
	if made.text("data.name") != "North Mill" || made.text("data.role") != "admin" || made.at("data.tsa_enabled") != true || made.text("data.auth_method") != "local" ||
		made.Header.Get("Factum-Pending") != "" || made.Header.Get("Factum-Position") == "" {
		t.Errorf("%s", made.body)
	}
	for _, path := range []string{"/api/tenants", "/api/users/me/tenants"} {
		if list := w.want(w.call("GET", path, mina.token, nil), 200); list.text("data.0.id") != tenant || list.text("data.0.role") != "admin" {
			t.Errorf("%s: %s", path, list.body)
		}
	}
	if one := w.want(w.call("GET", "/api/tenants/"+tenant, mina.token, nil), 200); one.text("data.members.0.email") != mina.email || one.at("data.tsa_enabled") != true {
		t.Errorf("%s", one.body)
	}
	if a := w.want(w.call("PUT", "/api/tenants/"+tenant+"/tsa/enable", mina.token, nil), 200); a.text("data.tsa_provider") != "local" || a.Header.Get("Factum-Position") != "1" {
		t.Errorf("%v %s", a.Header, a.body)
	}

	content := "pressure 4.2 bar\n"
	up := w.want(w.upload(tenant, mina, part{"file", "pump.txt", "text/plain; charset=utf-8", content}), 201)
	document, file := up.text("data.id"), up.text("data.file_id")
	if up.text("data.filename") != "pump.txt" || up.text("data.mime_type") != "text/plain" || up.at("data.file.file_size") != float64(len(content)) ||
		up.Header.Get("Factum-Pending") != "" {
		t.Errorf("%v %s", up.Header, up.body)
	}
	base := "/api/tenants/" + tenant
	if a := w.want(w.call("GET", base+"/documents/"+document, mina.token, nil), 200); a.text("data.file.md5_hash") != up.text("data.file.md5_hash") {
		t.Errorf("%s", a.body)
	}
	down := w.want(w.call("GET", base+"/documents/"+strings.ToUpper(document)+"/download", mina.token, nil), 200)
	if string(down.body) != content || down.Header.Get("Content-Type") != "text/plain" || down.Header.Get("X-Content-Type-Options") != "nosniff" ||
		down.Header.Get("Content-Disposition") != `attachment; filename="pump.txt"; filename*=UTF-8''pump.txt` || down.ContentLength != int64(len(content)) {
		t.Errorf("%v %q", down.Header, down.body)
	}

	if a := w.want(w.call("HEAD", base+"/documents/"+document+"/download", mina.token, nil), 200); len(a.body) != 0 || a.ContentLength != int64(len(content)) {
		t.Errorf("HEAD: %v %q", a.Header, a.body)
	}

	stampPath := base + "/files/" + file + "/timestamp"
	if a := w.want(w.call("GET", stampPath, mina.token, nil), 200); a.text("data.tsa_timestamp.status") != "pending" || !micros.MatchString(a.text("data.tsa_timestamp.next_attempt")) {
		t.Errorf("%s", a.body)
	}
	w.problem(w.call("GET", stampPath+"/download", mina.token, nil), 400, "BAD_REQUEST")
	w.problem(w.call("POST", stampPath+"/verify", mina.token, nil), 400, "BAD_REQUEST")
	w.stamp(tenant, file)
	stamped := w.want(w.call("GET", stampPath, mina.token, nil), 200)
	tsr := w.want(w.call("GET", stampPath+"/download", mina.token, nil), 200)
	token, err := base64.StdEncoding.DecodeString(stamped.text("data.tsa_timestamp.token"))
	if err != nil || string(token) != string(tsr.body) || stamped.text("data.tsa_timestamp.status") != "success" || tsr.Header.Get("Content-Type") != "application/timestamp-reply" {
		t.Errorf("%v %s", err, stamped.body)
	}
	valid := w.want(w.call("POST", stampPath+"/verify", mina.token, nil), 200)
	for _, field := range []string{"valid", "message_imprint_match", "certificate_valid", "checks.message_imprint_match", "checks.signature_valid", "checks.certificate_valid", "checks.certificate_chain_valid"} {
		if valid.at("data."+field) != true {
			t.Errorf("%s is not true: %s", field, valid.body)
		}
	}
	if err := os.WriteFile(w.objects.path(up.text("data.file.s3_path")), []byte("pressure 4.3 bar\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a := w.want(w.call("POST", stampPath+"/verify", mina.token, nil), 200); a.at("data.valid") != false || a.at("data.checks.message_imprint_match") != false {
		t.Errorf("a changed content still verifies: %s", a.body)
	}

	files := w.want(w.call("GET", "/api/files/"+tenant+"/files?include_stats=true", mina.token, nil), 200)
	sum := sha256.Sum256([]byte(content))
	if files.text("data.files.0.sha256_hash") != hex.EncodeToString(sum[:]) || files.text("data.files.0.file_metadata.tsa_timestamp.status") != "success" ||
		files.at("data.stats.total_storage_bytes") != float64(len(content)) {
		t.Errorf("%s", files.body)
	}
	if a := w.want(w.call("GET", "/api/files/"+tenant+"/files", mina.token, nil), 200); a.at("data.files.0.sha256_hash") != nil || a.text("data.files.0.id") != file {
		t.Errorf("%s", a.body)
	}
	if a := w.want(w.call("GET", "/api/files/"+tenant+"/files/"+file, mina.token, nil), 200); a.text("data.documents.0.id") != document || a.at("data.document_count") != 1.0 {
		t.Errorf("%s", a.body)
	}
	if a := w.want(w.call("GET", base+"/tsa/status", mina.token, nil), 200); a.at("data.total_timestamped_files") != 1.0 || a.at("data.pending_timestamps") != 0.0 || a.at("message") != nil {
		t.Errorf("%s", a.body)
	}

	if a := w.want(w.call("DELETE", base+"/documents/"+document, mina.token, nil), 200); a.text("data.deleted_document_id") != document || a.at("data.file_orphaned") != true {
		t.Errorf("%s", a.body)
	}
	w.problem(w.call("GET", base+"/documents/"+document, mina.token, nil), 404, "NOT_FOUND")
	w.problem(w.call("DELETE", base+"/documents/"+document, mina.token, nil), 404, "NOT_FOUND")

	at := w.settle(tenant)
	trail := w.want(w.call("GET", base+"/audit?per_page=100", mina.token, nil, header{"Factum-Min-Position": at}), 200)
	var types []string
	for _, e := range trail.at("data.entries").([]any) {
		types = append(types, e.(map[string]any)["type"].(string))
	}
	want := "timestamping.enabled file.stored file.linked file.timestamp_requested document.uploaded file.timestamped document.deleted file.unlinked"
	if got := strings.Join(types, " "); got != want {
		t.Errorf("trail %s\nwant  %s", got, want)
	}
	newest := w.want(w.call("GET", base+"/audit?per_page=1&order=newest", mina.token, nil), 200)
	if newest.text("data.entries.0.type") != "file.unlinked" || newest.text("data.entries.0.actor") != mina.id || newest.at("data.pagination.pages") != 8.0 || newest.text("data.entries.0.summary") == "" {
		t.Errorf("%s", newest.body)
	}
	if a := w.want(w.call("PUT", base+"/tsa/disable", mina.token, nil), 200); a.at("data.tsa_enabled") != false {
		t.Errorf("%s", a.body)
	}
	if a := w.want(w.call("GET", base+"/tsa/status", mina.token, nil), 200); a.at("data.tsa_enabled") != false {
		t.Errorf("%s", a.body)
	}
	unstamped := w.want(w.upload(tenant, mina, part{"file", "b.txt", "text/plain", "nobody asked for a time-stamp of this"}), 201).text("data.file_id")
	w.fields(w.want(w.call("GET", base+"/files/"+unstamped+"/timestamp", mina.token, nil), 200), "data", "file_id")
}

func TestSessions(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	w.problem(w.call("POST", "/api/auth/register", "", map[string]any{"first_name": "X", "last_name": "Y", "email": " MINA@plant.example", "password": password}), 409, "email_exists")
	w.problem(w.call("POST", "/api/auth/login", "", map[string]any{"email": mina.email, "password": "wrong-one-1"}), 401, "invalid_credentials")
	w.problem(w.call("POST", "/api/auth/login", "", map[string]any{"email": "nobody@plant.example", "password": password}), 401, "invalid_credentials")

	w.problem(w.call("POST", "/api/auth/refresh", "", nil), 401, "authorization_required")
	w.problem(w.call("POST", "/api/auth/refresh", mina.token, nil), 401, "invalid_token")
	w.problem(w.call("POST", "/api/auth/logout", "", nil), 401, "authorization_required")
	w.problem(w.call("POST", "/api/auth/logout", mina.refresh, nil), 401, "invalid_token")
	fresh := w.want(w.call("POST", "/api/auth/refresh", mina.refresh, nil), 200)
	w.want(w.call("GET", "/api/users/me", fresh.text("access_token"), nil), 200)
	w.want(w.call("POST", "/api/auth/logout", fresh.text("access_token"), nil), 200)
	w.problem(w.call("POST", "/api/auth/logout", fresh.text("access_token"), nil), 401, "token_revoked")
	w.problem(w.call("POST", "/api/auth/refresh", fresh.text("refresh_token"), nil), 401, "token_revoked")
	w.problem(w.call("GET", "/api/users/me", fresh.text("access_token"), nil), 401, "UNAUTHORIZED")
}

func TestARepeatedWriteIsCarriedOutOnce(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	key := header{"Idempotency-Key": "order-66"}
	first := w.want(w.call("POST", "/api/tenants", mina.token, map[string]any{"name": "A"}, key), 201)
	again := w.want(w.call("POST", "/api/tenants", mina.token, map[string]any{"name": "A"}, key), 201)
	if first.text("data.id") != again.text("data.id") {
		t.Errorf("two tenants came of one key: %s, %s", first.body, again.body)
	}
	w.problem(w.call("POST", "/api/tenants", mina.token, map[string]any{"name": "A"}, header{"Idempotency-Key": strings.Repeat("k", 201)}), 400, "BAD_REQUEST")
	w.problem(w.call("POST", "/api/tenants", mina.token, map[string]any{"name": "A"}, header{"Idempotency-Key": "with space"}), 400, "BAD_REQUEST")
}

func TestAQueryMayDemandAPosition(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	tenant := w.tenant(mina, "A")
	up := w.want(w.upload(tenant, mina, part{"file", "a.txt", "", "a"}), 201)
	path := "/api/tenants/" + tenant + "/documents"
	if a := w.want(w.call("GET", path, mina.token, nil, header{"Factum-Min-Position": up.Header.Get("Factum-Position")}), 200); a.text("data.documents.0.id") != up.text("data.id") {
		t.Errorf("%s", a.body)
	}
	late := w.call("GET", path, mina.token, nil, header{"Factum-Min-Position": "1000000"})
	w.problem(late, 503, "SERVICE_UNAVAILABLE")
	if late.Header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	w.problem(w.call("GET", path, mina.token, nil, header{"Factum-Min-Position": "-1"}), 400, "BAD_REQUEST")
}

func TestListsArePagedAndFiltered(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	tenant := w.tenant(mina, "A")
	for _, name := range []string{"Pump_1.txt", "pump%2.txt", "valve.txt"} {
		w.want(w.upload(tenant, mina, part{"file", name, "", name}), 201)
	}
	path := "/api/tenants/" + tenant + "/documents"
	for query, want := range map[string]float64{"": 3, "?filename=PUMP": 2, "?filename=%25": 1, "?filename=_": 1, "?filename=%5C": 0, "?filename=nothing": 0} {
		if a := w.want(w.call("GET", path+query, mina.token, nil), 200); a.at("data.pagination.total") != want {
			t.Errorf("%q: %v; want %v", query, a.at("data.pagination"), want)
		}
	}
	a := w.want(w.call("GET", path+"?page=2&per_page=2", mina.token, nil), 200)
	if a.text("data.documents.0.filename") != "Pump_1.txt" || a.at("data.pagination.pages") != 2.0 || a.at("data.documents.1") != nil {
		t.Errorf("%s", a.body)
	}
	for _, list := range []string{path, "/api/files/" + tenant + "/files", "/api/tenants/" + tenant + "/audit"} {
		for _, query := range []string{"page=0", "page=-1", "page=x", "page=1.5", "page=99999999999999999999", "per_page=0", "per_page=101", "per_page=x"} {
			w.problem(w.call("GET", list+"?"+query, mina.token, nil), 400, "BAD_REQUEST")
		}
	}
	w.problem(w.call("GET", path+"?filename=%00", mina.token, nil), 400, "BAD_REQUEST")
	w.problem(w.call("GET", path+"?filename=%ff", mina.token, nil), 400, "BAD_REQUEST")
	w.problem(w.call("GET", "/api/tenants/"+tenant+"/audit?order=sideways", mina.token, nil), 400, "BAD_REQUEST")
}
