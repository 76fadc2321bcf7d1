// Package apitest tests the API through its real router over real logs, databases and projections; only the object store is a
// folder, and time-stamps are recorded by the tests themselves.
package apitest

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/cmd/factum/steering"
	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/commands/rest"
	"github.com/factum-platform/factum/domain"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/pgstore"
	"github.com/factum-platform/factum/eventstore/seal"
	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/devstack"
	"github.com/factum-platform/factum/infra/httpapi"
	"github.com/factum-platform/factum/infra/idempotency"
	"github.com/factum-platform/factum/infra/keyring"
	"github.com/factum-platform/factum/infra/mail"
	"github.com/factum-platform/factum/infra/objectstore"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
	"github.com/factum-platform/factum/infra/ratelimit"
	"github.com/factum-platform/factum/infra/readmodel"
	"github.com/factum-platform/factum/infra/tenants"
	"github.com/factum-platform/factum/infra/tsa"
	"github.com/factum-platform/factum/projections/audit"
	"github.com/factum-platform/factum/projections/directory"
	"github.com/factum-platform/factum/projections/documents"
	"github.com/factum-platform/factum/projections/runner"
	"github.com/factum-platform/factum/readapi"
)

func TestMain(m *testing.M) {
	if devstack.RunChild() {
		return
	}
	pgtest.Main(m)
}

// folder is an object store for tests: it keeps contents on disk, so that the heap shows what the API holds.
type folder string

func (f folder) path(key string) string {
	return filepath.Join(string(f), strings.ReplaceAll(key, "/", "_"))
}

func (f folder) Put(_ context.Context, key string, body io.Reader) (int64, error) {
	file, err := os.Create(f.path(key))
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(file, body)
	return n, errors.Join(err, file.Close())
}

