package runner

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/seal"
)

func skippedEvents(ctx context.Context, log eventstore.Log, _ *seal.Codec, projection string) (map[eventstore.EventID]bool, error) {
	out := map[eventstore.EventID]bool{}
	for rec, err := range log.ReadStream(ctx, eventstore.StreamID{Kind: "projection", ID: projection}, 1) {
		if err != nil {
			return nil, err
		}
		var e struct {
			EventID string `json:"event_id"`
		}
		if err := json.Unmarshal(rec.Data, &e); err != nil {
			return nil, fmt.Errorf("event %s: %w", rec.ID, err)
		}
		id, err := eventstore.ParseEventID(e.EventID)
		if err != nil {
			return nil, err
		}
		out[id] = true
	}
	return out, nil
}
