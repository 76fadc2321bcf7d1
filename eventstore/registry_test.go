package eventstore_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/eventstore"
)

type (
	renamed struct {
		Title string `json:"title"`
	}
	removed struct{}
)

// upcast renames a field, and fails without it.
func upcast(from, to string) es.Upcast {
	return func(raw json.RawMessage) (json.RawMessage, error) {
		if !strings.Contains(string(raw), from) {
			return nil, fmt.Errorf("no %s", from)
		}
		return json.RawMessage(strings.ReplaceAll(string(raw), from, to)), nil
	}
}

func registry(t *testing.T) *eventstore.Registry {
	t.Helper()
	r, err := eventstore.NewRegistry(es.Event[renamed]("thing.renamed", upcast("label", "name"), upcast("name", "title")), es.Event[removed]("thing.removed"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRegistryUpcastsToTheCurrentSchema(t *testing.T) {
	r := registry(t)
	for schema, data := range map[uint16]string{1: `{"label":"x"}`, 2: `{"name":"x"}`, 3: `{"title":"x"}`} {
		typ, raw, err := r.Current(eventstore.Recorded{Proposed: eventstore.Proposed{Type: "thing.renamed", Schema: schema, Data: []byte(data)}})
		if err != nil || string(raw) != `{"title":"x"}` {
			t.Fatalf("schema %d: %s, %v", schema, raw, err)
		}
		if fact, err := typ.Decode(raw); err != nil || fact != (renamed{"x"}) {
			t.Errorf("schema %d: %#v, %v", schema, fact, err)
		}
	}
}

func TestRegistryHaltsReaders(t *testing.T) {
	r := registry(t)
	current := func(name string, schema uint16) error {
		_, _, err := r.Current(eventstore.Recorded{Proposed: eventstore.Proposed{Type: name, Schema: schema, Data: []byte(`{}`)}})
		return err
	}
	var unknown *eventstore.UnknownTypeError
	if err := current("thing.exploded", 1); !errors.As(err, &unknown) || unknown.Type != "thing.exploded" {
		t.Errorf("an unknown type: %v", err)
	}
	var future *eventstore.FutureSchemaError
	if err := current("thing.removed", 2); !errors.As(err, &future) || future.Schema != 2 || future.Know != 1 {
		t.Errorf("a newer schema: %v", err)
	}
	if err := current("thing.removed", 0); err == nil {
		t.Error("schema 0 was accepted")
	}
	if err := current("thing.renamed", 1); err == nil || !strings.Contains(err.Error(), "no label") {
		t.Errorf("an upcaster that fails: %v", err)
	}
}

func TestRegistryKnowsEachTypeOnce(t *testing.T) {
	if _, err := eventstore.NewRegistry(es.Event[renamed]("a"), es.Event[removed]("a")); err == nil {
		t.Error("one name for two types was accepted")
	}
	if _, err := eventstore.NewRegistry(es.Event[renamed]("a"), es.Event[renamed]("b")); err == nil {
		t.Error("two names for one type were accepted")
	}
	r := registry(t)
	if types := r.Types(); len(types) != 2 || types[0].Name != "thing.removed" || types[1].Name != "thing.renamed" {
		t.Errorf("types %v; want them by name", types)
	}
	if typ, err := r.TypeOf(renamed{}); err != nil || typ.Name != "thing.renamed" {
		t.Errorf("type of renamed: %s, %v", typ.Name, err)
	}
	for _, fact := range []any{&renamed{}, nil, 7} {
		if _, err := r.TypeOf(fact); err == nil {
			t.Errorf("%T has a type", fact)
		}
	}
}

func TestCanonical(t *testing.T) {
	type inner struct {
		B, A int
	}
	for want, v := range map[string]any{
		`{"A":2,"B":1}`:                        inner{1, 2},
		`{"a":[{"A":0,"B":0}],"b":null}`:       map[string]any{"b": nil, "a": []inner{{}}},
		`{"a":{"x":1,"y":[3,1,2]},"b":"<&>é"}`: json.RawMessage(` {"b" : "\u003c\u0026>\u00e9", "a":{"y":[3,1 ,2],"x":1}} `),
		`[12345678901234567890123,1.10,1e5]`:   json.RawMessage(`[12345678901234567890123, 1.10, 1e5]`), // numbers as written
		`"line\nbreak"`:                        "line\nbreak",
		`null`:                                 nil,
	} {
		if got, err := eventstore.Canonical(v); err != nil || string(got) != want {
			t.Errorf("%v: %s, %v; want %s", v, got, err, want)
		}
	}
	for _, v := range []any{func() {}, json.RawMessage(`{`)} {
		if got, err := eventstore.Canonical(v); err == nil {
			t.Errorf("%T became %s", v, got)
		}
	}
}

func TestCanonicalOfCanonicalIsItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.MapOf(rapid.String(), rapid.SliceOf(rapid.OneOf(rapid.String().AsAny(), rapid.Int64().AsAny(), rapid.Bool().AsAny()))).Draw(t, "value")
		once, err := eventstore.Canonical(v)
		if err != nil {
			t.Fatal(err)
		}
		twice, err := eventstore.Canonical(json.RawMessage(once))
		if err != nil || string(twice) != string(once) {
			t.Fatalf("%s became %s, %v", once, twice, err)
		}
	})
}
