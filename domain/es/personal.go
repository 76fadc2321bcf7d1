package es

import (
	"encoding/json"
	"log/slog"
)

// Personal is text about a person. In memory it is open; in the log it is sealed under the person's own
// key (package eventstore/seal), and after that key is destroyed it decodes as erased. It prints and logs as
// "[personal]", so that a value cannot slip into a log line, an error or a URL by formatting. The zero value is
// an empty, not erased, text. Deciders carry it; one that looks into it must take an erased value for an empty one.
type Personal struct {
	text   string
	erased bool
}

// Person wraps text as personal.
func Person(text string) Personal { return Personal{text: text} }

// ErasedPersonal is what an erased value decodes to.
func ErasedPersonal() Personal { return Personal{erased: true} }

// Reveal returns the text, "" when it was erased.
func (p Personal) Reveal() string { return p.text }

// Erased tells whether the person's key was destroyed.
func (p Personal) Erased() bool { return p.erased }

// String implements fmt.Stringer and hides the text.
func (Personal) String() string { return "[personal]" }

// GoString implements fmt.GoStringer and hides the text.
func (Personal) GoString() string { return "[personal]" }

// LogValue implements slog.LogValuer and hides the text.
func (Personal) LogValue() slog.Value { return slog.StringValue("[personal]") }

// MarshalJSON writes the open text, or null when it was erased. Only the sealing codec may call it.
func (p Personal) MarshalJSON() ([]byte, error) {
	if p.erased {
		return []byte("null"), nil
	}
	return json.Marshal(p.text)
}

// UnmarshalJSON reads a string; null is an erased value.
func (p *Personal) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*p = ErasedPersonal()
		return nil
	}
	p.erased = false
	return json.Unmarshal(b, &p.text)
}
