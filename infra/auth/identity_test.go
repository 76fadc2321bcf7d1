package auth_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/factum-platform/factum/infra/auth"
)

func TestPasswordRules(t *testing.T) {
	personal := []string{"mina@plant.example", "Mina", "Okoro"}
	for _, c := range []struct {
		password    string
		long, short bool
	}{
		{"stator coil 7", true, true},
		{"correct horse battery", true, false}, // no digit
		{"a1b9f3c0e77b1d24", true, true},
		{"пружина и ротор 7", true, false}, // no ASCII letter
		{"turbine42", false, true},
		{"rotor blade", false, false},
		{"t42", false, false},
		{"password1", false, false},
		{"Password1234", false, false},
		{"P@ssw0rd!2024", false, true},
		{"qwertyuiop123", false, false},
		{"Telechargement", false, false},
		{"1qaz2wsx3edc", false, false},
		{"aaaaaaaaaaaaaaaaaaaaaaaa", false, false},
		{"12345678901234567890", false, false},
		{"minaokoro2024", false, false},
		{"mina@plant.example", false, false},
		{"plant.example.mina", false, false},
		{strings.Repeat("stator coil 7 ", 80), false, false},
		{"elpmaxe.tnalp@anim", false, false},
		{"ababababababab", false, false},
		{"rotor7rotor7rotor7", false, true},
		{strings.Repeat("ä", 14), false, false},
		{strings.Repeat("\u0301", 14), false, false},
		{strings.Repeat("\u200b", 14), false, false},
		{strings.Repeat("😀", 14), false, false},
		{"парольпарольпароль", false, false},
		{"абвгдежзийклмн", false, false},
		{"１２３４５６７８９０１２", false, false},
		{"a\u0308o\u0308u\u0308e\u0308i\u0308y\u0308", false, false}, // six characters
		{"日本の工場の弁は九つある", true, false},
	} {
		if why := (auth.PasswordRules{}).Check(c.password, personal...); (why == "") != c.long {
			t.Errorf("%.30q: %q", c.password, why)
		}
		if why := (auth.PasswordRules{Short: true}).Check(c.password, personal...); (why == "") != c.short {
			t.Errorf("with short passwords, %.30q: %q", c.password, why)
		}
	}
	begun := time.Now()
	for _, hostile := range []string{strings.Repeat("4(31!|70$+%2@{<[685", 50), strings.Repeat("1/1/91", 160), strings.Repeat("@4", 500)} {
		(auth.PasswordRules{}).Check(hostile, personal...)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("three hostile passwords took %s", took)
	}
}

