package file_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/factum-platform/factum/domain/es"
	. "github.com/factum-platform/factum/domain/file"
)

var (
	at     = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	later  = at.Add(time.Minute)
	keep   = Keep{FileID: "f", SHA256: "aa", MD5: "bb", ObjectKey: "k", Size: 3, DocumentID: "d1", By: "u", Stamp: true, At: at}
	stored = Stored{FileID: "f", SHA256: "aa", MD5: "bb", ObjectKey: "k", Size: 3, StoredBy: "u", At: at}
	linked = Linked{FileID: "f", DocumentID: "d1", At: at}
	asked  = TimestampRequested{FileID: "f", SHA256: "aa", By: "u", At: at}
	got    = Timestamped{FileID: "f", Response: []byte{1}, Attempt: 1, At: later}
)

func TestKeep(t *testing.T) {
	given(t).When(keep).Then(stored, linked, asked)
	quiet := keep
	quiet.Stamp = false
	given(t).When(quiet).Then(stored, linked)
	again := keep
	again.DocumentID, again.ObjectKey, again.At = "d2", "other", later
	given(t, stored, linked, asked).When(again).Then(Linked{FileID: "f", DocumentID: "d2", At: later})
	given(t, stored, linked, got).When(again).Then(Linked{FileID: "f", DocumentID: "d2", At: later})
	given(t, stored, linked).When(keep).Then(asked)
	given(t, stored, linked, asked).When(keep).Then()
	other := keep
	other.SHA256 = "cc"
	given(t, stored).When(other).Refused("file.mismatch")
}

func TestUnlink(t *testing.T) {
	gone := Unlink{DocumentID: "d1", At: later}
	given(t).When(gone).Refused("file.unknown")
	given(t, stored, linked).When(gone).Then(Unlinked{FileID: "f", DocumentID: "d1", At: later})
	given(t, stored).When(gone).Then()
}

func TestDelete(t *testing.T) {
	remove := Delete{By: "v", At: later}
	unlinked := Unlinked{FileID: "f", DocumentID: "d1", At: later}
	deleted := Deleted{FileID: "f", ObjectKey: "k", Size: 3, DeletedBy: "v", At: later}
	given(t).When(remove).Refused("file.unknown")
	given(t, stored, linked).When(remove).Refused("file.referenced")
	orphan := []Event{stored, linked, asked, unlinked}
	given(t, orphan...).When(remove).Then(deleted)
	gone := slices.Concat(orphan, []Event{deleted})
	given(t, gone...).When(remove).Refused("file.unknown")
	given(t, gone...).When(RequestTimestamp{By: "u", At: later}).Refused("file.unknown")
	given(t, gone...).When(RecordTimestamp{Stamp: got}).Then()
	given(t, gone...).When(RecordFailure{Attempt: 1, Reason: "down", At: later}).Then()
	// The content comes again: as another object, and with a time-stamp of its own.
	again := keep
	again.ObjectKey, again.DocumentID, again.At = "k2", "d2", later
	back := Stored{FileID: "f", SHA256: "aa", MD5: "bb", ObjectKey: "k2", Size: 3, StoredBy: "u", At: later}
	given(t, gone...).When(again).Then(back, Linked{FileID: "f", DocumentID: "d2", At: later}, TimestampRequested{FileID: "f", SHA256: "aa", By: "u", At: later})
	if s := Decider.Fold(Decider.Initial(), append(gone, back)...); !s.Exists || s.Deleted || s.ObjectKey != "k2" || s.Stamp != Unwanted || len(s.Documents) != 0 {
		t.Errorf("%+v", s)
	}
	other := again
	other.SHA256 = "cc"
	given(t, gone...).When(other).Refused("file.mismatch")
}

