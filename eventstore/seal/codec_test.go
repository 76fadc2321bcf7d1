package seal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/seal"
)

type registered struct {
	UserID string      `json:"user_id"`
	Email  es.Personal `json:"email"`
	Name   es.Personal `json:"name"`
	At     time.Time   `json:"at"`
}

type counted struct {
	N int `json:"n"`
}

var stream = eventstore.StreamID{Kind: "user", ID: "mina"}

func codec(t *testing.T, types ...es.EventType) *seal.Codec {
	t.Helper()
	if types == nil {
		types = []es.EventType{es.Event[registered]("user.registered").About("user_id", "email", "name"), es.Event[counted]("thing.counted")}
	}
	r, err := eventstore.NewRegistry(types...)
	if err != nil {
		t.Fatal(err)
	}
	return &seal.Codec{Registry: r, Keys: &seal.MemoryKeys{}}
}

var mina = registered{UserID: "u1", Email: es.Person("mina@example.org"), Name: es.Person("Mina <Muster> & Söhne 🙂"), At: time.Date(2026, 1, 2, 3, 4, 5, 678_000, time.UTC)}

func encode(t *testing.T, c *seal.Codec, fact any) eventstore.Recorded {
	t.Helper()
	p, err := c.Encode(t.Context(), "a", stream, eventstore.EventID{1}, fact)
	if err != nil {
		t.Fatal(err)
	}
	return eventstore.Recorded{Tenant: "a", Stream: stream, Version: 1, Position: 1, Proposed: p}
}

func TestFactsSurviveSealing(t *testing.T) {
	c := codec(t)
	for _, fact := range []any{mina, registered{UserID: "u1"}, counted{7}} {
		rec := encode(t, c, fact)
		if rec.Schema != 1 || rec.ID != (eventstore.EventID{1}) {
			t.Errorf("proposed %+v", rec.Proposed)
		}
		if got, err := c.Decode(t.Context(), rec); err != nil || got != fact {
			t.Errorf("decoded %#v, %v; want %#v", got, err, fact)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		fact := registered{UserID: "u1", Email: es.Person(rapid.String().Draw(t, "email")), Name: es.Person(rapid.String().Draw(t, "name"))}
		p, err := c.Encode(context.Background(), "a", stream, eventstore.EventID{2}, fact)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Decode(context.Background(), eventstore.Recorded{Tenant: "a", Stream: stream, Proposed: p})
		if err != nil || got != fact {
			t.Fatalf("decoded %#v, %v", got, err)
		}
	})
}

func TestSealedBytesHoldNoPersonalText(t *testing.T) {
	c := codec(t)
	one, two := encode(t, c, mina), encode(t, c, mina)
	for _, text := range []string{"mina@", "example.org", "Muster", "Söhne"} {
		if bytes.Contains(one.Data, []byte(text)) {
			t.Errorf("the sealed event holds %q: %s", text, one.Data)
		}
	}
	if bytes.Equal(one.Data, two.Data) {
		t.Error("sealing twice gives the same bytes: the nonce is not fresh")
	}
	if canonical, err := eventstore.Canonical(json.RawMessage(one.Data)); err != nil || !bytes.Equal(canonical, one.Data) {
		t.Errorf("the sealed event is not canonical: %s, %v", one.Data, err)
	}
}

func TestErasedPersonsDecode(t *testing.T) {
	c := codec(t)
	rec, other := encode(t, c, mina), encode(t, c, registered{UserID: "u2", Email: es.Person("x")})
	for range 2 {
		if err := c.Keys.Erase(t.Context(), "a", "u1"); err != nil {
			t.Fatal(err)
		}
	}
	got, err := c.Decode(t.Context(), rec)
	if want := (registered{UserID: "u1", Email: es.ErasedPersonal(), Name: es.ErasedPersonal(), At: mina.At}); err != nil || got != want {
		t.Errorf("decoded %#v, %v; want it without personal texts", got, err)
	}
	if got, err := c.Decode(t.Context(), other); err != nil || got.(registered).Email.Reveal() != "x" {
		t.Errorf("another person: %#v, %v", got, err)
	}
	if _, err := c.Encode(t.Context(), "a", stream, eventstore.EventID{3}, mina); !errors.Is(err, seal.ErrErased) {
		t.Errorf("a new fact about an erased person: %v", err)
	}
	if _, err := c.Encode(t.Context(), "b", stream, eventstore.EventID{3}, mina); err != nil {
		t.Errorf("the same person at another tenant: %v", err)
	}
}

