// Package projection decides what operators say about a projection of a tenant's log. Its streams lie in that log, one for each projection.
package projection

import "time"

// Kind is the stream kind; a stream's id is the projection's name.
const Kind = "projection"

// Event is a fact about a projection.
type Event interface{ isProjectionEvent() }

// EventSkipped says that the projection passes over an event that it cannot apply. Later events of its stream count.
type EventSkipped struct {
	Projection string    `json:"projection"`
	StreamKind string    `json:"stream_kind"`
	StreamID   string    `json:"stream_id"`
	EventID    string    `json:"event_id"`
	Reason     string    `json:"reason"` // for auditors; without personal data
	By         string    `json:"by"`
	At         time.Time `json:"at"`
}

func (EventSkipped) isProjectionEvent() {}
