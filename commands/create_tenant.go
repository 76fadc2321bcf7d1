package commands

import (
	"context"
	"regexp"
	"strings"
	"time"

	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/membership"
	"github.com/factum-platform/factum/domain/tenant"
	"github.com/factum-platform/factum/domain/timestamping"
	"github.com/factum-platform/factum/eventstore"
)

// Tenant is a tenant as its members see it.
type Tenant struct {
	ID, Name, DatabaseName string
	TSAEnabled             bool
	TSAProvider            string
	CreatedAt, UpdatedAt   time.Time
	CreatedBy              string
}

// CheckNewTenant says what is wrong with what [Commands.CreateTenant] is asked for, by field; nothing when nothing is.
func CheckNewTenant(name string) map[string][]string { return ChangeTenant{Name: &name}.Check() }

// CreateTenant makes a tenant whose admin is the caller: it is recorded, then gets its database and role, then time-stamping is
// switched on, which is the contract's default. A crash on the way is made good by [Commands.ProvisionTenant] at the next
// start. The receipt is the platform log's. Error: *[ValidationError].
func (c *Commands) CreateTenant(ctx context.Context, by Caller, name string) (Tenant, Receipt, error) {
	if err := problems(CheckNewTenant(name)).err(); err != nil {
		return Tenant{}, Receipt{}, err
	}
	id := es.Key("tenant", by.UserID, by.Command)
	created, err := c.create(ctx, by.meta(), tenant.Create{TenantID: id, Name: name, DatabaseName: databaseName(name, id), By: by.UserID, At: stamp(by.At)})
	if err != nil {
		return Tenant{}, Receipt{}, err
	}
	receipt, err := c.provision(ctx, created)
	if err != nil {
		return Tenant{}, Receipt{}, err
	}
	return Tenant{
		ID: created.ID, Name: created.Name, DatabaseName: created.DatabaseName, TSAEnabled: c.c.TSAProvider != "", TSAProvider: c.c.TSAProvider,
		CreatedAt: created.CreatedAt, UpdatedAt: created.CreatedAt, CreatedBy: created.CreatedBy,
	}, receipt, nil
}

// create records the tenant and then its first member; the tenant is not served before both are there.
func (c *Commands) create(ctx context.Context, meta eventstore.Meta, create tenant.Create) (tenant.State, error) {
	created := tenantStep(create.TenantID, create)
	granted := memberStep(create.TenantID, membership.Grant{TenantID: create.TenantID, UserID: create.By, Role: membership.Admin, By: create.By, At: create.At})
	_, err := c.x.Execute(ctx, eventstore.PlatformTenant, meta, created, granted)
	return created.State, err
}

// ProvisionTenant finishes a tenant that a crash left half made, its first membership included. It may be repeated at any time.
func (c *Commands) ProvisionTenant(ctx context.Context, tenantID string) error {
	var creation eventstore.Meta
	state, _, err := fold(ctx, c.c.Store.Tenant(eventstore.PlatformTenant), c.c.Codec, tenant.Decider, eventstore.StreamID{Kind: tenant.Kind, ID: tenantID},
		func(rec eventstore.Recorded) {
			if rec.Version == 1 {
				creation = rec.Meta
			}
		})
	if err != nil {
		return err
	}
	if !state.Exists {
		return es.Refuse("tenant.unknown", "There is no such tenant.")
	}
	// The very command that created it: what is there is recognised, and only the rest is written.
	_, err = c.create(ctx, creation, tenant.Create{TenantID: state.ID, Name: state.Name, DatabaseName: state.DatabaseName, By: state.CreatedBy, At: state.CreatedAt})
	if err != nil {
		return err
	}
	_, err = c.provision(ctx, state)
	return err
}

// provision makes the database, writes the first fact of the tenant's own log and says that the tenant is ready, last. The
// command ids derive from the tenant, so that a repetition is a replay.
func (c *Commands) provision(ctx context.Context, s tenant.State) (Receipt, error) {
	log := LogOf(s.ID)
	if err := c.c.Provision(ctx, string(log), s.DatabaseName); err != nil {
		return Receipt{}, err
	}
	by := Caller{UserID: s.CreatedBy, Command: es.Key("provision", s.ID), Correlation: s.ID, At: s.CreatedAt}
	if c.c.TSAProvider != "" {
		enable := timestampingStep(timestamping.Enable{Provider: c.c.TSAProvider, By: s.CreatedBy, At: s.CreatedAt})
		if _, err := c.x.Execute(ctx, log, by.meta(), enable); err != nil {
			return Receipt{}, err
		}
	}
	at := stamp(c.c.Now())
	by.At = at
	return c.x.Execute(ctx, eventstore.PlatformTenant, by.meta(), tenantStep(s.ID, tenant.Provision{At: at}))
}

func tenantStep(id string, command tenant.Command) *Decision[tenant.State, tenant.Command, tenant.Event] {
	return &Decision[tenant.State, tenant.Command, tenant.Event]{
		Decider: tenant.Decider, Stream: eventstore.StreamID{Kind: tenant.Kind, ID: id}, Command: command,
	}
}

var notSlug = regexp.MustCompile(`[^a-z0-9]+`)

// databaseName is tenant_<slug>_<8 hex>, at most 63 characters of [a-z0-9_]. A later change of name does not change it.
func databaseName(name, id string) string {
	slug := strings.Trim(notSlug.ReplaceAllString(strings.ToLower(strings.TrimSpace(name)), "_"), "_")
	slug = strings.TrimRight(slug[:min(len(slug), 47)], "_")
	if slug == "" {
		slug = "x"
	}
	return "tenant_" + slug + "_" + strings.ReplaceAll(id, "-", "")[:8]
}
