package commands

import (
	"context"

	"github.com/factum-platform/factum/domain/timestamping"
	"github.com/factum-platform/factum/eventstore"
)

// EnableTSA switches time-stamping on for the files that are stored from now on.
func (c *Commands) EnableTSA(ctx context.Context, by Caller, tenantID string) (Receipt, error) {
	return c.x.Execute(ctx, LogOf(tenantID), by.meta(),
		timestampingStep(timestamping.Enable{Provider: c.c.TSAProvider, By: by.UserID, At: stamp(by.At)}))
}

// DisableTSA switches time-stamping off for the files that are stored from now on; what was requested before stays requested.
func (c *Commands) DisableTSA(ctx context.Context, by Caller, tenantID string) (Receipt, error) {
	return c.x.Execute(ctx, LogOf(tenantID), by.meta(), timestampingStep(timestamping.Disable{By: by.UserID, At: stamp(by.At)}))
}

// TSAProvider is the short name of the authority that this process uses, "" when none is configured.
func (c *Commands) TSAProvider() string { return c.c.TSAProvider }

func timestampingStep(command timestamping.Command) *Decision[timestamping.State, timestamping.Command, timestamping.Event] {
	return &Decision[timestamping.State, timestamping.Command, timestamping.Event]{
		Decider: timestamping.Decider, Stream: eventstore.StreamID{Kind: timestamping.Kind, ID: timestamping.StreamID}, Command: command,
	}
}
