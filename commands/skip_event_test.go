package commands_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/domain"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/projection"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/memstore"
	"github.com/factum-platform/factum/eventstore/seal"
)

func TestAnEventIsSkippedOnceAndWithAReason(t *testing.T) {
	types, err := eventstore.NewRegistry(domain.Catalog()...)
	if err != nil {
		t.Fatal(err)
	}
	store := memstore.New()
	codec := &seal.Codec{Registry: types, Keys: &seal.MemoryKeys{}}
	x := commands.NewExecutor(store, codec)
	const log = eventstore.TenantID("t1")
	stream := eventstore.StreamID{Kind: "file", ID: "f"}
	id := eventstore.NewEventID(log, "a", "c", 0)
	_, err = store.Tenant(log).Append(t.Context(), eventstore.Write{Stream: stream, Expected: eventstore.NoStream(), Events: []eventstore.Proposed{{
		ID: id, Type: "file.linked", Schema: 1, Data: []byte(`{}`), Meta: eventstore.Meta{Command: "c"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	good := commands.SkipEvent{Projection: "documents", Stream: stream, Event: id, Reason: "a test wrote it"}
	give := func(command string, change func(*commands.SkipEvent)) (commands.Receipt, error) {
		in := good
		if change != nil {
			change(&in)
		}
		return x.SkipEvent(t.Context(), commands.Caller{UserID: "u", Command: command, At: time.Now()}, log, in)
	}
	for name, c := range map[string]struct {
		change func(*commands.SkipEvent)
		want   string
	}{
		"no reason":      {func(in *commands.SkipEvent) { in.Reason = "" }, "projection.reason"},
		"another event":  {func(in *commands.SkipEvent) { in.Event = eventstore.NewEventID(log, "a", "other", 0) }, "projection.event_unknown"},
		"another stream": {func(in *commands.SkipEvent) { in.Stream.ID = "g" }, "projection.event_unknown"},
		"no projection":  {func(in *commands.SkipEvent) { in.Projection = "No such" }, "not valid: projection"},
		"no stream":      {func(in *commands.SkipEvent) { in.Stream.Kind = "" }, "not valid: stream"},
	} {
		if _, err := give(name, c.change); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %s", name, err, c.want)
		}
	}
	first, err := give("skip", nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := give("skip", nil)
	if err != nil || !again.Replayed || again.Position != first.Position {
		t.Errorf("the same command again: %+v, %v; want the first receipt %+v", again, err, first)
	}
	var refusal *es.Refusal
	if _, err := give("skip twice", nil); !errors.As(err, &refusal) || refusal.Code != "projection.event_skipped" {
		t.Errorf("another command for the same event: %v", err)
	}
	for rec, err := range store.Tenant(log).ReadStream(t.Context(), eventstore.StreamID{Kind: projection.Kind, ID: "documents"}, 1) {
		if err != nil {
			t.Fatal(err)
		}
		fact, err := codec.Decode(t.Context(), rec)
		if skipped, ok := fact.(projection.EventSkipped); err != nil || !ok || skipped.EventID != id.String() || skipped.By != "u" || rec.Version != 1 {
			t.Errorf("the log holds %#v at version %d, %v", fact, rec.Version, err)
		}
	}
}
