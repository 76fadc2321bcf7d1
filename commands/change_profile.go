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

// Check says what is wrong with the request, by field; nothing when nothing is.
func (in ChangeProfile) Check() map[string][]string {
	p := problems{}
	if in.FirstName == nil && in.LastName == nil {
		p.add("_schema", "Give first_name, last_name or both.")
	}
	for field, name := range map[string]*string{"first_name": in.FirstName, "last_name": in.LastName} {
		if name != nil {
			p.add(field, checkName(strings.TrimSpace(*name)))
		}
	}
	return p
}

// ChangeProfile gives the caller other names. Errors: *[ValidationError]; *[es.Refusal] user.unknown.
func (c *Commands) ChangeProfile(ctx context.Context, by Caller, in ChangeProfile) (User, Receipt, error) {
	if err := problems(in.Check()).err(); err != nil {
		return User{}, Receipt{}, err
	}
	given := func(name *string) *es.Personal {
		if name == nil {
			return nil
		}
		personal := es.Person(strings.TrimSpace(*name))
		return &personal
	}
	step := userStep(by.UserID, user.Rename{FirstName: given(in.FirstName), LastName: given(in.LastName), At: stamp(by.At)}).onlyIf(by)
	receipt, err := c.x.Execute(ctx, eventstore.PlatformTenant, by.meta(), step)
	if err != nil {
		return User{}, Receipt{}, err
	}
	return userOf(step.State), receipt, nil
}
