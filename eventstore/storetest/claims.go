package storetest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/factum-platform/factum/eventstore"
)

func claims(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	take := eventstore.Claim{Scope: "email", Key: "\x00\xffkey"}
	give := take
	give.Give = true
	first := write("user", "a", eventstore.NoStream(), 1, take)
	mustAppend(t, l, first)
	refused := func(w eventstore.Write) {
		t.Helper()
		_, err := l.Append(t.Context(), w)
		if c := wantError[*eventstore.ClaimError](t, err); c.Claim != take {
			t.Errorf("the refused claim is %+v; want %+v", c.Claim, take)
		}
	}
	refused(write("user", "b", eventstore.NoStream(), 1, eventstore.Claim{Scope: "email", Key: "free"}, take))
	if n := len(mustWhole(t, l)); n != 1 {
		t.Fatalf("%d events are in the log; want 1: a refused claim writes nothing", n)
	}
	mustAppend(t, l, write("user", "b", eventstore.NoStream(), 1, eventstore.Claim{Scope: "email", Key: "free"})) // nor took it the free value
	mustAppend(t, l, write("user", "c", eventstore.NoStream(), 1, eventstore.Claim{Scope: "phone", Key: take.Key}))
	mustAppend(t, l, write("user", "a", eventstore.At(1), 1, take)) // its own already
	mustAppend(t, l, write("user", "b", eventstore.At(1), 1, give)) // not its own to give
	refused(write("user", "b", eventstore.At(2), 1, take))
	mustAppend(t, l, write("user", "a", eventstore.At(2), 1, give))
	mustAppend(t, l, write("user", "b", eventstore.At(2), 1, take))
	if out := mustAppend(t, l, first); !out[0].Replayed { // though its claim is another's by now
		t.Errorf("%+v; want a replay", out[0])
	}
	refused(write("user", "a", eventstore.At(3), 1, take))
	mustAppend(t, s.Tenant(beta), write("user", "a", eventstore.NoStream(), 1, take))
	_, err := l.Append(t.Context(), write("user", "a", eventstore.At(1), 1, take))
	wantError[*eventstore.ConflictError](t, err) // a conflict is looked at before claims
}

func claimPassesOn(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	take := eventstore.Claim{Scope: "name", Key: "k"}
	give := take
	give.Give = true
	mustAppend(t, l, write("user", "a", eventstore.NoStream(), 1, take))
	mustAppend(t, l, write("user", "b", eventstore.NoStream(), 1, take), write("user", "a", eventstore.At(1), 1, give))
	_, err := l.Append(t.Context(), write("user", "a", eventstore.At(2), 1, take))
	wantError[*eventstore.ClaimError](t, err)
	_, err = l.Append(t.Context(), write("user", "c", eventstore.NoStream(), 1, eventstore.Claim{Scope: "name", Key: "new"}),
		write("user", "d", eventstore.NoStream(), 1, eventstore.Claim{Scope: "name", Key: "new"}))
	wantError[*eventstore.ClaimError](t, err)
}

func heldClaims(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	want := []eventstore.Held{}
	for i := range 3 {
		w := write("user", fmt.Sprint(i), eventstore.NoStream(), 1)
		for j := range 400 { // more than an engine reads at a time
			c := eventstore.Claim{Scope: fmt.Sprintf("S%d", i), Key: fmt.Sprintf("\xff%03d", j)}
			w.Claims = append(w.Claims, c)
			want = append(want, eventstore.Held{Scope: c.Scope, Key: c.Key, Stream: w.Stream})
		}
		mustAppend(t, l, w)
	}
	lower := write("user", "lower", eventstore.NoStream(), 1, eventstore.Claim{Scope: "a", Key: "b"}, eventstore.Claim{Scope: "given", Key: "b"})
	mustAppend(t, l, lower)
	mustAppend(t, l, write("user", "lower", eventstore.At(1), 1, eventstore.Claim{Scope: "given", Key: "b", Give: true}))
	want = append(want, eventstore.Held{Scope: "a", Key: "b", Stream: lower.Stream})
	var got []eventstore.Held
	for held, err := range l.Claims(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, held)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d claims are held; want %d in order", len(got), len(want))
	}
	for held, err := range s.Tenant(beta).Claims(t.Context()) {
		t.Errorf("another tenant holds %+v, %v", held, err)
	}
}

func oneClaimant(t *testing.T, s eventstore.Store) {
	l := s.Tenant(alpha)
	for round := range 8 {
		errs := make([]error, 8)
		together(len(errs), func(i int) {
			_, errs[i] = l.Append(t.Context(), write("user", fmt.Sprintf("%d %d", round, i), eventstore.NoStream(), 1,
				eventstore.Claim{Scope: "email", Key: fmt.Sprint(round)}))
		})
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
				continue
			}
			wantError[*eventstore.ClaimError](t, err)
		}
		if won != 1 {
			t.Fatalf("%d of %d claimants won; want 1", won, len(errs))
		}
	}
	if n := len(mustWhole(t, l)); n != 8 {
		t.Errorf("%d events are in the log; want 8", n)
	}
}
