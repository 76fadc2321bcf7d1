package timestamping_test

import (
	"testing"
	"time"

	"github.com/factum-platform/factum/domain/es"
	. "github.com/factum-platform/factum/domain/timestamping"
)

func TestPolicy(t *testing.T) {
	at := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	on, off := Enabled{Provider: "digicert", By: "u", At: at}, Disabled{By: "u", At: at}
	given(t).When(Enable{Provider: "digicert", By: "u", At: at}).Then(on)
	given(t, on).When(Enable{Provider: "digicert", By: "u", At: at}).Then()
	given(t, on).When(Enable{Provider: "local", By: "u", At: at}).Then(Enabled{Provider: "local", By: "u", At: at})
	given(t).When(Enable{By: "u", At: at}).Refused("timestamping.provider")
	given(t).When(Disable{By: "u", At: at}).Then()
	given(t, on).When(Disable{By: "u", At: at}).Then(off)
	given(t, on, off).When(Enable{Provider: "digicert", By: "u", At: at}).Then(on)
}

func given(t *testing.T, facts ...Event) es.Story[State, Command, Event] {
	t.Helper()
	return es.Given(t, Decider, facts...)
}
