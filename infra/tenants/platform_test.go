package tenants_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/infra/keyring"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
	"github.com/factum-platform/factum/infra/tenants"
)

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func secrets(t *testing.T) *keyring.Keyring {
	t.Helper()
	kek, err := keyring.LoadOrCreateKEK(t.TempDir() + "/kek.json")
	if err != nil {
		t.Fatal(err)
	}
	return keyring.Open(nil, kek) // to seal needs the key only
}

func TestLogin(t *testing.T) {
	dsn := pgtest.Database(t, postgres.Migrations{Name: "placement", FS: tenants.Migrations()})
	admin, ours := connect(t, dsn), secrets(t)
	role := name("factum_test_login")
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), pgtest.AdminDSN(t))
		if err != nil {
			t.Error(err)
			return
		}
		_, err = conn.Exec(context.Background(), `drop role if exists `+role)
		if err := errors.Join(err, conn.Close(context.Background())); err != nil {
			t.Error(err)
		}
	})
	if made, err := tenants.HasLogin(t.Context(), admin, role); err != nil || made {
		t.Fatal(made, err)
	}
	password, err := tenants.Login(t.Context(), admin, ours, role)
	if err != nil {
		t.Fatal(err)
	}
	again, err := tenants.Login(t.Context(), connect(t, dsn), ours, role)
	if err != nil || again != password || len(password) != 48 {
		t.Fatalf("the second process got another password: %v", err)
	}
	if made, err := tenants.HasLogin(t.Context(), admin, role); err != nil || !made {
		t.Fatal(made, err)
	}
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(role, password)
	if _, err := connect(t, u.String()).Exec(t.Context(), `select password from placement.logins`); err == nil || !strings.Contains(err.Error(), "42501") {
		t.Error("the role reads its sealed password:", err)
	}
	if _, err := tenants.Login(t.Context(), admin, secrets(t), role); err == nil || !strings.Contains(err.Error(), "not the one that sealed it") {
		t.Error("another key-encryption key was taken:", err)
	}
}

func TestEngine(t *testing.T) {
	admin := connect(t, pgtest.Database(t, postgres.Migrations{Name: "placement", FS: tenants.Migrations()}))
	want := func(got tenants.Engine, err error, name, movingTo string) {
		t.Helper()
		if err != nil || got.Name != name || got.MovingTo != movingTo || (name == "") != got.Since.IsZero() {
			t.Fatalf("%+v %v; want %s %s", got, err, name, movingTo)
		}
	}
	read := func(name, movingTo string) {
		t.Helper()
		got, err := tenants.RememberedEngine(t.Context(), admin)
		want(got, err, name, movingTo)
	}
	read("", "")
	if err := tenants.BeginMove(t.Context(), admin, "a", "b"); err == nil {
		t.Error("a log that was never begun is moved")
	}
	for _, name := range []string{"a", "b"} { // the first one stays
		got, err := tenants.RememberEngine(t.Context(), admin, name)
		want(got, err, "a", "")
	}
	if err := tenants.EndMove(t.Context(), admin, "a", "b"); err == nil {
		t.Error("a move that was not begun ends")
	}
	for range 2 {
		if err := tenants.BeginMove(t.Context(), admin, "a", "b"); err != nil {
			t.Fatal(err)
		}
		read("a", "b")
	}
	if err := tenants.EndMove(t.Context(), admin, "a", "b"); err != nil {
		t.Fatal(err)
	}
	read("b", "")
	if err := tenants.BeginMove(t.Context(), admin, "a", "c"); err == nil || !strings.Contains(err.Error(), "another process has moved them meanwhile") {
		t.Error(err)
	}
}

func TestAPlatformThatIsOlderThanTheNoteHasItsLogOnPostgreSQL(t *testing.T) {
	for head, want := range map[string]string{"0": "", "7": "postgres"} {
		log := fstest.MapFS{"00001_log.sql": {Data: []byte("-- +goose Up\ncreate schema es;\ncreate table es.head as select " + head + "::bigint as pos;\n")}}
		admin := connect(t, pgtest.Database(t, postgres.Migrations{Name: "es", FS: log}, postgres.Migrations{Name: "placement", FS: tenants.Migrations()}))
		if got, err := tenants.RememberedEngine(t.Context(), admin); err != nil || got.Name != want {
			t.Errorf("at position %s: %+v %v; want %q", head, got, err, want)
		}
	}
}
