package commands

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/factum-platform/factum/domain/document"
	"github.com/factum-platform/factum/eventstore"
)

func at(ids ...string) []Step {
	steps := make([]Step, len(ids))
	for i, id := range ids {
		steps[i] = &Decision[document.State, document.Command, document.Event]{Stream: eventstore.StreamID{Kind: "document", ID: id}}
	}
	return steps
}

// TestTurns: who meets at a stream works one after the other, in whatever order the streams are named, and nothing is remembered.
func TestTurns(t *testing.T) {
	var all turns
	var wg sync.WaitGroup
	inside := 0 // the race detector and the count show who is not alone
	for i := range 100 {
		steps := at("a", "b")
		if i%2 == 0 {
			steps = at("b", "a")
		}
		wg.Go(func() {
			done, err := all.take(t.Context(), "t", steps)
			if err != nil {
				t.Error(err)
				return
			}
			defer done()
			if inside++; inside != 1 {
				t.Errorf("%d at once", inside)
			}
			inside--
		})
	}
	wg.Wait()
	if len(all.places) != 0 {
		t.Fatalf("%d places are remembered", len(all.places))
	}
}

func TestATurnIsNotWaitedForLongerThanTheContext(t *testing.T) {
	var all turns
	done, err := all.take(t.Context(), "t", at("b"))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := all.take(t.Context(), "u", at("b")) // another tenant's stream of that name
	if err != nil {
		t.Fatal(err)
	}
	elsewhere()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := all.take(ctx, "t", at("a", "b")); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := all.take(t.Context(), "t", at("a", "a")); err == nil || !strings.Contains(err.Error(), "document-a occurs twice") {
		t.Fatal(err)
	}
	done()
	if len(all.places) != 0 {
		t.Fatalf("%d places are remembered", len(all.places))
	}
}
