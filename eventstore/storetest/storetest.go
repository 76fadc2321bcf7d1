// Package storetest is the one suite that every engine of the log passes: the append promises A1 to A7 and the follow promises F1 to
// F8 of package eventstore, by the engine's [eventstore.Caps]; a model test against another engine; and the skipped-event
// torture test. An engine's own test file only says how to open it.
package storetest

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"sync/atomic"
	"testing"
	"time"

	"github.com/factum-platform/factum/eventstore"
)

const (
	alpha eventstore.TenantID = "alpha"
	beta  eventstore.TenantID = "beta"
	// patience bounds every wait of the suite.
	patience = 20 * time.Second
)

// Engine says how a test opens an engine and how it hurts it.
type Engine struct {
	// Open returns an empty store in which the tenants "alpha" and "beta" exist; the suite closes it.
	Open func(t *testing.T) eventstore.Store
	// Cut breaks every connection of the store that was opened last; new ones may be made at once. nil: the engine has none.
	Cut func(t *testing.T)
}

// Run tests the whole contract.
func Run(t *testing.T, e Engine) {
	t.Helper()
	tests := []struct {
		name string
		need eventstore.Caps
		run  func(t *testing.T, s eventstore.Store)
	}{
		{"A1 an append of many events is written whole or not at all", eventstore.Caps{}, allOrNothing},
		{"A1 an append to many streams is written whole or not at all", eventstore.Caps{MultiStream: true}, allStreamsOrNothing},
		{"A2 the expected version is checked", eventstore.Caps{}, expectedVersions},
		{"A2 of many writers at one version one wins", eventstore.Caps{}, oneWins},
		{"A3 a repeated append is a replay", eventstore.Caps{}, replays},
		{"A3 a repeated append to many streams is a replay", eventstore.Caps{MultiStream: true}, replaysManyStreams},
		{"A3 repetitions at the same time write once", eventstore.Caps{}, replaysAtOnce},
		{"A4 event ids are not used for anything else", eventstore.Caps{}, reusedKeys},
		{"A5 writing nothing is no success", eventstore.Caps{}, malformed},
		{"A6 the events of an append are adjacent", eventstore.Caps{MultiStream: true}, adjacent},
		{"A7 a repetition after a cancelled append is safe", eventstore.Caps{}, cancelledAppend},
		{"every call ends with its context", eventstore.Caps{}, cancelledCalls},
		{"what is malformed is refused and not written", eventstore.Caps{}, badInput},
		{"appends that cross each other's streams do not block for ever", eventstore.Caps{MultiStream: true, AtomicClaim: true}, crossing},
		{"a claim is taken once and can be given", eventstore.Caps{}, claims},
		{"a claim passes on in one append", eventstore.Caps{AtomicClaim: true, MultiStream: true}, claimPassesOn},
		{"the held claims can be listed", eventstore.Caps{}, heldClaims},
		{"of many claimants one wins", eventstore.Caps{}, oneClaimant},
		{"bytes survive exactly", eventstore.Caps{}, exactBytes},
		{"metadata survives exactly", eventstore.Caps{}, exactMeta},
		{"sizes up to the limits are kept, larger ones refused", eventstore.Caps{}, sizes},
		{"stream ids may be any text", eventstore.Caps{}, unicodeStreams},
		{"positions have no gaps", eventstore.Caps{Gapless: true}, gapless},
		{"F1 pages from every position concatenate to the log", eventstore.Caps{}, pages},
		{"pages of large events arrive completely", eventstore.Caps{}, largePages},
		{"a stream is read from any version", eventstore.Caps{}, readStream},
		{"F2 F3 followers see everything under load", eventstore.Caps{}, followUnderLoad},
		{"F4 a slow follower loses nothing and stops nobody", eventstore.Caps{}, slowFollower},
		{"F4 nothing is fetched while the loop body runs", eventstore.Caps{}, backPressure},
		{"F6 live is said once at the head", eventstore.Caps{}, live},
		{"F7 following ends with the context", eventstore.Caps{}, followEnds},
		{"F7 a closed store answers so", eventstore.Caps{}, closed},
		{"F8 tenants are apart", eventstore.Caps{}, tenantsApart},
		{"the bell rings after an append", eventstore.Caps{}, bellRings},
	}
	open := func(t *testing.T) eventstore.Store {
		s := e.Open(t)
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	}
	if e.Cut != nil {
		t.Run("A7 F5 connections that break lose nothing and double nothing", func(t *testing.T) { cutConnections(t, open(t), e.Cut) })
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := open(t)
			if s.Caps().Covers(test.need) {
				test.run(t, s)
				return
			}
			if test.need.MultiStream { // what an engine cannot do it must refuse
				_, err := s.Tenant(alpha).Append(t.Context(), write("doc", "a", eventstore.NoStream(), 1), write("doc", "b", eventstore.NoStream(), 1))
				wantError[*eventstore.InvalidError](t, err)
			}
		})
	}
}

