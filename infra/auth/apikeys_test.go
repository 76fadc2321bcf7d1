package auth_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/factum-platform/factum/infra/auth"
)

func TestAPIKeys(t *testing.T) {
	w := newWorld(t)
	ctx, tenant, other := t.Context(), uuid.NewString(), w.process(t)
	ask := auth.APIKey{TenantID: tenant, Name: "press 4", Role: "user", CreatedBy: uuid.NewString(), ExpiresAt: w.now.Add(24 * time.Hour)}
	made, key, err := w.NewAPIKey(ctx, ask)
	if err != nil {
		t.Fatal(err)
	}
	p, err := other.Authenticate(ctx, key)
	if err != nil || !p.Machine() || p.UserID != made.ID || p.TenantID != tenant || p.Role != "user" || !p.Expires.Equal(ask.ExpiresAt) || p.SessionID != "" {
		t.Fatalf("%+v %v", p, err)
	}
	var stored string
	if err := w.pool.QueryRow(ctx, `select row_to_json(k)::text from auth.api_keys k`).Scan(&stored); err != nil {
		t.Fatal(err)
	}
	_, secret, _ := strings.Cut(key, ".")
	if strings.Contains(stored, secret) {
		t.Fatal("the secret is kept")
	}
	_, second, err := w.NewAPIKey(ctx, ask)
	if err != nil {
		t.Fatal(err)
	}
	_, foreign, _ := strings.Cut(second, ".")
	id, _, _ := strings.Cut(key, ".")
	for name, bad := range map[string]string{
		"another secret": id + "." + foreign, "no secret": id + ".", "no point": id + secret, "only the prefix": "fk_", "cut": key[:len(key)-1],
		"longer": key + "A", "no such key": "fk_" + strings.Repeat("A", 22) + "." + secret, "huge": "fk_" + strings.Repeat("A", 1<<20),
		"other case": "fk_" + strings.ToUpper(key[3:]), "padding": key + "=", "a zero byte": key[:10] + "\x00" + key[11:],
	} {
		if _, err := w.Authenticate(ctx, bad); !errors.Is(err, auth.ErrInvalidToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.Refresh(ctx, key); !errors.Is(err, auth.ErrInvalidToken) {
		t.Fatal("an API key refreshes:", err)
	}

	first := w.now
	w.pass(30 * time.Second)
	if _, err := w.Authenticate(ctx, key); err != nil {
		t.Fatal(err)
	}
	list, err := w.APIKeys(ctx, tenant)
	if err != nil || len(list) != 2 || list[1].LastUsedAt != nil && list[0].LastUsedAt != nil {
		t.Fatal(list, err)
	}
	used := func() time.Time {
		t.Helper()
		list, err := w.APIKeys(ctx, tenant)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range list {
			if k.ID == made.ID {
				return *k.LastUsedAt
			}
		}
		t.Fatal("the key is not listed")
		return time.Time{}
	}
	if !used().Equal(first) {
		t.Fatal(used())
	}
	w.pass(31 * time.Second)
	if _, err := w.Authenticate(ctx, key); err != nil || !used().Equal(w.now) {
		t.Fatal(used(), err)
	}

	if done, err := w.RevokeAPIKey(ctx, uuid.NewString(), made.ID); err != nil || done {
		t.Fatal("another tenant revokes", err)
	}
	for _, want := range []bool{true, false} {
		if done, err := w.RevokeAPIKey(ctx, tenant, made.ID); err != nil || done != want {
			t.Fatal(done, err)
		}
	}
	if _, err := other.Authenticate(ctx, key); !errors.Is(err, auth.ErrTokenRevoked) {
		t.Fatal(err)
	}
	w.pass(24 * time.Hour)
	if _, err := other.Authenticate(ctx, second); !errors.Is(err, auth.ErrTokenExpired) {
		t.Fatal(err)
	}

	ask.ExpiresAt = w.now.Add(time.Hour)
	for range 100 {
		if _, _, err := w.NewAPIKey(ctx, ask); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := w.NewAPIKey(ctx, ask); !errors.Is(err, auth.ErrTooManyKeys) {
		t.Fatal(err)
	}
	w.pass(100 * 24 * time.Hour)
	if err := w.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if list, err := w.APIKeys(ctx, tenant); err != nil || len(list) != 0 {
		t.Fatal(len(list), err)
	}
}
