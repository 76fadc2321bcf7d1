package pgstore

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/factum-platform/factum/eventstore"
)

// The short way through the metadata answers what the JSON package answers, for whatever Append writes.
func TestDecodeMetaIsJSON(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-z0-9-]{0,36}`), rapid.SampledFrom([]string{`"`, `\`, `\"`, `","at":"`, "<&>", "\u2028"}))
	rapid.Check(t, func(t *rapid.T) {
		want := eventstore.Meta{
			Command: text.Draw(t, "command"), Correlation: text.Draw(t, "correlation"), Causation: text.Draw(t, "causation"), Actor: text.Draw(t, "actor"),
			At: time.Unix(rapid.Int64Range(-62_135_596_800, 253_402_300_799).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC(),
		}
		raw, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeMeta(string(raw))
		if err != nil || got != want {
			t.Fatalf("%s became %+v, %v", raw, got, err)
		}
	})
}

func TestDecodeMetaTakesAnyJSON(t *testing.T) {
	want := eventstore.Meta{Command: "c", At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	for _, raw := range []string{
		` {"command": "c", "at": "2026-01-02T03:04:05Z"}`, `{"at":"2026-01-02T04:04:05+01:00","command":"c"}`,
		`{"command":"c","correlation":"","causation":"","actor":"","at":"2026-01-02T04:04:05+01:00"}`,
	} {
		if got, err := decodeMeta(raw); err != nil || got != want {
			t.Errorf("%s became %+v, %v", raw, got, err)
		}
	}
	for _, raw := range []string{``, `{`, `{"command":"c","correlation":"","causation":"","actor":"","at":"2026-01-02T03:04:05Z"}}`, `{"at":"yesterday"}`} {
		if got, err := decodeMeta(raw); err == nil {
			t.Errorf("%q became %+v", raw, got)
		}
	}
}