func TestTimestampOutcomes(t *testing.T) {
	failure := RecordFailure{Attempt: 1, Reason: "down", At: later}
	failed := TimestampFailed{FileID: "f", Attempt: 1, Reason: "down", NextAttempt: later.Add(2 * time.Second), At: later}
	given(t, stored, asked).When(failure).Then(failed)
	given(t, stored, asked, failed).When(failure).Then()
	given(t, stored).When(failure).Then()
	given(t, stored, asked, got).When(failure).Then()

	second := RecordFailure{Attempt: 2, Reason: "down", At: later}
	given(t, stored, asked, failed).When(second).
		Then(TimestampFailed{FileID: "f", Attempt: 2, Reason: "down", NextAttempt: later.Add(4 * time.Second), At: later})

	abandoned := TimestampAbandoned{FileID: "f", Attempt: 1, Reason: "badAlg", At: later}
	given(t, stored, asked).When(RecordFailure{Attempt: 1, Reason: "badAlg", Permanent: true, At: later}).Then(abandoned)
	week := at.Add(7 * 24 * time.Hour)
	given(t, stored, asked).When(RecordFailure{Attempt: 1, Reason: "down", At: week}).
		Then(TimestampAbandoned{FileID: "f", Attempt: 1, Reason: "down", At: week})

	given(t, stored, asked, failed).When(RecordTimestamp{Stamp: Timestamped{Response: []byte{1}, Attempt: 1, At: later}}).Then(got)
	given(t, stored, asked, got).When(RecordTimestamp{Stamp: got}).Then()
	given(t, stored, asked, abandoned).When(RecordTimestamp{Stamp: got}).Then(got)

	again := RequestTimestamp{By: "u", At: later}
	given(t).When(again).Refused("file.unknown")
	given(t, stored, asked).When(again).Then()
	given(t, stored, asked, got).When(again).Then()
	given(t, stored, asked, abandoned).When(again).Then(TimestampRequested{FileID: "f", SHA256: "aa", By: "u", At: later})
}

func TestDelayDoublesUpToAQuarterOfAnHour(t *testing.T) {
	last := time.Duration(0)
	for attempt := 1; attempt < 100; attempt++ {
		d := Delay(attempt)
		if d < last || d > 15*time.Minute || (last > 0 && d > 2*last) {
			t.Fatalf("attempt %d: %v after %v", attempt, d, last)
		}
		last = d
	}
	if Delay(1) != 2*time.Second || last != 15*time.Minute {
		t.Fatal(Delay(1), last)
	}
}

// TestLaws draws any sequence of commands: folding in parts is folding at once, and a file is stored and stamped once at most.
func TestLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		command := rapid.OneOf(
			rapid.Custom(func(t *rapid.T) Command {
				c := keep
				c.DocumentID, c.Stamp = rapid.SampledFrom([]string{"d1", "d2", "d3"}).Draw(t, "document"), rapid.Bool().Draw(t, "stamp")
				return c
			}),
			rapid.Custom(func(t *rapid.T) Command {
				return Unlink{DocumentID: rapid.SampledFrom([]string{"d1", "d2", "d3"}).Draw(t, "document"), At: at}
			}),
			rapid.Just[Command](RequestTimestamp{By: "u", At: at}),
			rapid.Just[Command](RecordTimestamp{Stamp: got}),
			rapid.Custom(func(t *rapid.T) Command {
				return RecordFailure{Attempt: rapid.IntRange(1, 4).Draw(t, "attempt"), Permanent: rapid.Bool().Draw(t, "permanent"), At: at}
			}))
		var facts []Event
		state := Decider.Initial()
		for _, c := range rapid.SliceOf(command).Draw(t, "commands") {
			more, err := Decider.Decide(state, c)
			if err != nil {
				continue
			}
			facts = append(facts, more...)
			state = Decider.Fold(state, more...)
		}
		cut := rapid.IntRange(0, len(facts)).Draw(t, "cut")
		inParts := Decider.Fold(Decider.Fold(Decider.Initial(), facts[:cut]...), facts[cut:]...)
		if inParts.Stamp != state.Stamp || inParts.Attempts != state.Attempts || len(inParts.Documents) != len(state.Documents) {
			t.Fatalf("%+v\n%+v", inParts, state)
		}
		count := map[string]int{}
		for _, f := range facts {
			switch f.(type) {
			case Stored:
				count["stored"]++
			case Timestamped:
				count["stamped"]++
			}
		}
		if count["stored"] > 1 || count["stamped"] > 1 {
			t.Fatal(count)
		}
	})
}

func given(t *testing.T, facts ...Event) es.Story[State, Command, Event] {
	t.Helper()
	return es.Given(t, Decider, facts...)
}
