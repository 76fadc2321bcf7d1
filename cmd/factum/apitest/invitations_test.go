package apitest

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/factum-platform/factum/domain/invitation"
	"github.com/factum-platform/factum/eventstore"
)

// verified follows the link that shows that p's address is p's.
func (w *world) verified(p person) person {
	w.t.Helper()
	w.want(w.call("POST", "/api/auth/verify-email/resend", p.token, nil), 202)
	w.want(w.call("POST", "/api/auth/verify-email", "", map[string]any{"token": w.link(p, "verify")}), 200)
	return p
}

// invite invites an address, and answers the invitation's id and the secret of the mailed link. projections/process tests the job that mails.
func (w *world) invite(tenant string, by person, email, role string) (id, token string) {
	w.t.Helper()
	a := w.want(w.call("POST", "/api/tenants/"+tenant+"/invitations", by.token, map[string]any{"email": email, "role": role}), 201)
	return a.text("data.id"), w.mailed(a.text("data.id"), email)
}

func (w *world) mailed(id, email string) (token string) {
	w.t.Helper()
	if err := w.commands.MailInvitation(w.t.Context(), id); err != nil {
		w.t.Fatal(err)
	}
	return w.link(person{email: strings.ToLower(email)}, "invite")
}

var invitationFields = []string{"id", "tenant_id", "email", "role", "state", "invited_by", "invited_at", "expires_at"}

func TestAnInvitedAddressBecomesAMember(t *testing.T) {
	w := newWorld(t)
	admin := w.person("Admin")
	tenant := w.tenant(admin, "North Mill")
	base := "/api/tenants/" + tenant

	made := w.envelope(w.call("POST", base+"/invitations", admin.token, map[string]any{"email": " Noor@Plant.example", "role": "user"}), 201, true)
	w.fields(made, "data", invitationFields...)
	id := made.text("data.id")
	if made.text("data.email") != "noor@plant.example" || made.text("data.role") != "user" || made.text("data.state") != "open" ||
		made.text("data.invited_by") != admin.id || made.text("data.tenant_id") != tenant || made.Header.Get("Factum-Pending") != "" {
		t.Errorf("%s", made.body)
	}
	token := w.mailed(id, "noor@plant.example")
	accept := func(p person, token string) answer {
		return w.call("POST", "/api/invitations/accept", p.token, map[string]any{"token": token})
	}

	noor, other := w.person("Noor"), w.verified(w.person("Other")) // the account is younger than the invitation
	w.problem(accept(noor, token), 403, "EMAIL_UNVERIFIED")
	w.problem(w.call("GET", "/api/users/me/invitations", noor.token, nil), 403, "EMAIL_UNVERIFIED")
	w.problem(w.call("POST", "/api/users/me/invitations/"+id+"/accept", noor.token, nil), 403, "EMAIL_UNVERIFIED")
	w.problem(accept(other, token), 403, "OTHER_ADDRESS")
	w.problem(w.call("POST", "/api/users/me/invitations/"+id+"/accept", other.token, nil), 404, "NOT_FOUND")
	w.problem(w.call("POST", "/api/users/me/invitations/"+id+"/decline", other.token, nil), 404, "NOT_FOUND")
	if list := w.envelope(w.call("GET", "/api/users/me/invitations", other.token, nil), 200, true); list.at("data.0") != nil {
		t.Errorf("%s", list.body)
	}
	w.problem(w.call("GET", base, noor.token, nil), 404, "NOT_FOUND")

	w.verified(noor)
	mine := w.envelope(w.call("GET", "/api/users/me/invitations", noor.token, nil), 200, true)
	w.fields(mine, "data.0", "id", "tenant_id", "tenant_name", "role", "invited_at", "expires_at")
	if mine.text("data.0.id") != id || mine.text("data.0.tenant_name") != "North Mill" || mine.at("data.1") != nil {
		t.Errorf("%s", mine.body)
	}
	for _, bad := range []string{"x", token + "x", token[1:], strings.ToUpper(token)} {
		w.problem(accept(noor, bad), 400, "INVALID_LINK")
	}
	joined := w.envelope(accept(noor, token), 200, true)
	w.fields(joined, "data", "user_id", "tenant_id", "role", "joined_at")
	if joined.text("data.user_id") != noor.id || joined.text("data.role") != "user" || joined.text("data.tenant_id") != tenant {
		t.Errorf("%s", joined.body)
	}
	if one := w.want(w.call("GET", base, noor.token, nil), 200); one.text("data.role") != "user" {
		t.Errorf("%s", one.body)
	}
	w.problem(accept(noor, token), 400, "INVALID_LINK") // single use
	if again := w.want(w.call("POST", "/api/users/me/invitations/"+id+"/accept", noor.token, nil), 200); again.text("data.joined_at") != joined.text("data.joined_at") {
		t.Errorf("accepted twice: %s and %s", joined.body, again.body)
	}
	if list := w.want(w.call("GET", "/api/users/me/invitations", noor.token, nil), 200); list.at("data.0") != nil {
		t.Errorf("%s", list.body)
	}
	list := w.envelope(w.call("GET", base+"/invitations?state=accepted", admin.token, nil), 200, true)
	w.fields(list, "data.invitations.0", append([]string{"answered_at"}, invitationFields...)...)
	if list.text("data.invitations.0.id") != id || list.at("data.pagination.total") != 1.0 {
		t.Errorf("%s", list.body)
	}

	// Who was removed does not come back by the same invitation.
	w.want(w.call("DELETE", base+"/users/"+noor.id, admin.token, nil), 200)
	w.problem(w.call("POST", "/api/users/me/invitations/"+id+"/accept", noor.token, nil), 404, "NOT_FOUND")
	w.problem(w.call("GET", base, noor.token, nil), 404, "NOT_FOUND")
	second, token := w.invite(tenant, admin, noor.email, "viewer")
	if second != id {
		t.Errorf("the same address has the invitations %s and %s", id, second)
	}
	if back := w.want(accept(noor, token), 200); back.text("data.role") != "viewer" || back.text("data.joined_at") <= joined.text("data.joined_at") {
		t.Errorf("%s", back.body)
	}
	w.nothingPersonal("noor", "plant.example")
}

