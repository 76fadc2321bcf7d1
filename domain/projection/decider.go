package projection

import (
	"fmt"
	"maps"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/factum-platform/factum/domain/es"
)

// maxReason bounds a reason, in characters.
const maxReason = 500

// Command is something that is asked of a projection's stream.
type Command interface{ isProjectionCommand() }

// SkipEvent asks that the projection passes over the event of the stream. Known says that the log holds it there.
type SkipEvent struct {
	Projection, StreamKind, StreamID, EventID string
	Known                                     bool
	Reason, By                                string
	At                                        time.Time
}

func (SkipEvent) isProjectionCommand() {}

// CheckReason says what is wrong with the reason for passing over an event, "" when nothing is.
func CheckReason(reason string) string {
	if n := utf8.RuneCountInString(strings.TrimSpace(reason)); n == 0 || n > maxReason {
		return fmt.Sprintf("A reason of 1 to %d characters says why the event is skipped.", maxReason)
	}
	return ""
}

// State is which events are passed over, by their ids.
type State struct{ Skipped map[string]bool }

// Decider decides about one projection of one log. Refusals: projection.reason, projection.event_unknown, projection.event_skipped.
var Decider = es.Decider[State, Command, Event]{
	Initial: func() State { return State{} },
	Decide: func(s State, c Command) ([]Event, error) {
		skip, ok := c.(SkipEvent)
		if !ok {
			return nil, es.Refuse("projection.command", "Unknown command %T.", c)
		}
		wrong := CheckReason(skip.Reason)
		switch {
		case wrong != "":
			return nil, es.Refuse("projection.reason", "%s", wrong)
		case !skip.Known:
			return nil, es.Refuse("projection.event_unknown", "The log holds no event %s in stream %s-%s.", skip.EventID, skip.StreamKind, skip.StreamID)
		case s.Skipped[skip.EventID]:
			return nil, es.Refuse("projection.event_skipped", "%s passes over event %s already.", skip.Projection, skip.EventID)
		}
		return []Event{EventSkipped{
			Projection: skip.Projection, StreamKind: skip.StreamKind, StreamID: skip.StreamID, EventID: skip.EventID,
			Reason: strings.TrimSpace(skip.Reason), By: skip.By, At: skip.At,
		}}, nil
	},
	Evolve: func(s State, e Event) State {
		if e, ok := e.(EventSkipped); ok {
			skipped := maps.Clone(s.Skipped)
			if skipped == nil {
				skipped = map[string]bool{}
			}
			skipped[e.EventID] = true
			s.Skipped = skipped
		}
		return s
	},
}
