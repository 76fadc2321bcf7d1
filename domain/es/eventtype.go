package es

import (
	"encoding/json"
	"fmt"
	"reflect"
)

// Upcast turns the JSON of one schema version of an event into the next one. It is pure and total, and sees
// sealed personal fields as opaque values.
type Upcast func(json.RawMessage) (json.RawMessage, error)

// EventType describes one event type: its wire name (written, never reflected), its Go type, its upcasters and
// which of its fields are personal. The current schema version is the number of upcasters plus one, so a hole in the
// versions cannot be expressed.
type EventType struct {
	// Name is the wire name, "document.uploaded".
	Name string
	// Go is the event's struct type.
	Go reflect.Type
	// Upcasts lead from schema 1 to the current one, in order.
	Upcasts []Upcast
	// Personal maps the JSON name of each personal top-level field to the JSON name of the top-level field that
	// holds the opaque id of the person it is about.
	Personal map[string]string
	// Safe lists the JSON names of the plain text fields that never hold personal data. A test fails for any text
	// field of an event that is neither personal nor listed here.
	Safe []string

	decode func(json.RawMessage) (any, error)
}

// Event describes the event type E under the wire name.
func Event[E any](name string, upcasts ...Upcast) EventType {
	return EventType{
		Name: name, Go: reflect.TypeFor[E](), Upcasts: upcasts, Personal: map[string]string{},
		decode: func(raw json.RawMessage) (any, error) {
			var e E
			if err := json.Unmarshal(raw, &e); err != nil {
				return nil, fmt.Errorf("es: decode %s: %w", name, err)
			}
			return e, nil
		},
	}
}

// About declares fields as personal, of the person whose id the field subject holds.
func (t EventType) About(subject string, fields ...string) EventType {
	for _, f := range fields {
		t.Personal[f] = subject
	}
	return t
}

// WithSafe declares plain text fields that never hold personal data.
func (t EventType) WithSafe(fields ...string) EventType {
	t.Safe = append(t.Safe, fields...)
	return t
}

// Schema is the current schema version, from 1.
func (t EventType) Schema() uint16 { return uint16(len(t.Upcasts) + 1) }

// Decode reads the JSON of the current schema into the event's Go type, by value.
func (t EventType) Decode(raw json.RawMessage) (any, error) { return t.decode(raw) }