func (f folder) Get(_ context.Context, key string) (io.ReadCloser, int64, error) {
	file, err := os.Open(f.path(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("%w: %s", objectstore.ErrNotFound, key)
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	return file, info.Size(), err
}

func (f folder) Presign(_ context.Context, key string, life time.Duration, mimeType, disposition string) (string, error) {
	return "https://objects.test/" + key + "?" + url.Values{"life": {life.String()}, "type": {mimeType}, "disposition": {disposition}}.Encode(), nil
}

func (f folder) Delete(_ context.Context, key string) error {
	if err := os.Remove(f.path(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// pools are the databases of the tenants and of the platform.
type pools struct {
	sync.Mutex
	of map[string]*pgxpool.Pool
}

// world is a running API.
type world struct {
	t        *testing.T
	url      string
	server   *httpapi.Server
	commands *commands.Commands
	store    eventstore.Store
	codec    *seal.Codec
	platform *pgxpool.Pool
	keys     *keyring.Keyring
	accounts *auth.Auth
	objects  folder // the contents of tests that look into them
	contents contents
	stamper  *tsa.Client
	mails    chan mail.Message
	links    *letters // of mails that readMails has read
	client   *http.Client
	pools    *pools
	shift    *atomic.Int64 // of the clock by which tokens are valid, in nanoseconds
}

func (w *world) Pool(_ context.Context, tenant string) (*pgxpool.Pool, error) {
	w.pools.Lock()
	defer w.pools.Unlock()
	if pool, ok := w.pools.of[tenant]; ok {
		return pool, nil
	}
	return nil, fmt.Errorf("%w: %s", tenants.ErrUnknownTenant, tenant)
}

func (w *world) tenants(context.Context) ([]string, error) {
	w.pools.Lock()
	defer w.pools.Unlock()
	var out []string
	for tenant := range w.pools.of {
		if tenant != tenants.Platform {
			out = append(out, tenant)
		}
	}
	return out, nil
}

func (w *world) provision(ctx context.Context, tenant, _ string) error {
	if pool, _ := w.Pool(ctx, tenant); pool != nil {
		return nil
	}
	pool, err := postgres.Open(ctx, pgtest.Database(w.t, logMigrations()...), 4)
	if err != nil {
		return err
	}
	w.pools.Lock()
	defer w.pools.Unlock()
	w.pools.of[tenant] = pool
	return nil
}

// Ask is an outbox that sends at once; projections/process tests the real one.
func (w *world) Ask(ctx context.Context, purpose auth.Purpose, loginKey string) error {
	return w.commands.SendAskedLink(ctx, purpose, loginKey)
}

// Send receives mails.
func (w *world) Send(_ context.Context, m mail.Message) error {
	w.mails <- m
	return nil
}

// link is what the next mail's link says to the page, after checking that it is to p.
func (w *world) link(p person, purpose string) (token string) {
	w.t.Helper()
	select {
	case m := <-w.mails:
		token, ok := strings.CutPrefix(m.Link, "http://factum.example/account#"+purpose+"=")
		if !ok || m.To != p.email || !strings.Contains(m.Text, m.Link) || m.Subject == "" {
			w.t.Fatalf("%+v", m)
		}
		return token
	default:
		w.t.Fatal("no mail was sent")
		return ""
	}
}

func logMigrations() []postgres.Migrations {
	return []postgres.Migrations{{Name: "es", FS: pgstore.Migrations()}, {Name: "proj", FS: runner.Migrations()}}
}

// contents is an object store.
type contents interface {
	commands.ObjectStore
	readapi.Objects
}

// hashMemory is what a password's hash takes here, in KiB: what these tests show is the same with less.
const hashMemory = 256

func newWorld(t *testing.T) *world {
	t.Helper()
	objects := folder(t.TempDir())
	w := newWorldOn(t, objects)
	w.objects = objects
	return w
}

// newWorldOn keeps file contents in an object store of the caller's.
func newWorldOn(t *testing.T, objects contents) *world {
	t.Helper()
	w := &world{t: t, shift: &atomic.Int64{}, pools: &pools{of: map[string]*pgxpool.Pool{}}, contents: objects, client: &http.Client{Transport: &http.Transport{}}, mails: make(chan mail.Message, 10)}
	w.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	w.platform, err = postgres.Open(ctx, pgtest.Database(t, append(logMigrations(),
		postgres.Migrations{Name: "auth", FS: auth.Migrations()}, postgres.Migrations{Name: "keyring", FS: keyring.Migrations()},
		postgres.Migrations{Name: "idempotency", FS: idempotency.Migrations()}, postgres.Migrations{Name: "ratelimit", FS: ratelimit.Migrations()})...), 12)
	must(err)
	w.pools.of[tenants.Platform] = w.platform
	t.Cleanup(func() {
		for _, pool := range w.pools.of {
			pool.Close()
		}
	})
	kek, err := keyring.LoadOrCreateKEK(filepath.Join(t.TempDir(), "kek.json"))
	must(err)
	keys := keyring.Open(w.platform, kek)
	w.keys = keys
	w.accounts, err = auth.New(ctx, auth.Config{
		Pool: w.platform, Secrets: keys, HashMemory: hashMemory, Now: func() time.Time { return time.Now().Add(time.Duration(w.shift.Load())) },
	})
	must(err)
	registry, err := eventstore.NewRegistry(domain.Catalog()...)
	must(err)
	w.codec = &seal.Codec{Registry: registry, Keys: &seal.MemoryKeys{}}
	store, err := pgstore.Open(ctx, pgstore.Config{Databases: w})
	must(err)
	w.store = store
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	w.commands, err = commands.New(commands.Config{
		Store: store, Codec: w.codec, Objects: w.contents, Provision: w.provision, MAC: keys.MAC, Auth: w.accounts, TSAProvider: "local",
		Now: time.Now, NewID: uuid.NewString, Outbox: w, Mailer: w, Logger: slog.New(slog.DiscardHandler), AccountURL: "http://factum.example/account",
	})
	must(err)
	roots := w.authority(t)

	var moves readmodel.Moves
	consumers := runner.Config{
		Store: store, Codec: w.codec, Pool: w.Pool, Tenants: w.tenants, Moves: &moves, Logger: slog.New(slog.DiscardHandler),
		Projections: []runner.Projection{documents.Projection(), directory.Projection(), audit.Projection()},
	}
	projector, err := runner.New(consumers)
	must(err)
	consumers.Ring = func(_ context.Context, tenant string) error {
		projector.Look(eventstore.TenantID(tenant))
		return nil
	}
	running, stop := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- projector.Run(running) }()

	w.server = httpapi.New(httpapi.Config{
		Logger: slog.New(slog.NewTextHandler(logWriter{t}, &slog.HandlerOptions{Level: slog.LevelError})),
		Auth:   w.accounts, Platform: w.platform, TenantPool: w.Pool, Waiter: readmodel.NewWaiter(&moves), Version: "test",
		Answers: w.answers(),
	})
	operator, err := runner.NewOperator(consumers)
	must(err)
	rest.Register(w.server.API(), rest.Deps{Commands: w.commands, Server: w.server, Operator: steering.Operator{Runner: operator, Commands: w.commands}})
	readapi.Register(w.server.API(), readapi.Deps{Server: w.server, Accounts: w.accounts, Objects: w.contents, Roots: roots})
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	must(err)
	w.url = "http://" + ln.Addr().String()
	go func() { done <- w.server.Listen(ln) }()
	t.Cleanup(func() {
		w.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		defer cancel()
		if err := w.server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		stop()
		for range 2 {
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	})
	return w
}

// answers remembers what requests with an Idempotency-Key were answered.
func (w *world) answers() *idempotency.Store {
	return idempotency.New(idempotency.Config{Pool: w.platform, Secrets: w.keys, MAC: func(ctx context.Context, value string) ([]byte, error) {
		return w.keys.MAC(ctx, tenants.Platform, "idempotency", value)
	}})
}

// logWriter shows 500s in the test's output.
type logWriter struct{ t *testing.T }

func (l logWriter) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func (w *world) authority(t *testing.T) *x509.CertPool {
	t.Helper()
	authority, err := devstack.StartTSA(t.Context(), devstack.TSAConfig{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := authority.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	roots, err := tsa.LoadRoots(authority.RootsPath())
	if err != nil {
		t.Fatal(err)
	}
	if w.stamper, err = tsa.New(tsa.Config{URL: authority.URL(), Provider: "local", Roots: roots}); err != nil {
		t.Fatal(err)
	}
	return roots
}

// answer is a reply with its body read.
type answer struct {
	*http.Response
	body []byte
	json map[string]any
}

// at finds a value by a dotted path; numbers index arrays.
func (a answer) at(path string) any {
	var v any = a.json
	for _, key := range strings.Split(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[key]
		case []any:
			i := int(key[0] - '0')
			if i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

func (a answer) text(path string) string {
	s, _ := a.at(path).(string)
	return s
}

type header map[string]string

// send sends body as it is; contentType "" sends no such header.
func (w *world) send(method, path, token, contentType string, body io.Reader, more ...header) answer {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for _, h := range more {
		for name, value := range h {
			req.Header.Set(name, value)
		}
	}
	resp, err := w.client.Do(req)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	a := answer{Response: resp}
	if a.body, err = io.ReadAll(resp.Body); err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	if strings.Contains(resp.Header.Get("Content-Type"), "json") {
		if err := json.Unmarshal(a.body, &a.json); err != nil {
			w.t.Fatalf("%s %s: %v in %s", method, path, err, a.body)
		}
	}
	if err := conforms(method, req.URL.EscapedPath(), a.StatusCode, a.Header, a.body); err != nil {
		w.t.Error(err)
	}
	return a
}

// call sends body as JSON, or nothing for nil.
func (w *world) call(method, path, token string, body any, more ...header) answer {
	w.t.Helper()
	if body == nil {
		return w.send(method, path, token, "", nil, more...)
	}
	raw, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.send(method, path, token, "application/json", bytes.NewReader(raw), more...)
}

func (w *world) want(a answer, status int) answer {
	w.t.Helper()
	if a.StatusCode != status {
		w.t.Fatalf("%s %s: status %d, want %d: %.600s", a.Request.Method, a.Request.URL.Path, a.StatusCode, status, a.body)
	}
	return a
}

// problem asserts the one error form.
func (w *world) problem(a answer, status int, code string) {
	w.t.Helper()
	if a.StatusCode != status || a.Header.Get("Content-Type") != "application/problem+json" || a.text("error.code") != code || a.at("success") != false ||
		a.at("status") != float64(status) || a.text("type") != "about:blank" || a.text("title") == "" || a.text("detail") == "" ||
		a.text("error.message") == "" || a.text("instance") != a.Request.URL.EscapedPath() {
		w.t.Errorf("%s %s: %d %s %s; want %d %s in the one error form", a.Request.Method, a.Request.URL, a.StatusCode, a.Header.Get("Content-Type"), a.body, status, code)
	}
}

// person is somebody with a session.
type person struct{ id, email, token, refresh string }

const password = "stator coil 7"

func (w *world) person(name string) person {
	w.t.Helper()
	email := strings.ToLower(name) + "@plant.example"
	a := w.want(w.call("POST", "/api/auth/register", "", map[string]any{"first_name": name, "last_name": "Okoro", "email": email, "password": password}), 201)
	l := w.want(w.call("POST", "/api/auth/login", "", map[string]any{"email": email, "password": password}), 200)
	return person{a.text("user.id"), email, l.text("access_token"), l.text("refresh_token")}
}

func (w *world) tenant(p person, name string) string {
	w.t.Helper()
	return w.want(w.call("POST", "/api/tenants", p.token, map[string]any{"name": name}), 201).text("data.id")
}

// grant makes p a member.
func (w *world) grant(tenant string, p person, role string) {
	w.t.Helper()
	_, receipt, err := w.commands.AddMember(w.t.Context(), commands.Caller{UserID: "system", Command: uuid.NewString(), At: time.Now()}, tenant, p.id, role)
	if err != nil {
		w.t.Fatal(err)
	}
	if settled := w.server.Settle(w.t.Context(), uint64(receipt.Position), httpapi.Directory()); settled.Pending != "" {
		w.t.Fatal("the directory does not catch up")
	}
}

// administers lets p administer the platform; there is no route for it.
func (w *world) administers(p person) {
	w.t.Helper()
	receipt, err := commands.NewExecutor(w.store, w.codec).GrantAdministrator(w.t.Context(),
		commands.Caller{UserID: "operator", Command: es.Key("administers", p.id), At: time.Now()}, p.id)
	if err != nil {
		w.t.Fatal(err)
	}
	if settled := w.server.Settle(w.t.Context(), uint64(receipt.Position), httpapi.Directory()); settled.Pending != "" {
		w.t.Fatal("the directory does not catch up")
	}
}

// part is one part of a form.
type part struct{ name, filename, kind, content string }

func (w *world) form(parts ...part) (contentType string, body *bytes.Buffer) {
	w.t.Helper()
	body = &bytes.Buffer{}
	m := multipart.NewWriter(body)
	for _, p := range parts {
		h := map[string][]string{"Content-Disposition": {fmt.Sprintf(`form-data; name="%s"`, p.name)}}
		if p.filename != "" {
			h["Content-Disposition"][0] += fmt.Sprintf(`; filename="%s"`, p.filename)
		}
		if p.kind != "" {
			h["Content-Type"] = []string{p.kind}
		}
		out, err := m.CreatePart(h)
		if err != nil {
			w.t.Fatal(err)
		}
		if _, err := io.WriteString(out, p.content); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := m.Close(); err != nil {
		w.t.Fatal(err)
	}
	return m.FormDataContentType(), body
}

func (w *world) upload(tenant string, p person, parts ...part) answer {
	w.t.Helper()
	kind, body := w.form(parts...)
	return w.send("POST", "/api/tenants/"+tenant+"/documents", p.token, kind, body)
}