var commands atomic.Uint64

// events returns n events of a new command.
func events(n int) []eventstore.Proposed {
	command := fmt.Sprintf("command %d", commands.Add(1))
	out := make([]eventstore.Proposed, n)
	for i := range out {
		out[i] = eventstore.Proposed{
			ID: eventstore.NewEventID(alpha, "tester", command, i), Type: "thing.happened", Schema: 1,
			Data: fmt.Appendf(nil, `{"n":%d}`, i),
			Meta: eventstore.Meta{Command: command, Correlation: "request", Causation: "cause", Actor: "tester", At: time.Date(2026, 1, 2, 3, 4, 5, 678_901_000, time.UTC)},
		}
	}
	return out
}

func write(kind, id string, expected eventstore.Expected, n int, claims ...eventstore.Claim) eventstore.Write {
	return eventstore.Write{Stream: eventstore.StreamID{Kind: kind, ID: id}, Expected: expected, Events: events(n), Claims: claims}
}

func mustAppend(t *testing.T, l eventstore.Log, writes ...eventstore.Write) []eventstore.Appended {
	t.Helper()
	out, err := l.Append(t.Context(), writes...)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	if len(out) != len(writes) {
		t.Fatalf("append answered %d of %d writes", len(out), len(writes))
	}
	return out
}

func wantError[E error](t *testing.T, err error) E {
	t.Helper()
	e, ok := as[E](err)
	if !ok {
		t.Fatalf("got error %v; want %T", err, e)
	}
	return e
}

func collect(t *testing.T, seq iter.Seq2[eventstore.Recorded, error]) []eventstore.Recorded {
	t.Helper()
	var out []eventstore.Recorded
	for rec, err := range seq {
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		out = append(out, rec)
	}
	return out
}

// whole reads a log page by page.
func whole(ctx context.Context, l eventstore.Log, after eventstore.Position, limit int) ([]eventstore.Recorded, error) {
	var out []eventstore.Recorded
	for {
		b, err := l.Page(ctx, after, limit)
		if err != nil {
			return nil, err
		}
		if len(b.Events) > limit {
			return nil, fmt.Errorf("a page of %d events; the limit was %d", len(b.Events), limit)
		}
		if len(b.Events) == 0 {
			if !b.Live {
				return nil, fmt.Errorf("an empty page after %d is not live", after)
			}
			return out, nil
		}
		out = append(out, b.Events...)
		if b.Through < b.Events[len(b.Events)-1].Position {
			return nil, fmt.Errorf("a page through %d ends before its last event at %d", b.Through, b.Events[len(b.Events)-1].Position)
		}
		after = b.Through
	}
}

func mustWhole(t *testing.T, l eventstore.Log) []eventstore.Recorded {
	t.Helper()
	out, err := whole(t.Context(), l, 0, 500)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// differ says how two runs of events differ, "" when they do not. The engine's clock is not compared.
func differ(got, want []eventstore.Recorded) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d events; want %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		switch {
		case g.Tenant != w.Tenant || g.Stream != w.Stream || g.Version != w.Version || g.Position != w.Position:
			return fmt.Sprintf("event %d is %s %s@%d at %d; want %s %s@%d at %d", i, g.Tenant, g.Stream, g.Version, g.Position, w.Tenant, w.Stream, w.Version, w.Position)
		case g.ID != w.ID || g.Type != w.Type || g.Schema != w.Schema:
			return fmt.Sprintf("event %d is %s %s schema %d; want %s %s schema %d", i, g.ID, g.Type, g.Schema, w.ID, w.Type, w.Schema)
		case !bytes.Equal(g.Data, w.Data):
			return fmt.Sprintf("event %d holds %.200q; want %.200q", i, g.Data, w.Data)
		case g.Meta.Command != w.Meta.Command || g.Meta.Correlation != w.Meta.Correlation || g.Meta.Causation != w.Meta.Causation ||
			g.Meta.Actor != w.Meta.Actor || !g.Meta.At.Equal(w.Meta.At) || g.Meta.At.Location() != time.UTC:
			return fmt.Sprintf("event %d has meta %+v; want %+v", i, g.Meta, w.Meta)
		}
	}
	return ""
}
