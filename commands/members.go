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
	known, err := c.x.UserExists(ctx, userID)
	if err != nil {
		return membership.Member{}, Receipt{}, err
	}
	if !known {
		return membership.Member{}, Receipt{}, es.Refuse("user.unknown", "There is no such user.")
	}
	return c.memberAfter(ctx, by, tenantID, userID, membership.Add{TenantID: tenantID, UserID: userID, Role: role, By: by.UserID, At: stamp(by.At)})
}

// ChangeRole gives a member another role, in place. Refusals: membership.unknown, membership.role, and membership.last_admin for the only
// admin.
func (c *Commands) ChangeRole(ctx context.Context, by Caller, tenantID, userID, role string) (membership.Member, Receipt, error) {
	return c.memberAfter(ctx, by, tenantID, userID, membership.ChangeRole{TenantID: tenantID, UserID: userID, Role: role, By: by.UserID, At: stamp(by.At)})
}

// RemoveMember ends a membership; what the user uploaded stays. Access ends as soon as the directory has the fact. Refusals:
// membership.unknown, and membership.last_admin for the only admin.
func (c *Commands) RemoveMember(ctx context.Context, by Caller, tenantID, userID string) (Receipt, error) {
	return c.x.Execute(ctx, eventstore.PlatformTenant, by.meta(), memberStep(tenantID, membership.Remove{TenantID: tenantID, UserID: userID, By: by.UserID, At: stamp(by.At)}).onlyIf(by))
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
