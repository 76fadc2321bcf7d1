package runner

import (
	"context"
	"fmt"

	"github.com/factum-platform/factum/domain/projection"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/seal"
)

// skippedEvents returns the events of the log that the projection passes over because an operator said so. They are facts of the log itself, so
// that every generation passes over the same ones.
func skippedEvents(ctx context.Context, log eventstore.Log, codec *seal.Codec, name string) (map[eventstore.EventID]bool, error) {
	out := map[eventstore.EventID]bool{}
	for rec, err := range log.ReadStream(ctx, eventstore.StreamID{Kind: projection.Kind, ID: name}, 1) {
		var fact any
		if err == nil {
			fact, err = codec.Decode(ctx, rec)
		}
		if err != nil {
			return nil, fmt.Errorf("runner: read which events %s passes over: %w", name, err)
		}
		skipped, ok := fact.(projection.EventSkipped)
		if !ok {
			continue
		}
		id, err := eventstore.ParseEventID(skipped.EventID)
		if err != nil {
			return nil, fmt.Errorf("runner: read which events %s passes over: %w", name, err)
		}
		out[id] = true
	}
	return out, nil
}
