package runner

import (
	"context"
	"time"

	"github.com/factum-platform/factum/eventstore"
)

// lag is what of a log is left to apply behind a position.
type lag struct {
	head    eventstore.Position
	events  int64
	atLeast bool      // there may be more events
	oldest  time.Time // when the first of them was recorded
}

// lagPage is how many events are read at a time to count them.
const lagPage = 1000

// lagOf measures. On an engine whose positions have gaps the events are counted, bound of them at most: with 0 only the first is looked for.
func lagOf(ctx context.Context, log eventstore.Log, caps eventstore.Caps, at eventstore.Position, bound int64) (lag, error) {
	head, err := log.Head(ctx)
	l := lag{head: head}
	if err != nil || head <= at {
		return l, err
	}
	limit := lagPage
	if caps.Gapless || bound == 0 {
		limit = 1
	}
	for after := at; ; {
		page, err := log.Page(ctx, after, limit)
		if err != nil {
			return l, err
		}
		if len(page.Events) > 0 && l.oldest.IsZero() {
			l.oldest = page.Events[0].Recorded
		}
		l.events += int64(len(page.Events))
		after = page.Through
		switch {
		case l.events == 0 && page.Live: // what lies between is nothing that a reader is given
			return l, nil
		case caps.Gapless:
			l.events = int64(head - at)
			return l, nil
		case page.Live:
			return l, nil
		case l.events >= bound:
			l.atLeast = true
			return l, nil
		}
	}
}
