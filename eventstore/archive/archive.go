// Package archive is a tenant's log as one file: a zip whose entries are lines of JSON, so that it can be read with common tools, and whose
// SHA256SUMS 'sha256sum -c' checks. It holds the events with the very bytes of their data, the claims, and the keys under which personal
// fields are sealed, themselves wrapped under the platform's key-encryption key. All of it is as of one position of the log.
//
// Entries: events.jsonl, claims.jsonl, keys.jsonl, manifest.json, SHA256SUMS, in this order.
package archive

import (
	"fmt"
	"time"

	"github.com/factum-platform/factum/eventstore"
)

// Format is the version of the archive's form that this package writes; it reads all from 1.
const Format = 1

// The entries of an archive.
const (
	eventsEntry   = "events.jsonl"
	claimsEntry   = "claims.jsonl"
	keysEntry     = "keys.jsonl"
	manifestEntry = "manifest.json"
	sumsEntry     = "SHA256SUMS"
)

// NotIncluded is what an archive does not hold, in words; it stands in each manifest.
var NotIncluded = []string{
	"the contents of files, which lie in the object store under the keys that file.stored names",
	"facts of the platform: users, memberships, the tenant's own creation",
	"read models, which are computed from the events",
	"state and jobs of sagas, such as time-stamps that are under way",
	"the key-encryption key, without which the keys open nothing",
}

// Manifest says what an archive holds.
type Manifest struct {
	Format      int                 `json:"format"`
	Tenant      eventstore.TenantID `json:"tenant"`    // of the log
	TenantID    string              `json:"tenant_id"` // UUID text, as the API shows it
	Name        string              `json:"name"`      // of the tenant, "" if the platform does not know it
	Database    string              `json:"database"`  // that it had
	Engine      string              `json:"engine"`    // whose positions these are
	Head        eventstore.Position `json:"head"`      // the last event's
	Events      uint64              `json:"events"`
	Claims      uint64              `json:"claims"`
	Keys        uint64              `json:"keys"`
	LogSHA256   string              `json:"log_sha256"` // over events and claims, as 'factum log copy' prints it
	MadeAt      time.Time           `json:"made_at"`
	MadeBy      string              `json:"made_by"` // the program and its version
	NotIncluded []string            `json:"not_included"`
}

// Key is a data key of the tenant, wrapped under the platform's key-encryption key; an erased one has no bytes and keeps a new one from
// being made.
type Key struct {
	Purpose string `json:"purpose"`
	Owner   string `json:"owner"`
	Wrapped []byte `json:"wrapped,omitempty"`
	Erased  bool   `json:"erased,omitempty"`
}

// eventLine is an event as a line of JSON. The data is a string, because JSON in JSON would not keep its blanks.
type eventLine struct {
	Position eventstore.Position `json:"position"`
	Kind     string              `json:"kind"`
	Stream   string              `json:"stream"`
	Version  eventstore.Version  `json:"version"`
	ID       string              `json:"id"`
	Type     string              `json:"type"`
	Schema   uint16              `json:"schema"`
	Data     string              `json:"data"`
	Meta     eventstore.Meta     `json:"meta"`
}

func lineOf(rec eventstore.Recorded) eventLine {
	m := rec.Meta
	m.At = m.At.UTC()
	return eventLine{rec.Position, rec.Stream.Kind, rec.Stream.ID, rec.Version, rec.ID.String(), rec.Type, rec.Schema, string(rec.Data), m}
}

func (l eventLine) recorded(t eventstore.TenantID) (eventstore.Recorded, error) {
	id, err := eventstore.ParseEventID(l.ID)
	if err != nil {
		return eventstore.Recorded{}, err
	}
	l.Meta.At = l.Meta.At.UTC()
	return eventstore.Recorded{
		Tenant: t, Stream: eventstore.StreamID{Kind: l.Kind, ID: l.Stream}, Version: l.Version, Position: l.Position,
		Proposed: eventstore.Proposed{ID: id, Type: l.Type, Schema: l.Schema, Data: []byte(l.Data), Meta: l.Meta},
	}, nil
}

// claimLine is a claim; its key is a MAC, which is no text.
type claimLine struct {
	Scope  string `json:"scope"`
	Key    []byte `json:"key"`
	Kind   string `json:"kind"`
	Stream string `json:"stream"`
}

// DamagedError says that a file is no archive, or not as it was written. Nothing of it may be used.
type DamagedError struct{ Path, Reason string }

// Error implements error.
func (e *DamagedError) Error() string {
	return fmt.Sprintf("archive: %s cannot be used: %s", e.Path, e.Reason)
}
