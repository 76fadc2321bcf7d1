package eventstore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"sort"

	"github.com/factum-platform/factum/domain/es"
)

// Registry maps wire names to event types. It is immutable after [NewRegistry] and safe for concurrent use.
type Registry struct {
	byName map[string]es.EventType
	byType map[reflect.Type]es.EventType
}

// NewRegistry registers the types; a name or a Go type that occurs twice is an error.
func NewRegistry(types ...es.EventType) (*Registry, error) {
	r := &Registry{map[string]es.EventType{}, map[reflect.Type]es.EventType{}}
	for _, t := range types {
		if _, dup := r.byName[t.Name]; dup {
			return nil, fmt.Errorf("eventstore: event type %s is registered twice", t.Name)
		}
		if prior, dup := r.byType[t.Go]; dup {
			return nil, fmt.Errorf("eventstore: %s is registered as %s and as %s", t.Go, prior.Name, t.Name)
		}
		r.byName[t.Name], r.byType[t.Go] = t, t
	}
	return r, nil
}

// UnknownTypeError says that this binary does not know an event's type. In the log it halts the reader; an append of it is refused.
type UnknownTypeError struct{ Type string }

// Error implements error.
func (e *UnknownTypeError) Error() string {
	return fmt.Sprintf("eventstore: unknown event type %q: deploy the version that knows it", e.Type)
}

// FutureSchemaError says that an event has a newer schema than this binary knows. In the log it halts the reader; an append of it is
// refused.
type FutureSchemaError struct {
	Type         string
	Schema, Know uint16
}

// Error implements error.
func (e *FutureSchemaError) Error() string {
	return fmt.Sprintf("eventstore: %s has schema %d, this binary knows up to %d: deploy readers before writers", e.Type, e.Schema, e.Know)
}

// Types returns the registered types ordered by name.
func (r *Registry) Types() []es.EventType {
	out := make([]es.EventType, 0, len(r.byName))
	for _, t := range r.byName {
		out = append(out, t)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// TypeOf returns the event type of a fact (a value, not a pointer). Error: *[UnknownTypeError] with the Go type's name.
func (r *Registry) TypeOf(fact any) (es.EventType, error) {
	t, ok := r.byType[reflect.TypeOf(fact)]
	if !ok {
		return es.EventType{}, &UnknownTypeError{fmt.Sprintf("%T", fact)}
	}
	return t, nil
}

// Check tells whether this binary knows the type in this schema. Errors: *[UnknownTypeError], *[FutureSchemaError].
func (r *Registry) Check(name string, schema uint16) error {
	t, ok := r.byName[name]
	switch {
	case !ok:
		return &UnknownTypeError{name}
	case schema > t.Schema():
		return &FutureSchemaError{name, schema, t.Schema()}
	default:
		return nil
	}
}

// Current returns the type of a recorded event and its data, upcast to the current schema. Errors: *[UnknownTypeError],
// *[FutureSchemaError], or what an upcaster answered.
func (r *Registry) Current(rec Recorded) (es.EventType, json.RawMessage, error) {
	if err := r.Check(rec.Type, rec.Schema); err != nil {
		return es.EventType{}, nil, err
	}
	t := r.byName[rec.Type]
	if rec.Schema == 0 {
		return t, nil, fmt.Errorf("eventstore: %s has schema 0", rec.Type)
	}
	raw := json.RawMessage(rec.Data)
	for i := rec.Schema; i < t.Schema(); i++ {
		var err error
		if raw, err = t.Upcasts[i-1](raw); err != nil {
			return t, nil, fmt.Errorf("eventstore: upcast %s from schema %d: %w", rec.Type, i, err)
		}
	}
	return t, raw, nil
}

// Canonical returns v as canonical JSON: keys sorted, no HTML escaping, no insignificant blanks, numbers as written. The ledger
// hashes these bytes, so equal values give equal bytes.
func Canonical(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("eventstore: canonical JSON: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return nil, fmt.Errorf("eventstore: canonical JSON: %w", err)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(tree); err != nil { // maps are written with sorted keys
		return nil, fmt.Errorf("eventstore: canonical JSON: %w", err)
	}
	return bytes.TrimRight(out.Bytes(), "\n"), nil
}
