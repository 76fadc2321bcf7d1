package apitest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/domain/es"
)

const consumersPath = "/api/platform/projections"

// consumer is the live generation of a consumer as the API shows it, once it is as it should be.
func (w *world) consumer(p person, projection, tenant string, want func(map[string]any) bool) map[string]any {
	w.t.Helper()
	deadline := time.After(20 * time.Second)
	for tick := time.Tick(20 * time.Millisecond); ; {
		a := w.want(w.call("GET", consumersPath+"?projection="+projection+"&tenant="+tenant, p.token, nil), 200)
		c, ok := a.at("data.0").(map[string]any)
		if ok && want(c) {
			return c
		}
		select {
		case <-tick:
		case <-deadline:
			w.t.Fatalf("the consumer is %s", a.body)
		}
	}
}

// text uploads a file and returns its document's id.
func (w *world) text(tenant string, p person, content string) string {
	w.t.Helper()
	return w.want(w.upload(tenant, p, part{"file", content + ".txt", "text/plain", content}), 201).text("data.id")
}

// listed is how many documents the tenant shows.
func (w *world) listed(tenant string, p person) int {
	w.t.Helper()
	list, _ := w.want(w.call("GET", "/api/tenants/"+tenant+"/documents", p.token, nil), 200).at("data.documents").([]any)
	return len(list)
}

