package eventstore_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/factum-platform/factum/eventstore"
)

func TestExpected(t *testing.T) {
	for _, c := range []struct {
		expected eventstore.Expected
		allows   [4]bool // at versions 0 to 3
		exact    bool
	}{
		{eventstore.Expected{}, [4]bool{}, false},
		{eventstore.NoStream(), [4]bool{0: true}, true},
		{eventstore.At(0), [4]bool{0: true}, true},
		{eventstore.At(2), [4]bool{2: true}, true},
		{eventstore.StreamExists(), [4]bool{1: true, 2: true, 3: true}, false},
	} {
		for v, want := range c.allows {
			if got := c.expected.Allows(eventstore.Version(v)); got != want {
				t.Errorf("%s allows version %d: %v", c.expected, v, got)
			}
		}
		if v, exact := c.expected.Exact(); exact != c.exact || exact && !c.allows[v] {
			t.Errorf("%s is exactly %d: %v", c.expected, v, exact)
		}
	}
}

func TestCapsCovers(t *testing.T) {
	all := eventstore.Caps{Gapless: true, MultiStream: true, AtomicClaim: true}
	for _, need := range []eventstore.Caps{{Gapless: true}, {MultiStream: true}, {AtomicClaim: true}} {
		if !all.Covers(need) || !need.Covers(need) || need.Covers(all) || (eventstore.Caps{}).Covers(need) || !need.Covers(eventstore.Caps{}) {
			t.Errorf("what covers %+v is wrong", need)
		}
	}
}

func TestEventID(t *testing.T) {
	// Written down once: the ids in logs that exist must never change, or retries are no replays any more.
	id := eventstore.NewEventID("t", "actor", "command", 0)
	if want := "cf9bd88e-dab0-89cd-ba32-3c843bde0766"; id.String() != want {
		t.Errorf("%s; want %s", id, want)
	}
	ids := map[eventstore.EventID]bool{id: true}
	for _, other := range []eventstore.EventID{
		eventstore.NewEventID("t", "actor", "command", 1), eventstore.NewEventID("t", "actor", "other", 0),
		eventstore.NewEventID("t", "acto", "rcommand", 0), eventstore.NewEventID("u", "actor", "command", 0),
	} {
		if ids[other] {
			t.Errorf("%s occurs twice", other)
		}
		ids[other] = true
	}
	if back, err := eventstore.ParseEventID(id.String()); err != nil || back != id {
		t.Errorf("parsed back: %s, %v", back, err)
	}
	for _, s := range []string{"", "x", id.String() + "00", id.String()[:34], "zz" + id.String()[2:]} {
		if _, err := eventstore.ParseEventID(s); err == nil {
			t.Errorf("%q was taken for an event id", s)
		}
	}
}

func TestOneStreamAtATime(t *testing.T) {
	w := eventstore.Write{Stream: eventstore.StreamID{Kind: "doc", ID: "a"}, Events: []eventstore.Proposed{{ID: eventstore.EventID{1}, Type: "x", Schema: 1, Data: []byte(`{}`)}}}
	other := w
	other.Stream.ID, other.Events = "b", []eventstore.Proposed{{ID: eventstore.EventID{2}, Type: "x", Schema: 1, Data: []byte(`{}`)}}
	if err := eventstore.Validate(eventstore.Caps{MultiStream: true}, []eventstore.Write{w, other}); err != nil {
		t.Error(err)
	}
	var invalid *eventstore.InvalidError
	if err := eventstore.Validate(eventstore.Caps{}, []eventstore.Write{w, other}); !errors.As(err, &invalid) {
		t.Errorf("two streams for an engine of one: %v", err)
	}
}

func TestErrorsTellWhatHappenedWithoutKeys(t *testing.T) {
	for want, err := range map[string]error{
		"eventstore: stream doc-a is at version 4, expected version 3": &eventstore.ConflictError{Stream: eventstore.StreamID{Kind: "doc", ID: "a"}, Expected: eventstore.At(3), Actual: 4},
		"eventstore: the claimed email is taken":                       &eventstore.ClaimError{Claim: eventstore.Claim{Scope: "email", Key: "secret"}},
	} {
		if err.Error() != want {
			t.Errorf("%q; want %q", err, want)
		}
	}
	if err := (&eventstore.ReusedKeyError{Stream: eventstore.StreamID{Kind: "doc", ID: "a"}}).Error(); !strings.Contains(err, "doc-a") {
		t.Errorf("%q does not name the stream", err)
	}
}
