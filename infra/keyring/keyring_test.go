package keyring_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/factum-platform/factum/infra/keyring"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestKeyring(t *testing.T) {
	dsn := pgtest.Database(t, postgres.Migrations{Name: "keyring", FS: keyring.Migrations()})
	pool, err := postgres.Open(t.Context(), dsn, 8)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	file := filepath.Join(t.TempDir(), "kek.json")
	open := func() *keyring.Keyring { // as another process would
		t.Helper()
		kek, err := keyring.LoadOrCreateKEK(file)
		if err != nil {
			t.Fatal(err)
		}
		return keyring.Open(pool, kek)
	}
	k := open()
	ctx := t.Context()

	t.Run("processes that race for a new key agree", func(t *testing.T) {
		var wg sync.WaitGroup
		keys := make([][]byte, 8)
		for i := range keys {
			other := open()
			wg.Go(func() {
				var err error
				if keys[i], err = other.For(ctx, "t1", "mina"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, key := range keys {
			if len(key) != 32 || !bytes.Equal(key, keys[0]) {
				t.Fatalf("keys differ or have %d bytes", len(key))
			}
		}
	})
	t.Run("people and tenants have keys of their own", func(t *testing.T) {
		seen := map[string]bool{}
		for _, at := range [][2]string{{"t1", "mina"}, {"t1", "olu"}, {"t2", "mina"}} {
			key, err := k.For(ctx, at[0], at[1])
			if err != nil {
				t.Fatal(err)
			}
			seen[string(key)] = true
		}
		if len(seen) != 3 {
			t.Fatalf("%d different keys, want 3", len(seen))
		}
	})
	t.Run("an erased key never comes back", func(t *testing.T) {
		for _, subject := range []string{"mina", "never-used"} {
			for range 2 {
				if err := k.Erase(ctx, "t1", subject); err != nil {
					t.Fatal(err)
				}
			}
			for _, ring := range []*keyring.Keyring{k, open()} {
				if _, err := ring.For(ctx, "t1", subject); !errors.Is(err, keyring.ErrErased) {
					t.Fatalf("%s: %v", subject, err)
				}
			}
		}
	})
	t.Run("a MAC is stable, and differs by tenant, purpose and value", func(t *testing.T) {
		seen := map[string]bool{}
		for _, in := range [][3]string{{"t1", "email", "a"}, {"t1", "email", "b"}, {"t1", "file", "a"}, {"t2", "email", "a"}} {
			first, err := k.MAC(ctx, in[0], in[1], in[2])
			if err != nil {
				t.Fatal(err)
			}
			again, err := open().MAC(ctx, in[0], in[1], in[2])
			if err != nil || !bytes.Equal(first, again) {
				t.Fatal("a MAC changed between processes", err)
			}
			seen[string(first)] = true
		}
		if len(seen) != 4 {
			t.Fatalf("%d different MACs, want 4", len(seen))
		}
	})
	t.Run("a secret opens for its purpose only, and not when changed", func(t *testing.T) {
		sealed, err := k.Seal(ctx, "a", []byte("secret"))
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := open().Open(ctx, "a", sealed); err != nil || string(plain) != "secret" {
			t.Fatal(string(plain), err)
		}
		if _, err := k.Open(ctx, "b", sealed); err == nil {
			t.Fatal("opened for another purpose")
		}
		sealed[len(sealed)-1] ^= 1
		if _, err := k.Open(ctx, "a", sealed); err == nil {
			t.Fatal("opened although changed")
		}
	})
	t.Run("the key file is private, and another key opens nothing", func(t *testing.T) {
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatal(info.Mode(), err)
		}
		kek, err := keyring.LoadOrCreateKEK(filepath.Join(t.TempDir(), "other.json"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := keyring.Open(pool, kek).For(ctx, "t2", "mina"); err == nil {
			t.Fatal("unwrapped with another key")
		}
	})
}
