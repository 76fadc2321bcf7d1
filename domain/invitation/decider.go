package invitation

import (
	"time"

	"github.com/factum-platform/factum/domain/es"
)

// Life is how long an invitation is good after it was last mailed.
const Life = 7 * 24 * time.Hour

// Command is something that is asked of an invitation.
type Command interface{ isInvitationCommand() }

// Issue invites an address as a member in the role, which is not checked here but where the member is added.
type Issue struct {
	InvitationID, TenantID string
	Email                  es.Personal
	Role, By               string
	At                     time.Time
}

// Resend asks for another mail. An invitation that has expired is good again.
type Resend struct {
	By string
	At time.Time
}

// Accept says that the user, whose address is the invited one, becomes a member.
type Accept struct {
	UserID string
	At     time.Time
}

// Decline says that the invited person, who may have no account, does not want to.
type Decline struct {
	UserID string
	At     time.Time
}

// Revoke takes the invitation back.
type Revoke struct {
	By string
	At time.Time
}

func (Issue) isInvitationCommand()   {}
func (Resend) isInvitationCommand()  {}
func (Accept) isInvitationCommand()  {}
func (Decline) isInvitationCommand() {}
func (Revoke) isInvitationCommand()  {}

// State is what is known of an invitation, of the last one that was issued in its stream.
type State struct {
	Open               bool // neither accepted nor declined nor revoked; it may have expired
	ID, TenantID, Role string
	Email              es.Personal
	InvitedBy          string // who invited, or had it sent again, last
	IssuedAt           time.Time
	ExpiresAt          time.Time
}

// Expired tells whether the invitation is too old at the time.
func (s State) Expired(at time.Time) bool { return !at.Before(s.ExpiresAt) }

// Decider decides about the invitations of one address to one tenant. Refusals: invitation.exists, invitation.unknown, invitation.expired.
var Decider = es.Decider[State, Command, Event]{
	Initial: func() State { return State{} },
	Decide:  decide,
	Evolve:  evolve,
}

func decide(s State, c Command) ([]Event, error) {
	switch c := c.(type) {
	case Issue:
		if s.Open && !s.Expired(c.At) {
			return nil, es.Refuse("invitation.exists", "This address is invited already. Have the mail sent again, or revoke that invitation.")
		}
		return []Event{Issued{
			InvitationID: c.InvitationID, TenantID: c.TenantID, Email: c.Email, Role: c.Role, InvitedBy: c.By, ExpiresAt: c.At.Add(Life), At: c.At,
		}}, nil
	case Resend:
		if !s.Open {
			return nil, unknown()
		}
		return []Event{Resent{InvitationID: s.ID, ResentBy: c.By, ExpiresAt: c.At.Add(Life), At: c.At}}, nil
	case Accept:
		switch {
		case !s.Open:
			return nil, unknown()
		case s.Expired(c.At):
			return nil, es.Refuse("invitation.expired", "This invitation has expired. Ask who invited you to have it sent again.")
		}
		return []Event{Accepted{InvitationID: s.ID, UserID: c.UserID, At: c.At}}, nil
	case Decline:
		if !s.Open {
			return nil, unknown()
		}
		return []Event{Declined{InvitationID: s.ID, UserID: c.UserID, At: c.At}}, nil
	case Revoke:
		if !s.Open {
			return nil, unknown()
		}
		return []Event{Revoked{InvitationID: s.ID, RevokedBy: c.By, At: c.At}}, nil
	default:
		return nil, es.Refuse("invitation.command", "Unknown command %T.", c)
	}
}

func unknown() error {
	return es.Refuse("invitation.unknown", "There is no such invitation, or it was answered or revoked.")
}

func evolve(s State, e Event) State {
	switch e := e.(type) {
	case Issued:
		return State{
			Open: true, ID: e.InvitationID, TenantID: e.TenantID, Role: e.Role, Email: e.Email, InvitedBy: e.InvitedBy, IssuedAt: e.At, ExpiresAt: e.ExpiresAt,
		}
	case Resent:
		s.InvitedBy, s.ExpiresAt = e.ResentBy, e.ExpiresAt
	case Accepted, Declined, Revoked:
		s.Open = false
	}
	return s
}
