package es

import (
	"errors"
	"reflect"
)

// T is what the given/when/then helpers need of *testing.T and *rapid.T.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Story is a decider with a history, waiting for a command.
type Story[S, C, E any] struct {
	t       T
	decider Decider[S, C, E]
	state   S
}

// Given starts a test sentence: given these facts.
func Given[S, C, E any](t T, d Decider[S, C, E], facts ...E) Story[S, C, E] {
	t.Helper()
	return Story[S, C, E]{t, d, d.Fold(d.Initial(), facts...)}
}

// When gives the command to the decider.
func (s Story[S, C, E]) When(command C) Outcome[E] {
	s.t.Helper()
	facts, err := s.decider.Decide(s.state, command)
	return Outcome[E]{s.t, facts, err}
}

// Outcome is what a command led to.
type Outcome[E any] struct {
	t     T
	facts []E
	err   error
}

// Then asserts that exactly these facts came of it; none asserts that the command was already true.
func (o Outcome[E]) Then(want ...E) {
	o.t.Helper()
	if o.err != nil {
		o.t.Fatalf("refused: %v; want %#v", o.err, want)
	}
	if len(o.facts) == 0 && len(want) == 0 {
		return
	}
	if !reflect.DeepEqual(o.facts, want) {
		o.t.Fatalf("facts:\n  got  %#v\n  want %#v", o.facts, want)
	}
}

// Refused asserts that the command was refused with the code and made no fact.
func (o Outcome[E]) Refused(code string) {
	o.t.Helper()
	var r *Refusal
	if !errors.As(o.err, &r) {
		o.t.Fatalf("got facts %#v, error %v; want refusal %s", o.facts, o.err, code)
		return
	}
	if r.Code != code {
		o.t.Fatalf("refused with %s (%s); want %s", r.Code, r.Detail, code)
	}
	if len(o.facts) != 0 {
		o.t.Fatalf("refused and yet made facts %#v", o.facts)
	}
}
