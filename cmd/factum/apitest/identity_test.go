package apitest

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/tenants"
)

// login begins one more session of p.
func (w *world) login(p person, pass string) person {
	w.t.Helper()
	l := w.want(w.call("POST", "/api/auth/login", "", map[string]any{"email": p.email, "password": pass}, header{"User-Agent": "valve-panel/2"}), 200)
	return person{p.id, p.email, l.text("access_token"), l.text("refresh_token")}
}

func TestSessionsAreListedAndEnded(t *testing.T) {
	w := newWorld(t)
	desk, stranger := w.person("Mina"), w.person("Stranger")
	panel := w.login(desk, password)
	list := w.want(w.call("GET", "/api/auth/sessions", panel.token, nil), 200)
	if list.text("sessions.0.user_agent") != "valve-panel/2" || list.at("sessions.0.current") != true || list.at("sessions.1.current") != false || list.at("sessions.2") != nil {
		t.Fatalf("%s", list.body)
	}
	panelSession, deskSession := list.text("sessions.0.id"), list.text("sessions.1.id")

	w.problem(w.call("DELETE", "/api/auth/sessions/"+panelSession, stranger.token, nil), 404, "not_found")
	w.want(w.call("GET", "/api/users/me", panel.token, nil), 200)
	w.want(w.call("DELETE", "/api/auth/sessions/"+strings.ToUpper(panelSession), desk.token, nil), 200)
	w.problem(w.call("DELETE", "/api/auth/sessions/"+panelSession, desk.token, nil), 404, "not_found")
	w.problem(w.call("GET", "/api/users/me", panel.token, nil), 401, "UNAUTHORIZED")
	w.problem(w.call("POST", "/api/auth/refresh", panel.refresh, nil), 401, "token_revoked")
	if left := w.want(w.call("GET", "/api/auth/sessions", desk.token, nil), 200); left.text("sessions.0.id") != deskSession || left.at("sessions.1") != nil {
		t.Errorf("%s", left.body)
	}

	second := w.login(desk, password)
	if a := w.want(w.call("POST", "/api/auth/logout-all", second.token, nil), 200); a.at("ended") != 2.0 {
		t.Errorf("%s", a.body)
	}
	for _, p := range []person{desk, second} {
		w.problem(w.call("POST", "/api/auth/logout-all", p.token, nil), 401, "token_revoked")
		w.problem(w.call("POST", "/api/auth/refresh", p.refresh, nil), 401, "token_revoked")
	}
	w.want(w.call("GET", "/api/users/me", stranger.token, nil), 200)
}

func TestAReplayedRefreshTokenEndsTheSession(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	thief := w.want(w.call("POST", "/api/auth/refresh", mina.refresh, nil), 200)
	w.problem(w.call("POST", "/api/auth/refresh", mina.refresh, nil), 401, "token_revoked")
	w.problem(w.call("POST", "/api/auth/refresh", thief.text("refresh_token"), nil), 401, "token_revoked")
	for _, token := range []string{mina.token, thief.text("access_token")} {
		w.problem(w.call("GET", "/api/users/me", token, nil), 401, "UNAUTHORIZED")
	}
}

func TestAPasswordIsChanged(t *testing.T) {
	w := newWorld(t)
	desk := w.person("Mina")
	panel := w.login(desk, password)
	const next = "rotor blade 9 whistles"
	change := func(token, current, next string) answer {
		return w.call("POST", "/api/auth/password/change", token, map[string]any{"current_password": current, "new_password": next})
	}
	for _, c := range []struct{ current, next, field string }{
		{"wrong", next, "current_password"},
		{"", next, "current_password"},
		{password, "short", "new_password"},
		{password, "mina@plant.example", "new_password"},
		{password, "aaaaaaaaaaaaaaaaaaaa", "new_password"},
		{password, strings.Repeat("x1", 600), "new_password"},
	} {
		a := change(desk.token, c.current, c.next)
		w.problem(a, 400, "validation_error")
		if details, _ := a.at("error.details").(map[string]any); len(details) != 1 || details[c.field] == nil {
			t.Errorf("%q: %s", c.field, a.body)
		}
	}
	w.want(w.call("GET", "/api/users/me", panel.token, nil), 200)
	w.want(change(desk.token, password, next), 200)
	w.want(w.call("GET", "/api/users/me", desk.token, nil), 200)
	w.problem(w.call("GET", "/api/users/me", panel.token, nil), 401, "UNAUTHORIZED")
	w.problem(w.call("POST", "/api/auth/refresh", panel.refresh, nil), 401, "token_revoked")
	w.problem(w.call("POST", "/api/auth/login", "", map[string]any{"email": desk.email, "password": password}), 401, "invalid_credentials")
	w.login(desk, next)
}

