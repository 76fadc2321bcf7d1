package auth_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/factum-platform/factum/infra/auth"
)

func TestLinksAreGoodOnceAndForAWhile(t *testing.T) {
	w := newWorld(t)
	ctx, user := t.Context(), uuid.NewString()
	draw := func(p auth.Purpose) string {
		t.Helper()
		token, err := w.NewLink(ctx, p, user)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	verify, reset := draw(auth.VerifyEmail), draw(auth.ResetPassword)
	if owner, err := w.LinkOwner(ctx, auth.VerifyEmail, verify); err != nil || owner != user {
		t.Fatal(owner, err)
	}
	for purpose, token := range map[auth.Purpose]string{auth.VerifyEmail: reset, auth.ResetPassword: verify} {
		if _, err := w.LinkOwner(ctx, purpose, token); !errors.Is(err, auth.ErrInvalidLink) {
			t.Fatal("a link is good for something else:", err)
		}
	}
	if _, err := w.NewLink(ctx, "login", user); err == nil {
		t.Fatal("a link for everything")
	}
	draw(auth.VerifyEmail)
	draw(auth.VerifyEmail)
	if _, err := w.NewLink(ctx, auth.VerifyEmail, user); !errors.Is(err, auth.ErrTooManyLinks) {
		t.Fatal(err)
	}
	if err := w.SpendLink(ctx, auth.VerifyEmail, user); err != nil {
		t.Fatal(err)
	}
	if _, err := w.LinkOwner(ctx, auth.VerifyEmail, verify); !errors.Is(err, auth.ErrInvalidLink) {
		t.Fatal(err)
	}
	if err := w.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := w.NewLink(ctx, auth.VerifyEmail, user); !errors.Is(err, auth.ErrTooManyLinks) {
		t.Fatal("links that were used up count no more:", err)
	}

	if err := w.SetPassword(ctx, user, []byte("k"), "turbine42"); err != nil {
		t.Fatal(err)
	}
	tokens, err := w.BeginSession(ctx, user, "")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	won, lost := 0, 0
	for range 2 { // both hold the same link
		wg.Go(func() {
			owner, err := w.ResetPassword(ctx, reset, "turbine43")
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && owner == user:
				won++
			case errors.Is(err, auth.ErrInvalidLink):
				lost++
			default:
				t.Error(owner, err)
			}
		})
	}
	wg.Wait()
	if won != 1 || lost != 1 {
		t.Fatalf("one link set %d passwords", won)
	}
	if err := w.CheckPassword(ctx, user, "turbine43"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.process(t).Authenticate(ctx, tokens.Access); !errors.Is(err, auth.ErrTokenRevoked) {
		t.Fatal("a session outlives the reset:", err)
	}

	late := draw(auth.ResetPassword)
	w.pass(auth.LinkLife(auth.ResetPassword))
	if _, err := w.ResetPassword(ctx, late, "turbine44"); !errors.Is(err, auth.ErrInvalidLink) {
		t.Fatal(err)
	}
	w.pass(time.Hour + time.Second)
	if err := w.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := w.pool.QueryRow(ctx, `select count(*) from auth.links`).Scan(&left); err != nil || left != 0 {
		t.Fatal(left, err)
	}
}
