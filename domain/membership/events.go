// Package membership decides who belongs to a tenant and in which role. Its log is the platform's.
package membership

import (
	"time"

	"github.com/factum-platform/factum/domain/es"
)

// Kind is the stream kind; the stream id is [StreamID].
const Kind = "membership"

// StreamID is the id of the one stream about this user in this tenant.
func StreamID(tenantID, userID string) string { return es.Key("membership", tenantID, userID) }

// Event is a fact about a membership.
type Event interface{ isMembershipEvent() }

// Granted says that a user has a role in a tenant.
type Granted struct {
	TenantID  string    `json:"tenant_id"`
	UserID    string    `json:"user_id"`
	Role      string    `json:"role"` // admin, user or viewer
	GrantedBy string    `json:"granted_by"`
	At        time.Time `json:"at"`
}

func (Granted) isMembershipEvent() {}
