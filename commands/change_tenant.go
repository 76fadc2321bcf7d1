package commands

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/factum-platform/factum/domain/tenant"
	"github.com/factum-platform/factum/eventstore"
)

// ChangeTenant asks for another name, and whether changes in the tenant must name the version that they change; nil leaves it as it is.
type ChangeTenant struct {
	Name           *string
	RequireIfMatch *bool
}

// Check says what is wrong with the request, by field; nothing when nothing is.
func (in ChangeTenant) Check() map[string][]string {
	p := problems{}
	if in.Name != nil {
		p.add("name", checkTenantName(*in.Name))
	}
	return p
}

// ChangedTenant is what a change leads to.
type ChangedTenant struct {
	Name           string
	RequireIfMatch bool
	UpdatedAt      time.Time // when the tenant was created, changed, deleted or restored last
}

// ChangeTenant changes what is asked for; the name of the tenant's database stays. Errors: *[ValidationError]; *[es.Refusal]
// tenant.unknown, tenant.deleted.
func (c *Commands) ChangeTenant(ctx context.Context, by Caller, tenantID string, in ChangeTenant) (ChangedTenant, Receipt, error) {
	if err := problems(in.Check()).err(); err != nil {
		return ChangedTenant{}, Receipt{}, err
	}
	step := tenantStep(tenantID, tenant.Change{Name: in.Name, PreconditionsRequired: in.RequireIfMatch, By: by.UserID, At: stamp(by.At)}).onlyIf(by)
	receipt, err := c.x.Execute(ctx, eventstore.PlatformTenant, by.meta(), step)
	s := step.State
	return ChangedTenant{s.Name, s.PreconditionsRequired, s.UpdatedAt}, receipt, err
}

func checkTenantName(name string) string {
	switch trimmed := strings.TrimSpace(name); {
	case utf8.ValidString(trimmed) && !strings.ContainsFunc(trimmed, visible):
		return "Must not be blank."
	case utf8.RuneCountInString(trimmed) > tenant.MaxNameChars:
		return "Has at most 255 characters."
	case !plainText(trimmed):
		return "Must be valid text without control characters."
	}
	return ""
}
