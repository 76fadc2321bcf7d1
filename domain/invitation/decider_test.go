package invitation_test

import (
	"testing"
	"time"

	"github.com/factum-platform/factum/domain/es"
	. "github.com/factum-platform/factum/domain/invitation"
)

var at = time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)

func issued(when time.Time) Issued {
	return Issued{InvitationID: "i", TenantID: "t", Email: es.Person("mina@plant.example"), Role: "user", InvitedBy: "v", ExpiresAt: when.Add(Life), At: when}
}

func TestAnAddressHasOneOpenInvitation(t *testing.T) {
	issue := func(when time.Time) Issue {
		return Issue{InvitationID: "i", TenantID: "t", Email: es.Person("mina@plant.example"), Role: "user", By: "v", At: when}
	}
	given(t).When(issue(at)).Then(issued(at))
	given(t, issued(at)).When(issue(at.Add(Life - time.Second))).Refused("invitation.exists")
	given(t, issued(at)).When(issue(at.Add(Life))).Then(issued(at.Add(Life)))
	later := at.Add(time.Hour)
	for _, closed := range []Event{Accepted{InvitationID: "i", UserID: "u"}, Declined{InvitationID: "i"}, Revoked{InvitationID: "i"}} {
		given(t, issued(at), closed).When(issue(later)).Then(issued(later))
		given(t, issued(at), closed, issued(later)).When(issue(later)).Refused("invitation.exists")
	}
}

func TestAnInvitationIsAnsweredOnce(t *testing.T) {
	later := at.Add(time.Hour)
	answers := map[Command]Event{
		Accept{UserID: "u", At: later}:  Accepted{InvitationID: "i", UserID: "u", At: later},
		Decline{UserID: "u", At: later}: Declined{InvitationID: "i", UserID: "u", At: later},
		Decline{At: later}:              Declined{InvitationID: "i", At: later},
		Revoke{By: "v", At: later}:      Revoked{InvitationID: "i", RevokedBy: "v", At: later},
		Resend{By: "v", At: later}:      Resent{InvitationID: "i", ResentBy: "v", ExpiresAt: later.Add(Life), At: later},
	}
	for command, fact := range answers {
		given(t, issued(at)).When(command).Then(fact)
		given(t).When(command).Refused("invitation.unknown")
		for _, first := range answers {
			if _, open := first.(Resent); open {
				continue
			}
			given(t, issued(at), first).When(command).Refused("invitation.unknown")
		}
	}
}

func TestAnExpiredInvitationIsGoodAgainWhenItIsResent(t *testing.T) {
	late := at.Add(Life)
	given(t, issued(at)).When(Accept{UserID: "u", At: late}).Refused("invitation.expired")
	resent := Resent{InvitationID: "i", ResentBy: "v", ExpiresAt: late.Add(Life), At: late}
	given(t, issued(at)).When(Resend{By: "v", At: late}).Then(resent)
	given(t, issued(at), resent).When(Accept{UserID: "u", At: late}).Then(Accepted{InvitationID: "i", UserID: "u", At: late})
	given(t, issued(at)).When(Decline{UserID: "u", At: late}).Then(Declined{InvitationID: "i", UserID: "u", At: late})
	given(t, issued(at)).When(Revoke{By: "v", At: late}).Then(Revoked{InvitationID: "i", RevokedBy: "v", At: late})
}

func given(t *testing.T, facts ...Event) es.Story[State, Command, Event] {
	t.Helper()
	return es.Given(t, Decider, facts...)
}
