package domain_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"pgregory.net/rapid"

	"github.com/factum-platform/factum/domain"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/seal"
)

// object is a JSON Schema of an event's data.
type object struct {
	Schema     string                     `json:"$schema"`
	Title      string                     `json:"title"`
	Type       string                     `json:"type"`
	Properties map[string]json.RawMessage `json:"properties"`
	Required   []string                   `json:"required"`
}

// sealed is what a personal field is in the log; see eventstore/seal.
const sealed = `{"type":"object","description":"sealed under the key of the person whose id is in %s","properties":{` +
	`"k":{"type":"string","description":"the person"},"n":{"type":"string","contentEncoding":"base64","description":"nonce"},` +
	`"c":{"type":"string","contentEncoding":"base64","description":"AES-256-GCM ciphertext"},` +
	`"p":{"type":"string","description":"the field when it was sealed"},"v":{"type":"integer","description":"the version when it was sealed"}},` +
	`"required":["k","n","c","p","v"]}`

// schemaOf derives the schema of the event's current version from its Go type.
func schemaOf(t *testing.T, event es.EventType) object {
	t.Helper()
	s := object{
		Schema: "https://json-schema.org/draft/2020-12/schema", Title: fmt.Sprintf("%s version %d", event.Name, event.Schema()),
		Type: "object", Properties: map[string]json.RawMessage{}, Required: []string{},
	}
	types := huma.NewMapRegistry("#/", huma.DefaultSchemaNamer)
	for i := range event.Go.NumField() {
		field := event.Go.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero") {
			s.Required = append(s.Required, name)
		}
		if subject, personal := event.Personal[name]; personal {
			s.Properties[name] = json.RawMessage(fmt.Sprintf(sealed, subject))
			continue
		}
		raw, err := json.Marshal(huma.SchemaFromType(types, field.Type))
		if err != nil {
			t.Fatal(err)
		}
		s.Properties[name] = raw
	}
	if n := len(types.Map()); n > 0 {
		t.Fatalf("%s: %d types of its fields are not plain; teach schemaOf to write them in place", event.Name, n)
	}
	return s
}

// TestSchemas: an event that changes its shape needs a new version. A version's schema is written once; after that it may gain
// properties that are not required, and nothing else.
func TestSchemas(t *testing.T) {
	files := map[string]bool{}
	for _, event := range domain.Catalog() {
		for version := uint16(1); version <= event.Schema(); version++ {
			path := filepath.Join("schemas", fmt.Sprintf("%s.v%d.json", event.Name, version))
			files[path] = true
			stored, err := os.ReadFile(path)
			if version < event.Schema() {
				if err != nil {
					t.Errorf("%s version %d has no schema: %v", event.Name, version, err)
				}
				continue
			}
			current := schemaOf(t, event)
			raw, marshalErr := json.MarshalIndent(current, "", "  ")
			if marshalErr != nil {
				t.Fatal(marshalErr)
			}
			raw = append(raw, '\n')
			if *record && (os.IsNotExist(err) || err == nil && extends(t, current, stored)) {
				stored, err = raw, os.WriteFile(path, raw, 0o600)
			}
			if err != nil {
				t.Errorf("%s version %d has no schema: %v", event.Name, version, err)
			} else if !bytes.Equal(stored, raw) {
				t.Errorf("%s has changed without a new version: it is\n%s\nand was\n%s\nGive it an upcaster; or record it (-record) if all it gained are fields with omitempty",
					event.Name, raw, stored)
			}
		}
	}
	all, err := filepath.Glob("schemas/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		if !files[path] {
			t.Errorf("%s is of no event that this binary reads; retired types stay registered, or old logs stop their readers", path)
		}
	}
}

// TestSchemasDescribeTheLog: what is written has the members that its schema names, sealed ones included.
func TestSchemasDescribeTheLog(t *testing.T) {
	registry, err := eventstore.NewRegistry(domain.Catalog()...)
	if err != nil {
		t.Fatal(err)
	}
	codec := &seal.Codec{Registry: registry, Keys: &seal.MemoryKeys{}}
	for _, event := range domain.Catalog() {
		fact, err := event.Decode(example(t, event))
		if err != nil {
			t.Fatal(err)
		}
		written, err := codec.Encode(t.Context(), "alpha", eventstore.StreamID{Kind: "thing", ID: "1"}, eventstore.EventID{1}, fact)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := domain.Schema(event.Name, event.Schema())
		if err != nil {
			t.Fatal(err)
		}
		describes(t, event.Name, raw, written.Data)
	}
	if _, err := domain.Schema("user.registered", 99); err == nil {
		t.Error("a version that never was has a schema")
	}
}

