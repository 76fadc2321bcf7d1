package projection_test

import (
	"strings"
	"testing"
	"time"

	"github.com/factum-platform/factum/domain/es"
	. "github.com/factum-platform/factum/domain/projection"
)

func TestSkips(t *testing.T) {
	at := time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)
	skip := SkipEvent{Projection: "documents", StreamKind: "file", StreamID: "f", EventID: "e1", Known: true, Reason: " written by a test ", By: "u", At: at}
	skipped := EventSkipped{Projection: "documents", StreamKind: "file", StreamID: "f", EventID: "e1", Reason: "written by a test", By: "u", At: at}
	given(t).When(skip).Then(skipped)
	given(t, skipped).When(skip).Refused("projection.event_skipped")

	other, otherSkipped := skip, skipped
	other.EventID, otherSkipped.EventID = "e2", "e2"
	given(t, skipped).When(other).Then(otherSkipped)
	given(t, skipped, otherSkipped).When(skip).Refused("projection.event_skipped")

	unknown, silent, long := skip, skip, skip
	unknown.Known, silent.Reason, long.Reason = false, " \n", strings.Repeat("é", 501)
	given(t).When(unknown).Refused("projection.event_unknown")
	given(t).When(silent).Refused("projection.reason")
	given(t).When(long).Refused("projection.reason")
	long.Reason = strings.Repeat("é", 500)
	skipped.Reason = long.Reason
	given(t).When(long).Then(skipped)
}

func given(t *testing.T, facts ...Event) es.Story[State, Command, Event] {
	t.Helper()
	return es.Given(t, Decider, facts...)
}
