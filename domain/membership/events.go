// Package membership decides who belongs to a tenant and in which role. Its log is the platform's.
package membership

import "time"

// Kind is the stream kind; the stream id is the tenant's. One stream holds all members of a tenant, because one rule concerns them all: a
// tenant keeps an admin, whoever leaves at the same time as whom.
const Kind = "membership"

// Event is a fact about a tenant's members.
type Event interface{ isMembershipEvent() }

// Granted says that a user has a role in a tenant.
type Granted struct {
	TenantID  string    `json:"tenant_id"`
	UserID    string    `json:"user_id"`
	Role      string    `json:"role"` // admin, user or viewer
	GrantedBy string    `json:"granted_by"`
	At        time.Time `json:"at"`
}

// RoleChanged says that a member has another role from now on.
type RoleChanged struct {
	TenantID  string    `json:"tenant_id"`
	UserID    string    `json:"user_id"`
	Role      string    `json:"role"` // admin, user or viewer
	ChangedBy string    `json:"changed_by"`
	At        time.Time `json:"at"`
}

// Removed says that a user is a member no longer. What the user uploaded stays.
type Removed struct {
	TenantID  string    `json:"tenant_id"`
	UserID    string    `json:"user_id"`
	RemovedBy string    `json:"removed_by"`
	At        time.Time `json:"at"`
}

func (Granted) isMembershipEvent()     {}
func (RoleChanged) isMembershipEvent() {}
func (Removed) isMembershipEvent()     {}
