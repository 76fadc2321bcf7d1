package es_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/factum-platform/factum/domain/es"
)

// A lamp that can be lit until it is broken.
type (
	lamp    struct{ lit, broken bool }
	command string
	fact    string
)

var decider = es.Decider[lamp, command, fact]{
	Initial: func() lamp { return lamp{} },
	Decide: func(l lamp, c command) ([]fact, error) {
		switch {
		case l.broken:
			return nil, es.Refuse("lamp.broken", "the lamp broke at %d volts", 240)
		case c == "light" && !l.lit:
			return []fact{"lit"}, nil
		case c == "smash":
			return []fact{"dimmed", "broken"}, nil
		}
		return nil, nil
	},
	Evolve: func(l lamp, f fact) lamp {
		switch f {
		case "lit":
			l.lit = true
		case "dimmed":
			l.lit = false
		case "broken":
			l.broken = true
		}
		return l
	},
}

func TestStories(t *testing.T) {
	es.Given(t, decider).When("light").Then("lit")
	es.Given(t, decider, "lit").When("light").Then()
	es.Given(t, decider, "lit").When("smash").Then("dimmed", "broken")
	es.Given(t, decider, "broken").When("light").Refused("lamp.broken")
}

// failing records what a sentence complains about.
type failing struct{ complaints []string }

func (*failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) {
	f.complaints = append(f.complaints, fmt.Sprintf(format, args...))
}

func TestStoriesCanFail(t *testing.T) {
	for name, tell := range map[string]func(es.T){
		"another fact":        func(t es.T) { es.Given(t, decider).When("light").Then("dimmed") },
		"fewer facts":         func(t es.T) { es.Given(t, decider).When("smash").Then("dimmed") },
		"no fact":             func(t es.T) { es.Given(t, decider, "lit").When("light").Then("lit") },
		"an unwanted fact":    func(t es.T) { es.Given(t, decider).When("light").Then() },
		"an unwanted refusal": func(t es.T) { es.Given(t, decider, "broken").When("light").Then() },
		"no refusal":          func(t es.T) { es.Given(t, decider).When("light").Refused("lamp.broken") },
		"another refusal":     func(t es.T) { es.Given(t, decider, "broken").When("light").Refused("lamp.lit") },
		"another error": func(t es.T) {
			d := decider
			d.Decide = func(lamp, command) ([]fact, error) { return nil, errors.New("lamp.broken") }
			es.Given(t, d).When("light").Refused("lamp.broken")
		},
		"a refusal with facts": func(t es.T) {
			d := decider
			d.Decide = func(lamp, command) ([]fact, error) { return []fact{"lit"}, es.Refuse("x", "y") }
			es.Given(t, d).When("light").Refused("x")
		},
	} {
		var f failing
		tell(&f)
		if len(f.complaints) != 1 {
			t.Errorf("%s: %d complaints %q; want 1", name, len(f.complaints), f.complaints)
		}
	}
}

func TestFoldingInPartsIsFolding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		facts := rapid.SliceOf(rapid.SampledFrom([]fact{"lit", "dimmed", "broken"})).Draw(t, "facts")
		cut := rapid.IntRange(0, len(facts)).Draw(t, "cut")
		whole := decider.Fold(decider.Initial(), facts...)
		if parts := decider.Fold(decider.Fold(decider.Initial(), facts[:cut]...), facts[cut:]...); parts != whole {
			t.Fatalf("folded in parts %+v; whole %+v", parts, whole)
		}
	})
}

func TestRefusal(t *testing.T) {
	err := es.Refuse("lamp.broken", "the lamp broke at %d volts", 240)
	if got := err.Error(); got != "lamp.broken: the lamp broke at 240 volts" {
		t.Errorf("it reads %q", got)
	}
	var r *es.Refusal
	if !errors.As(err, &r) || r.Code != "lamp.broken" {
		t.Errorf("%#v is no refusal with that code", err)
	}
}

func TestKey(t *testing.T) {
	// Written down once: ids in logs that exist must never change.
	if got, want := es.Key("a", "b"), "3c9d5910-45bc-8876-b9d0-399bbfb05c6a"; got != want {
		t.Errorf("%s; want %s", got, want)
	}
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	keys := map[string][]string{}
	for _, parts := range [][]string{nil, {""}, {"", ""}, {"a", "b"}, {"ab"}, {"ab", ""}, {"", "ab"}, {"a", "b", ""}, {"b", "a"}} {
		key := es.Key(parts...)
		if !form.MatchString(key) {
			t.Errorf("%q is no version 8 UUID (RFC 9562 §5.8)", key)
		}
		if other, dup := keys[key]; dup {
			t.Errorf("%q and %q have the same key", parts, other)
		}
		keys[key] = parts
		if again := es.Key(parts...); again != key {
			t.Errorf("%q has the keys %s and %s", parts, key, again)
		}
	}
}

func TestPersonalHidesItself(t *testing.T) {
	const secret = "Mina Muster"
	p := es.Person(secret)
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "person", p)
	for verb, shown := range map[string]string{
		"%v": fmt.Sprintf("%v", p), "%+v": fmt.Sprintf("%+v", struct{ P es.Personal }{p}), "%#v": fmt.Sprintf("%#v", struct{ P es.Personal }{p}),
		"%s": p.String(), "%q": fmt.Sprintf("%q", p), "slog": log.String(),
	} {
		if strings.Contains(shown, secret) || !strings.Contains(shown, "[personal]") {
			t.Errorf("%s shows %s", verb, shown)
		}
	}
	if p.Reveal() != secret || p.Erased() {
		t.Errorf("it reveals %q, erased %v", p.Reveal(), p.Erased())
	}
}

func TestPersonalAsJSON(t *testing.T) {
	for _, want := range []es.Personal{es.Person("Grüße <&> 🙂"), es.Person(""), es.ErasedPersonal()} {
		raw, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got := es.Person("what was there before")
		if err := json.Unmarshal(raw, &got); err != nil || got != want {
			t.Errorf("%s became %q, erased %v, %v", raw, got.Reveal(), got.Erased(), err)
		}
	}
	var p es.Personal
	if err := json.Unmarshal([]byte(`7`), &p); err == nil {
		t.Error("a number was taken for personal text")
	}
	if es.ErasedPersonal().Reveal() != "" {
		t.Error("an erased text is not empty")
	}
}

func TestEventType(t *testing.T) {
	type renamed struct {
		Name es.Personal `json:"name"`
		Who  string      `json:"who"`
	}
	keep := func(raw json.RawMessage) (json.RawMessage, error) { return raw, nil }
	e := es.Event[renamed]("thing.renamed", keep, keep).About("who", "name").WithSafe("who")
	if e.Schema() != 3 || e.Personal["name"] != "who" || len(e.Safe) != 1 {
		t.Errorf("%+v, schema %d; want schema 3, name about who", e, e.Schema())
	}
	got, err := e.Decode(json.RawMessage(`{"name":"n","who":"w"}`))
	if err != nil || got != (renamed{es.Person("n"), "w"}) {
		t.Errorf("decoded %#v, %v", got, err)
	}
	if _, err := e.Decode(json.RawMessage(`{"who":1}`)); err == nil || !strings.Contains(err.Error(), "thing.renamed") {
		t.Errorf("malformed data: %v; want an error that names the event", err)
	}
}