func TestAdministratorsOfThePlatformSeeAndSteer(t *testing.T) {
	w := newWorld(t)
	admin, operator := w.person("Admin"), w.person("Operator")
	w.problem(w.call("GET", consumersPath, operator.token, nil), 403, "FORBIDDEN")
	w.administers(operator)
	tenant, other := w.tenant(admin, "A"), w.tenant(admin, "B")
	log := strings.ReplaceAll(tenant, "-", "")
	running := func(c map[string]any) bool { return c["state"] == "running" && c["lag_events"] == 0.0 }

	t.Run("list", func(t *testing.T) {
		w.text(tenant, admin, "first")
		w.consumer(operator, "documents", tenant, running)
		list, _ := w.want(w.call("GET", consumersPath, operator.token, nil), 200).at("data").([]any)
		if len(list) != 7 { // documents and audit of two tenants, the directory of three logs
			t.Errorf("%d consumers: %v", len(list), list)
		}
		c := w.consumer(operator, "directory", "platform", running)
		if c["tenant"] != "platform" || c["generation"] != 1.0 || c["position"] != c["head"] || c["moved_at"] == nil {
			t.Errorf("%v", c)
		}
		for path, want := range map[string]int{"?tenant=" + tenant: 3, "?tenant=" + strings.ToUpper(tenant): 3, "?tenant=" + log: 3, "?projection=audit": 2} {
			list, _ := w.want(w.call("GET", consumersPath+path, operator.token, nil), 200).at("data").([]any)
			if len(list) != want {
				t.Errorf("%s: %d consumers; want %d", path, len(list), want)
			}
		}
	})
	t.Run("pause and resume", func(t *testing.T) {
		body := map[string]any{"tenant": tenant}
		a := w.want(w.call("POST", consumersPath+"/documents/pause", operator.token, body), 200)
		if a.text("data.projection") != "documents" || a.text("data.tenant") != tenant || a.text("message") == "" {
			t.Errorf("%s", a.body)
		}
		a = w.want(w.upload(tenant, admin, part{"file", "paused.txt", "text/plain", "paused"}), 201)
		if a.Header.Get("Factum-Pending") != "documents" {
			t.Errorf("pending: %q", a.Header.Get("Factum-Pending"))
		}
		c := w.consumer(operator, "documents", tenant, func(c map[string]any) bool { return c["state"] == "paused" && c["lag_events"] != 0.0 })
		if c["paused_by"] != operator.id || c["paused_at"] == nil {
			t.Errorf("%v", c)
		}
		w.consumer(operator, "documents", other, running)
		for range 2 { // to resume what runs is no mistake
			w.want(w.call("POST", consumersPath+"/documents/resume", operator.token, body), 200)
		}
		w.consumer(operator, "documents", tenant, running)
		if n := w.listed(tenant, admin); n != 2 {
			t.Errorf("%d documents", n)
		}
	})
	t.Run("parked, retried and skipped", func(t *testing.T) {
		db, err := w.Pool(t.Context(), log)
		if err != nil {
			t.Fatal(err)
		}
		exec := func(sql string) {
			t.Helper()
			if _, err := db.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		exec(`alter table documents_g1.documents add constraint broken check (mime_type <> 'text/plain') not valid`)
		w.text(tenant, admin, "second")
		w.text(tenant, admin, "third")
		c := w.consumer(operator, "documents", tenant, func(c map[string]any) bool {
			parked, _ := c["parked"].([]any)
			return len(parked) == 2
		})
		parked := c["parked"].([]any)
		first, second := parked[0].(map[string]any), parked[1].(map[string]any)
		if first["error"] != "SQLSTATE 23514, table documents, constraint broken" || first["attempts"] != 1.0 {
			t.Errorf("%v", first)
		}
		retry := map[string]any{"tenant": tenant, "stream": first["stream"]}
		a := w.call("POST", consumersPath+"/documents/retry", operator.token, retry)
		w.problem(a, 409, "CONFLICT")
		if !strings.Contains(a.text("detail"), first["event"].(string)) {
			t.Errorf("%s", a.body)
		}
		skip := map[string]any{"tenant": tenant, "stream": first["stream"], "event": first["event"], "reason": "a test broke it"}
		for range 2 { // skipping twice is no mistake
			w.want(w.call("POST", consumersPath+"/documents/skip", operator.token, skip), 200)
		}
		exec(`alter table documents_g1.documents drop constraint broken`)
		retry["stream"] = second["stream"]
		w.want(w.call("POST", consumersPath+"/documents/retry", operator.token, retry), 200)
		w.problem(w.call("POST", consumersPath+"/documents/retry", operator.token, retry), 409, "CONFLICT")
		w.want(w.call("POST", consumersPath+"/documents/retry", operator.token, map[string]any{"tenant": tenant}), 200) // the consumer itself
		w.consumer(operator, "documents", tenant, func(c map[string]any) bool { return running(c) && len(c["parked"].([]any)) == 0 })
		if n := w.listed(tenant, admin); n != 3 {
			t.Errorf("%d documents; want two, and the one that was retried", n)
		}
		var by, reason string
		if err := db.QueryRow(t.Context(), `select data->>'by', data->>'reason' from es.events where type = 'projection.event_skipped'`).Scan(&by, &reason); err != nil ||
			by != operator.id || reason != "a test broke it" {
			t.Error(by, reason, err)
		}
	})
	t.Run("bad input", func(t *testing.T) {
		const event = "11111111-1111-4111-8111-111111111111"
		for name, tc := range map[string]struct {
			path  string
			body  map[string]any
			field string // of the 400; "" for a 404
		}{
			"no projection's name":     {"/DROP%20TABLE/pause", map[string]any{"tenant": tenant}, "projection"},
			"unknown projection":       {"/nothing/pause", map[string]any{"tenant": tenant}, ""},
			"no tenant":                {"/documents/pause", map[string]any{}, "tenant"},
			"no tenant's id":           {"/documents/pause", map[string]any{"tenant": "../x"}, "tenant"},
			"unknown tenant":           {"/documents/resume", map[string]any{"tenant": event}, ""},
			"a log not consumed":       {"/documents/pause", map[string]any{"tenant": "platform"}, ""},
			"skip in a log not read":   {"/documents/skip", map[string]any{"tenant": "platform", "stream": "user-x", "event": event, "reason": "r"}, ""},
			"unknown field":            {"/documents/resume", map[string]any{"tenant": tenant, "by": "me"}, "by"},
			"a number":                 {"/documents/retry", map[string]any{"tenant": 7}, "tenant"},
			"no stream":                {"/documents/retry", map[string]any{"tenant": tenant, "stream": "file"}, "stream"},
			"retry, unknown tenant":    {"/documents/retry", map[string]any{"tenant": event, "stream": "file-x"}, ""},
			"skip, no stream":          {"/documents/skip", map[string]any{"tenant": tenant, "event": event, "reason": "r"}, "stream"},
			"skip, no event's id":      {"/documents/skip", map[string]any{"tenant": tenant, "stream": "file-x", "event": "x", "reason": "r"}, "event"},
			"skip, no reason":          {"/documents/skip", map[string]any{"tenant": tenant, "stream": "file-x", "event": event, "reason": ""}, "reason"},
			"skip, a blank reason":     {"/documents/skip", map[string]any{"tenant": tenant, "stream": "file-x", "event": event, "reason": " \n"}, "reason"},
			"skip, unknown event":      {"/documents/skip", map[string]any{"tenant": tenant, "stream": "file-x", "event": event, "reason": "r"}, ""},
			"skip, unknown projection": {"/nothing/skip", map[string]any{"tenant": tenant, "stream": "file-x", "event": event, "reason": "r"}, ""},
			"skip, unknown tenant":     {"/documents/skip", map[string]any{"tenant": event, "stream": "file-x", "event": event, "reason": "r"}, ""},
		} {
			a := w.call("POST", consumersPath+tc.path, operator.token, tc.body)
			if tc.field == "" {
				w.problem(a, 404, "NOT_FOUND")
				continue
			}
			w.problem(a, 400, "BAD_REQUEST")
			if a.at("error.details."+tc.field) == nil {
				t.Errorf("%s: the field %s is not named: %s", name, tc.field, a.body)
			}
		}
		for _, query := range []string{"?projection=A", "?tenant=x"} {
			w.problem(w.call("GET", consumersPath+query, operator.token, nil), 400, "BAD_REQUEST")
		}
		for _, query := range []string{"?projection=nothing", "?tenant=" + event} {
			w.problem(w.call("GET", consumersPath+query, operator.token, nil), 404, "NOT_FOUND")
		}
		if n := w.skipped(log); n != 1 {
			t.Errorf("%d events are skipped; want only the one of before", n)
		}
	})
	t.Run("an administrator who is one no longer", func(t *testing.T) {
		next := w.person("Next")
		x := commands.NewExecutor(w.store, w.codec)
		by := commands.Caller{UserID: "operator", Command: es.Key("revoke", operator.id), At: time.Now()}
		if _, err := x.RevokeAdministrator(t.Context(), by, operator.id); err == nil || !strings.Contains(fmt.Sprint(err), "last administrator") {
			t.Errorf("the last one was removed: %v", err)
		}
		w.administers(next)
		receipt, err := x.RevokeAdministrator(t.Context(), by, operator.id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := x.GrantAdministrator(t.Context(), commands.Caller{UserID: "operator", Command: "g", At: time.Now()}, "11111111-1111-4111-8111-111111111111"); err == nil {
			t.Error("nobody administers the platform")
		}
		// Demanded of the directory, whose news the check sees.
		w.want(w.call("GET", "/api/users/me", operator.token, nil, header{"Factum-Min-Position": fmt.Sprint(receipt.Position)}), 200)
		w.problem(w.call("GET", consumersPath, operator.token, nil), 403, "FORBIDDEN")
		w.want(w.call("GET", consumersPath, next.token, nil), 200)
	})
}

// TestAdministratorsOfThePlatformFindAccounts: what deactivate and activate want is an id.
func TestAdministratorsOfThePlatformFindAccounts(t *testing.T) {
	w := newWorld(t)
	operator, admin, mina, noor := w.person("Operator"), w.person("Admin"), w.verified(w.person("Mina")), w.person("Noor_B")
	w.administers(operator)
	const users = "/api/platform/users"
	emails := func(a answer) string {
		var out []string
		list, _ := a.at("data.users").([]any)
		for _, u := range list {
			name, _, _ := strings.Cut(fmt.Sprint(u.(map[string]any)["email"]), "@")
			out = append(out, name)
		}
		return strings.Join(out, " ")
	}
	w.problem(w.call("GET", users, admin.token, nil), 403, "FORBIDDEN")
	w.want(w.call("POST", users+"/"+noor.id+"/deactivate", operator.token, nil), 200)
	all := w.envelope(w.call("GET", users, operator.token, nil), 200, true)
	w.fields(all, "data", "users", "pagination")
	w.fields(all, "data.users.0", append([]string{"is_administrator"}, accountFields...)...)
	for query, want := range map[string]string{
		"": "noor_b mina admin operator", "?sort=created_at": "operator admin mina noor_b", "?sort=email": "admin mina noor_b operator", "?sort=-email": "operator noor_b mina admin",
		"?is_active=false": "noor_b", "?is_active=true&sort=email": "admin mina operator", "?email=MINA%40plant.example": "mina", "?email=min&sort=email": "admin mina", "?email=r_b": "noor_b",
		"?email=%25": "", "?email=' or 1=1 --": "", "?page=2&per_page=3": "operator", "?page=9": "", "?created_before=2001-01-01T00:00:00Z": "",
	} {
		if got := emails(w.want(w.call("GET", users+strings.ReplaceAll(query, " ", "+"), operator.token, nil), 200)); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	for next, want := "", []string{"admin mina", "noor_b operator"}; len(want) > 0; want = want[1:] {
		a := w.want(w.call("GET", users+"?sort=email&per_page=2&cursor="+next, operator.token, nil), 200)
		if next = a.text("data.pagination.next_cursor"); emails(a) != want[0] || (next == "") != (len(want) == 1) || a.at("data.pagination.total") != 4.0 {
			t.Errorf("%s; want %s", a.body, want[0])
		}
	}
	for _, bad := range []string{"?page=0", "?per_page=101", "?sort=first_name", "?is_active=yes", "?cursor=x", "?email=%ff", "?email=%00", "?created_after=now"} {
		w.problem(w.call("GET", users+bad, operator.token, nil), 400, "BAD_REQUEST")
	}
	one := w.want(w.call("GET", users+"?email="+operator.email, operator.token, nil), 200)
	if one.text("data.users.0.id") != operator.id || one.at("data.users.0.is_administrator") != true || one.at("data.users.0.email_verified") != false {
		t.Errorf("%s", one.body)
	}
	if one := w.want(w.call("GET", users+"?email="+mina.email, operator.token, nil), 200); one.at("data.users.0.is_administrator") != false || one.at("data.users.0.email_verified") != true {
		t.Errorf("%s", one.body)
	}
}

// TestATenantWithoutAnAdminGetsOne: its only admin's account is switched off, and nobody of the tenant could do anything about that.
func TestATenantWithoutAnAdminGetsOne(t *testing.T) {
	w := newWorld(t)
	operator, admin, second, user, stranger := w.person("Operator"), w.person("Admin"), w.person("Second"), w.person("User"), w.person("Stranger")
	w.administers(operator)
	tenant, other := w.tenant(admin, "Left"), w.tenant(stranger, "Kept")
	w.grant(tenant, user, "user")
	w.grant(tenant, second, "admin")
	members, admins := "/api/tenants/"+tenant+"/users", "/api/platform/tenants/"+tenant+"/admins"
	switchTo := func(what, id string) {
		t.Helper()
		w.want(w.call("POST", "/api/platform/users/"+id+"/"+what, operator.token, nil), 200)
	}
	tenants := func(query string) answer {
		t.Helper()
		return w.envelope(w.call("GET", "/api/platform/tenants"+query, operator.token, nil), 200, true)
	}
	appoint := func(by person, id string) answer {
		return w.call("POST", admins, by.token, map[string]any{"user_id": id})
	}

	// An admin who is switched off does not count: the other one stays.
	switchTo("deactivate", second.id)
	w.problem(w.call("DELETE", members+"/"+admin.id, admin.token, nil), 400, "BAD_REQUEST")
	w.problem(w.call("PUT", members+"/"+admin.id, admin.token, map[string]any{"role": "user"}), 400, "BAD_REQUEST")
	off := w.want(w.call("GET", members+"?is_active=false", user.token, nil), 200)
	w.fields(off, "data.members.0", memberFields...)
	if off.text("data.members.0.id") != second.id || off.at("data.members.0.is_active") != false || off.at("data.pagination.total") != 1.0 {
		t.Errorf("%s", off.body)
	}
	w.problem(appoint(operator, user.id), 409, "CONFLICT") // that is for the tenant's admin to do
	if none := tenants("?without_admin=true"); none.at("data.pagination.total") != 0.0 {
		t.Errorf("%s", none.body)
	}

	switchTo("deactivate", admin.id)
	left := tenants("?without_admin=true")
	w.fields(left, "data", "tenants", "pagination")
	w.fields(left, "data.tenants.0", "id", "name", "database_name", "is_active", "member_count", "admin_count", "created_at", "updated_at")
	if left.text("data.tenants.0.id") != tenant || left.at("data.tenants.0.admin_count") != 0.0 || left.at("data.tenants.0.member_count") != 1.0 || left.at("data.pagination.total") != 1.0 {
		t.Errorf("%s", left.body)
	}
	if all := tenants("?sort=name"); all.text("data.tenants.0.id") != other || all.text("data.tenants.1.id") != tenant || all.at("data.pagination.total") != 2.0 {
		t.Errorf("%s", all.body)
	}
	if kept := tenants("?without_admin=false&is_active=true"); kept.text("data.tenants.0.id") != other || kept.at("data.pagination.total") != 1.0 {
		t.Errorf("%s", kept.body)
	}
	for _, bad := range []string{"?without_admin=x", "?sort=id", "?is_active=1", "?page=0", "?cursor=x"} {
		w.problem(w.call("GET", "/api/platform/tenants"+bad, operator.token, nil), 400, "BAD_REQUEST")
	}

	const nobody = "11111111-1111-4111-8111-111111111111"
	w.problem(appoint(user, user.id), 403, "FORBIDDEN")
	w.problem(appoint(operator, nobody), 404, "NOT_FOUND")
	w.problem(appoint(operator, admin.id), 404, "NOT_FOUND") // switched off
	w.problem(w.call("POST", "/api/platform/tenants/"+nobody+"/admins", operator.token, map[string]any{"user_id": user.id}), 404, "NOT_FOUND")
	w.problem(w.call("POST", admins, operator.token, map[string]any{}), 400, "BAD_REQUEST")
	made := w.envelope(appoint(operator, strings.ToUpper(user.id)), 201, true)
	w.fields(made, "data", "user_id", "tenant_id", "role", "joined_at")
	w.want(appoint(operator, user.id), 201) // is one already
	w.problem(appoint(operator, stranger.id), 409, "CONFLICT")
	w.want(w.call("PUT", "/api/tenants/"+tenant, user.token, map[string]any{"name": "Found"}), 200) // at once
	w.want(w.call("DELETE", members+"/"+admin.id, user.token, nil), 200)

	// Somebody who was no member, too; and a deleted tenant stays as it is.
	switchTo("deactivate", user.id)
	w.want(appoint(operator, stranger.id), 201)
	w.want(w.call("DELETE", "/api/tenants/"+tenant, stranger.token, nil), 200)
	switchTo("deactivate", stranger.id)
	w.problem(appoint(operator, operator.id), 404, "NOT_FOUND")
	if gone := tenants("?is_active=false"); gone.text("data.tenants.0.id") != tenant || gone.at("data.pagination.total") != 1.0 {
		t.Errorf("%s", gone.body)
	}
}

// skipped counts the events that are passed over.
func (w *world) skipped(log string) (n int) {
	w.t.Helper()
	for _, tenant := range []string{log, "platform"} {
		db, err := w.Pool(w.t.Context(), tenant)
		if err != nil {
			w.t.Fatal(err)
		}
		var count int
		if err := db.QueryRow(w.t.Context(), `select count(*) from es.events where type = 'projection.event_skipped'`).Scan(&count); err != nil {
			w.t.Fatal(err)
		}
		n += count
	}
	return n
}
