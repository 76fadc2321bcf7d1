package apitest

import (
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The kinds of values that the contract knows.
var (
	uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	hexForm  = regexp.MustCompile(`^[0-9a-f]+$`)

	uuidKind = func(v any) bool { s, ok := v.(string); return ok && uuidForm.MatchString(s) }
	timeKind = func(v any) bool { s, ok := v.(string); return ok && micros.MatchString(s) }
	textKind = func(v any) bool { s, ok := v.(string); return ok && s != "" }
	boolKind = func(v any) bool { _, ok := v.(bool); return ok }
	intKind  = func(v any) bool { n, ok := v.(float64); return ok && n == math.Trunc(n) && n >= 0 }
	numKind  = func(v any) bool { _, ok := v.(float64); return ok }
	listKind = func(v any) bool { _, ok := v.([]any); return ok }
	mapKind  = func(v any) bool { _, ok := v.(map[string]any); return ok }
	roleKind = func(v any) bool { s, _ := v.(string); return slices.Contains([]string{"admin", "user", "viewer"}, s) }
	sumKind  = func(digits int) func(any) bool {
		return func(v any) bool { s, ok := v.(string); return ok && len(s) == digits && hexForm.MatchString(s) }
	}
)

// kinds says what each field of the contract is, wherever it occurs; a name means one thing everywhere.
var kinds = map[string]func(any) bool{
	"id": uuidKind, "user_id": uuidKind, "tenant_id": uuidKind, "file_id": uuidKind, "created_by": uuidKind, "deleted_document_id": uuidKind, "invited_by": uuidKind,
	"created_at": timeKind, "updated_at": timeKind, "joined_at": timeKind, "expires_at": timeKind, "refreshed_at": timeKind, "invited_at": timeKind, "answered_at": timeKind,
	"first_name": textKind, "last_name": textKind, "email": textKind, "name": textKind, "database_name": textKind, "auth_method": textKind, "sso_default_role": roleKind,
	"is_active": boolKind, "is_administrator": boolKind, "email_verified": boolKind, "sso_auto_provisioning": boolKind, "tsa_enabled": boolKind, "require_if_match": boolKind, "tsa_provider": textKind, "sso_domain_whitelist": listKind,
	"role": roleKind, "members": listKind, "documents": listKind, "files": listKind, "tenants": listKind, "sessions": listKind, "invitations": listKind, "users": listKind,
	"filename": textKind, "mime_type": textKind, "metadata": mapKind, "file": mapKind, "md5_hash": sumKind(32), "sha256_hash": sumKind(64), "s3_path": textKind, "file_size": intKind,
	"file_metadata": mapKind, "document_count": intKind, "member_count": intKind, "admin_count": intKind, "is_orphaned": boolKind, "file_orphaned": boolKind, "freed_storage_bytes": intKind, "freed_storage_mb": numKind,
	"download_url": textKind, "expires_in": intKind, "pagination": mapKind, "page": intKind, "per_page": intKind, "total": intKind, "pages": intKind,
	"stats": mapKind, "total_files": intKind, "total_storage_bytes": intKind, "total_storage_mb": numKind, "orphaned_files": intKind, "orphaned_storage_bytes": intKind,
	"results": listKind, "succeeded": intKind, "failed": intKind, "success": boolKind, "status": func(any) bool { return true }, "error": mapKind, "data": mapKind,
	"message": textKind, "access_token": textKind, "refresh_token": textKind, "user": mapKind, "service": textKind, "blueprint": textKind, "version": textKind,
	"documentation": textKind, "endpoints": mapKind, "tenant_name": textKind, "state": textKind, "user_agent": textKind, "current": boolKind,
	"event_id": uuidKind, "topic": textKind, "timestamp": timeKind, "note": textKind, "message_count": intKind, "buffer_size": intKind, "buffer_count": intKind, "messages": listKind,
	"payload": mapKind, "key": func(v any) bool { _, text := v.(string); return text || v == nil },
}

// accountFields are those of the contract's User, and the one that is new.
var accountFields = append([]string{"email_verified"}, userFields...)

func TestR01ToR05Auth(t *testing.T) {
	w := newWorld(t)
	mina := map[string]any{"first_name": " Mina ", "last_name": "Okoro", "email": " Mina@Plant.example", "password": password}
	made := w.want(w.call("POST", "/api/auth/register", "", mina), 201)
	w.fields(made, "", "message", "user")
	w.fields(made, "user", accountFields...)
	if made.text("user.first_name") != "Mina" || made.text("user.email") != "mina@plant.example" || made.at("user.is_active") != true || made.at("user.email_verified") != false {
		t.Errorf("%s", made.body)
	}
	w.problem(w.call("POST", "/api/auth/register", "", mina), 409, "email_exists")
	for field, wrong := range map[string]any{
		"first_name": "  ", "last_name": strings.Repeat("x", 101), "email": "mina", "password": "short", "more": 1,
	} {
		body := map[string]any{"first_name": "A", "last_name": "B", "email": "a@b.example", "password": password, field: wrong}
		a := w.call("POST", "/api/auth/register", "", body)
		w.problem(a, 400, "validation_error")
		if details, _ := a.at("error.details").(map[string]any); details[field] == nil || len(details) != 1 {
			t.Errorf("%s: %s", field, a.body)
		}
	}
	all := w.call("POST", "/api/auth/register", "", map[string]any{"first_name": "", "last_name": "", "email": "x", "password": "y"})
	w.problem(all, 400, "validation_error")
	if details, _ := all.at("error.details").(map[string]any); len(details) != 3 && len(details) != 4 {
		t.Errorf("not every wrong field is named: %s", all.body)
	}
	w.problem(w.send("POST", "/api/auth/register", "", "application/json", strings.NewReader("{")), 400, "bad_request")

	in := w.want(w.call("POST", "/api/auth/login", "", map[string]any{"email": "MINA@plant.example", "password": password}), 200)
	w.fields(in, "", "message", "access_token", "refresh_token", "user", "tenants")
	w.fields(in, "user", accountFields...)
	w.want(w.call("POST", "/api/tenants", in.text("access_token"), map[string]any{"name": "North Mill"}), 201)
	in = w.want(w.call("POST", "/api/auth/login", "", map[string]any{"email": "mina@plant.example", "password": password}), 200)
	w.fields(in, "tenants.0", "id", "name", "database_name", "role")
	w.problem(w.call("POST", "/api/auth/login", "", map[string]any{"email": "mina@plant.example"}), 400, "validation_error")
	w.problem(w.call("POST", "/api/auth/login", "", map[string]any{"email": "mina@plant.example", "password": "wrong"}), 401, "invalid_credentials")
	w.problem(w.call("POST", "/api/auth/login", "", map[string]any{"email": "nobody@plant.example", "password": password}), 401, "invalid_credentials")

	w.problem(w.call("POST", "/api/auth/refresh", "", nil), 401, "authorization_required")
	w.problem(w.call("POST", "/api/auth/refresh", in.text("access_token"), nil), 401, "invalid_token")
	next := w.want(w.call("POST", "/api/auth/refresh", in.text("refresh_token"), nil), 200)
	w.fields(next, "", "access_token", "refresh_token") // the second is new: it replaces the presented one
	w.problem(w.call("POST", "/api/auth/logout", next.text("refresh_token"), nil), 401, "invalid_token")
	w.fields(w.want(w.call("POST", "/api/auth/logout", next.text("access_token"), nil), 200), "", "message")
	w.problem(w.call("POST", "/api/auth/logout", next.text("access_token"), nil), 401, "token_revoked")

	health := w.want(w.call("GET", "/api/auth/health", "", nil), 200)
	w.fields(health, "", "status", "service", "endpoints")
	if endpoints, _ := health.at("endpoints").(map[string]any); health.text("status") != "healthy" || health.text("service") != "authentication" || len(endpoints) != 4 {
		t.Errorf("%s", health.body)
	}
}

func TestR06ToR11Users(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	w.fields(w.envelope(w.call("GET", "/api/users/me", mina.token, nil), 200, true), "data", accountFields...)
	changed := w.envelope(w.call("PUT", "/api/users/me", mina.token, map[string]any{"first_name": "Nina"}), 200, true)
	w.fields(changed, "data", accountFields...)
	w.problem(w.call("PUT", "/api/users/me", mina.token, map[string]any{"email": "a@b.example"}), 400, "BAD_REQUEST")
	w.problem(w.send("PUT", "/api/users/me", mina.token, "application/json", strings.NewReader("")), 400, "BAD_REQUEST")
	w.tenant(mina, "First")
	second := w.tenant(mina, "Second")
	for _, path := range []string{"/api/users/me/tenants", "/api/tenants"} {
		list := w.envelope(w.call("GET", path, mina.token, nil), 200, true)
		w.fields(list, "data.0", append([]string{"role", "joined_at"}, tenantFields...)...)
		if list.text("data.0.id") != second {
			t.Errorf("%s is not the latest joined first: %s", path, list.body)
		}
	}
	for _, path := range []string{"/api/users/me", "/api/users/me/tenants"} {
		for _, token := range []string{"", "garbage", mina.refresh} {
			w.problem(w.call("GET", path, token, nil), 401, "UNAUTHORIZED")
		}
	}
}

// TestHealthRoutesOfTheContract: R05, R11, R17 and R27 say that an area answers; A1 and A2 that the process does.
func TestHealthRoutesOfTheContract(t *testing.T) {
	w := newWorld(t)
	for path, blueprint := range map[string]string{"/api/users/health": "users", "/api/tenants/health": "tenants"} {
		a := w.want(w.call("GET", path, "", nil), 200)
		w.fields(a, "data", "status", "blueprint")
		if a.text("data.status") != "healthy" || a.text("data.blueprint") != blueprint {
			t.Errorf("%s", a.body)
		}
	}
	const anyTenant = "11111111-1111-4111-8111-111111111111"
	a := w.want(w.call("GET", "/api/tenants/"+anyTenant+"/documents/health", "", nil), 200)
	w.fields(a, "data", "status", "blueprint", "tenant_id")
	if a.text("data.blueprint") != "documents" || a.text("data.tenant_id") != anyTenant {
		t.Errorf("%s", a.body)
	}
	if a := w.want(w.call("GET", "/api/tenants/probe/documents/health", "", nil), 200); a.text("data.tenant_id") != "probe" { // it is not checked
		t.Errorf("%s", a.body)
	}
	health := w.want(w.call("GET", "/health", "", nil), 200)
	w.fields(health, "", "status", "service", "version")
	root := w.want(w.call("GET", "/", "", nil), 200)
	w.fields(root, "", "service", "version", "status", "documentation", "endpoints")
	if root.text("status") != "running" || root.text("documentation") != "/api/docs" {
		t.Errorf("%s", root.body)
	}
	for _, area := range []string{"health", "auth", "users", "tenants", "documents", "files", "kafka_demo"} {
		if root.text("endpoints."+area) == "" {
			t.Errorf("the root does not name %s: %s", area, root.body)
		}
	}
	w.problem(w.call("GET", "/health/", "", nil), 404, "not_found")
	w.problem(w.call("POST", "/health", "", nil), 405, "method_not_allowed")
}

func TestR21AnUploadBringsMetadata(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	tenant := w.tenant(mina, "A")
	file := part{"file", "a.txt", "text/plain", "a"}
	up := w.envelope(w.upload(tenant, mina, part{"metadata", "", "", `{"machine":"press 4","shift":"früh"}`}, file), 201, true)
	w.fields(up, "data", withFile...)
	if up.text("data.metadata.machine") != "press 4" || up.text("data.metadata.shift") != "früh" || up.Header.Get("Factum-Pending") != "" {
		t.Errorf("%s", up.body)
	}
	base := "/api/tenants/" + tenant + "/documents"
	if one := w.want(w.call("GET", base+"/"+up.text("data.id"), mina.token, nil), 200); one.text("data.metadata.shift") != "früh" || one.text("data.updated_at") != up.text("data.updated_at") {
		t.Errorf("answered %s, read %s", up.body, one.body)
	}
	if found := w.want(w.call("GET", base+"?q=press", mina.token, nil), 200); found.at("data.pagination.total") != 1.0 {
		t.Errorf("%s", found.body)
	}
	for _, none := range []string{"", "{}", "null", `{"machine":null}`} {
		if a := w.want(w.upload(tenant, mina, file, part{"metadata", "", "", none}), 201); len(a.at("data.metadata").(map[string]any)) != 0 {
			t.Errorf("%q: %s", none, a.body)
		}
	}
	for _, wrong := range []string{"x", "[]", `{"a":1}`, `{"a":{}}`, `{"a b":"x"}`, `{"a":"x` + "\x00" + `"}`, `{"a":"\u0000"}`, "{\"a\":\"\xff\"}", `{"a":"x","a":"y"}`, `{"a":"\ud800"}`, `{"a":"` + strings.Repeat("x", 1001) + `"}`, `{"a":"` + strings.Repeat("x", 40_000) + `"}`} {
		a := w.upload(tenant, mina, file, part{"metadata", "", "", wrong})
		w.problem(a, 400, "BAD_REQUEST")
		if a.at("error.details.metadata") == nil {
			t.Errorf("%.60q: %.300s", wrong, a.body)
		}
	}
	many := ""
	for i := range 51 {
		many += `,"k` + strings.Repeat("a", i) + `":"x"`
	}
	w.problem(w.upload(tenant, mina, file, part{"metadata", "", "", "{" + many[1:] + "}"}), 400, "BAD_REQUEST")
	if list := w.want(w.call("GET", base, mina.token, nil), 200); list.at("data.pagination.total") != 5.0 {
		t.Errorf("refused uploads left something: %s", list.body)
	}
}

func TestR23TheHeadersOfADownload(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	tenant := w.tenant(mina, "A")
	id := w.named(tenant, mina, "pump.txt", "content")
	down := w.want(w.call("GET", "/api/tenants/"+tenant+"/documents/"+id+"/download", mina.token, nil), 200)
	for name, want := range map[string]string{
		"Content-Type": "text/plain", "Content-Length": "7", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
		"Cache-Control": "no-store, no-cache, must-revalidate, private", "Pragma": "no-cache",
	} {
		if got := down.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if string(down.body) != "content" {
		t.Errorf("%q", down.body)
	}
}

// TestDeletedTenantsAreListedForAReturn beside R12: the usual list does not show them.
func TestDeletedTenantsAreListedForAReturn(t *testing.T) {
	w := newWorld(t)
	admin, stranger := w.person("Admin"), w.person("Stranger")
	gone, kept := w.tenant(admin, "Gone"), w.tenant(admin, "Kept")
	w.want(w.call("DELETE", "/api/tenants/"+gone, admin.token, nil), 200)
	for _, path := range []string{"/api/tenants", "/api/users/me/tenants"} {
		usual := w.envelope(w.call("GET", path, admin.token, nil), 200, true)
		deleted := w.envelope(w.call("GET", path+"?is_active=false", admin.token, nil), 200, true)
		w.fields(deleted, "data.0", append([]string{"role", "joined_at"}, tenantFields...)...)
		if usual.text("data.0.id") != kept || usual.at("data.1") != nil || deleted.text("data.0.id") != gone || deleted.at("data.0.is_active") != false || deleted.at("data.1") != nil {
			t.Errorf("%s and %s", usual.body, deleted.body)
		}
		if theirs := w.want(w.call("GET", path+"?is_active=false", stranger.token, nil), 200); theirs.at("data.0") != nil {
			t.Errorf("%s", theirs.body)
		}
		w.problem(w.call("GET", path+"?is_active=maybe", admin.token, nil), 400, "BAD_REQUEST")
	}
	w.restore(gone, admin)
	if none := w.want(w.call("GET", "/api/tenants?is_active=false", admin.token, nil), 200); none.at("data.0") != nil {
		t.Errorf("%s", none.body)
	}
}

// TestAnAccountIsSwitchedOffOnEveryServer: R02 and R03 answer account_inactive, and no session holds anywhere.
func TestAnAccountIsSwitchedOffOnEveryServer(t *testing.T) {
	w := newWorld(t)
	other := w.second()
	operator, admin, mina := w.person("Operator"), w.person("Admin"), w.person("Mina")
	w.administers(operator)
	tenant := w.tenant(admin, "A")
	w.grant(tenant, mina, "user")
	switchTo := func(w *world, p person, what, id string) answer {
		return w.call("POST", "/api/platform/users/"+id+"/"+what, p.token, nil)
	}
	const unknown = "11111111-1111-4111-8111-111111111111"
	w.problem(switchTo(w, admin, "deactivate", mina.id), 403, "FORBIDDEN")
	w.problem(switchTo(w, operator, "deactivate", unknown), 404, "NOT_FOUND")
	w.problem(switchTo(w, operator, "activate", unknown), 404, "NOT_FOUND")
	w.problem(switchTo(w, operator, "deactivate", operator.id), 409, "CONFLICT")

	for _, server := range []*world{w, other} {
		server.want(server.call("GET", "/api/users/me", mina.token, nil), 200)
	}
	off := w.envelope(switchTo(w, operator, "deactivate", mina.id), 200, true)
	w.fields(off, "data", "user_id", "is_active")
	w.envelope(switchTo(w, operator, "deactivate", mina.id), 200, true)
	login := func(pass string) answer {
		return w.call("POST", "/api/auth/login", "", map[string]any{"email": mina.email, "password": pass})
	}
	for _, server := range []*world{w, other} {
		server.problem(server.call("GET", "/api/users/me", mina.token, nil), 401, "UNAUTHORIZED") // at once
		server.problem(server.call("GET", "/api/tenants/"+tenant, mina.token, nil), 401, "UNAUTHORIZED")
		server.problem(server.call("POST", "/api/auth/logout", mina.token, nil), 401, "token_revoked")
		server.problem(server.call("POST", "/api/auth/refresh", mina.refresh, nil), 403, "account_inactive")
	}
	w.problem(login(password), 403, "account_inactive")
	w.problem(login("wrong"), 401, "invalid_credentials") // only the right password is told so
	if one := w.want(w.call("GET", "/api/tenants/"+tenant, admin.token, nil), 200); one.at("data.members.1") != nil {
		t.Errorf("who is switched off is still shown: %s", one.body)
	}
	elsewhere := w.tenant(admin, "B")
	w.problem(w.call("POST", "/api/tenants/"+elsewhere+"/users", admin.token, map[string]any{"user_id": mina.id, "role": "user"}), 404, "NOT_FOUND") // R18

	w.envelope(switchTo(other, operator, "activate", mina.id), 200, true)
	w.problem(w.call("GET", "/api/users/me", mina.token, nil), 401, "UNAUTHORIZED") // sessions stay ended
	w.problem(w.call("POST", "/api/auth/refresh", mina.refresh, nil), 401, "token_revoked")
	back := w.login(mina, password)
	for _, server := range []*world{w, other} {
		server.eventually(200, func() answer { return server.call("GET", "/api/tenants/"+tenant, back.token, nil) })
	}
	w.envelope(switchTo(w, operator, "activate", mina.id), 200, true)
	w.want(w.call("GET", "/api/users/me", back.token, nil), 200) // who is switched on already is not logged out
}

func TestR60ToR62KafkaDemonstration(t *testing.T) {
	w := newWorld(t)
	mina, noor := w.person("Mina"), w.person("Noor")
	produce := func(p person, body any) answer { return w.call("POST", "/api/demo/kafka/produce", p.token, body) }
	sent := w.envelope(produce(mina, map[string]any{"topic": "plant", "message": map[string]any{"bar": 4.2, "on": []any{true, nil}, "off": nil}, "key": "press 4"}), 201, true)
	w.fields(sent, "data", "event_id", "topic", "timestamp", "status", "note")
	if sent.text("data.status") != "sent" || sent.text("data.topic") != "plant" {
		t.Errorf("%s", sent.body)
	}
	w.envelope(produce(noor, map[string]any{"topic": "plant", "message": map[string]any{}}), 201, true)
	got := w.envelope(w.call("GET", "/api/demo/kafka/consume", mina.token, nil), 200, true)
	w.fields(got, "data", "status", "message_count", "buffer_size", "messages", "note")
	w.fields(got, "data.messages.0", "event_id", "topic", "timestamp", "user_id", "key", "payload")
	if got.text("data.status") != "running" || got.at("data.message_count") != 1.0 || got.at("data.buffer_size") != 10.0 || got.at("data.messages.1") != nil ||
		got.text("data.messages.0.event_id") != sent.text("data.event_id") || got.text("data.messages.0.user_id") != mina.id || got.at("data.messages.0.payload.bar") != 4.2 {
		t.Errorf("%s", got.body)
	}
	for i := range 12 {
		w.want(produce(mina, map[string]any{"topic": "plant", "message": map[string]any{"n": i}}), 201)
	}
	got = w.want(w.call("GET", "/api/demo/kafka/consume?limit=50", mina.token, nil), 200)
	if got.at("data.message_count") != 10.0 || got.at("data.messages.0.payload.n") != 2.0 || got.at("data.messages.9.payload.n") != 11.0 {
		t.Errorf("%s", got.body)
	}
	if last := w.want(w.call("GET", "/api/demo/kafka/consume?limit=1", mina.token, nil), 200); last.at("data.messages.0.payload.n") != 11.0 || last.at("data.messages.1") != nil {
		t.Errorf("%s", last.body)
	}
	if theirs := w.want(w.call("GET", "/api/demo/kafka/consume", noor.token, nil), 200); theirs.at("data.message_count") != 0.0 {
		t.Errorf("%s", theirs.body)
	}
	for _, wrong := range []map[string]any{{}, {"topic": "a"}, {"message": map[string]any{}}, {"topic": "", "message": map[string]any{}}, {"topic": "a", "message": "text"}, {"topic": "a", "message": nil}, {"topic": "a", "message": map[string]any{}, "more": 1}} {
		w.problem(produce(mina, wrong), 400, "BAD_REQUEST")
	}
	for _, limit := range []string{"0", "51", "x"} {
		w.problem(w.call("GET", "/api/demo/kafka/consume?limit="+limit, mina.token, nil), 400, "BAD_REQUEST")
	}
	w.problem(w.call("GET", "/api/demo/kafka/consume", "", nil), 401, "UNAUTHORIZED")
	health := w.want(w.call("GET", "/api/demo/kafka/health", "", nil), 200)
	w.fields(health, "", "status", "service", "buffer_count", "note")
	if health.text("service") != "kafka_demo" || health.at("buffer_count") != 10.0 {
		t.Errorf("%s", health.body)
	}
}
