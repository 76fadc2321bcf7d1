package commands

import (
	"context"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

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

// CreateTenant makes a tenant whose admin is the caller: it is recorded, then gets its database and role, then time-stamping is
// switched on, which is the contract's default. A crash on the way is made good by [Commands.ProvisionTenant] at the next
// start. The receipt is the platform log's. Error: *[ValidationError].
func (c *Commands) CreateTenant(ctx context.Context, by Caller, name string) (Tenant, Receipt, error) {
	p := problems{}
	switch trimmed := strings.TrimSpace(name); {
	case trimmed == "":
		p.add("name", "Must not be blank.")
	case utf8.RuneCountInString(trimmed) > tenant.MaxNameChars:
		p.add("name", "Has at most 255 characters.")
	case !plainText(trimmed):
		p.add("name", "Must be valid text without control characters.")
	}
	if err := p.err(); err != nil {
		return Tenant{}, Receipt{}, err
	}
	id := es.Key("tenant", by.UserID, by.Command)
	at := stamp(by.At)
	created := tenantStep(id, tenant.Create{TenantID: id, Name: name, DatabaseName: databaseName(name, id), By: by.UserID, At: at})
	granted := &Decision[membership.State, membership.Command, membership.Event]{
		Decider: membership.Decider,
		Stream:  eventstore.StreamID{Kind: membership.Kind, ID: membership.StreamID(id, by.UserID)},
		Command: membership.Grant{TenantID: id, UserID: by.UserID, Role: membership.Admin, By: by.UserID, At: at},
	}
	if _, err := Execute(ctx, c.c.Store, c.c.Codec, eventstore.PlatformTenant, by.meta(), created, granted); err != nil {
		return Tenant{}, Receipt{}, err
	}
	receipt, err := c.provision(ctx, created.State)
	if err != nil {
		return Tenant{}, Receipt{}, err
	}
	s := created.State
	return Tenant{
		ID: s.ID, Name: s.Name, DatabaseName: s.DatabaseName, TSAEnabled: c.c.TSAProvider != "", TSAProvider: c.c.TSAProvider,
		CreatedAt: s.CreatedAt, UpdatedAt: s.CreatedAt, CreatedBy: s.CreatedBy,
	}, receipt, nil
}

// ProvisionTenant finishes a tenant that a crash left half made. It may be repeated at any time.
func (c *Commands) ProvisionTenant(ctx context.Context, tenantID string) error {
	state, _, err := fold(ctx, c.c.Store.Tenant(eventstore.PlatformTenant), c.c.Codec, tenant.Decider, eventstore.StreamID{Kind: tenant.Kind, ID: tenantID}, nil)
	if err != nil {
		return err
	}
	if !state.Exists {
		return es.Refuse("tenant.unknown", "There is no such tenant.")
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
		if _, err := Execute(ctx, c.c.Store, c.c.Codec, log, by.meta(), enable); err != nil {
			return Receipt{}, err
		}
	}
	at := stamp(c.c.Now())
	by.At = at
	return Execute(ctx, c.c.Store, c.c.Codec, eventstore.PlatformTenant, by.meta(), tenantStep(s.ID, tenant.Provision{At: at}))
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
