package commands

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/membership"
	"github.com/factum-platform/factum/infra/auth"
)

const (
	maxKeyNameChars = 100
	maxKeyDays      = 365
)

// IssueAPIKey asks for a key with which a machine calls the API in the tenant, as a member with the role would, for Days days.
type IssueAPIKey struct {
	TenantID, Name, Role string
	Days                 int
}

// Check says what is wrong with the request, by field; nothing when nothing is.
func (in IssueAPIKey) Check() map[string][]string {
	p := problems{}
	p.add("name", checkText(strings.TrimSpace(in.Name), maxKeyNameChars))
	switch in.Role {
	case membership.Admin, membership.User, membership.Viewer:
	default:
		p.add("role", "Is admin, user or viewer.")
	}
	if in.Days < 1 || in.Days > maxKeyDays {
		p.add("expires_in_days", "Is between 1 and 365.")
	}
	return p
}

// IssueAPIKey makes the key and answers the text that the machine sends; nobody can read it again. Like other credentials a key is no
// fact: what the machine does is, under the key's id. Errors: *[ValidationError]; *[es.Refusal] apikey.too_many.
func (c *Commands) IssueAPIKey(ctx context.Context, by Caller, in IssueAPIKey) (auth.APIKey, string, error) {
	if err := problems(in.Check()).err(); err != nil {
		return auth.APIKey{}, "", err
	}
	in.Name = strings.TrimSpace(in.Name)
	made, key, err := c.c.Auth.NewAPIKey(ctx, auth.APIKey{
		TenantID: in.TenantID, Name: in.Name, Role: in.Role, CreatedBy: by.UserID, ExpiresAt: c.c.Now().Add(time.Duration(in.Days) * 24 * time.Hour),
	})
	if errors.Is(err, auth.ErrTooManyKeys) {
		err = es.Refuse("apikey.too_many", "A tenant has at most 100 keys that are good. Revoke some first.")
	}
	return made, key, err
}

// RevokeAPIKey ends a key of the tenant. Refusal: apikey.unknown, also for one that was revoked or is another tenant's.
func (c *Commands) RevokeAPIKey(ctx context.Context, tenantID, id string) error {
	done, err := c.c.Auth.RevokeAPIKey(ctx, tenantID, id)
	if err == nil && !done {
		return es.Refuse("apikey.unknown", "There is no such key, or it was revoked.")
	}
	return err
}
