package commands_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/uuid"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/domain"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/file"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/memstore"
	"github.com/factum-platform/factum/eventstore/seal"
	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/keyring"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// objects is an object store in memory. It cannot show what a network does; infra/objectstore's own tests do.
type objects struct {
	mu   sync.Mutex
	kept map[string][]byte
	stay error // what Delete answers
}

func (o *objects) Put(_ context.Context, key string, body io.Reader) (int64, error) {
	content, err := io.ReadAll(body)
	if err != nil {
		return 0, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kept[key] = content
	return int64(len(content)), nil
}

func (o *objects) Delete(_ context.Context, key string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.stay != nil {
		return o.stay
	}
	delete(o.kept, key)
	return nil
}

func (o *objects) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.kept)
}

// flaky is a log whose next append is carried out or not, and whose answer is lost either way.
type flaky struct {
	eventstore.Store
	caps    eventstore.Caps
	mu      sync.Mutex
	plan    []string // "lost" before the append, "unanswered" after it
	appends int      // attempts
	reads   int      // of streams
	dieAt   int      // at which further append the process dies, from 1; 0 for never
	dieLate bool     // after that append was carried out
	dead    bool
	before  func(n int) // runs before the n-th attempt, if set
}

// die lets the process die at the n-th append from now on, before it is carried out or after it.
func (f *flaky) die(n int, late bool) { f.appends, f.dieAt, f.dieLate = 0, n, late }

// revive starts the process again.
func (f *flaky) revive() { f.dieAt, f.dead = 0, false }

// Caps implements [eventstore.Store].
func (f *flaky) Caps() eventstore.Caps { return f.caps }

type flakyLog struct {
	eventstore.Log
	store *flaky
	caps  eventstore.Caps
}

func (f *flaky) Tenant(t eventstore.TenantID) eventstore.Log {
	return flakyLog{f.Store.Tenant(t), f, f.caps}
}

var errConnection = errors.New("connection lost")

func (l flakyLog) ReadStream(ctx context.Context, s eventstore.StreamID, from eventstore.Version) iter.Seq2[eventstore.Recorded, error] {
	l.store.mu.Lock()
	l.store.reads++
	l.store.mu.Unlock()
	return l.Log.ReadStream(ctx, s, from)
}

func (l flakyLog) Append(ctx context.Context, w ...eventstore.Write) ([]eventstore.Appended, error) {
	if err := eventstore.Validate(l.caps, w); err != nil {
		return nil, err
	}
	l.store.mu.Lock()
	l.store.appends++
	n, next := l.store.appends, ""
	if n == l.store.dieAt {
		l.store.dead = true
		if l.store.dieLate {
			next = "unanswered"
		}
	}
	if l.store.dead && next == "" {
		next = "lost"
	} else if len(l.store.plan) > 0 {
		next, l.store.plan = l.store.plan[0], l.store.plan[1:]
	}
	l.store.mu.Unlock()
	if l.store.before != nil {
		l.store.before(n)
	}
	switch next {
	case "lost":
		return nil, errConnection
	case "unanswered":
		if _, err := l.Log.Append(ctx, w...); err != nil {
			return nil, err
		}
		return nil, errConnection
	}
	return l.Log.Append(ctx, w...)
}

type world struct {
	*commands.Commands
	t        *testing.T
	store    *flaky
	objects  *objects
	codec    *seal.Codec
	mu       sync.Mutex
	now      time.Time
	provided map[string]string
	failNext error
	said     bytes.Buffer // the log lines; read it when nothing writes
}

// engines are the two kinds of store that commands run on.
var engines = map[string]eventstore.Caps{
	"many streams at once": {Gapless: true, MultiStream: true, AtomicClaim: true},
	"one stream at a time": {},
}