func TestAnAddressIsVerified(t *testing.T) {
	w := newWorld(t)
	mina, stranger := w.person("Mina"), w.person("Stranger")
	follow := func(token string) answer {
		return w.call("POST", "/api/auth/verify-email", "", map[string]any{"token": token})
	}
	if me := w.want(w.call("GET", "/api/users/me", mina.token, nil), 200); me.at("data.email_verified") != false {
		t.Errorf("%s", me.body)
	}
	w.want(w.call("POST", "/api/auth/verify-email/resend", mina.token, nil), 202)
	first := w.link(mina, "verify")
	w.want(w.call("POST", "/api/auth/verify-email/resend", mina.token, nil), 202)
	second := w.link(mina, "verify")
	for _, token := range []string{"x", second[1:], second + "x", strings.ToLower(second)} {
		w.problem(follow(token), 400, "invalid_link")
	}
	w.problem(w.call("POST", "/api/auth/password/reset", "", map[string]any{"token": second, "new_password": password}), 400, "invalid_link")
	w.want(follow(first), 200)
	for _, token := range []string{first, second} {
		w.problem(follow(token), 400, "invalid_link")
	}
	if me := w.want(w.call("GET", "/api/users/me", mina.token, nil), 200); me.at("data.email_verified") != true {
		t.Errorf("%s", me.body)
	}
	if me := w.want(w.call("GET", "/api/users/me", stranger.token, nil), 200); me.at("data.email_verified") != false {
		t.Errorf("%s", me.body)
	}
	w.want(w.call("POST", "/api/auth/verify-email/resend", mina.token, nil), 202)
	if len(w.mails) != 0 {
		t.Error("a verified address is sent a mail")
	}
	for range 5 { // three of them send
		w.want(w.call("POST", "/api/auth/verify-email/resend", stranger.token, nil), 202)
	}
	if len(w.mails) != 3 {
		t.Errorf("%d mails", len(w.mails))
	}
}

func TestMailsAboutAnAccountDoNotCarryWhatItsNameSays(t *testing.T) {
	w := newWorld(t)
	w.want(w.call("POST", "/api/auth/register", "", map[string]any{
		"first_name": "You won, see https://evil.example", "last_name": "Okoro", "email": "victim@plant.example", "password": password,
	}), 201)
	l := w.want(w.call("POST", "/api/auth/login", "", map[string]any{"email": "victim@plant.example", "password": password}), 200)
	w.want(w.call("POST", "/api/auth/verify-email/resend", l.text("access_token"), nil), 202)
	w.want(w.call("POST", "/api/auth/password/forgot", "", map[string]any{"email": "victim@plant.example"}), 202)
	for range 2 {
		if m := <-w.mails; strings.Contains(m.Subject+m.Text, "evil") {
			t.Errorf("%s", m.Text)
		}
	}
}

