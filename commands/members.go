package commands

import (
	"context"

	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/membership"
	"github.com/factum-platform/factum/eventstore"
)

// memberStep is a command to the members of a tenant.
func memberStep(tenantID string, command membership.Command) *Decision[membership.State, membership.Command, membership.Event] {
	return &Decision[membership.State, membership.Command, membership.Event]{
		Decider: membership.Decider, Stream: eventstore.StreamID{Kind: membership.Kind, ID: tenantID}, Command: command,
	}
}

// AddMember makes a user a member of the tenant. Refusals: user.unknown, membership.exists, membership.role.
func (c *Commands) AddMember(ctx context.Context, by Caller, tenantID, userID, role string) (membership.Member, Receipt, error) {
	if err := c.mustExist(ctx, userID); err != nil {
		return membership.Member{}, Receipt{}, err
	}
	return c.memberAfter(ctx, by, tenantID, userID, membership.Add{TenantID: tenantID, UserID: userID, Role: role, By: by.UserID, At: stamp(by.At)})
}

// ChangeRole gives a member another role, in place. Refusals: membership.unknown, membership.role, and membership.last_admin for the only
// admin who can log in.
func (c *Commands) ChangeRole(ctx context.Context, by Caller, tenantID, userID, role string) (membership.Member, Receipt, error) {
	inactive, err := c.inactiveAdmins(ctx, tenantID)
	if err != nil {
		return membership.Member{}, Receipt{}, err
	}
	return c.memberAfter(ctx, by, tenantID, userID, membership.ChangeRole{TenantID: tenantID, UserID: userID, Role: role, By: by.UserID, Inactive: inactive, At: stamp(by.At)})
}

// RemoveMember ends a membership; what the user uploaded stays. Access ends as soon as the directory has the fact. Refusals:
// membership.unknown, and membership.last_admin for the only admin who can log in.
func (c *Commands) RemoveMember(ctx context.Context, by Caller, tenantID, userID string) (Receipt, error) {
	inactive, err := c.inactiveAdmins(ctx, tenantID)
	if err != nil {
		return Receipt{}, err
	}
	remove := membership.Remove{TenantID: tenantID, UserID: userID, By: by.UserID, Inactive: inactive, At: stamp(by.At)}
	return c.x.Execute(ctx, eventstore.PlatformTenant, by.meta(), memberStep(tenantID, remove).onlyIf(by))
}

// AppointAdmin makes a user the admin of a tenant none of whose admins can log in, because their accounts are switched off. Refusals:
// tenant.unknown, user.unknown, membership.has_admin.
func (c *Commands) AppointAdmin(ctx context.Context, by Caller, tenantID, userID string) (membership.Member, Receipt, error) {
	s, err := c.x.TenantState(ctx, tenantID)
	if err != nil {
		return membership.Member{}, Receipt{}, err
	}
	if !s.Exists || s.Deleted {
		return membership.Member{}, Receipt{}, es.Refuse("tenant.unknown", "There is no such tenant.")
	}
	if err := c.mustExist(ctx, userID); err != nil {
		return membership.Member{}, Receipt{}, err
	}
	inactive, err := c.inactiveAdmins(ctx, tenantID)
	if err != nil {
		return membership.Member{}, Receipt{}, err
	}
	return c.memberAfter(ctx, by, tenantID, userID, membership.Appoint{TenantID: tenantID, UserID: userID, By: by.UserID, Inactive: inactive, At: stamp(by.At)})
}

// inactiveAdmins are the tenant's admins whose accounts are switched off. An account that is switched off just then counts as it was:
// [Commands.AppointAdmin] is for a tenant that has no other.
func (c *Commands) inactiveAdmins(ctx context.Context, tenantID string) ([]string, error) {
	members, err := c.members(ctx, tenantID)
	if err != nil {
		return nil, err
	}
	var out []string
	for id, m := range members {
		if m.Role != membership.Admin {
			continue
		}
		active, err := c.x.UserExists(ctx, id)
		if err != nil {
			return nil, err
		}
		if !active {
			out = append(out, id)
		}
	}
	return out, nil
}

// members are the tenant's members, by the user's id.
func (c *Commands) members(ctx context.Context, tenantID string) (map[string]membership.Member, error) {
	s, _, err := fold(ctx, c.c.Store.Tenant(eventstore.PlatformTenant), c.c.Codec, membership.Decider, eventstore.StreamID{Kind: membership.Kind, ID: tenantID}, nil)
	return s.Members, err
}

// mustExist refuses a user whom nobody knows, or whose account is switched off. Refusal: user.unknown.
func (c *Commands) mustExist(ctx context.Context, userID string) error {
	known, err := c.x.UserExists(ctx, userID)
	if err != nil {
		return err
	}
	if !known {
		return es.Refuse("user.unknown", "There is no such user.")
	}
	return nil
}

// memberAfter carries out a command that leaves the user a member. A repetition may find that the membership has ended since.
func (c *Commands) memberAfter(ctx context.Context, by Caller, tenantID, userID string, command membership.Command) (membership.Member, Receipt, error) {
	step := memberStep(tenantID, command).onlyIf(by)
	receipt, err := c.x.Execute(ctx, eventstore.PlatformTenant, by.meta(), step)
	if err != nil {
		return membership.Member{}, Receipt{}, err
	}
	m, ok := step.State.Members[userID]
	if !ok {
		return membership.Member{}, Receipt{}, es.Refuse("membership.unknown", "This user is no member of the tenant any more.")
	}
	return m, receipt, nil
}
