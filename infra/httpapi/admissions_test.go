package httpapi

import (
	"context"
	"testing"
	"time"

	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/readmodel"
)

// ends counts what has ended, and lets nobody in.
type ends struct{ count uint64 }

func (e *ends) Ended() uint64 { return e.count }

func (*ends) Claim(context.Context, string) (*auth.Claim, error) { return nil, auth.ErrInvalidToken }

func TestAnAdmissionIsForgotten(t *testing.T) {
	const tenant = "0d9b3c1e-8a0d-4c0e-9a51-0d3d1c7f9b21"
	key := admissionKey{token: [32]byte{1}, tenant: tenant}
	for name, c := range map[string]struct {
		happens func(s *Server, e *ends, moves *readmodel.Moves, age *time.Duration)
		kept    bool
	}{
		"not at once": {func(*Server, *ends, *readmodel.Moves, *time.Duration) {}, true},
		"not when another tenant's log moves": {func(_ *Server, _ *ends, moves *readmodel.Moves, _ *time.Duration) {
			moves.Announce("directory", logOf("1d9b3c1e-8a0d-4c0e-9a51-0d3d1c7f9b21"), 7)
		}, true},
		"not when the tenant's documents move": {func(_ *Server, _ *ends, moves *readmodel.Moves, _ *time.Duration) {
			moves.Announce("documents", logOf(tenant), 7)
		}, true},
		"after a second":      {func(_ *Server, _ *ends, _ *readmodel.Moves, age *time.Duration) { *age = rememberFor }, false},
		"when a session ends": {func(_ *Server, e *ends, _ *readmodel.Moves, _ *time.Duration) { e.count++ }, false},
		"when the directory moves": {func(_ *Server, _ *ends, moves *readmodel.Moves, _ *time.Duration) {
			moves.Announce("directory", "platform", 7)
		}, false},
		"when the tenant's log moves it": {func(_ *Server, _ *ends, moves *readmodel.Moves, _ *time.Duration) {
			moves.Announce("directory", logOf(tenant), 7)
		}, false},
		"when the key's own time is over": {func(s *Server, _ *ends, _ *readmodel.Moves, _ *time.Duration) {
			s.c.Now = func() time.Time { return time.Now().Add(time.Hour) }
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var moves readmodel.Moves
			var e ends
			var age time.Duration
			s := New(Config{Auth: &e, Waiter: readmodel.NewWaiter(&moves)})
			_, as, known := s.admissions.recall(key)
			if known {
				t.Fatal("known before it was kept")
			}
			in := caller{by: auth.Principal{UserID: "u", Expires: time.Now().Add(time.Minute)}, member: []Membership{{Role: "viewer"}}}
			c.happens(s, &e, &moves, &age)
			as.began = as.began.Add(-age)
			s.admissions.keep(key, as, in)
			got, _, known := s.admissions.recall(key)
			if known != c.kept || known && got.by.UserID != "u" {
				t.Errorf("known: %t as %+v, want %t", known, got, c.kept)
			}
			if _, _, other := s.admissions.recall(admissionKey{key.token, "1d9b3c1e-8a0d-4c0e-9a51-0d3d1c7f9b21"}); other {
				t.Error("let into another tenant")
			}
		})
	}
}
