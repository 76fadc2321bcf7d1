// Package tenant decides about tenants: that one was created and that its database is ready. Its log is the platform's.
package tenant

import "time"

// Kind is the stream kind; the stream id is the tenant's id.
const Kind = "tenant"

// Event is a fact about a tenant.
type Event interface{ isTenantEvent() }

// Created says that a tenant was asked for. It is served once it is also [Provisioned].
type Created struct {
	TenantID     string    `json:"tenant_id"` // UUID text
	Name         string    `json:"name"`
	DatabaseName string    `json:"database_name"`
	CreatedBy    string    `json:"created_by"`
	At           time.Time `json:"at"`
}

// Provisioned says that the tenant's database and role exist and are migrated.
type Provisioned struct {
	TenantID string    `json:"tenant_id"`
	At       time.Time `json:"at"`
}

func (Created) isTenantEvent()     {}
func (Provisioned) isTenantEvent() {}
