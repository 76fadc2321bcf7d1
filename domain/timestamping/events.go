// Package timestamping decides whether a tenant's new files are time-stamped (RFC 3161). Its log is the tenant's own,
// so that the policy and the files it applies to are in one order.
package timestamping

import "time"

const (
	// Kind is the stream kind.
	Kind = "timestamping"
	// StreamID is the id of a tenant's one policy stream.
	StreamID = "policy"
)

// Event is a fact about the policy.
type Event interface{ isTimestampingEvent() }

// Enabled says that files stored from here on are time-stamped.
type Enabled struct {
	Provider string    `json:"provider"` // short name of the authority, "digicert"
	By       string    `json:"by"`
	At       time.Time `json:"at"`
}

// Disabled says that files stored from here on are not time-stamped. Requests made before stay.
type Disabled struct {
	By string    `json:"by"`
	At time.Time `json:"at"`
}

func (Enabled) isTimestampingEvent()  {}
func (Disabled) isTimestampingEvent() {}
