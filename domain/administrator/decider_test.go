package administrator_test

import (
	"testing"
	"time"

	. "github.com/factum-platform/factum/domain/administrator"
	"github.com/factum-platform/factum/domain/es"
)

func TestAdministrators(t *testing.T) {
	at := time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)
	grant := func(user string) Grant { return Grant{UserID: user, By: "operator", At: at} }
	revoke := func(user string) Revoke { return Revoke{UserID: user, By: "operator", At: at} }
	granted := func(user string) Granted { return Granted{UserID: user, GrantedBy: "operator", At: at} }
	revoked := func(user string) Revoked { return Revoked{UserID: user, RevokedBy: "operator", At: at} }

	given(t).When(grant("mina")).Then(granted("mina"))
	given(t, granted("mina")).When(grant("mina")).Then()
	given(t, granted("mina")).When(grant("ann")).Then(granted("ann"))

	given(t).When(revoke("mina")).Then()
	given(t, granted("mina")).When(revoke("ann")).Then()
	given(t, granted("mina")).When(revoke("mina")).Refused("administrator.last")
	given(t, granted("mina"), granted("ann")).When(revoke("mina")).Then(revoked("mina"))
	given(t, granted("mina"), granted("ann"), revoked("mina")).When(revoke("ann")).Refused("administrator.last")
	given(t, granted("mina"), granted("ann"), revoked("mina")).When(grant("mina")).Then(granted("mina"))

	one := Decider.Fold(Decider.Initial(), granted("mina"))
	Decider.Fold(one, granted("ann"), revoked("mina"))
	if len(one.Users) != 1 || !one.Users["mina"] {
		t.Errorf("a state that was handed out has changed: %v", one.Users)
	}
}

func given(t *testing.T, facts ...Event) es.Story[State, Command, Event] {
	t.Helper()
	return es.Given(t, Decider, facts...)
}