// onEachEngine runs the test on both kinds of store.
func onEachEngine(t *testing.T, test func(*testing.T, *world)) {
	for name, caps := range engines {
		t.Run(name, func(t *testing.T) { test(t, newWorldOn(t, caps)) })
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOn(t, engines["many streams at once"])
}

func newWorldOn(t *testing.T, caps eventstore.Caps) *world {
	t.Helper()
	pool, err := postgres.Open(t.Context(), pgtest.Database(t,
		postgres.Migrations{Name: "auth", FS: auth.Migrations()}, postgres.Migrations{Name: "keyring", FS: keyring.Migrations()}), 8)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	kek, err := keyring.LoadOrCreateKEK(t.TempDir() + "/kek.json")
	if err != nil {
		t.Fatal(err)
	}
	keys := keyring.Open(pool, kek)
	accounts, err := auth.New(t.Context(), auth.Config{Pool: pool, Secrets: keys, HashMemory: 256})
	if err != nil {
		t.Fatal(err)
	}
	registry, err := eventstore.NewRegistry(domain.Catalog()...)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, store: &flaky{Store: memstore.New(), caps: caps}, objects: &objects{kept: map[string][]byte{}},
		codec: &seal.Codec{Registry: registry, Keys: &seal.MemoryKeys{}}, now: time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC), provided: map[string]string{},
	}
	w.Commands, err = commands.New(commands.Config{
		Store: w.store, Codec: w.codec, Objects: w.objects, MAC: keys.MAC, Auth: accounts, TSAProvider: "local", NewID: uuid.NewString,
		Logger: slog.New(slog.NewTextHandler(&w.said, nil)),
		Now:    func() time.Time { return w.now },
		Provision: func(_ context.Context, tenant, database string) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if err := w.failNext; err != nil {
				w.failNext = nil
				return err
			}
			w.provided[tenant] = database
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) caller(user string) commands.Caller {
	return commands.Caller{UserID: user, Command: uuid.NewString(), Correlation: "test", At: w.now}
}

// types lists the event types of a tenant's log, in order.
func (w *world) types(t eventstore.TenantID) string {
	w.t.Helper()
	page, err := w.store.Tenant(t).Page(w.t.Context(), 0, 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, e := range page.Events {
		names = append(names, e.Type)
	}
	return strings.Join(names, " ")
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) tenant(user string) commands.Tenant {
	w.t.Helper()
	tenant, _, err := w.CreateTenant(w.t.Context(), w.caller(user), "North Mill")
	w.must(err)
	return tenant
}

func (w *world) upload(by commands.Caller, tenant commands.Tenant, body io.Reader) (commands.Uploaded, commands.Receipt, error) {
	return w.UploadDocument(w.t.Context(), by, commands.UploadDocument{
		TenantID: tenant.ID, DatabaseName: tenant.DatabaseName, Body: body,
		Describe: func() (commands.Description, error) {
			return commands.Description{Filename: " pump.pdf ", MimeType: "Application/PDF"}, nil
		},
	})
}

func refused(t *testing.T, err error, code string) {
	t.Helper()
	var r *es.Refusal
	if !errors.As(err, &r) || r.Code != code {
		t.Fatalf("got %v, want refusal %s", err, code)
	}
}

var mina = commands.RegisterUser{FirstName: "Mina", LastName: "Okoro", Email: "  Mina@Plant.Example ", Password: "stator coil 7"}

func TestRegisterAndLogIn(t *testing.T) { onEachEngine(t, testRegisterAndLogIn) }

func testRegisterAndLogIn(t *testing.T, w *world) {
	ctx := t.Context()
	user, receipt, err := w.RegisterUser(ctx, w.caller(""), mina)
	w.must(err)
	if user.Email != "mina@plant.example" || receipt.Position != 1 {
		t.Fatalf("%+v %+v", user, receipt)
	}
	_, _, err = w.RegisterUser(ctx, w.caller(""), mina)
	refused(t, err, "user.email_taken")

	in, err := w.LogIn(ctx, commands.LogIn{Email: "MINA@plant.example", Password: "stator coil 7"})
	w.must(err)
	if in.User.ID != user.ID || in.Tokens.Access == "" || in.Tokens.Refresh == "" {
		t.Fatalf("%+v", in.User)
	}
	for _, wrong := range []commands.LogIn{
		{Email: "mina@plant.example", Password: "stator coil 8"},
		{Email: "nobody@plant.example", Password: "stator coil 7"},
		{Email: "mina@plant.example", Password: strings.Repeat("x", 5000)},
	} {
		if _, err := w.LogIn(ctx, wrong); !errors.Is(err, auth.ErrInvalidCredentials) {
			t.Fatal(err)
		}
	}
	page, err := w.store.Tenant(eventstore.PlatformTenant).Page(ctx, 0, 10)
	w.must(err)
	for _, e := range page.Events {
		for _, secret := range []string{"Mina", "Okoro", "plant.example", "stator coil 7"} {
			if bytes.Contains(e.Data, []byte(secret)) || strings.Contains(e.Stream.ID, secret) {
				t.Fatalf("%q lies open in the log: %s", secret, e.Data)
			}
		}
	}
}

func TestRegisterNamesEveryWrongField(t *testing.T) {
	w := newWorld(t)
	_, _, err := w.RegisterUser(t.Context(), w.caller(""), commands.RegisterUser{FirstName: " ", LastName: strings.Repeat("x", 101), Email: "Mina <mina@plant.example>", Password: "short1"})
	var invalid *commands.ValidationError
	if !errors.As(err, &invalid) || len(invalid.Fields) != 4 {
		t.Fatal(err)
	}
	for _, email := range []string{
		"", "a", "a@b", "@x.y", "a@x.y\x00", "a b@x.y", "a@x.y, b@x.y", strings.Repeat("a", 251) + "@x.yz",
		strings.Repeat("a", 65) + "@x.yz", "a@" + strings.Repeat("b", 64) + ".yz", "a@[127.0.0.1]", "a@127.0.0.1", "a@-x.yz", "a@x_y.yz", "a@x.y.", "a.@x.yz",
		// Each of these looks like another address.
		"mi\u200bna@plant.example", "mi\u202ena@plant.example", "mi\u00adna@plant.example", "mi\u00a0na@plant.example", "mi\u2028na@plant.example", "mi\u0085na@plant.example",
	} {
		in := mina
		in.Email = email
		if _, _, err := w.RegisterUser(t.Context(), w.caller(""), in); !errors.As(err, &invalid) || invalid.Fields["email"] == nil {
			t.Errorf("%q: %v", email, err)
		}
	}
	for _, name := range []string{"Mi\u0085na", "Mi\u2028na", "Mi\u2029na"} {
		in := mina
		in.FirstName = name
		if _, _, err := w.RegisterUser(t.Context(), w.caller(""), in); !errors.As(err, &invalid) || invalid.Fields["first_name"] == nil {
			t.Errorf("%+q: %v", name, err)
		}
	}
	for _, password := range []string{"", "stator c 7", "statorstator", "123456123456", "Mina Okoro Mina", strings.Repeat("a1", 513)} {
		in := mina
		in.Password = password
		if _, _, err := w.RegisterUser(t.Context(), w.caller(""), in); !errors.As(err, &invalid) || invalid.Fields["password"] == nil {
			t.Errorf("%d characters: %v", len(password), err)
		}
	}
	if got := w.types(eventstore.PlatformTenant); got != "" {
		t.Fatal(got)
	}
}

func TestAnAddressHasOneSpelling(t *testing.T) {
	w := newWorld(t)
	for kept, spellings := range map[string][]string{
		"jörg@plant.example": {"Jörg@plant.example", "jo\u0308rg@plant.example", " JO\u0308RG@PLANT.example "},
		"a@завод.example":    {"a@завод.example", "A@ЗАВОД.example", "a@xn--80aegj1b.example"},
		"a+b@plant.example":  {"a+b@plant.example", "a+b@\uff50\uff4c\uff41\uff4e\uff54.example"},
	} {
		for i, spelling := range spellings {
			in := mina
			in.Email = spelling
			user, _, err := w.RegisterUser(t.Context(), w.caller(""), in)
			if i > 0 {
				refused(t, err, "user.email_taken")
			} else if w.must(err); user.Email != kept {
				t.Errorf("%+q is kept as %+q", spelling, user.Email)
			}
			if _, err := w.LogIn(t.Context(), commands.LogIn{Email: spelling, Password: in.Password}); err != nil {
				t.Errorf("%+q: %v", spelling, err)
			}
		}
	}
}

func TestTwoRegistrationsOfOneAddressRace(t *testing.T) {
	onEachEngine(t, testTwoRegistrationsOfOneAddressRace)
}

func testTwoRegistrationsOfOneAddressRace(t *testing.T, w *world) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 6 {
		wg.Go(func() {
			_, _, err := w.RegisterUser(t.Context(), w.caller(""), mina)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
				return
			}
			var r *es.Refusal
			if !errors.As(err, &r) || r.Code != "user.email_taken" {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Fatalf("%d registrations won", won)
	}
	_, err := w.LogIn(t.Context(), commands.LogIn{Email: mina.Email, Password: mina.Password})
	w.must(err)
}

func TestCreateTenant(t *testing.T) { onEachEngine(t, testCreateTenant) }

func testCreateTenant(t *testing.T, w *world) {
	user := uuid.NewString()
	by := w.caller(user)
	tenant, receipt, err := w.CreateTenant(t.Context(), by, "  Nörd Mill & Söhne ")
	w.must(err)
	if tenant.Name != "Nörd Mill & Söhne" || !strings.HasPrefix(tenant.DatabaseName, "tenant_n_rd_mill_s_hne_") || receipt.Tenant != eventstore.PlatformTenant {
		t.Fatalf("%+v %+v", tenant, receipt)
	}
	if got := w.types(eventstore.PlatformTenant); got != "tenant.created membership.granted tenant.provisioned" {
		t.Fatal(got)
	}
	if got := w.types(commands.LogOf(tenant.ID)); got != "timestamping.enabled" {
		t.Fatal(got)
	}
	again, repeated, err := w.CreateTenant(t.Context(), by, "  Nörd Mill & Söhne ")
	w.must(err)
	if again.ID != tenant.ID || !repeated.Replayed || repeated.Position != receipt.Position {
		t.Fatalf("%+v %+v", again, repeated)
	}
	var invalid *commands.ValidationError
	for _, name := range []string{"", "  ", strings.Repeat("x", 256), "a\x00b"} {
		if _, _, err := w.CreateTenant(t.Context(), w.caller(user), name); !errors.As(err, &invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestAHalfMadeTenantIsFinished(t *testing.T) { onEachEngine(t, testAHalfMadeTenantIsFinished) }

func testAHalfMadeTenantIsFinished(t *testing.T, w *world) {
	by := w.caller(uuid.NewString())
	w.failNext = errors.New("killed")
	if _, _, err := w.CreateTenant(t.Context(), by, "North Mill"); err == nil {
		t.Fatal("acknowledged although it failed")
	}
	if got := w.types(eventstore.PlatformTenant); got != "tenant.created membership.granted" {
		t.Fatal(got)
	}
	id := es.Key("tenant", by.UserID, by.Command)
	for range 2 {
		w.must(w.ProvisionTenant(t.Context(), id))
	}
	if got := w.types(eventstore.PlatformTenant); got != "tenant.created membership.granted tenant.provisioned" {
		t.Fatal(got)
	}
	if got := w.types(commands.LogOf(id)); got != "timestamping.enabled" {
		t.Fatal(got)
	}
	refused(t, w.ProvisionTenant(t.Context(), uuid.NewString()), "tenant.unknown")
}

// TestUnneededObjectStays shows that an object store which cannot delete changes no answer, and that operators are told.
func TestUnneededObjectStays(t *testing.T) { onEachEngine(t, testUnneededObjectStays) }

func testUnneededObjectStays(t *testing.T, w *world) {
	user := uuid.NewString()
	tenant := w.tenant(user)
	_, _, err := w.upload(w.caller(user), tenant, strings.NewReader("content"))
	w.must(err)
	w.objects.stay = errors.New("the bucket is read-only")
	_, _, err = w.upload(w.caller(user), tenant, strings.NewReader("content"))
	w.must(err)
	if said := w.said.String(); strings.Count(said, "could not be removed") != 1 || !strings.Contains(said, "read-only") {
		t.Fatalf("%q", said)
	}
	var invalid *commands.ValidationError
	if _, _, err = w.upload(w.caller(user), tenant, strings.NewReader("")); !errors.As(err, &invalid) || invalid.Fields["file"] == nil {
		t.Fatal(err)
	}
	if said := w.said.String(); strings.Count(said, "could not be removed") != 2 {
		t.Fatalf("%q", said)
	}
}

func TestUploadAndDelete(t *testing.T) { onEachEngine(t, testUploadAndDelete) }

func testUploadAndDelete(t *testing.T, w *world) {
	user := uuid.NewString()
	tenant := w.tenant(user)
	log := commands.LogOf(tenant.ID)
	by := w.caller(user)
	first, receipt, err := w.upload(by, tenant, strings.NewReader("content"))
	w.must(err)
	if first.Filename != "pump.pdf" || first.MimeType != "application/pdf" || first.Size != 7 || first.MD5 != "9a0364b9e99bb480dd25e1f0284c8555" ||
		!strings.HasPrefix(first.ObjectKey, "tenants/"+tenant.DatabaseName+"/files/") {
		t.Fatalf("%+v", first)
	}
	if got := w.types(log); got != "timestamping.enabled file.stored file.linked file.timestamp_requested document.uploaded" {
		t.Fatal(got)
	}

	again, repeated, err := w.upload(by, tenant, strings.NewReader("content"))
	w.must(err)
	if again.DocumentID != first.DocumentID || again.ObjectKey != first.ObjectKey || !repeated.Replayed || repeated.Position != receipt.Position || w.objects.count() != 1 {
		t.Fatalf("%+v %+v %d", again, repeated, w.objects.count())
	}

	second, _, err := w.upload(w.caller(user), tenant, strings.NewReader("content"))
	w.must(err)
	if second.FileID != first.FileID || second.DocumentID == first.DocumentID || w.objects.count() != 1 {
		t.Fatalf("equal contents do not share one file and object: %+v %d", second, w.objects.count())
	}

	orphaned, _, err := w.DeleteDocument(t.Context(), w.caller(user), commands.DocumentID{TenantID: tenant.ID, ID: first.DocumentID})
	w.must(err)
	if orphaned {
		t.Fatal("orphaned although a document refers to it")
	}
	removal := w.caller(user)
	for range 2 { // the second is a repetition of the same command
		orphaned, _, err = w.DeleteDocument(t.Context(), removal, commands.DocumentID{TenantID: tenant.ID, ID: second.DocumentID})
		w.must(err)
		if !orphaned {
			t.Fatal("not orphaned")
		}
	}
	_, _, err = w.DeleteDocument(t.Context(), w.caller(user), commands.DocumentID{TenantID: tenant.ID, ID: second.DocumentID})
	refused(t, err, "document.unknown")
	_, _, err = w.DeleteDocument(t.Context(), w.caller(user), commands.DocumentID{TenantID: tenant.ID, ID: uuid.NewString()})
	refused(t, err, "document.unknown")

	other := w.tenant(user)
	elsewhere, _, err := w.upload(w.caller(user), other, strings.NewReader("content"))
	w.must(err)
	if elsewhere.FileID == first.FileID {
		t.Fatal("a file's id tells one tenant what another has")
	}
}

func TestUploadWithoutTimestamping(t *testing.T) { onEachEngine(t, testUploadWithoutTimestamping) }

func testUploadWithoutTimestamping(t *testing.T, w *world) {
	user := uuid.NewString()
	tenant := w.tenant(user)
	_, err := w.DisableTSA(t.Context(), w.caller(user), tenant.ID)
	w.must(err)
	up, _, err := w.upload(w.caller(user), tenant, strings.NewReader("content"))
	w.must(err)
	if _, _, wanted, err := w.TimestampWanted(t.Context(), tenant.ID, up.FileID); wanted || err != nil {
		t.Fatal(wanted, err)
	}
	_, err = w.EnableTSA(t.Context(), w.caller(user), tenant.ID)
	w.must(err)
	_, _, err = w.upload(w.caller(user), tenant, strings.NewReader("content"))
	w.must(err)
	sha, attempt, wanted, err := w.TimestampWanted(t.Context(), tenant.ID, up.FileID)
	w.must(err)
	if !wanted || attempt != 1 || sha != up.SHA256 {
		t.Fatal(sha, attempt, wanted)
	}
}

func TestBrokenUploadsLeaveNothing(t *testing.T) { onEachEngine(t, testBrokenUploadsLeaveNothing) }

func testBrokenUploadsLeaveNothing(t *testing.T, w *world) {
	user := uuid.NewString()
	tenant := w.tenant(user)
	before := w.types(commands.LogOf(tenant.ID))
	broken := errors.New("client went away")
	_, _, err := w.upload(w.caller(user), tenant, io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	var invalid *commands.ValidationError
	if _, _, err := w.upload(w.caller(user), tenant, strings.NewReader("")); !errors.As(err, &invalid) || invalid.Fields["file"] == nil {
		t.Fatal(err)
	}
	if _, _, err := w.upload(w.caller(user), tenant, io.LimitReader(zeros{}, commands.MaxFileBytes+1)); !errors.Is(err, commands.ErrTooLarge) {
		t.Fatal(err)
	}
	for _, name := range []string{"", " ", "a/b", `a\b`, "..", "a\x00", "a\nb", strings.Repeat("x", 256), "\xff"} {
		_, _, err := w.UploadDocument(t.Context(), w.caller(user), commands.UploadDocument{
			TenantID: tenant.ID, DatabaseName: tenant.DatabaseName, Body: strings.NewReader("x"),
			Describe: func() (commands.Description, error) {
				return commands.Description{Filename: name, MimeType: "text/plain; charset=utf-8"}, nil
			},
		})
		if !errors.As(err, &invalid) || len(invalid.Fields) != 2 {
			t.Errorf("%q: %v", name, err)
		}
	}
	if w.objects.count() != 0 || w.types(commands.LogOf(tenant.ID)) != before {
		t.Fatalf("%d objects, log %s", w.objects.count(), w.types(commands.LogOf(tenant.ID)))
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestAnAmbiguousFailureIsTriedOnceMore(t *testing.T) {
	for _, plan := range [][]string{{"lost"}, {"unanswered"}, {"unanswered", "lost"}, {"lost", "lost"}} {
		onEachEngine(t, func(t *testing.T, w *world) { testAnAmbiguousFailure(t, w, plan) })
	}
}

func testAnAmbiguousFailure(t *testing.T, w *world, plan []string) {
	user := uuid.NewString()
	tenant := w.tenant(user)
	w.store.plan = plan
	by := w.caller(user)
	up, _, err := w.upload(by, tenant, strings.NewReader("content"))
	if strings.Join(plan, " ") == "lost lost" {
		if !errors.Is(err, errConnection) || !commands.MayHaveHappened(err) || w.objects.count() != 1 {
			t.Fatal(plan, err, w.objects.count()) // the object stays: the command may have been carried out
		}
		up, _, err = w.upload(by, tenant, strings.NewReader("content"))
	}
	w.must(err)
	if got := w.types(commands.LogOf(tenant.ID)); got != "timestamping.enabled file.stored file.linked file.timestamp_requested document.uploaded" {
		t.Fatal(plan, got)
	}
	if _, kept := w.objects.kept[up.ObjectKey]; !kept {
		t.Fatal(plan, "the acknowledged object is gone")
	}
}

func TestTimestampOutcomes(t *testing.T) { onEachEngine(t, testTimestampOutcomes) }

func testTimestampOutcomes(t *testing.T, w *world) {
	user := uuid.NewString()
	tenant := w.tenant(user)
	up, _, err := w.upload(w.caller(user), tenant, strings.NewReader("content"))
	w.must(err)
	fail := commands.FailedAttempt{TenantID: tenant.ID, FileID: up.FileID, Job: "job-1", Attempt: 1, Reason: "connection refused"}
	for range 2 {
		w.must(w.RecordTimestampFailure(t.Context(), fail))
	}
	_, attempt, wanted, err := w.TimestampWanted(t.Context(), tenant.ID, up.FileID)
	w.must(err)
	if attempt != 2 || !wanted {
		t.Fatal(attempt, wanted)
	}
	done := commands.StampOutcome{TenantID: tenant.ID, FileID: up.FileID, Job: "job-2", Attempt: 2, Response: []byte{0x30}, GenTime: w.now, Serial: "0x1", Policy: "1.2.3", Algorithm: "sha256", Authority: "CN=x"}
	w.must(w.RecordTimestamp(t.Context(), done))
	done.Job = "job-3"
	w.must(w.RecordTimestamp(t.Context(), done))
	want := "timestamping.enabled file.stored file.linked file.timestamp_requested document.uploaded file.timestamp_failed file.timestamped"
	if got := w.types(commands.LogOf(tenant.ID)); got != want {
		t.Fatal(got)
	}
	page, err := w.store.Tenant(commands.LogOf(tenant.ID)).Page(t.Context(), 5, 10)
	w.must(err)
	fact, err := w.codec.Decode(t.Context(), page.Events[0])
	w.must(err)
	if f, ok := fact.(file.TimestampFailed); !ok || !f.NextAttempt.Equal(w.now.Add(file.Delay(1))) {
		t.Fatalf("%#v", fact)
	}
}

// TestManyUploadsOfOneContentMeetInOneFile: all of them write to the same stream, and none is refused for that.
func TestManyUploadsOfOneContentMeetInOneFile(t *testing.T) {
	onEachEngine(t, testManyUploadsOfOneContentMeetInOneFile)
}

func testManyUploadsOfOneContentMeetInOneFile(t *testing.T, w *world) {
	user := uuid.NewString()
	tenant := w.tenant(user)
	before := w.store.appends
	var wg sync.WaitGroup
	for range 48 {
		wg.Go(func() {
			if _, _, err := w.upload(w.caller(user), tenant, strings.NewReader("content")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	log := w.types(commands.LogOf(tenant.ID))
	if strings.Count(log, "file.stored") != 1 || strings.Count(log, "document.uploaded") != 48 || w.objects.count() != 1 {
		t.Fatal(w.objects.count(), log)
	}
	want := 48 // each command's appends succeed at the first attempt: within a process nobody conflicts
	if !w.store.caps.MultiStream {
		want *= 2
	}
	if got := w.store.appends - before; got != want {
		t.Fatalf("%d attempts to append, want %d", got, want)
	}
}
