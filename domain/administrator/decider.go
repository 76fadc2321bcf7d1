package administrator

import (
	"maps"
	"time"

	"github.com/factum-platform/factum/domain/es"
)

// Command is something that is asked of the administrators.
type Command interface{ isAdministratorCommand() }

// Grant asks that the user administers the platform.
type Grant struct {
	UserID, By string
	At         time.Time
}

// Revoke asks that the user administers the platform no longer.
type Revoke struct {
	UserID, By string
	At         time.Time
}

func (Grant) isAdministratorCommand()  {}
func (Revoke) isAdministratorCommand() {}

// State is who administers the platform, by id.
type State struct{ Users map[string]bool }

// Decider decides about the administrators. Refusal: administrator.last.
var Decider = es.Decider[State, Command, Event]{
	Initial: func() State { return State{} },
	Decide: func(s State, c Command) ([]Event, error) {
		switch c := c.(type) {
		case Grant:
			if s.Users[c.UserID] {
				return nil, nil
			}
			return []Event{Granted{UserID: c.UserID, GrantedBy: c.By, At: c.At}}, nil
		case Revoke:
			switch {
			case !s.Users[c.UserID]:
				return nil, nil
			case len(s.Users) == 1:
				return nil, es.Refuse("administrator.last", "This is the last administrator of the platform. Add another one first.")
			}
			return []Event{Revoked{UserID: c.UserID, RevokedBy: c.By, At: c.At}}, nil
		default:
			return nil, es.Refuse("administrator.command", "Unknown command %T.", c)
		}
	},
	Evolve: func(s State, e Event) State {
		users := maps.Clone(s.Users) // a state that was handed out does not change
		if users == nil {
			users = map[string]bool{}
		}
		switch e := e.(type) {
		case Granted:
			users[e.UserID] = true
		case Revoked:
			delete(users, e.UserID)
		}
		return State{users}
	},
}
