package timestamping

import (
	"time"

	"github.com/factum-platform/factum/domain/es"
)

// Command is something that is asked of the policy.
type Command interface{ isTimestampingCommand() }

// Enable asks that new files are time-stamped by the provider.
type Enable struct {
	Provider, By string
	At           time.Time
}

// Disable asks that new files are not time-stamped.
type Disable struct {
	By string
	At time.Time
}

func (Enable) isTimestampingCommand()  {}
func (Disable) isTimestampingCommand() {}

// State is the policy: off until it is enabled.
type State struct {
	Enabled  bool
	Provider string
}

// Decider decides about a tenant's policy. Refusals: timestamping.provider.
var Decider = es.Decider[State, Command, Event]{
	Initial: func() State { return State{} },
	Decide: func(s State, c Command) ([]Event, error) {
		switch c := c.(type) {
		case Enable:
			if c.Provider == "" {
				return nil, es.Refuse("timestamping.provider", "No time-stamping authority is configured.")
			}
			if s.Enabled && s.Provider == c.Provider {
				return nil, nil
			}
			return []Event{Enabled{Provider: c.Provider, By: c.By, At: c.At}}, nil
		case Disable:
			if !s.Enabled {
				return nil, nil
			}
			return []Event{Disabled{By: c.By, At: c.At}}, nil
		default:
			return nil, es.Refuse("timestamping.command", "Unknown command %T.", c)
		}
	},
	Evolve: func(s State, e Event) State {
		switch e := e.(type) {
		case Enabled:
			return State{Enabled: true, Provider: e.Provider}
		case Disabled:
			s.Enabled = false
		}
		return s
	},
}
