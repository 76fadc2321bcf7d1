// Package tenant decides about tenants: that one was created, that its database is ready, that it was renamed, that it was deleted and
// came back. Its log is the platform's.
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

// Renamed says that the tenant has another name. The name of its database stays.
type Renamed struct {
	TenantID  string    `json:"tenant_id"`
	Name      string    `json:"name"`
	RenamedBy string    `json:"renamed_by"`
	At        time.Time `json:"at"`
}

// PreconditionsSet says whether changes in the tenant must name the version that they change.
type PreconditionsSet struct {
	TenantID string    `json:"tenant_id"`
	Required bool      `json:"required"`
	SetBy    string    `json:"set_by"`
	At       time.Time `json:"at"`
}

// Deleted says that the tenant is served no longer. Its name and its members stay known, so that it can come back; its database is taken
// out of service after this fact, and dropped later.
type Deleted struct {
	TenantID  string    `json:"tenant_id"`
	DeletedBy string    `json:"deleted_by"`
	At        time.Time `json:"at"`
}

// Restored says that a deleted tenant is served again, with the members that it had.
type Restored struct {
	TenantID   string    `json:"tenant_id"`
	RestoredBy string    `json:"restored_by"`
	At         time.Time `json:"at"`
}

func (Created) isTenantEvent()          {}
func (Provisioned) isTenantEvent()      {}
func (Renamed) isTenantEvent()          {}
func (PreconditionsSet) isTenantEvent() {}
func (Deleted) isTenantEvent()          {}
func (Restored) isTenantEvent()         {}
