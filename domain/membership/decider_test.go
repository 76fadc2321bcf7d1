package membership_test

import (
	"testing"
	"time"

	"github.com/factum-platform/factum/domain/es"
	. "github.com/factum-platform/factum/domain/membership"
)

func TestGrant(t *testing.T) {
	at := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	grant := func(role string) Grant { return Grant{TenantID: "t", UserID: "u", Role: role, By: "v", At: at} }
	granted := func(role string) Granted {
		return Granted{TenantID: "t", UserID: "u", Role: role, GrantedBy: "v", At: at}
	}
	for _, role := range []string{Admin, User, Viewer} {
		given(t).When(grant(role)).Then(granted(role))
	}
	given(t).When(grant("Admin")).Refused("membership.role")
	given(t, granted(User)).When(grant(User)).Then()
	given(t, granted(User)).When(grant(Admin)).Refused("membership.exists")
	if StreamID("t", "u") == StreamID("u", "t") {
		t.Fatal("tenant and user are interchangeable in a membership's id")
	}
}

func given(t *testing.T, facts ...Event) es.Story[State, Command, Event] {
	t.Helper()
	return es.Given(t, Decider, facts...)
}
