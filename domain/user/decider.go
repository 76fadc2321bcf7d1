package user

import (
	"time"

	"github.com/factum-platform/factum/domain/es"
)

// Command is something that is asked of a user's account.
type Command interface{ isUserCommand() }

// Register asks for an account.
type Register struct {
	UserID                     string
	Email, FirstName, LastName es.Personal
	At                         time.Time
}

func (Register) isUserCommand() {}

// State is what is known of a user.
type State struct {
	Exists                     bool
	ID                         string
	Email, FirstName, LastName es.Personal
	RegisteredAt               time.Time
}

// Decider decides about one user. Refusals: user.exists.
var Decider = es.Decider[State, Command, Event]{
	Initial: func() State { return State{} },
	Decide: func(s State, c Command) ([]Event, error) {
		switch c := c.(type) {
		case Register:
			if s.Exists {
				return nil, es.Refuse("user.exists", "This account exists already.")
			}
			return []Event{Registered{UserID: c.UserID, Email: c.Email, FirstName: c.FirstName, LastName: c.LastName, At: c.At}}, nil
		default:
			return nil, es.Refuse("user.command", "Unknown command %T.", c)
		}
	},
	Evolve: func(s State, e Event) State {
		switch e := e.(type) {
		case Registered:
			return State{Exists: true, ID: e.UserID, Email: e.Email, FirstName: e.FirstName, LastName: e.LastName, RegisteredAt: e.At}
		default:
			return s
		}
	},
}
