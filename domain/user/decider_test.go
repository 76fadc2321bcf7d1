package user_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/factum-platform/factum/domain/es"
	. "github.com/factum-platform/factum/domain/user"
)

func TestRegister(t *testing.T) {
	at := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	register := Register{UserID: "u", Email: es.Person("mina@plant.example"), FirstName: es.Person("Mina"), LastName: es.Person("Okoro"), At: at}
	registered := Registered{UserID: "u", Email: register.Email, FirstName: register.FirstName, LastName: register.LastName, At: at}
	given(t).When(register).Then(registered)
	given(t, registered).When(register).Refused("user.exists")
	if got := fmt.Sprintf("%v %+v %#v %s", register, registered, register, register.Email); got == "" || strings.Contains(got, "Mina") || strings.Contains(got, "plant") {
		t.Fatal("a command or an event prints personal data:", got)
	}
}

func TestVerifyEmail(t *testing.T) {
	at := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	registered := Registered{UserID: "u", Email: es.Person("mina@plant.example"), At: at}
	verified := EmailVerified{UserID: "u", At: at.Add(time.Hour)}
	given(t, registered).When(VerifyEmail{At: verified.At}).Then(verified)
	given(t, registered, verified).When(VerifyEmail{At: at.Add(2 * time.Hour)}).Then()
	given(t).When(VerifyEmail{At: at}).Refused("user.unknown")
}

func TestAnAccountIsSwitchedOffAndOn(t *testing.T) {
	at := time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)
	registered := Registered{UserID: "u", At: at}
	off := Deactivated{UserID: "u", DeactivatedBy: "v", At: at.Add(time.Hour)}
	on := Activated{UserID: "u", ActivatedBy: "v", At: at.Add(2 * time.Hour)}
	given(t, registered).When(Deactivate{By: "v", At: off.At}).Then(off)
	given(t, registered, off).When(Deactivate{By: "v", At: at}).Then()
	given(t, registered, off).When(Activate{By: "v", At: on.At}).Then(on)
	given(t, registered).When(Activate{By: "v", At: at}).Then()
	given(t, registered, off, on).When(Deactivate{By: "v", At: off.At}).Then(off)
	given(t).When(Deactivate{By: "v", At: at}).Refused("user.unknown")
	given(t).When(Activate{By: "v", At: at}).Refused("user.unknown")
}

func TestRename(t *testing.T) {
	at := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	mina, okoro, nina, obi := es.Person("Mina"), es.Person("Okoro"), es.Person("Nina"), es.Person("Obi")
	registered := Registered{UserID: "u", FirstName: mina, LastName: okoro, At: at}
	first := Renamed{UserID: "u", FirstName: nina, LastName: okoro, At: at.Add(time.Hour)}
	given(t, registered).When(Rename{FirstName: &nina, At: first.At}).Then(first)
	given(t, registered, first).When(Rename{LastName: &obi, At: at}).Then(Renamed{UserID: "u", FirstName: nina, LastName: obi, At: at})
	given(t).When(Rename{FirstName: &nina, At: at}).Refused("user.unknown")
}

func given(t *testing.T, facts ...Event) es.Story[State, Command, Event] {
	t.Helper()
	return es.Given(t, Decider, facts...)
}
