package auth_test

import (
	"errors"
	"testing"

	"github.com/google/uuid"

	"github.com/factum-platform/factum/infra/auth"
)

// TestAnAccountIsSwitchedOff: sessions end in every process, and so does one that a log-in under way began.
func TestAnAccountIsSwitchedOff(t *testing.T) {
	w := newWorld(t)
	ctx, user, other := t.Context(), uuid.NewString(), uuid.NewString()
	begin := func(user string) auth.Tokens {
		t.Helper()
		tokens, err := w.BeginSession(ctx, user, "")
		if err != nil {
			t.Fatal(err)
		}
		return tokens
	}
	before, theirs := begin(user), begin(other)
	for range 2 {
		if err := w.Deactivate(ctx, user); err != nil {
			t.Fatal(err)
		}
	}
	late := begin(user) // its password was checked before
	process := w.process(t)
	for _, tokens := range []auth.Tokens{before, late} {
		if _, err := process.Authenticate(ctx, tokens.Access); !errors.Is(err, auth.ErrTokenRevoked) {
			t.Fatal(err)
		}
		if _, err := process.Refresh(ctx, tokens.Refresh); !errors.Is(err, auth.ErrInactive) {
			t.Fatal(err)
		}
	}
	if _, err := process.Authenticate(ctx, theirs.Access); err != nil {
		t.Fatal(err)
	}
	if err := w.Activate(ctx, user); err != nil {
		t.Fatal(err)
	}
	for _, tokens := range []auth.Tokens{before, late} {
		if _, err := process.Refresh(ctx, tokens.Refresh); !errors.Is(err, auth.ErrTokenRevoked) {
			t.Fatal(err)
		}
	}
	after := begin(user)
	if err := w.Activate(ctx, user); err != nil { // of one that is active
		t.Fatal(err)
	}
	if _, err := process.Refresh(ctx, after.Refresh); err != nil {
		t.Fatal(err)
	}
}
