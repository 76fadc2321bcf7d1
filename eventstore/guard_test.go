package eventstore_test

import (
	"errors"
	"testing"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/memstore"
)

func TestGuardRefusesWhatNoReaderKnows(t *testing.T) {
	s := memstore.New()
	defer s.Close()
	l := eventstore.Guard(s, registry(t)).Tenant("alpha")
	write := func(name string, schema uint16) eventstore.Write {
		id := eventstore.NewEventID("alpha", "tester", name, int(schema))
		return eventstore.Write{
			Stream: eventstore.StreamID{Kind: "thing", ID: id.String()}, Expected: eventstore.NoStream(),
			Events: []eventstore.Proposed{{ID: id, Type: name, Schema: schema, Data: []byte(`{}`)}},
		}
	}
	good := write("thing.renamed", 3)
	_, err := l.Append(t.Context(), good, write("thing.exploded", 1))
	var unknown *eventstore.UnknownTypeError
	if !errors.As(err, &unknown) || unknown.Type != "thing.exploded" {
		t.Errorf("an unknown type: %v", err)
	}
	_, err = l.Append(t.Context(), good, write("thing.removed", 2))
	var future *eventstore.FutureSchemaError
	if !errors.As(err, &future) || future.Type != "thing.removed" || future.Schema != 2 || future.Know != 1 {
		t.Errorf("an unregistered schema: %v", err)
	}
	var invalid *eventstore.InvalidError
	if _, err = l.Append(t.Context(), good, write("thing.removed", 0)); !errors.As(err, &invalid) {
		t.Errorf("schema 0: %v", err)
	}
	if head, err := l.Head(t.Context()); err != nil || head != 0 {
		t.Errorf("%d events were written, %v; want none", head, err)
	}
	for schema := uint16(1); schema <= 3; schema++ { // older ones stay writable: readers are deployed before writers
		if _, err := l.Append(t.Context(), write("thing.renamed", schema)); err != nil {
			t.Errorf("schema %d: %v", schema, err)
		}
	}
}