func TestAForgottenPasswordIsSetByAMailedLink(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	forgot := func(email string) answer {
		return w.call("POST", "/api/auth/password/forgot", "", map[string]any{"email": email})
	}
	reset := func(token, pass string) answer {
		return w.call("POST", "/api/auth/password/reset", "", map[string]any{"token": token, "new_password": pass})
	}
	unknown := w.want(forgot("nobody@plant.example"), 202)
	if len(w.mails) != 0 {
		t.Fatal("a stranger is sent a mail")
	}
	if known := w.want(forgot(" MINA@plant.example"), 202); string(known.body) != string(unknown.body) {
		t.Errorf("%s tells accounts from %s", known.body, unknown.body)
	}
	token := w.link(mina, "reset")
	w.problem(forgot("no address"), 400, "validation_error")
	const next = "rotor blade 9 whistles"
	w.problem(reset(token, "mina.okoro.mina"), 400, "validation_error") // and the link stays good
	w.problem(w.call("POST", "/api/auth/verify-email", "", map[string]any{"token": token}), 400, "invalid_link")
	for range 6 {
		w.call("POST", "/api/auth/login", "", map[string]any{"email": mina.email, "password": "wrong"})
	}
	w.want(reset(token, next), 200)
	w.problem(reset(token, next), 400, "invalid_link")
	w.problem(w.call("GET", "/api/users/me", mina.token, nil), 401, "UNAUTHORIZED")
	w.problem(w.call("POST", "/api/auth/refresh", mina.refresh, nil), 401, "token_revoked")
	mina = w.login(mina, next) // whoever guessed does not keep her out
	if me := w.want(w.call("GET", "/api/users/me", mina.token, nil), 200); me.at("data.email_verified") != true {
		t.Errorf("%s", me.body)
	}
	w.want(forgot(mina.email), 202)
	token = w.link(mina, "reset")
	w.want(w.call("POST", "/api/auth/password/change", mina.token, map[string]any{"current_password": next, "new_password": password}), 200)
	w.problem(reset(token, next), 400, "invalid_link") // the change spent it
	deadline := time.Now().Add(20 * time.Second)
	for a := forgot("nobody@plant.example"); a.StatusCode != 429; a = forgot("nobody@plant.example") {
		w.want(a, 202)
		if time.Now().After(deadline) {
			t.Fatal("asking for mails is not slowed down")
		}
	}
}

func TestAProfileIsChanged(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	change := func(body any) answer { return w.call("PUT", "/api/users/me", mina.token, body) }
	if a := w.want(change(map[string]any{"first_name": " Nina "}), 200); a.text("data.first_name") != "Nina" || a.text("data.last_name") != "Okoro" || a.Header.Get("Factum-Pending") != "" {
		t.Errorf("%s", a.body)
	}
	w.want(change(map[string]any{"last_name": "Ōbi-Łuk"}), 200)
	me := w.want(w.call("GET", "/api/users/me", mina.token, nil), 200)
	if me.text("data.first_name") != "Nina" || me.text("data.last_name") != "Ōbi-Łuk" || me.text("data.email") != mina.email || me.text("data.updated_at") <= me.text("data.created_at") {
		t.Errorf("%s", me.body)
	}
	for field, body := range map[string]map[string]any{
		"_schema":    {},
		"first_name": {"first_name": "  "},
		"last_name":  {"last_name": "a\x00b"},
		"email":      {"first_name": "A", "email": "other@plant.example"},
		"is_active":  {"is_active": false},
	} {
		a := change(body)
		w.problem(a, 400, "BAD_REQUEST")
		if details, _ := a.at("error.details").(map[string]any); details[field] == nil {
			t.Errorf("%s: %s", field, a.body)
		}
	}
	w.problem(change(map[string]any{"first_name": nil}), 400, "BAD_REQUEST")
	w.problem(change(map[string]any{"first_name": strings.Repeat("ä", 101)}), 400, "BAD_REQUEST")
	if l := w.login(mina, password); l.id != mina.id {
		t.Error("the account is another")
	}
}

// TestGuessingIsSlowedDown compares an account that exists with one that does not: every answer must be the same.
func TestGuessingIsSlowedDown(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	try := func(email, pass string) answer {
		return w.call("POST", "/api/auth/login", "", map[string]any{"email": email, "password": pass})
	}
	for _, email := range []string{mina.email, "nobody@plant.example"} {
		for range 5 {
			w.problem(try(email, "wrong"), 401, "invalid_credentials")
		}
		blocked := try(email, password)
		w.problem(blocked, 429, "too_many_requests")
		if after, err := strconv.Atoi(blocked.Header.Get("Retry-After")); err != nil || after < 1 || after > 2 {
			t.Errorf("Retry-After %q", blocked.Header.Get("Retry-After"))
		}
	}
	w.want(w.call("GET", "/api/users/me", mina.token, nil), 200)
	deadline := time.Now().Add(10 * time.Second)
	for a := try(mina.email, password); a.StatusCode != 200; a = try(mina.email, password) {
		if time.Now().After(deadline) {
			t.Fatalf("the right password is still refused: %s", a.body)
		}
	}
}