// nothingPersonal asserts that no event of the platform's log holds one of the texts.
func (w *world) nothingPersonal(texts ...string) {
	w.t.Helper()
	page, err := w.store.Tenant(eventstore.PlatformTenant).Page(w.t.Context(), 0, 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	invitations := 0
	for _, e := range page.Events {
		if e.Stream.Kind == invitation.Kind {
			invitations++
		}
		for _, text := range texts {
			if strings.Contains(strings.ToLower(string(e.Data)+e.Stream.ID+e.Meta.Actor), text) {
				w.t.Errorf("%s holds %q", e.Type, text)
			}
		}
	}
	if invitations == 0 {
		w.t.Error("no invitation is in the log")
	}
}

func TestAnInvitationIsDeclinedRevokedAndResent(t *testing.T) {
	w := newWorld(t)
	admin, colleague, noor := w.person("Admin"), w.person("Colleague"), w.verified(w.person("Noor"))
	tenant, elsewhere := w.tenant(admin, "A"), w.tenant(colleague, "B")
	base := "/api/tenants/" + tenant + "/invitations"
	link := func(what, token, bearer string) answer {
		return w.call("POST", "/api/invitations/"+what, bearer, map[string]any{"token": token})
	}

	// Whether there is an account is not told.
	known := w.want(w.call("POST", base, admin.token, map[string]any{"email": noor.email, "role": "user"}), 201)
	unknown := w.want(w.call("POST", base, admin.token, map[string]any{"email": "nobody@plant.example", "role": "user"}), 201)
	if len(known.at("data").(map[string]any)) != len(unknown.at("data").(map[string]any)) || known.text("message") != unknown.text("message") {
		t.Errorf("%s tells accounts from %s", known.body, unknown.body)
	}
	for _, email := range []string{noor.email, "nobody@plant.example"} {
		w.problem(w.call("POST", base, admin.token, map[string]any{"email": email, "role": "viewer"}), 409, "CONFLICT")
	}

	// A link without an account declines, once.
	nobody := w.mailed(unknown.text("data.id"), "nobody@plant.example")
	w.envelope(link("decline", nobody, ""), 200, false)
	w.problem(link("decline", nobody, ""), 400, "INVALID_LINK")
	w.problem(w.call("POST", base+"/"+unknown.text("data.id")+"/resend", admin.token, nil), 404, "NOT_FOUND")

	// What is revoked cannot be accepted, and its link is dead.
	id := known.text("data.id")
	token := w.mailed(id, noor.email)
	w.problem(w.call("DELETE", "/api/tenants/"+elsewhere+"/invitations/"+id, colleague.token, nil), 404, "NOT_FOUND")
	w.problem(w.call("POST", "/api/tenants/"+elsewhere+"/invitations/"+id+"/resend", colleague.token, nil), 404, "NOT_FOUND")
	w.envelope(w.call("DELETE", base+"/"+id, admin.token, nil), 200, false)
	w.problem(w.call("DELETE", base+"/"+id, admin.token, nil), 404, "NOT_FOUND")
	w.problem(link("accept", token, noor.token), 400, "INVALID_LINK")
	w.problem(w.call("POST", "/api/users/me/invitations/"+id+"/accept", noor.token, nil), 404, "NOT_FOUND")

	// Declined by the account, and invited anew.
	w.invite(tenant, admin, noor.email, "user")
	w.envelope(w.call("POST", "/api/users/me/invitations/"+id+"/decline", noor.token, nil), 200, false)
	w.problem(w.call("POST", "/api/users/me/invitations/"+id+"/accept", noor.token, nil), 404, "NOT_FOUND")

	// Three links an hour, whatever is revoked and invited in between: the second world of mails is silent.
	again := w.want(w.call("POST", base, admin.token, map[string]any{"email": noor.email, "role": "admin"}), 201)
	before := again.text("data.expires_at")
	resent := w.envelope(w.call("POST", base+"/"+id+"/resend", admin.token, nil), 200, true)
	w.fields(resent, "data", invitationFields...)
	if resent.text("data.expires_at") <= before {
		t.Errorf("%s expires no later than %s", resent.body, again.body)
	}
	list := w.want(w.call("GET", base+"?per_page=1&page=2", admin.token, nil), 200)
	if list.at("data.pagination.total") != 2.0 || list.text("data.invitations.0.state") != "declined" {
		t.Errorf("%s", list.body)
	}
	for _, bad := range []string{"?page=0", "?state=lost", "?per_page=1000"} {
		w.problem(w.call("GET", base+bad, admin.token, nil), 400, "BAD_REQUEST")
	}
	for _, wrong := range []map[string]any{{}, {"email": noor.email}, {"role": "user"}, {"email": "no address", "role": "user"}, {"email": noor.email, "role": "owner"}, {"email": "a\r\nBcc: b@c.example@d.example", "role": "user"}, {"email": noor.email, "role": "user", "more": 1}} {
		w.problem(w.call("POST", base, admin.token, wrong), 400, "BAD_REQUEST")
	}
}

// TestAnInvitationHoldsNoLongerThanWhoInvited: it expires, and it ends with the right of who invited, and with the tenant.
func TestAnInvitationHoldsNoLongerThanWhoInvited(t *testing.T) {
	w := newWorld(t)
	admin, second, noor := w.person("Admin"), w.person("Second"), w.verified(w.person("Noor"))
	tenant := w.tenant(admin, "A")
	w.grant(tenant, second, "admin")
	base := "/api/tenants/" + tenant
	id, token := w.invite(tenant, second, noor.email, "admin")
	accept := func() answer {
		return w.call("POST", "/api/invitations/accept", noor.token, map[string]any{"token": token})
	}
	w.want(w.call("PUT", base+"/users/"+second.id, admin.token, map[string]any{"role": "user"}), 200)
	mine := func() int {
		list, _ := w.want(w.call("GET", "/api/users/me/invitations", noor.token, nil), 200).at("data").([]any)
		return len(list)
	}
	w.problem(accept(), 404, "NOT_FOUND")
	if n := mine(); n != 0 {
		t.Errorf("%d invitations are shown that cannot be accepted", n)
	}
	w.want(w.call("PUT", base+"/users/"+second.id, admin.token, map[string]any{"role": "admin"}), 200)
	if n := mine(); n != 1 {
		t.Errorf("%d invitations", n)
	}
	operator := w.person("Operator")
	w.administers(operator)
	w.want(w.call("POST", "/api/platform/users/"+second.id+"/deactivate", operator.token, nil), 200)
	w.problem(accept(), 404, "NOT_FOUND") // whoever is shut out lets nobody in
	if n := mine(); n != 0 {
		t.Errorf("%d invitations are shown that cannot be accepted", n)
	}
	w.want(w.call("POST", base+"/invitations/"+id+"/resend", admin.token, nil), 200) // another admin vouches for it
	w.want(w.call("DELETE", base, admin.token, nil), 200)
	w.problem(accept(), 404, "NOT_FOUND")
	if list := w.want(w.call("GET", "/api/users/me/invitations", noor.token, nil), 200); list.at("data.0") != nil {
		t.Errorf("%s", list.body)
	}
	w.restore(tenant, admin)

	w.shift.Store(int64(invitation.Life + time.Minute)) // of the clock of links and sessions
	late := w.login(noor, password)
	a := w.call("POST", "/api/invitations/accept", late.token, map[string]any{"token": token})
	w.shift.Store(0)
	w.problem(a, 400, "INVALID_LINK")
	w.want(accept(), 200)

	// A member is not made another, nor an admin demoted, by an invitation.
	w.want(w.call("DELETE", base+"/users/"+second.id, admin.token, nil), 200)
	w.want(w.call("DELETE", base+"/users/"+admin.id, noor.token, nil), 200)
	w.grant(tenant, admin, "admin")
	again := w.call("POST", base+"/invitations", admin.token, map[string]any{"email": strings.ToUpper(noor.email), "role": "viewer"})
	w.problem(again, 400, "BAD_REQUEST")
	w.want(w.call("DELETE", base+"/users/"+noor.id, admin.token, nil), 200)
	_, token = w.invite(tenant, admin, noor.email, "viewer")
	w.grant(tenant, noor, "admin")
	w.problem(accept(), 400, "BAD_REQUEST")
	if one := w.want(w.call("GET", base, noor.token, nil), 200); one.text("data.role") != "admin" {
		t.Errorf("%s", one.body)
	}
}

// TestAnInvitationIsAcceptedOrRevokedAndNotBoth races the two over two servers.
func TestAnInvitationIsAcceptedOrRevokedAndNotBoth(t *testing.T) {
	w := newWorld(t)
	other := w.second()
	admin, noor := w.person("Admin"), w.verified(w.person("Noor"))
	tenant := w.tenant(admin, "A")
	base := "/api/tenants/" + tenant
	for range 5 {
		made := w.want(w.call("POST", base+"/invitations", admin.token, map[string]any{"email": noor.email, "role": "user"}), 201)
		id := made.text("data.id")
		var wg sync.WaitGroup
		var accepted, revoked answer
		wg.Go(func() { accepted = other.call("POST", "/api/users/me/invitations/"+id+"/accept", noor.token, nil) })
		wg.Go(func() { revoked = w.call("DELETE", base+"/invitations/"+id, admin.token, nil) })
		wg.Wait()
		if (accepted.StatusCode == http.StatusOK) == (revoked.StatusCode == http.StatusOK) {
			t.Fatalf("accepted %d %s, revoked %d %s", accepted.StatusCode, accepted.body, revoked.StatusCode, revoked.body)
		}
		if member := w.call("DELETE", base+"/users/"+noor.id, admin.token, nil); (member.StatusCode == http.StatusOK) != (accepted.StatusCode == http.StatusOK) {
			t.Fatalf("accepted %d, a member: %d", accepted.StatusCode, member.StatusCode)
		}
	}
}
