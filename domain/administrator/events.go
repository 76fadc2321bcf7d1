// Package administrator decides who administers the platform: who may see and steer what concerns all tenants. Its one stream lies in the
// platform's log. A tenant's admin is a member of that tenant, and not meant here.
package administrator

import "time"

const (
	// Kind is the stream kind.
	Kind = "administrator"
	// StreamID is the id of the one stream: that the last administrator stays can only be decided about all of them.
	StreamID = "platform"
)

// Event is a fact about the administrators.
type Event interface{ isAdministratorEvent() }

// Granted says that a user administers the platform.
type Granted struct {
	UserID    string    `json:"user_id"`
	GrantedBy string    `json:"granted_by"`
	At        time.Time `json:"at"`
}

// Revoked says that a user administers the platform no longer.
type Revoked struct {
	UserID    string    `json:"user_id"`
	RevokedBy string    `json:"revoked_by"`
	At        time.Time `json:"at"`
}

func (Granted) isAdministratorEvent() {}
func (Revoked) isAdministratorEvent() {}