// TestGuessesMadeAtOnceAreNotAnswered makes others fail while a password is being looked at, as a burst of guesses does.
func TestGuessesMadeAtOnceAreNotAnswered(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	account, err := w.keys.MAC(t.Context(), tenants.Platform, "email", mina.email)
	if err != nil {
		t.Fatal(err)
	}
	var bodies []string
	for _, pass := range []string{password, "rotor blade 9 whistles"} {
		if err := w.accounts.Succeeded(t.Context(), auth.Attempt{Account: account}); err != nil {
			t.Fatal(err)
		}
		held, err := w.platform.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := held.Exec(t.Context(), `lock table auth.credentials in access exclusive mode`); err != nil {
			t.Fatal(err)
		}
		answered := make(chan answer, 1)
		go func() {
			answered <- w.call("POST", "/api/auth/login", "", map[string]any{"email": mina.email, "password": pass})
		}()
		w.until("the log-in looks at no credential", `select exists (select from pg_locks l join pg_class c on c.oid = l.relation
			where c.relname = 'credentials' and not l.granted)`)
		for range 6 {
			if err := w.accounts.Failed(t.Context(), auth.Attempt{Account: account}); err != nil {
				t.Fatal(err)
			}
		}
		if err := held.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		a := <-answered
		w.problem(a, 429, "too_many_requests")
		bodies = append(bodies, string(a.body))
	}
	if bodies[0] != bodies[1] {
		t.Errorf("%s tells a right password from a wrong one: %s", bodies[0], bodies[1])
	}
}