func TestFailuresDelayTheNextAttempt(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	other := w.process(t)
	one := auth.Attempt{Account: []byte("account"), Address: []byte("address")}
	after := func(a *auth.Auth, attempt auth.Attempt) time.Duration {
		t.Helper()
		var throttled *auth.ThrottledError
		switch err := a.Admit(ctx, attempt); {
		case err == nil:
			return 0
		case !errors.As(err, &throttled):
			t.Fatal(err)
		}
		return throttled.After
	}
	fail := func(attempt auth.Attempt) {
		t.Helper()
		if err := w.Failed(ctx, attempt); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []time.Duration{0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900} {
		fail(one)
		if got := after(other, one); got != want*time.Second {
			t.Fatalf("the other process delays by %s; want %ds", got, want)
		}
	}
	elsewhere := auth.Attempt{Account: one.Account, Address: []byte("elsewhere")}
	if after(w.Auth, elsewhere) == 0 || after(w.Auth, auth.Attempt{Account: []byte("another"), Address: one.Address}) != 0 {
		t.Fatal("an account is delayed from everywhere, an address only after many failures")
	}
	w.pass(16 * time.Minute)
	if after(w.Auth, one) != 0 {
		t.Fatal("the delay does not end")
	}
	fail(one)
	if after(w.Auth, one) != 15*time.Minute {
		t.Fatal("the next failure counts from the beginning")
	}
	if err := w.Succeeded(ctx, one); err != nil {
		t.Fatal(err)
	}
	if after(w.Auth, one) != 0 {
		t.Fatal("success is not the end of it")
	}
	for range 32 { // 17 and these are 49
		fail(auth.Attempt{Account: []byte(uuid.NewString()), Address: one.Address})
	}
	if after(w.Auth, one) != 0 {
		t.Fatal("the address is delayed too early")
	}
	fail(auth.Attempt{Account: []byte("x"), Address: one.Address})
	if after(other, one) != time.Second || after(other, elsewhere) != 0 {
		t.Fatal("the address is not delayed", after(other, one))
	}
	w.pass(25 * time.Hour)
	fail(one)
	if after(w.Auth, one) != 0 {
		t.Fatal("old failures are not forgotten")
	}
	w.pass(25 * time.Hour)
	if err := w.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := w.pool.QueryRow(ctx, `select count(*) from auth.attempts`).Scan(&left); err != nil || left != 0 {
		t.Fatal(left, err)
	}
}

func TestSessionsOfAUser(t *testing.T) {
	w := newWorld(t)
	ctx, user, stranger := t.Context(), uuid.NewString(), uuid.NewString()
	var tokens []auth.Tokens
	for _, agent := range []string{"curl/8", strings.Repeat("ä", 500), "bad\x00 \xff\x1b[31m"} {
		pair, err := w.BeginSession(ctx, user, agent)
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, pair)
		w.pass(time.Minute)
	}
	if _, err := w.BeginSession(ctx, stranger, ""); err != nil {
		t.Fatal(err)
	}
	list, err := w.Sessions(ctx, user)
	if err != nil || len(list) != 3 || list[2].Agent != "curl/8" || list[1].Agent != strings.Repeat("ä", 200) || list[0].Agent != "bad [31m" {
		t.Fatal(list, err)
	}
	next, err := w.Refresh(ctx, tokens[0].Refresh)
	if err != nil {
		t.Fatal(err)
	}
	if list, err = w.Sessions(ctx, user); err != nil || !list[2].RefreshedAt.Equal(w.now) || !list[2].ExpiresAt.Equal(w.now.Add(auth.RefreshLife)) {
		t.Fatal(list, err)
	}
	if ended, err := w.EndSessionOf(ctx, stranger, list[1].ID); err != nil || ended {
		t.Fatal("a stranger ends a session", err)
	}
	if err := w.SetPassword(ctx, user, []byte("k"), "turbine42"); err != nil {
		t.Fatal(err)
	}
	if err := w.ChangePassword(ctx, user, "turbine43", list[2].ID); err != nil {
		t.Fatal(err)
	}
	if err := w.CheckPassword(ctx, user, "turbine42"); !errors.Is(err, auth.ErrInvalidCredentials) {
		t.Fatal(err)
	}
	if err := w.CheckPassword(ctx, user, "turbine43"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.process(t).Authenticate(ctx, next.Access); err != nil {
		t.Fatal("the session that changed the password ended:", err)
	}
	if _, err := w.Refresh(ctx, tokens[1].Refresh); !errors.Is(err, auth.ErrTokenRevoked) {
		t.Fatal(err)
	}
	if err := w.ChangePassword(ctx, uuid.NewString(), "turbine43", ""); !errors.Is(err, auth.ErrInvalidCredentials) {
		t.Fatal("an account without a password got one:", err)
	}
	if n, err := w.EndSessions(ctx, user); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	w.pass(auth.RefreshLife + time.Hour)
	if err := w.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := w.pool.QueryRow(ctx, `select count(*) from auth.sessions`).Scan(&left); err != nil || left != 0 {
		t.Fatal(left, err)
	}
}

// signedBy reads the kid of a token.
func signedBy(t *testing.T, token string) string {
	t.Helper()
	parsed, _, err := jwt.NewParser().ParseUnverified(token, jwt.MapClaims{})
	if err != nil {
		t.Fatal(err)
	}
	kid, _ := parsed.Header["kid"].(string)
	return kid
}

func TestSigningKeysAreRotated(t *testing.T) {
	w := newWorld(t)
	ctx, user := t.Context(), uuid.NewString()
	other := w.process(t)
	begin := func() auth.Tokens {
		t.Helper()
		pair, err := w.BeginSession(ctx, user, "")
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	kids := func(a *auth.Auth) []string {
		t.Helper()
		list, err := a.JWKS(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, k := range list {
			out = append(out, k.Kid)
		}
		return out
	}
	first, old := kids(w.Auth)[0], begin()
	if _, err := auth.RotateKeys(ctx, w.pool, open{}, w.now, auth.Rotation{Lead: time.Second}); err == nil {
		t.Fatal("a lead that is shorter than processes need")
	}
	second, err := auth.RotateKeys(ctx, w.pool, open{}, w.now, auth.Rotation{Lead: 10 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	w.pass(5 * time.Second)
	for _, a := range []*auth.Auth{w.Auth, other} {
		if got := kids(a); !slices.Equal(got, []string{second, first}) {
			t.Fatal("published after 5 s:", got)
		}
	}
	if signs := signedBy(t, begin().Access); signs != first {
		t.Fatal("the new key signs before its time")
	}
	w.pass(10 * time.Minute)
	recent := begin()
	if signs := signedBy(t, recent.Access); signs != second {
		t.Fatal("the new key does not sign")
	}
	for _, pair := range []auth.Tokens{old, recent} {
		if _, err := other.Authenticate(ctx, pair.Access); err != nil {
			t.Fatal(err)
		}
	}
	w.pass(auth.RefreshLife - 11*time.Minute)
	if _, err := other.Refresh(ctx, old.Refresh); err != nil {
		t.Fatal("a token of the old key is refused while it may live:", err)
	}
	w.pass(12*time.Minute + 5*time.Second)
	if got := kids(other); !slices.Equal(got, []string{second}) {
		t.Fatal("the old key outlives its last token:", got)
	}

	stolen := begin()
	third, err := auth.RotateKeys(ctx, w.pool, open{}, w.now, auth.Rotation{Compromised: true})
	if err != nil {
		t.Fatal(err)
	}
	w.pass(5 * time.Second)
	for _, a := range []*auth.Auth{w.Auth, other} {
		if got := kids(a); !slices.Equal(got, []string{third}) {
			t.Fatal("published after a compromise:", got)
		}
		if _, err := a.Authenticate(ctx, stolen.Access); !errors.Is(err, auth.ErrInvalidToken) {
			t.Fatal("a compromised key still lets in:", err)
		}
	}
	if _, err := other.Authenticate(ctx, begin().Access); err != nil {
		t.Fatal(err)
	}
	list, err := auth.Keys(ctx, w.pool)
	if err != nil || len(list) != 1 || list[0].Kid != third || list[0].VerifiesUntil != nil {
		t.Fatal(list, err)
	}
}
