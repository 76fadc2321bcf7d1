package auth_test

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/crypto/bcrypt"

	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// open lets tests see the signing key: it seals by turning every byte over.
type open struct{}

func (open) Seal(_ context.Context, purpose string, plain []byte) ([]byte, error) {
	return turn(plain), nil
}

func (open) Open(_ context.Context, purpose string, sealed []byte) ([]byte, error) {
	return turn(sealed), nil
}

func turn(in []byte) []byte {
	out := make([]byte, len(in))
	for i, b := range in {
		out[i] = ^b
	}
	return out
}

type world struct {
	*auth.Auth
	pool *pgxpool.Pool
	mu   sync.Mutex
	now  time.Time
}

// CheckPassword checks it in a place of its own.
func (w *world) CheckPassword(ctx context.Context, userID, password string) error {
	place, err := w.Place()
	if err != nil {
		return err
	}
	defer place.Leave()
	return place.CheckPassword(ctx, userID, password)
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	pool, err := postgres.Open(t.Context(), pgtest.Database(t, postgres.Migrations{Name: "auth", FS: auth.Migrations()}), 8)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w := &world{pool: pool, now: time.Now().Truncate(time.Second)}
	w.Auth = w.process(t)
	return w
}

// process is another API process on the same database.
func (w *world) process(t *testing.T) *auth.Auth {
	t.Helper()
	a, err := auth.New(t.Context(), auth.Config{Pool: w.pool, Secrets: open{}, Now: w.clock})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// key reads the signing key, as an attacker with the database and the key-encryption key would.
func (w *world) key(t *testing.T) (string, ed25519.PrivateKey) {
	t.Helper()
	var kid string
	var sealed []byte
	if err := w.pool.QueryRow(t.Context(), `select kid, sealed_seed from auth.signing_keys order by signs_from desc limit 1`).Scan(&kid, &sealed); err != nil {
		t.Fatal(err)
	}
	return kid, ed25519.NewKeyFromSeed(turn(sealed))
}

func TestPasswords(t *testing.T) {
	w := newWorld(t)
	ctx, id := t.Context(), uuid.NewString()
	if err := w.SetPassword(ctx, id, []byte("login"), "turbine42"); err != nil {
		t.Fatal(err)
	}
	if err := w.SetPassword(ctx, id, []byte("login"), "another1"); err != nil {
		t.Fatal(err)
	}
	if err := w.CheckPassword(ctx, id, "turbine42"); err != nil {
		t.Fatal("a second registration replaced the password:", err)
	}
	for _, wrong := range [][2]string{{id, "another1"}, {id, ""}, {"", "turbine42"}, {uuid.NewString(), "turbine42"}, {"", "no password has this hash: it holds a \x00 byte"}} {
		if err := w.CheckPassword(ctx, wrong[0], wrong[1]); !errors.Is(err, auth.ErrInvalidCredentials) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	list, err := w.Candidates(ctx, []byte("login"))
	if err != nil || len(list) != 1 || list[0] != id {
		t.Fatal(list, err)
	}
	if err := w.RemovePassword(ctx, id); err != nil {
		t.Fatal(err)
	}
	if list, err := w.Candidates(ctx, []byte("login")); err != nil || len(list) != 0 {
		t.Fatal(list, err)
	}
}

func TestAnOldHashIsReplaced(t *testing.T) {
	w := newWorld(t)
	id := uuid.NewString()
	old, err := bcrypt.GenerateFromPassword([]byte("turbine42"), 4)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.pool.Exec(t.Context(), `insert into auth.credentials (user_id, login_key, hash) values ($1, 'k', $2)`, id, strings.Replace(string(old), "$2a$", "$2b$", 1)); err != nil {
		t.Fatal(err) // Python's bcrypt, which the original has, writes 2b
	}
	for _, wrong := range []string{"turbine43", "turbine42\x00", strings.Repeat("turbine42", 20), ""} { // bcrypt itself takes 72 bytes
		if err := w.CheckPassword(t.Context(), id, wrong); !errors.Is(err, auth.ErrInvalidCredentials) {
			t.Errorf("%.12q: %v", wrong, err)
		}
	}
	for range 2 {
		if err := w.CheckPassword(t.Context(), id, "turbine42"); err != nil {
			t.Fatal(err)
		}
	}
	var hash string
	if err := w.pool.QueryRow(t.Context(), `select hash from auth.credentials where user_id = $1`, id).Scan(&hash); err != nil || !strings.HasPrefix(hash, "$argon2id$") {
		t.Fatal(hash, err)
	}
}

// TestAPasswordIsTheSameFromEveryKeyboard: macOS sends what is typed in parts, others composed.
func TestAPasswordIsTheSameFromEveryKeyboard(t *testing.T) {
	w := newWorld(t)
	composed, parts := "Ventil K\u00fchlung 7", "Ventil Ku\u0308hlung 7"
	for set, checked := range map[string]string{composed: parts, parts: composed} {
		id := uuid.NewString()
		if err := w.SetPassword(t.Context(), id, []byte(id), set); err != nil {
			t.Fatal(err)
		}
		for _, password := range []string{set, checked} {
			if err := w.CheckPassword(t.Context(), id, password); err != nil {
				t.Errorf("set as %+q, typed as %+q: %v", set, password, err)
			}
		}
	}
	// The original system hashed what it was sent. Whoever has logged in once may use any keyboard.
	id := uuid.NewString()
	old, err := bcrypt.GenerateFromPassword([]byte(parts), 4)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.pool.Exec(t.Context(), `insert into auth.credentials (user_id, login_key, hash) values ($1, 'k', $2)`, id, string(old)); err != nil {
		t.Fatal(err)
	}
	for _, password := range []string{parts, composed, parts} {
		if err := w.CheckPassword(t.Context(), id, password); err != nil {
			t.Errorf("an old hash, typed as %+q: %v", password, err)
		}
	}
}

func TestTooManyPasswordsAreShed(t *testing.T) {
	w := newWorld(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	busy, wrong, told := 0, 0, 0
	for range 17*runtime.GOMAXPROCS(0) + 10 {
		wg.Go(func() {
			err := w.CheckPassword(t.Context(), "", "x")
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, auth.ErrBusy):
				busy++
				if errors.Is(w.Busy(), auth.ErrBusy) {
					told++
				}
			case errors.Is(err, auth.ErrInvalidCredentials):
				wrong++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if busy == 0 || wrong == 0 || told == 0 {
		t.Fatalf("%d shed, %d checked, %d told so beforehand", busy, wrong, told)
	}
	if err := w.Busy(); err != nil {
		t.Error("after the flood:", err)
	}
}

// TestARememberedTokenIsStillChecked: that a signature was good before says nothing about the token's times, its key and its session.
func TestARememberedTokenIsStillChecked(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(t *testing.T, w *world, by auth.Principal) error
		want error
	}{
		"nothing ends": {func(*testing.T, *world, auth.Principal) error { return nil }, nil},
		"it expires": {func(_ *testing.T, w *world, _ auth.Principal) error {
			w.pass(auth.AccessLife + time.Second)
			return nil
		}, auth.ErrTokenExpired},
		"the clock is set back": {func(_ *testing.T, w *world, _ auth.Principal) error {
			w.pass(-time.Hour)
			return nil
		}, auth.ErrInvalidToken},
		"its key is compromised": {func(t *testing.T, w *world, _ auth.Principal) error {
			_, err := auth.RotateKeys(t.Context(), w.pool, open{}, w.now, auth.Rotation{Compromised: true})
			w.pass(5 * time.Second)
			return err
		}, auth.ErrInvalidToken},
		"its session ends": {func(t *testing.T, w *world, by auth.Principal) error {
			return w.EndSession(t.Context(), by.SessionID)
		}, auth.ErrTokenRevoked},
		"its account is switched off": {func(t *testing.T, w *world, by auth.Principal) error {
			return w.Deactivate(t.Context(), by.UserID)
		}, auth.ErrTokenRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tokens, err := w.BeginSession(t.Context(), uuid.NewString(), "")
			if err != nil {
				t.Fatal(err)
			}
			var by auth.Principal
			for range 2 {
				if by, err = w.Authenticate(t.Context(), tokens.Access); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.end(t, w, by); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, err := w.Authenticate(t.Context(), tokens.Access); !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
			}
		})
	}
}

func TestSessions(t *testing.T) {
	w := newWorld(t)
	ctx, user := t.Context(), uuid.NewString()
	other := w.process(t)
	tokens, err := w.BeginSession(ctx, user, "curl/8")
	if err != nil {
		t.Fatal(err)
	}
	p, err := other.Authenticate(ctx, tokens.Access)
	if err != nil || p.UserID != user || !p.Expires.Equal(w.now.Add(auth.AccessLife)) {
		t.Fatalf("%+v %v", p, err)
	}
	if _, err := w.Authenticate(ctx, tokens.Refresh); !errors.Is(err, auth.ErrInvalidToken) {
		t.Fatal("a refresh token lets in:", err)
	}
	if _, err := w.Refresh(ctx, tokens.Access); !errors.Is(err, auth.ErrInvalidToken) {
		t.Fatal("an access token refreshes:", err)
	}
	w.pass(auth.AccessLife + time.Second)
	if _, err := w.Authenticate(ctx, tokens.Access); !errors.Is(err, auth.ErrTokenExpired) {
		t.Fatal(err)
	}
	next, err := other.Refresh(ctx, tokens.Refresh)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Authenticate(ctx, next.Access); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Refresh(ctx, tokens.Refresh); !errors.Is(err, auth.ErrTokenRevoked) {
		t.Fatal("a used refresh token refreshes:", err)
	}
	for _, a := range []*auth.Auth{w.Auth, other} {
		if _, err := a.Authenticate(ctx, next.Access); !errors.Is(err, auth.ErrTokenRevoked) {
			t.Fatal("the session goes on after a refresh token was used twice:", err)
		}
	}

	tokens, err = w.BeginSession(ctx, user, "curl/8")
	if err != nil {
		t.Fatal(err)
	}
	p, err = w.Authenticate(ctx, tokens.Access)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.EndSession(ctx, p.SessionID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := other.Authenticate(ctx, tokens.Access); !errors.Is(err, auth.ErrTokenRevoked) {
		t.Fatal(err)
	}
	if _, err := other.Refresh(ctx, tokens.Refresh); !errors.Is(err, auth.ErrTokenRevoked) {
		t.Fatal(err)
	}
	tokens, err = w.BeginSession(ctx, user, "curl/8")
	if err != nil {
		t.Fatal(err)
	}
	w.pass(auth.RefreshLife + time.Second)
	if _, err := w.Refresh(ctx, tokens.Refresh); !errors.Is(err, auth.ErrTokenExpired) {
		t.Fatal(err)
	}
}

// TestForgedTokens offers what attackers offer.
func TestForgedTokens(t *testing.T) {
	w := newWorld(t)
	ctx, user := t.Context(), uuid.NewString()
	tokens, err := w.BeginSession(ctx, user, "curl/8")
	if err != nil {
		t.Fatal(err)
	}
	kid, key := w.key(t)
	parts := strings.Split(tokens.Access, ".")
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	forge := func(method jwt.SigningMethod, signWith any, header map[string]any, change func(jwt.MapClaims)) string {
		c := jwt.MapClaims{}
		if err := json.Unmarshal(raw, &c); err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(c)
		}
		token := jwt.NewWithClaims(method, c)
		token.Header["kid"] = kid
		for k, v := range header {
			token.Header[k] = v
		}
		signed, err := token.SignedString(signWith)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	if _, err := w.Authenticate(ctx, forge(jwt.SigningMethodEdDSA, key, nil, nil)); err != nil {
		t.Fatal("the forger does not even make good ones:", err)
	}
	set := func(name string, value any) func(jwt.MapClaims) {
		return func(c jwt.MapClaims) { c[name] = value }
	}
	drop := func(name string) func(jwt.MapClaims) {
		return func(c jwt.MapClaims) { delete(c, name) }
	}
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	later, x := w.now.Add(time.Hour).Unix(), base64.RawURLEncoding.EncodeToString(stranger.Public().(ed25519.PublicKey))
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{
		"alg none":                 forge(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nil, nil),
		"HS256 by the public key":  forge(jwt.SigningMethodHS256, []byte(key.Public().(ed25519.PublicKey)), nil, nil),
		"another key":              forge(jwt.SigningMethodEdDSA, stranger, nil, nil),
		"another kid":              forge(jwt.SigningMethodEdDSA, key, map[string]any{"kid": "x"}, nil),
		"a kid that is a path":     forge(jwt.SigningMethodEdDSA, key, map[string]any{"kid": "../../" + kid}, nil),
		"a kid that is SQL":        forge(jwt.SigningMethodEdDSA, key, map[string]any{"kid": kid + "' or 1=1 --"}, nil),
		"an empty kid":             forge(jwt.SigningMethodEdDSA, key, map[string]any{"kid": ""}, nil),
		"alg None":                 forge(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, map[string]any{"alg": "None"}, nil),
		"alg nOnE":                 forge(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, map[string]any{"alg": "nOnE"}, nil),
		"no alg":                   forge(jwt.SigningMethodEdDSA, key, map[string]any{"alg": nil}, nil),
		"HS256 by the public PEM":  forge(jwt.SigningMethodHS256, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil, nil),
		"HS512 by the public DER":  forge(jwt.SigningMethodHS512, der, nil, nil),
		"HS256 by the kid":         forge(jwt.SigningMethodHS256, []byte(kid), nil, nil),
		"a key that it brings":     forge(jwt.SigningMethodEdDSA, stranger, map[string]any{"jwk": map[string]any{"kty": "OKP", "crv": "Ed25519", "x": x}}, nil),
		"a key from elsewhere":     forge(jwt.SigningMethodEdDSA, stranger, map[string]any{"jku": "https://elsewhere.example/jwks", "x5u": "https://elsewhere.example/x"}, nil),
		"what is not understood":   forge(jwt.SigningMethodEdDSA, key, map[string]any{"crit": []string{"b64"}, "b64": false}, nil),
		"among other audiences":    forge(jwt.SigningMethodEdDSA, key, nil, set("aud", []string{"x", "factum.example"})),
		"an expiry that is text":   forge(jwt.SigningMethodEdDSA, key, nil, set("exp", "never")),
		"a dot at the end":         tokens.Access + ".",
		"a dot in front":           "." + tokens.Access,
		"a kid that is no text":    forge(jwt.SigningMethodEdDSA, key, map[string]any{"kid": 7}, nil),
		"another issuer":           forge(jwt.SigningMethodEdDSA, key, nil, set("iss", "x")),
		"another audience":         forge(jwt.SigningMethodEdDSA, key, nil, set("aud", "x")),
		"no audience":              forge(jwt.SigningMethodEdDSA, key, nil, drop("aud")),
		"no expiry":                forge(jwt.SigningMethodEdDSA, key, nil, drop("exp")),
		"not yet":                  forge(jwt.SigningMethodEdDSA, key, nil, set("nbf", later)),
		"issued in the future":     forge(jwt.SigningMethodEdDSA, key, nil, set("iat", later)),
		"no type":                  forge(jwt.SigningMethodEdDSA, key, nil, drop("type")),
		"a subject that is no id":  forge(jwt.SigningMethodEdDSA, key, nil, set("sub", "admin")),
		"a session that is no id":  forge(jwt.SigningMethodEdDSA, key, nil, set("sid", "' or 1=1")),
		"empty":                    "",
		"garbage":                  "a.b.c",
		"huge":                     strings.Repeat("a", 1<<20),
		"a changed signature":      tokens.Access[:len(tokens.Access)-4] + "AAAA",
		"another payload":          parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(raw), user, uuid.NewString(), 1))) + "." + parts[2],
		"no signature":             parts[0] + "." + parts[1] + ".",
		"two tokens":               tokens.Access + "." + tokens.Access,
		"padding in the signature": tokens.Access + "==",
	} {
		if _, err := w.Authenticate(ctx, token); !errors.Is(err, auth.ErrInvalidToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(jwt.MapClaims){"another session": set("sid", uuid.NewString()), "another person's session": set("sub", uuid.NewString())} {
		if _, err := w.Authenticate(ctx, forge(jwt.SigningMethodEdDSA, key, nil, change)); !errors.Is(err, auth.ErrTokenRevoked) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTheClocksOfProcessesMayDiffer: a token is good at once in a process whose clock is slow, and expires by the clock of who looks at it.
func TestTheClocksOfProcessesMayDiffer(t *testing.T) {
	w := newWorld(t)
	tokens, err := w.BeginSession(t.Context(), uuid.NewString(), "curl/8")
	if err != nil {
		t.Fatal(err)
	}
	for ahead, want := range map[time.Duration]error{
		-50 * time.Second: nil, -2 * time.Minute: auth.ErrInvalidToken, auth.AccessLife - time.Second: nil, auth.AccessLife: auth.ErrTokenExpired,
	} {
		other, err := auth.New(t.Context(), auth.Config{Pool: w.pool, Secrets: open{}, Now: func() time.Time { return w.clock().Add(ahead) }})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time it may be remembered
			if _, err := other.Authenticate(t.Context(), tokens.Access); !errors.Is(err, want) {
				t.Errorf("%s ahead: %v; want %v", ahead, err, want)
			}
		}
	}
}

func TestProcessesThatStartAtOnceAgreeOnAKey(t *testing.T) {
	pool, err := postgres.Open(t.Context(), pgtest.Database(t, postgres.Migrations{Name: "auth", FS: auth.Migrations()}), 8)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if _, err := auth.New(t.Context(), auth.Config{Pool: pool, Secrets: open{}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var keys int
	if err := pool.QueryRow(t.Context(), `select count(*) from auth.signing_keys`).Scan(&keys); err != nil || keys != 1 {
		t.Fatal(keys, err)
	}
}
