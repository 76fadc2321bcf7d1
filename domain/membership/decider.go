package membership

import (
	"maps"
	"slices"
	"time"

	"github.com/factum-platform/factum/domain/es"
)

// The roles of a tenant's members: an admin manages, a user writes, a viewer reads.
const (
	Admin  = "admin"
	User   = "user"
	Viewer = "viewer"
)

// Command is something that is asked of a tenant's members.
type Command interface{ isMembershipCommand() }

// Grant asks that the user is a member with the role; one who is that already stays so.
type Grant struct {
	TenantID, UserID, Role, By string
	At                         time.Time
}

// Add asks that the user, who is no member yet, becomes one.
type Add struct {
	TenantID, UserID, Role, By string
	At                         time.Time
}

// ChangeRole asks that the member has another role.
type ChangeRole struct {
	TenantID, UserID, Role, By string
	Inactive                   []string // admins whose accounts are switched off; they do not count as such
	At                         time.Time
}

// Remove asks that the user is a member no longer.
type Remove struct {
	TenantID, UserID, By string
	Inactive             []string // as in [ChangeRole]
	At                   time.Time
}

// Appoint asks that the user, a member or not, becomes the admin of a tenant that has none who can log in.
type Appoint struct {
	TenantID, UserID, By string
	Inactive             []string // as in [ChangeRole]
	At                   time.Time
}

func (Grant) isMembershipCommand()      {}
func (Add) isMembershipCommand()        {}
func (ChangeRole) isMembershipCommand() {}
func (Remove) isMembershipCommand()     {}
func (Appoint) isMembershipCommand()    {}

// Member is a user in a tenant.
type Member struct {
	Role     string
	JoinedAt time.Time
}

// State is the members of a tenant, by the user's id. It does not change once it was handed out.
type State struct{ Members map[string]Member }

// Decider decides about the members of one tenant. Refusals: membership.role, membership.exists, membership.unknown, membership.last_admin,
// membership.has_admin.
var Decider = es.Decider[State, Command, Event]{
	Initial: func() State { return State{} },
	Decide:  decide,
	Evolve:  evolve,
}

func decide(s State, c Command) ([]Event, error) {
	switch c := c.(type) {
	case Grant:
		if known, ok := s.Members[c.UserID]; ok && known.Role == c.Role {
			return nil, nil
		}
		return decide(s, Add(c))
	case Add:
		if err := CheckRole(c.Role); err != nil {
			return nil, err
		}
		if _, ok := s.Members[c.UserID]; ok {
			return nil, es.Refuse("membership.exists", "This user is a member already. Change the role instead.")
		}
		return []Event{Granted{TenantID: c.TenantID, UserID: c.UserID, Role: c.Role, GrantedBy: c.By, At: c.At}}, nil
	case ChangeRole:
		if err := CheckRole(c.Role); err != nil {
			return nil, err
		}
		known, ok := s.Members[c.UserID]
		switch {
		case !ok:
			return nil, unknown()
		case known.Role == c.Role:
			return nil, nil
		case s.lastAdmin(c.UserID, c.Inactive):
			return nil, es.Refuse("membership.last_admin", "This is the tenant's last admin. Make somebody else an admin first.")
		}
		return []Event{RoleChanged{TenantID: c.TenantID, UserID: c.UserID, Role: c.Role, ChangedBy: c.By, At: c.At}}, nil
	case Remove:
		if _, ok := s.Members[c.UserID]; !ok {
			return nil, unknown()
		}
		if s.lastAdmin(c.UserID, c.Inactive) {
			return nil, es.Refuse("membership.last_admin", "This is the tenant's last admin. Make somebody else an admin first, or delete the tenant.")
		}
		return []Event{Removed{TenantID: c.TenantID, UserID: c.UserID, RemovedBy: c.By, At: c.At}}, nil
	case Appoint:
		known, ok := s.Members[c.UserID]
		switch {
		case known.Role == Admin:
			return nil, nil
		case s.hasAdmin(c.UserID, c.Inactive):
			return nil, es.Refuse("membership.has_admin", "This tenant has an admin who can log in. That is for an admin to do.")
		case ok:
			return []Event{RoleChanged{TenantID: c.TenantID, UserID: c.UserID, Role: Admin, ChangedBy: c.By, At: c.At}}, nil
		}
		return []Event{Granted{TenantID: c.TenantID, UserID: c.UserID, Role: Admin, GrantedBy: c.By, At: c.At}}, nil
	default:
		return nil, es.Refuse("membership.command", "Unknown command %T.", c)
	}
}

func unknown() error { return es.Refuse("membership.unknown", "This user is no member of the tenant.") }

// CheckRole refuses what is no role. Refusal: membership.role.
func CheckRole(role string) error {
	switch role {
	case Admin, User, Viewer:
		return nil
	default:
		return es.Refuse("membership.role", "A role is admin, user or viewer.")
	}
}

// lastAdmin tells whether the user is an admin and nobody else is who can log in.
func (s State) lastAdmin(userID string, inactive []string) bool {
	return s.Members[userID].Role == Admin && !s.hasAdmin(userID, inactive)
}

// hasAdmin tells whether somebody else than the user is an admin, and can log in.
func (s State) hasAdmin(but string, inactive []string) bool {
	for id, m := range s.Members {
		if m.Role == Admin && id != but && !slices.Contains(inactive, id) {
			return true
		}
	}
	return false
}

func evolve(s State, e Event) State {
	members := make(map[string]Member, len(s.Members)+1)
	maps.Copy(members, s.Members)
	switch e := e.(type) {
	case Granted:
		members[e.UserID] = Member{Role: e.Role, JoinedAt: e.At}
	case RoleChanged:
		members[e.UserID] = Member{Role: e.Role, JoinedAt: members[e.UserID].JoinedAt}
	case Removed:
		delete(members, e.UserID)
	}
	return State{members}
}
