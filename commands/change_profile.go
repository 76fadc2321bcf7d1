package commands

import (
	"context"
	"strings"

	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/user"
	"github.com/factum-platform/factum/eventstore"
)

// ChangeProfile asks for other names; nil leaves one as it is.
type ChangeProfile struct{ FirstName, LastName *string }

// ChangeProfile gives the caller other names. Errors: *[ValidationError]; *[es.Refusal] user.unknown.
func (c *Commands) ChangeProfile(ctx context.Context, by Caller, in ChangeProfile) (User, Receipt, error) {
	p := problems{}
	if in.FirstName == nil && in.LastName == nil {
		p.add("_schema", "Give first_name, last_name or both.")
	}
	given := func(field string, name *string) *es.Personal {
		if name == nil {
			return nil
		}
		trimmed := strings.TrimSpace(*name)
		p.add(field, checkName(trimmed))
		personal := es.Person(trimmed)
		return &personal
	}
	command := user.Rename{FirstName: given("first_name", in.FirstName), LastName: given("last_name", in.LastName), At: stamp(by.At)}
	if err := p.err(); err != nil {
		return User{}, Receipt{}, err
	}
	step := userStep(by.UserID, command).onlyIf(by)
	receipt, err := c.x.Execute(ctx, eventstore.PlatformTenant, by.meta(), step)
	if err != nil {
		return User{}, Receipt{}, err
	}
	return userOf(step.State), receipt, nil
}
