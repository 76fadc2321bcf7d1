package runner

import (
	"fmt"
	"testing"
	"time"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/memstore"
)

func TestLagIsExactOrSaysThatItIsNot(t *testing.T) {
	log := memstore.New().Tenant("t1")
	gapless, gaps := eventstore.Caps{Gapless: true}, eventstore.Caps{}
	begun := time.Now()
	for round := range 3 {
		events := make([]eventstore.Proposed, 900)
		for i := range events {
			events[i] = eventstore.Proposed{ID: eventstore.NewEventID("t1", "a", fmt.Sprint(round), i), Type: "t", Schema: 1, Data: []byte(`{}`)}
		}
		_, err := log.Append(t.Context(), eventstore.Write{Stream: eventstore.StreamID{Kind: "test", ID: fmt.Sprint(round)}, Expected: eventstore.NoStream(), Events: events})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name    string
		caps    eventstore.Caps
		at      eventstore.Position
		bound   int64
		events  int64
		atLeast bool
	}{
		{"at the end", gapless, 2700, 10, 0, false},
		{"past the end, of a log that was restored", gapless, 3000, 10, 0, false},
		{"without gaps", gapless, 200, 10, 2500, false},
		{"with gaps, counted", gaps, 200, 10_000, 2500, false},
		{"with gaps, counted up to a bound", gaps, 200, 1500, 2000, true},
		{"with gaps, not counted", gaps, 200, 0, 1, true},
		{"with gaps, the last one", gaps, 2699, 0, 1, false},
	} {
		l, err := lagOf(t.Context(), log, c.caps, c.at, c.bound)
		if err != nil || l.events != c.events || l.atLeast != c.atLeast || l.head != 2700 {
			t.Errorf("%s: %+v, %v; want %d events, at least: %v", c.name, l, err, c.events, c.atLeast)
		}
		if (c.events > 0) != (l.oldest.After(begun.Add(-time.Second)) && !l.oldest.After(time.Now())) {
			t.Errorf("%s: the oldest is of %s", c.name, l.oldest)
		}
	}
}
