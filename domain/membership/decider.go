package membership

import (
	"time"

	"github.com/factum-platform/factum/domain/es"
)

// The roles of a tenant's members: an admin manages, a user writes, a viewer reads.
const (
	Admin  = "admin"
	User   = "user"
	Viewer = "viewer"
)

// Command is something that is asked of a membership.
type Command interface{ isMembershipCommand() }

// Grant asks that the user has the role in the tenant.
type Grant struct {
	TenantID, UserID, Role, By string
	At                         time.Time
}

func (Grant) isMembershipCommand() {}

// State is what is known of a membership.
type State struct{ Role string } // "" for nobody

// Decider decides about one user in one tenant. Refusals: membership.role, membership.exists.
var Decider = es.Decider[State, Command, Event]{
	Initial: func() State { return State{} },
	Decide: func(s State, c Command) ([]Event, error) {
		switch c := c.(type) {
		case Grant:
			switch c.Role {
			case Admin, User, Viewer:
			default:
				return nil, es.Refuse("membership.role", "A role is admin, user or viewer.")
			}
			if s.Role == c.Role {
				return nil, nil
			}
			if s.Role != "" {
				return nil, es.Refuse("membership.exists", "This user is a member already, with another role.")
			}
			return []Event{Granted{TenantID: c.TenantID, UserID: c.UserID, Role: c.Role, GrantedBy: c.By, At: c.At}}, nil
		default:
			return nil, es.Refuse("membership.command", "Unknown command %T.", c)
		}
	},
	Evolve: func(s State, e Event) State {
		switch e := e.(type) {
		case Granted:
			s.Role = e.Role
		}
		return s
	},
}