// A sealed value is bound to its place: whatever is changed or moved does not open.
func TestTamperingIsNoticed(t *testing.T) {
	c := codec(t)
	field := func(rec *eventstore.Recorded, change func(fields map[string]map[string]any)) {
		var all map[string]json.RawMessage
		if err := json.Unmarshal(rec.Data, &all); err != nil {
			t.Fatal(err)
		}
		fields := map[string]map[string]any{}
		for _, name := range []string{"email", "name"} {
			if err := json.Unmarshal(all[name], new(map[string]any)); err != nil {
				t.Fatal(err)
			}
			m := map[string]any{}
			if err := json.Unmarshal(all[name], &m); err != nil {
				t.Fatal(err)
			}
			fields[name] = m
		}
		change(fields)
		for name, m := range fields {
			raw, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			all[name] = raw
		}
		raw, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		rec.Data = raw
	}
	type fields = map[string]map[string]any
	for name, tamper := range map[string]func(rec *eventstore.Recorded){
		"another tenant": func(rec *eventstore.Recorded) { rec.Tenant = "b" },
		"another stream": func(rec *eventstore.Recorded) { rec.Stream.ID = "max" },
		"another event":  func(rec *eventstore.Recorded) { rec.ID[0]++ },
		"another field": func(rec *eventstore.Recorded) {
			field(rec, func(f fields) {
				f["email"], f["name"] = f["name"], f["email"]
				f["email"]["p"], f["name"]["p"] = "email", "name"
			})
		},
		"another path":   func(rec *eventstore.Recorded) { field(rec, func(f fields) { f["email"]["p"] = "name" }) },
		"another schema": func(rec *eventstore.Recorded) { field(rec, func(f fields) { f["email"]["v"] = 2 }) },
		"another person": func(rec *eventstore.Recorded) { field(rec, func(f fields) { f["email"]["k"] = "u2" }) },
		"a bad nonce":    func(rec *eventstore.Recorded) { field(rec, func(f fields) { f["email"]["n"] = "AAAA" }) },
		"another nonce":  func(rec *eventstore.Recorded) { field(rec, func(f fields) { f["email"]["n"] = f["name"]["n"] }) },
		"no base64":      func(rec *eventstore.Recorded) { field(rec, func(f fields) { f["email"]["c"] = "*" }) },
		"a cut cipher":   func(rec *eventstore.Recorded) { field(rec, func(f fields) { f["email"]["c"] = "" }) },
		"open text":      func(rec *eventstore.Recorded) { rec.Data = []byte(`{"user_id":"u1","email":"open","name":"open"}`) },
		"no object":      func(rec *eventstore.Recorded) { rec.Data = []byte(`[]`) },
	} {
		rec := encode(t, c, mina)
		tamper(&rec)
		got, err := c.Decode(t.Context(), rec)
		if err == nil {
			t.Errorf("%s: decoded %#v", name, got)
			continue
		}
		if strings.Contains(err.Error(), "mina@") {
			t.Errorf("%s: the error tells the secret: %v", name, err)
		}
	}
}

// An upcaster may rename a sealed field: the envelope remembers the path and schema it was sealed with.
func TestRenamedSealedFieldOpens(t *testing.T) {
	type before struct {
		UserID string      `json:"user_id"`
		Mail   es.Personal `json:"mail"`
	}
	rec := encode(t, codec(t, es.Event[before]("user.registered").About("user_id", "mail")), before{"u1", es.Person("mina@example.org")})
	if _, err := codec(t).Decode(t.Context(), rec); err == nil {
		t.Error("it opened with other keys")
	}
	old := codec(t, es.Event[before]("user.registered").About("user_id", "mail"))
	rec = encode(t, old, before{"u1", es.Person("mina@example.org")})
	renamed := codec(t, es.Event[registered]("user.registered", func(raw json.RawMessage) (json.RawMessage, error) {
		return json.RawMessage(strings.Replace(string(raw), `"mail"`, `"email"`, 1)), nil
	}).About("user_id", "email"))
	renamed.Keys = old.Keys
	got, err := renamed.Decode(t.Context(), rec)
	if err != nil || got.(registered).Email.Reveal() != "mina@example.org" {
		t.Errorf("decoded %#v, %v", got, err)
	}
}

func TestWhatCannotBeEncoded(t *testing.T) {
	c := codec(t)
	for name, fact := range map[string]any{"an unknown type": 7, "a pointer": &mina, "nobody's text": registered{Email: es.Person("x")}} {
		if p, err := c.Encode(t.Context(), "a", stream, eventstore.EventID{1}, fact); err == nil {
			t.Errorf("%s became %s", name, p.Data)
		}
	}
	rec := encode(t, c, counted{1})
	rec.Schema = 9
	var future *eventstore.FutureSchemaError
	if _, err := c.Decode(t.Context(), rec); !errors.As(err, &future) {
		t.Errorf("a future schema: %v", err)
	}
	short := codec(t)
	short.Keys = shortKeys{}
	if _, err := short.Encode(t.Context(), "a", stream, eventstore.EventID{1}, mina); err == nil {
		t.Error("a key of 16 bytes was accepted")
	}
}

type shortKeys struct{ seal.Keys }

func (shortKeys) For(context.Context, string, string) ([]byte, error) { return make([]byte, 16), nil }
