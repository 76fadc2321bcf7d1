package commands

import (
	"context"
	"fmt"

	"github.com/factum-platform/factum/domain/administrator"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/user"
	"github.com/factum-platform/factum/eventstore"
)

// GrantAdministrator lets a user administer the platform. One who does already stays so. Refusal: user.unknown.
func (x *Executor) GrantAdministrator(ctx context.Context, by Caller, userID string) (Receipt, error) {
	account, _, err := fold(ctx, x.store.Tenant(eventstore.PlatformTenant), x.codec, user.Decider, eventstore.StreamID{Kind: user.Kind, ID: userID}, nil)
	if err != nil {
		return Receipt{}, fmt.Errorf("commands: look for user %s: %w", userID, err)
	}
	if !account.Exists {
		return Receipt{}, es.Refuse("user.unknown", "There is no such user.")
	}
	return x.Execute(ctx, eventstore.PlatformTenant, by.meta(), administratorStep(administrator.Grant{UserID: userID, By: by.UserID, At: stamp(by.At)}))
}

// RevokeAdministrator takes that away. A user who does not administer the platform stays so. Refusal: administrator.last.
func (x *Executor) RevokeAdministrator(ctx context.Context, by Caller, userID string) (Receipt, error) {
	return x.Execute(ctx, eventstore.PlatformTenant, by.meta(), administratorStep(administrator.Revoke{UserID: userID, By: by.UserID, At: stamp(by.At)}))
}

func administratorStep(command administrator.Command) *Decision[administrator.State, administrator.Command, administrator.Event] {
	return &Decision[administrator.State, administrator.Command, administrator.Event]{
		Decider: administrator.Decider, Stream: eventstore.StreamID{Kind: administrator.Kind, ID: administrator.StreamID}, Command: command,
	}
}