// TestForgedTokensAreRefused offers the router what attackers offer. The forger has the signing key, so that each token is wrong in one
// thing only.
func TestForgedTokensAreRefused(t *testing.T) {
	w := newWorld(t)
	mina, ended := w.person("Mina"), w.person("Ended")
	w.want(w.call("POST", "/api/auth/logout", ended.token, nil), 200)
	var kid string
	var sealed []byte
	if err := w.platform.QueryRow(t.Context(), `select kid, sealed_seed from auth.signing_keys`).Scan(&kid, &sealed); err != nil {
		t.Fatal(err)
	}
	seed, err := w.keys.Open(t.Context(), "jwt-signing-key", sealed)
	if err != nil {
		t.Fatal(err)
	}
	key := ed25519.NewKeyFromSeed(seed)
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	published := w.want(w.call("GET", "/.well-known/jwks.json", "", nil), 200)
	public, err := base64.RawURLEncoding.DecodeString(published.text("keys.0.x"))
	if err != nil || !ed25519.PublicKey(public).Equal(key.Public()) || published.text("keys.0.kid") != kid || published.at("keys.1") != nil ||
		published.Header.Get("Cache-Control") != "public, max-age=300" {
		t.Fatalf("%v %v %s", err, published.Header, published.body)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(mina.token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	forge := func(method jwt.SigningMethod, with any, kid any, changes map[string]any) string {
		c := jwt.MapClaims{}
		if err := json.Unmarshal(payload, &c); err != nil {
			t.Fatal(err)
		}
		for name, value := range changes {
			c[name] = value
			if value == nil {
				delete(c, name)
			}
		}
		token := jwt.NewWithClaims(method, c)
		token.Header["kid"] = kid
		signed, err := token.SignedString(with)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	good := func(changes map[string]any) string { return forge(jwt.SigningMethodEdDSA, key, kid, changes) }
	w.want(w.call("GET", "/api/users/me", good(nil), nil), 200) // or the forger proves nothing
	past, future := time.Now().Add(-time.Hour).Unix(), time.Now().Add(time.Hour).Unix()
	for _, c := range []struct{ name, token, code string }{
		{"alg none", forge(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, kid, nil), "invalid_token"},
		{"HS256 by the public key", forge(jwt.SigningMethodHS256, public, kid, nil), "invalid_token"},
		{"HS256 by the published text", forge(jwt.SigningMethodHS256, []byte(published.text("keys.0.x")), kid, nil), "invalid_token"},
		{"another key", forge(jwt.SigningMethodEdDSA, stranger, kid, nil), "invalid_token"},
		{"another kid", forge(jwt.SigningMethodEdDSA, key, "0000000000000000", nil), "invalid_token"},
		{"a path for a kid", forge(jwt.SigningMethodEdDSA, key, "../../dev/null", nil), "invalid_token"},
		{"a number for a kid", forge(jwt.SigningMethodEdDSA, key, 7, nil), "invalid_token"},
		{"another issuer", good(map[string]any{"iss": "https://elsewhere.example"}), "invalid_token"},
		{"no issuer", good(map[string]any{"iss": nil}), "invalid_token"},
		{"another audience", good(map[string]any{"aud": "elsewhere"}), "invalid_token"},
		{"no audience", good(map[string]any{"aud": nil}), "invalid_token"},
		{"expired", good(map[string]any{"exp": past}), "token_expired"},
		{"no expiry", good(map[string]any{"exp": nil}), "invalid_token"},
		{"not yet", good(map[string]any{"nbf": future}), "invalid_token"},
		{"issued in the future", good(map[string]any{"iat": future}), "invalid_token"},
		{"no id", good(map[string]any{"jti": nil}), "invalid_token"},
		{"a refresh token", good(map[string]any{"type": "refresh"}), "invalid_token"},
		{"somebody else's session", good(map[string]any{"sub": ended.id}), "token_revoked"},
		{"no such session", good(map[string]any{"sid": uuid.NewString()}), "token_revoked"},
		{"an ended session", ended.token, "token_revoked"},
	} {
		w.problem(w.call("POST", "/api/auth/logout", c.token, nil), 401, c.code)
		a := w.call("GET", "/api/users/me", c.token, nil)
		w.problem(a, 401, "UNAUTHORIZED")
		if a.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no challenge", c.name)
		}
	}
	w.want(w.call("GET", "/api/users/me", mina.token, nil), 200)
}

func TestANewKeyIsPublishedBeforeItSigns(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	if _, err := auth.RotateKeys(t.Context(), w.platform, w.keys, time.Now(), auth.Rotation{Lead: 10 * time.Minute}); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for w.want(w.call("GET", "/.well-known/jwks.json", "", nil), 200).at("keys.1") == nil {
		if time.Now().After(deadline) {
			t.Fatal("the new key is not published")
		}
	}
	w.want(w.call("GET", "/api/users/me", mina.token, nil), 200)
	w.want(w.call("POST", "/api/auth/refresh", mina.refresh, nil), 200)
}

// TestAKeyHoldsNoLongerThanItsMakerIsAnAdmin: a former admin who kept a key would else still have access, and could return with it.
func TestAKeyHoldsNoLongerThanItsMakerIsAnAdmin(t *testing.T) {
	w := newWorld(t)
	owner, admin := w.person("Owner"), w.person("Admin")
	tenant := w.tenant(owner, "A")
	w.grant(tenant, admin, "admin")
	base := "/api/tenants/" + tenant
	kept := w.want(w.call("POST", base+"/api-keys", admin.token, map[string]any{"name": "press 4", "role": "admin"}), 201).text("data.key")
	member := base + "/users/" + admin.id
	servers := []*world{w, w.second()}
	answered := func(status int) {
		t.Helper()
		for _, server := range servers {
			server.eventually(status, func() answer { return server.call("GET", base+"/documents", kept, nil) })
		}
	}
	answered(200)
	w.want(w.call("PUT", member, owner.token, map[string]any{"role": "user"}), 200)
	answered(404)
	w.want(w.call("PUT", member, owner.token, map[string]any{"role": "admin"}), 200)
	answered(200)
	w.want(w.call("DELETE", member, owner.token, nil), 200)
	answered(404)
	w.problem(w.call("POST", base+"/users", kept, map[string]any{"user_id": admin.id, "role": "admin"}), 404, "NOT_FOUND")
}

func TestAMachineCallsWithItsKey(t *testing.T) {
	w := newWorld(t)
	admin, stranger := w.person("Admin"), w.person("Stranger")
	tenant, foreign := w.tenant(admin, "A"), w.tenant(admin, "B")
	w.tenant(stranger, "C")
	keys := "/api/tenants/" + tenant + "/api-keys"
	issue := func(role string) (id, key string) {
		a := w.want(w.call("POST", keys, admin.token, map[string]any{"name": " press 4 ", "role": role}), 201)
		if a.text("data.name") != "press 4" || a.text("data.role") != role || a.text("data.created_by") != admin.id || a.at("data.last_used_at") != nil {
			t.Errorf("%s", a.body)
		}
		return a.text("data.id"), a.text("data.key")
	}
	id, key := issue("user")
	_, viewer := issue("viewer")
	_, administers := issue("admin")

	up := w.want(w.upload(tenant, person{token: key}, part{"file", "a.txt", "", "a"}), 201)
	if up.text("data.created_by") != id {
		t.Errorf("%s", up.body)
	}
	documents := "/api/tenants/" + tenant + "/documents"
	w.want(w.call("GET", documents, viewer, nil), 200)
	w.problem(w.upload(tenant, person{token: viewer}, part{"file", "b.txt", "", "b"}), 403, "FORBIDDEN")
	w.problem(w.call("PUT", "/api/tenants/"+tenant+"/tsa/disable", key, nil), 403, "FORBIDDEN")
	w.want(w.call("PUT", "/api/tenants/"+tenant+"/tsa/disable", administers, nil), 200)
	w.problem(w.call("GET", "/api/tenants/"+foreign+"/documents", administers, nil), 404, "NOT_FOUND")

	// What is a person's is no machine's, and a key makes no keys.
	for _, c := range []struct{ method, path, code string }{
		{"GET", "/api/users/me", "FORBIDDEN"},
		{"PUT", "/api/users/me", "FORBIDDEN"},
		{"GET", "/api/tenants", "FORBIDDEN"},
		{"POST", "/api/tenants", "FORBIDDEN"},
		{"POST", keys, "FORBIDDEN"},
		{"DELETE", keys + "/" + id, "FORBIDDEN"},
		{"POST", "/api/auth/logout", "forbidden"},
		{"POST", "/api/auth/logout-all", "forbidden"},
		{"GET", "/api/auth/sessions", "forbidden"},
		{"POST", "/api/auth/password/change", "forbidden"},
		{"GET", "/api/platform/projections", "FORBIDDEN"},
	} {
		w.problem(w.call(c.method, c.path, administers, nil), 403, c.code)
	}
	w.problem(w.call("POST", "/api/auth/refresh", administers, nil), 401, "invalid_token")
	w.problem(w.call("GET", documents, key[:len(key)-2], nil), 401, "UNAUTHORIZED")

	list := w.want(w.call("GET", keys, admin.token, nil), 200)
	if list.at("data.2.last_used_at") == nil || list.at("data.3") != nil || strings.Contains(string(list.body), "fk_") {
		t.Errorf("%s", list.body)
	}
	w.problem(w.call("DELETE", "/api/tenants/"+foreign+"/api-keys/"+id, admin.token, nil), 404, "NOT_FOUND")
	w.want(w.call("DELETE", keys+"/"+strings.ToUpper(id), admin.token, nil), 200)
	w.problem(w.call("DELETE", keys+"/"+id, admin.token, nil), 404, "NOT_FOUND")
	w.problem(w.call("GET", documents, key, nil), 401, "UNAUTHORIZED")
	w.want(w.call("GET", documents, viewer, nil), 200)

	for field, body := range map[string]map[string]any{
		"name":            {"name": " ", "role": "user"},
		"role":            {"name": "a", "role": "owner"},
		"expires_in_days": {"name": "a", "role": "user", "expires_in_days": 366},
		"id":              {"name": "a", "role": "user", "id": id},
	} {
		a := w.call("POST", keys, admin.token, body)
		w.problem(a, 400, "BAD_REQUEST")
		if details, _ := a.at("error.details").(map[string]any); details[field] == nil {
			t.Errorf("%s: %s", field, a.body)
		}
	}
	w.problem(w.call("POST", keys, admin.token, map[string]any{"name": "a", "role": "user", "expires_in_days": 0}), 400, "BAD_REQUEST")
	w.problem(w.call("POST", keys, admin.token, map[string]any{"name": "a\x00", "role": "user"}), 400, "BAD_REQUEST")
}
