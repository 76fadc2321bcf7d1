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

// VerifyEmail says that a link which was sent to the account's address was followed.
type VerifyEmail struct{ At time.Time }

func (VerifyEmail) isUserCommand() {}

// Rename asks for other names; nil leaves one as it is.
type Rename struct {
	FirstName, LastName *es.Personal
	At                  time.Time
}

func (Rename) isUserCommand() {}

// Deactivate asks that the account is switched off.
type Deactivate struct {
	By string
	At time.Time
}

func (Deactivate) isUserCommand() {}

// Activate asks that the account is in use again.
type Activate struct {
	By string
	At time.Time
}

func (Activate) isUserCommand() {}

// State is what is known of a user.
type State struct {
	Exists                     bool
	ID                         string
	Email, FirstName, LastName es.Personal
	EmailVerified              bool
	Inactive                   bool // switched off
	RegisteredAt, ChangedAt    time.Time
}

// Decider decides about one user. Refusals: user.exists, user.unknown.
var Decider = es.Decider[State, Command, Event]{
	Initial: func() State { return State{} },
	Decide: func(s State, c Command) ([]Event, error) {
		switch c := c.(type) {
		case Register:
			if s.Exists {
				return nil, es.Refuse("user.exists", "This account exists already.")
			}
			return []Event{Registered{UserID: c.UserID, Email: c.Email, FirstName: c.FirstName, LastName: c.LastName, At: c.At}}, nil
		case VerifyEmail:
			if !s.Exists {
				return nil, es.Refuse("user.unknown", "There is no such account.")
			}
			if s.EmailVerified {
				return nil, nil
			}
			return []Event{EmailVerified{UserID: s.ID, At: c.At}}, nil
		case Rename:
			if !s.Exists {
				return nil, es.Refuse("user.unknown", "There is no such account.")
			}
			// Names are not compared: one that was erased equals nothing.
			out := Renamed{UserID: s.ID, FirstName: s.FirstName, LastName: s.LastName, At: c.At}
			if c.FirstName != nil {
				out.FirstName = *c.FirstName
			}
			if c.LastName != nil {
				out.LastName = *c.LastName
			}
			return []Event{out}, nil
		case Deactivate:
			if !s.Exists {
				return nil, es.Refuse("user.unknown", "There is no such account.")
			}
			if s.Inactive {
				return nil, nil
			}
			return []Event{Deactivated{UserID: s.ID, DeactivatedBy: c.By, At: c.At}}, nil
		case Activate:
			if !s.Exists {
				return nil, es.Refuse("user.unknown", "There is no such account.")
			}
			if !s.Inactive {
				return nil, nil
			}
			return []Event{Activated{UserID: s.ID, ActivatedBy: c.By, At: c.At}}, nil
		default:
			return nil, es.Refuse("user.command", "Unknown command %T.", c)
		}
	},
	Evolve: func(s State, e Event) State {
		switch e := e.(type) {
		case Registered:
			return State{Exists: true, ID: e.UserID, Email: e.Email, FirstName: e.FirstName, LastName: e.LastName, RegisteredAt: e.At, ChangedAt: e.At}
		case EmailVerified:
			s.EmailVerified, s.ChangedAt = true, e.At
			return s
		case Renamed:
			s.FirstName, s.LastName, s.ChangedAt = e.FirstName, e.LastName, e.At
			return s
		case Deactivated:
			s.Inactive, s.ChangedAt = true, e.At
			return s
		case Activated:
			s.Inactive, s.ChangedAt = false, e.At
			return s
		default:
			return s
		}
	},
}
