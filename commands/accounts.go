package commands

import (
	"context"

	"github.com/factum-platform/factum/domain/administrator"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/user"
	"github.com/factum-platform/factum/eventstore"
)

// DeactivateUser switches an account off: its sessions end in all API processes, and it logs in no more. Memberships stay, hidden, for
// its return; so do the API keys that it made, which are the tenant's. Refusals: user.unknown, and user.administrator for one who administers
// the platform.
func (c *Commands) DeactivateUser(ctx context.Context, by Caller, userID string) (Receipt, error) {
	administrators, _, err := fold(ctx, c.c.Store.Tenant(eventstore.PlatformTenant), c.c.Codec, administrator.Decider,
		eventstore.StreamID{Kind: administrator.Kind, ID: administrator.StreamID}, nil)
	if err != nil {
		return Receipt{}, err
	}
	if administrators.Users[userID] {
		return Receipt{}, es.Refuse("user.administrator", "This user administers the platform. An operator takes that away first, by factum admins remove.")
	}
	receipt, err := c.x.Execute(ctx, eventstore.PlatformTenant, by.meta(), userStep(userID, user.Deactivate{By: by.UserID, At: stamp(by.At)}))
	if err != nil {
		return Receipt{}, err
	}
	return receipt, c.c.Auth.Deactivate(ctx, userID)
}

// ActivateUser switches an account on again. Refusal: user.unknown.
func (c *Commands) ActivateUser(ctx context.Context, by Caller, userID string) (Receipt, error) {
	receipt, err := c.x.Execute(ctx, eventstore.PlatformTenant, by.meta(), userStep(userID, user.Activate{By: by.UserID, At: stamp(by.At)}))
	if err != nil {
		return Receipt{}, err
	}
	return receipt, c.c.Auth.Activate(ctx, userID)
}
