package commands

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/factum-platform/factum/domain/tenant"
	"github.com/factum-platform/factum/eventstore"
)

// RenamedTenant is what a change of name leads to.
type RenamedTenant struct {
	Name      string
	UpdatedAt time.Time // when the tenant was created, renamed, deleted or restored last
}

// RenameTenant gives the tenant another name; that of its database stays. Errors: *[ValidationError]; *[es.Refusal] tenant.unknown,
// tenant.deleted.
func (c *Commands) RenameTenant(ctx context.Context, by Caller, tenantID, name string) (RenamedTenant, Receipt, error) {
	p := problems{}
	p.add("name", checkTenantName(name))
	if err := p.err(); err != nil {
		return RenamedTenant{}, Receipt{}, err
	}
	step := tenantStep(tenantID, tenant.Rename{Name: name, By: by.UserID, At: stamp(by.At)}).onlyIf(by)
	receipt, err := c.x.Execute(ctx, eventstore.PlatformTenant, by.meta(), step)
	return RenamedTenant{step.State.Name, step.State.UpdatedAt}, receipt, err
}

func checkTenantName(name string) string {
	switch trimmed := strings.TrimSpace(name); {
	case trimmed == "":
		return "Must not be blank."
	case utf8.RuneCountInString(trimmed) > tenant.MaxNameChars:
		return "Has at most 255 characters."
	case !plainText(trimmed):
		return "Must be valid text without control characters."
	}
	return ""
}
