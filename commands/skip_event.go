package commands

import (
	"context"
	"fmt"
	"regexp"

	"github.com/factum-platform/factum/domain/projection"
	"github.com/factum-platform/factum/eventstore"
)

// SkipEvent names an event that a projection cannot apply and is to pass over.
type SkipEvent struct {
	Projection string
	Stream     eventstore.StreamID
	Event      eventstore.EventID
	Reason     string // 1 to 500 characters, without personal data
}

var projectionForm = regexp.MustCompile(`^[a-z]{1,40}$`)

// SkipEvent records in the tenant's log that the projection passes over the event; log is the tenant's, or "platform". Whether the projection
// exists and stands at the event is for the caller to know, who also lets it go on (runner.Operator.Retry). Errors: *[ValidationError],
// *[es.Refusal] projection.reason, projection.event_unknown or projection.event_skipped.
func (c *Commands) SkipEvent(ctx context.Context, by Caller, log eventstore.TenantID, in SkipEvent) (Receipt, error) {
	return c.x.SkipEvent(ctx, by, log, in)
}

// SkipEvent is [Commands.SkipEvent] for those who have no more than a log.
func (x *Executor) SkipEvent(ctx context.Context, by Caller, log eventstore.TenantID, in SkipEvent) (Receipt, error) {
	p := problems{}
	if !projectionForm.MatchString(in.Projection) {
		p.add("projection", "Must be the name of a projection.")
	}
	if in.Stream.Validate() != nil {
		p.add("stream", "Must be the kind and the id of a stream.")
	}
	if err := p.err(); err != nil {
		return Receipt{}, err
	}
	known, err := x.holds(ctx, log, in.Stream, in.Event)
	if err != nil {
		return Receipt{}, err
	}
	return x.Execute(ctx, log, by.meta(), &Decision[projection.State, projection.Command, projection.Event]{
		Decider: projection.Decider, Stream: eventstore.StreamID{Kind: projection.Kind, ID: in.Projection},
		Command: projection.SkipEvent{
			Projection: in.Projection, StreamKind: in.Stream.Kind, StreamID: in.Stream.ID, EventID: in.Event.String(), Known: known,
			Reason: in.Reason, By: by.UserID, At: stamp(by.At),
		},
	})
}

// holds tells whether the stream has the event.
func (x *Executor) holds(ctx context.Context, log eventstore.TenantID, stream eventstore.StreamID, id eventstore.EventID) (bool, error) {
	for rec, err := range x.store.Tenant(log).ReadStream(ctx, stream, 1) {
		if err != nil {
			return false, fmt.Errorf("commands: look for event %s: %w", id, err)
		}
		if rec.ID == id {
			return true, nil
		}
	}
	return false, nil
}
