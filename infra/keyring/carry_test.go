package keyring_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/factum-platform/factum/infra/keyring"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
)

// TestKeysAreCarriedToAnotherDatabase: what is exported opens there under the same key-encryption key, and what was destroyed stays so.
func TestKeysAreCarriedToAnotherDatabase(t *testing.T) {
	ctx := t.Context()
	kek, err := keyring.LoadOrCreateKEK(filepath.Join(t.TempDir(), "kek.json"))
	if err != nil {
		t.Fatal(err)
	}
	open := func(kek tink.AEAD) *keyring.Keyring {
		pool, err := postgres.Open(ctx, pgtest.Database(t, postgres.Migrations{Name: "keyring", FS: keyring.Migrations()}), 2)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		return keyring.Open(pool, kek)
	}
	here, there := open(kek), open(kek)
	const people = 1500 // more than a page
	keys := map[string][]byte{}
	for i := range people {
		who := fmt.Sprint("person", i)
		if keys[who], err = here.For(ctx, "t1", who); err != nil {
			t.Fatal(err)
		}
	}
	mac, err := here.MAC(ctx, "t1", "file", "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := here.For(ctx, "t2", "stranger"); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"person1", "person2"} {
		if err := here.Erase(ctx, "t1", gone); err != nil {
			t.Fatal(err)
		}
	}
	if err := there.Erase(ctx, "t1", "person3"); err != nil { // after the export was made
		t.Fatal(err)
	}
	for range 2 {
		n := 0
		for w, err := range here.Export(ctx, "t1") {
			if err != nil {
				t.Fatal(err)
			}
			if err := there.Import(ctx, "t1", w); err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != people+1 {
			t.Fatalf("%d keys; want %d", n, people+1)
		}
	}
	for who, want := range keys {
		got, err := there.For(ctx, "t1", who)
		switch who {
		case "person1", "person2", "person3":
			if !errors.Is(err, keyring.ErrErased) {
				t.Errorf("%s came back: %v", who, err)
			}
		default:
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s has another key: %v", who, err)
			}
		}
	}
	if got, err := there.MAC(ctx, "t1", "file", "x"); err != nil || !bytes.Equal(got, mac) {
		t.Error("the tenant's MAC key is another:", err)
	}
	other, err := keyring.LoadOrCreateKEK(filepath.Join(t.TempDir(), "other.json"))
	if err != nil {
		t.Fatal(err)
	}
	stranger, busy := open(other), open(kek)
	if _, err := busy.MAC(ctx, "t1", "file", "x"); err != nil { // a key of its own
		t.Fatal(err)
	}
	for w, err := range here.Export(ctx, "t1") {
		if err != nil {
			t.Fatal(err)
		}
		if w.Purpose != "mac" {
			continue
		}
		if err := stranger.Import(ctx, "t1", w); err == nil {
			t.Error("a key was imported that nobody can open")
		}
		if err := here.Opens("t2", w); err == nil {
			t.Error("a key opens for another tenant")
		}
		if err := busy.Import(ctx, "t1", w); err == nil {
			t.Error("a key of another platform replaced one that is used")
		}
	}
}