// describes compares the members of JSON objects with those that the schema requires, down to every object that it describes.
func describes(t *testing.T, what string, schema, data json.RawMessage) {
	t.Helper()
	var s object
	var members map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(schema, &s), json.Unmarshal(data, &members)); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if got, want := slices.Sorted(maps.Keys(members)), slices.Sorted(slices.Values(s.Required)); !slices.Equal(got, want) {
		t.Errorf("%s has the members %v; its schema requires %v", what, got, want)
	}
	for name, property := range s.Properties {
		var kind struct{ Type string }
		if err := json.Unmarshal(property, &kind); err != nil {
			t.Fatal(err)
		}
		var value any
		if err := json.Unmarshal(members[name], &value); err != nil {
			t.Fatal(err)
		}
		switch value.(type) {
		case string:
			if kind.Type != "string" {
				t.Errorf("%s.%s is a string; its schema says %s", what, name, kind.Type)
			}
		case float64:
			if kind.Type != "integer" {
				t.Errorf("%s.%s is a number; its schema says %s", what, name, kind.Type)
			}
		case bool:
			if kind.Type != "boolean" {
				t.Errorf("%s.%s is a boolean; its schema says %s", what, name, kind.Type)
			}
		default:
			if kind.Type != "object" {
				t.Errorf("%s.%s is %T; its schema says %s", what, name, value, kind.Type)
			}
			describes(t, what+"."+name, property, members[name])
		}
	}
}

// extends tells whether the schema is the stored one, but for properties that are not required.
func extends(t *testing.T, current object, stored []byte) bool {
	t.Helper()
	var was object
	if err := json.Unmarshal(stored, &was); err != nil {
		t.Fatal(err)
	}
	for name, property := range was.Properties {
		var a, b any
		if json.Unmarshal(property, &a) != nil || json.Unmarshal(current.Properties[name], &b) != nil || !reflect.DeepEqual(a, b) {
			return false
		}
	}
	return slices.Equal(current.Required, was.Required)
}

func TestExtends(t *testing.T) {
	stored := []byte(`{"properties":{"a":{"type":"string"}},"required":["a"]}`)
	property := func(kind string) json.RawMessage { return json.RawMessage(`{ "type": "` + kind + `" }`) }
	for name, test := range map[string]struct {
		current object
		want    bool
	}{
		"the same":         {object{Properties: map[string]json.RawMessage{"a": property("string")}, Required: []string{"a"}}, true},
		"an optional more": {object{Properties: map[string]json.RawMessage{"a": property("string"), "b": property("string")}, Required: []string{"a"}}, true},
		"a required more":  {object{Properties: map[string]json.RawMessage{"a": property("string"), "b": property("string")}, Required: []string{"a", "b"}}, false},
		"another type":     {object{Properties: map[string]json.RawMessage{"a": property("integer")}, Required: []string{"a"}}, false},
		"one less":         {object{Properties: map[string]json.RawMessage{"b": property("string")}, Required: []string{"a"}}, false},
		"now optional":     {object{Properties: map[string]json.RawMessage{"a": property("string")}, Required: []string{}}, false},
	} {
		if got := extends(t, test.current, stored); got != test.want {
			t.Errorf("%s: %v; want %v", name, got, test.want)
		}
	}
}

// TestDecodingNeverPanics: whatever lies in the log under a known name answers a fact or an error.
func TestDecodingNeverPanics(t *testing.T) {
	registry, err := eventstore.NewRegistry(domain.Catalog()...)
	if err != nil {
		t.Fatal(err)
	}
	types := registry.Types()
	value := rapid.OneOf(rapid.Just[any](nil), rapid.String().AsAny(), rapid.Int64().AsAny(), rapid.Float64Range(-1e9, 1e9).AsAny(), rapid.Bool().AsAny(),
		rapid.SliceOfN(rapid.String().AsAny(), 0, 2).AsAny(), rapid.MapOfN(rapid.String(), rapid.String().AsAny(), 0, 2).AsAny())
	rapid.Check(t, func(t *rapid.T) {
		event := rapid.SampledFrom(types).Draw(t, "event")
		version := rapid.Uint16Range(1, event.Schema()).Draw(t, "version")
		golden, err := os.ReadFile(filepath.Join("testdata", "events", fmt.Sprintf("%s.v%d.json", event.Name, version)))
		if err != nil {
			t.Fatal(err)
		}
		var data map[string]any
		if err := json.Unmarshal(golden, &data); err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			name := rapid.SampledFrom(slices.Sorted(maps.Keys(data))).Draw(t, "field")
			if rapid.Bool().Draw(t, "removed") && len(data) > 1 {
				delete(data, name)
			} else {
				data[name] = value.Draw(t, "value")
			}
		}
		raw, err := json.Marshal(data)
		if err != nil {
			t.Fatal(err)
		}
		typ, upcast, err := registry.Current(eventstore.Recorded{Proposed: eventstore.Proposed{Type: event.Name, Schema: version, Data: raw}})
		if err != nil {
			return // an upcaster refused it
		}
		fact, err := typ.Decode(upcast)
		if err == nil && reflect.TypeOf(fact) != event.Go {
			t.Fatalf("%s decoded as %T", event.Name, fact)
		}
	})
}
