package commands

import (
	"context"
	"errors"
	"fmt"

	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/membership"
	"github.com/factum-platform/factum/domain/tenant"
	"github.com/factum-platform/factum/domain/user"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/tenants"
)

// DeleteTenant records that the tenant is served no longer; its database is the caller's to take away, after that. A tenant that is deleted
// already stays so. Refusal: tenant.unknown.
func (x *Executor) DeleteTenant(ctx context.Context, by Caller, tenantID string) (Receipt, error) {
	return x.Execute(ctx, eventstore.PlatformTenant, by.meta(), tenantStep(tenantID, tenant.Delete{By: by.UserID, At: stamp(by.At)}).onlyIf(by))
}

// DeleteTenant is [Executor.DeleteTenant] for people: the tenant's database stays where it is, for a return.
func (c *Commands) DeleteTenant(ctx context.Context, by Caller, tenantID string) (Receipt, error) {
	return c.x.DeleteTenant(ctx, by, tenantID)
}

// RestoreTenant is [Executor.RestoreTenant] for people. Refusals: tenant.unknown, and tenant.gone for one whose database is no longer there.
func (c *Commands) RestoreTenant(ctx context.Context, by Caller, tenantID string) (Receipt, error) {
	if _, err := c.c.Store.Tenant(LogOf(tenantID)).Head(ctx); errors.Is(err, tenants.ErrUnknownTenant) {
		return Receipt{}, es.Refuse("tenant.gone", "This tenant's data were taken out of service. An operator may have them.")
	} else if err != nil {
		return Receipt{}, fmt.Errorf("commands: look for the log of tenant %s: %w", tenantID, err)
	}
	return c.x.RestoreTenant(ctx, by, tenantID)
}

// RestoreTenant records that a deleted tenant is served again, with the members that it had; its database must be there. A tenant that is
// not deleted stays as it is. Refusal: tenant.unknown.
func (x *Executor) RestoreTenant(ctx context.Context, by Caller, tenantID string) (Receipt, error) {
	return x.Execute(ctx, eventstore.PlatformTenant, by.meta(), tenantStep(tenantID, tenant.Restore{By: by.UserID, At: stamp(by.At)}).onlyIf(by))
}

// TenantState is what the platform's log knows of a tenant.
func (x *Executor) TenantState(ctx context.Context, tenantID string) (tenant.State, error) {
	s, _, err := fold(ctx, x.store.Tenant(eventstore.PlatformTenant), x.codec, tenant.Decider, eventstore.StreamID{Kind: tenant.Kind, ID: tenantID}, nil)
	return s, err
}

// AdoptedTenant is a tenant that was made on another platform. Owner is the user who becomes its admin here.
type AdoptedTenant struct{ ID, Name, DatabaseName, Owner string }

// UserExists tells whether the platform's log knows the user, and the account is not switched off.
func (x *Executor) UserExists(ctx context.Context, userID string) (bool, error) {
	s, _, err := fold(ctx, x.store.Tenant(eventstore.PlatformTenant), x.codec, user.Decider, eventstore.StreamID{Kind: user.Kind, ID: userID}, nil)
	return s.Exists && !s.Inactive, err
}

// AdoptTenant records a tenant whose database, with its log, is there already. It may be repeated. Refusals: user.unknown, tenant.name, and
// tenant.exists for a tenant that was recorded otherwise.
func (x *Executor) AdoptTenant(ctx context.Context, by Caller, a AdoptedTenant) (Receipt, error) {
	known, err := x.UserExists(ctx, a.Owner)
	if err != nil {
		return Receipt{}, err
	}
	if !known {
		return Receipt{}, es.Refuse("user.unknown", "There is no such user.")
	}
	meta := by.meta()
	meta.Command = es.Key("adopt", a.ID, a.Owner) // derives from what it does: given again, it is recognised
	return x.Execute(ctx, eventstore.PlatformTenant, meta,
		tenantStep(a.ID, tenant.Adopt{TenantID: a.ID, Name: a.Name, DatabaseName: a.DatabaseName, By: a.Owner, At: meta.At}),
		memberStep(a.ID, membership.Grant{TenantID: a.ID, UserID: a.Owner, Role: membership.Admin, By: by.UserID, At: meta.At}))
}
