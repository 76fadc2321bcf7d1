package esdbstore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/esdbstore"
	"github.com/factum-platform/factum/eventstore/esdbstore/esdbtest"
)

// clock is set by hand.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// impatient gives up calls soon.
func impatient(c *esdbstore.Config) { c.Timeout = 150 * time.Millisecond }

func held(t *testing.T, s eventstore.Store) []string {
	t.Helper()
	out := []string{}
	for h, err := range s.Tenant(alpha).Claims(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, h.Scope+" "+h.Key+" "+h.Stream.ID)
	}
	return out
}

func wantHeld(t *testing.T, s eventstore.Store, want ...string) {
	t.Helper()
	if got := held(t, s); !slices.Equal(got, append([]string{}, want...)) {
		t.Errorf("held are %q; want %q", got, want)
	}
}

func refused(t *testing.T, s eventstore.Store, w eventstore.Write, want eventstore.Claim) {
	t.Helper()
	_, err := s.Tenant(alpha).Append(t.Context(), w)
	var claim *eventstore.ClaimError
	if !errors.As(err, &claim) || claim.Claim != want {
		t.Fatalf("got %v; want the claim of %s refused", err, want.Scope)
	}
}

func taking(scope, key string) eventstore.Claim { return eventstore.Claim{Scope: scope, Key: key} }

func giving(scope, key string) eventstore.Claim {
	return eventstore.Claim{Scope: scope, Key: key, Give: true}
}

func TestClaims(t *testing.T) {
	s := open(t, esdbtest.Start(t, esdbtest.Options{LinkLag: time.Millisecond}))
	take, give, free := taking("email", "\x00\xffkey"), giving("email", "\x00\xffkey"), taking("email", "free")
	first := write("a", eventstore.NoStream(), 1, take)
	mustAppend(t, s, first)
	refused(t, s, write("b", eventstore.NoStream(), 1, free, take), take)
	if n := len(whole(t, s, 0, 100)); n != 1 {
		t.Fatalf("%d events are in the log; want 1: a refused claim writes nothing, and claims are not in the log", n)
	}
	mustAppend(t, s, write("b", eventstore.NoStream(), 1, free)) // it was not left reserved
	mustAppend(t, s, write("c", eventstore.NoStream(), 1, taking("phone", take.Key)))
	mustAppend(t, s, write("a", eventstore.At(1), 1, take)) // its own already
	mustAppend(t, s, write("b", eventstore.At(1), 1, give)) // not its own to give
	refused(t, s, write("b", eventstore.At(2), 1, take), take)
	mustAppend(t, s, write("a", eventstore.At(2), 1, give))
	mustAppend(t, s, write("b", eventstore.At(2), 1, take))
	if out := mustAppend(t, s, first); !out.Replayed { // though its claim is another's by now
		t.Errorf("%+v; want a replay", out)
	}
	wantHeld(t, s, "email \x00\xffkey b", "email free b", "phone \x00\xffkey c")
	refused(t, s, write("a", eventstore.At(3), 1, take), take)
	mustAppend(t, s, write("b", eventstore.At(3), 1, give, take)) // given and taken is taken
	refused(t, s, write("a", eventstore.At(3), 1, take), take)
	var conflict *eventstore.ConflictError
	if _, err := s.Tenant(alpha).Append(t.Context(), write("a", eventstore.At(1), 1, taking("email", "other"))); !errors.As(err, &conflict) || conflict.Actual != 3 {
		t.Errorf("got %v; want a conflict at version 3: it is looked for before claims", err)
	}
	mustAppend(t, s, write("d", eventstore.NoStream(), 1, taking("email", "other"))) // the conflict left no reservation
	if _, err := s.Tenant("beta").Append(t.Context(), write("a", eventstore.NoStream(), 1, take)); err != nil {
		t.Errorf("another tenant's claim: %v", err)
	}
	mustAppend(t, s, write("a", eventstore.StreamExists(), 1, taking("email", "exists")))
	wantHeld(t, s, "email \x00\xffkey b", "email exists a", "email free b", "email other d", "phone \x00\xffkey c")
}

func TestOneClaimantWins(t *testing.T) {
	server := esdbtest.Start(t, esdbtest.Options{})
	stores := []eventstore.Store{open(t, server), open(t, server)}
	for round := range 5 {
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			w := write(fmt.Sprintf("%d %d", round, i), eventstore.NoStream(), 1, taking("email", fmt.Sprint(round)))
			wg.Go(func() { _, errs[i] = stores[i%2].Tenant(alpha).Append(t.Context(), w) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			var claim *eventstore.ClaimError
			if err == nil {
				won++
			} else if !errors.As(err, &claim) {
				t.Fatal(err)
			}
		}
		if won != 1 {
			t.Fatalf("%d of %d claimants won; want 1", won, len(errs))
		}
	}
	if n := len(whole(t, stores[0], 0, 100)); n != 5 {
		t.Errorf("%d events are in the log; want 5", n)
	}
}

// A writer is cut off after each of its writes in turn: its reservations, its event, its confirmations. Whatever it had done, a repetition
// goes on, and without one everything is settled after 10 minutes.
func TestClaimsSurviveACrashAtEachStep(t *testing.T) {
	t.Parallel()
	taken := []string{"email k a", "phone k a"}
	tests := []struct {
		name   string
		before []eventstore.Claim // of the stream's first event
		append []eventstore.Claim
		then   []string // held when the append is in the log
		else_  []string // held when it is not
		rival  []bool   // whether another stream may take the value: while it is open (always false), in the log, not in the log
	}{
		{"taking", nil, []eventstore.Claim{taking("email", "k"), taking("phone", "k")}, taken, []string{}, []bool{false, true}},
		{"giving", []eventstore.Claim{taking("email", "k"), taking("phone", "k")}, []eventstore.Claim{giving("email", "k"), giving("phone", "k")}, []string{}, taken, []bool{true, false}},
	}
	const steps = 5 // two reservations, the event, two confirmations
	for _, test := range tests {
		for _, repeated := range []bool{true, false} {
			for _, byRival := range []bool{true, false} {
				for step := range steps + 1 {
					t.Run(fmt.Sprintf("%s, repeated %v, rival %v, after %d writes", test.name, repeated, byRival, step), func(t *testing.T) {
						t.Parallel()
						server := esdbtest.Start(t, esdbtest.Options{})
						var time clock
						s := openAt(t, server, time.now, impatient)
						mustAppend(t, s, write("a", eventstore.NoStream(), 1, test.before...))
						w := write("a", eventstore.At(1), 1, test.append...)
						server.AllowAppends(step)
						_, err := s.Tenant(alpha).Append(t.Context(), w)
						written := step >= 3
						if (err == nil) != written {
							t.Fatalf("got %v with the event written: %v", err, written)
						}
						if err := s.Close(); err != nil {
							t.Fatal(err)
						}
						server.AllowAppends(-1)

						s = openAt(t, server, time.now)
						rival := write("b", eventstore.NoStream(), 1, taking("phone", "k"))
						if !repeated {
							time.advance(11 * 60e9)
						} else {
							if !written && (step == 2 || test.name == "giving") {
								refused(t, s, rival, taking("phone", "k")) // reserved, or still held
							}
							out := mustAppend(t, s, w)
							if out.Replayed != written || out.Version != 2 {
								t.Errorf("repeated: %+v; want version 2, a replay: %v", out, written)
							}
							written = true
						}
						if !byRival {
							if err := s.Sweep(t.Context(), alpha); err != nil {
								t.Fatal(err)
							}
						}
						want := test.else_
						if written {
							want = test.then
						}
						wantHeld(t, s, want...)
						if free := test.rival[map[bool]int{true: 0, false: 1}[written]]; free {
							mustAppend(t, s, rival)
						} else {
							refused(t, s, rival, taking("phone", "k"))
						}
					})
				}
			}
		}
	}
}

func TestSweep(t *testing.T) {
	t.Parallel()
	server := esdbtest.Start(t, esdbtest.Options{})
	var time clock
	s := openAt(t, server, time.now, impatient)
	mustAppend(t, s, write("kept", eventstore.NoStream(), 1, taking("email", "kept")))
	server.AllowAppends(1)
	if _, err := s.Tenant(alpha).Append(t.Context(), write("lost", eventstore.NoStream(), 1, taking("email", "lost"))); err == nil {
		t.Fatal("want an ambiguous failure")
	}
	server.AllowAppends(2)
	mustAppend(t, s, write("open", eventstore.NoStream(), 1, taking("email", "open"))) // in the log, and not confirmed
	server.AllowAppends(-1)
	stream := func(key string) string { return esdbstore.ClaimName(alpha, esdbstore.NewClaimed("email", key)) }
	counts := func() [3]int {
		return [3]int{server.Events(stream("kept")), server.Events(stream("lost")), server.Events(stream("open"))}
	}
	sweep := func(want [3]int) {
		t.Helper()
		for range 2 { // the second finds nothing to do
			if err := s.Sweep(t.Context(), alpha); err != nil {
				t.Fatal(err)
			}
			if got := counts(); got != want {
				t.Fatalf("the claims' streams have %v events; want %v", got, want)
			}
		}
	}
	sweep([3]int{2, 1, 1}) // too young
	time.advance(11 * 60e9)
	sweep([3]int{2, 2, 2})
	wantHeld(t, s, "email kept kept", "email open open")
	server.ResetByCategory()
	sweep([3]int{2, 2, 2})
}

// A writer that is stopped between its reservation and its event does not append after others may have taken the value over.
func TestSlowWriterGivesUp(t *testing.T) {
	server := esdbtest.Start(t, esdbtest.Options{})
	var slow clock
	s := openAt(t, server, func() time.Time {
		slow.advance(4 * time.Minute) // from one look at the clock to the next
		return slow.now()
	})
	w := write("a", eventstore.NoStream(), 1, taking("email", "k"))
	if _, err := s.Tenant(alpha).Append(t.Context(), w); err == nil {
		t.Fatal("it appended minutes after its reservation")
	}
	if n := server.Events("alpha-doc-a"); n != 0 {
		t.Errorf("%d events were written", n)
	}
	mustAppend(t, open(t, server), w)
}

// Many streams take and give few values through two stores while connections break. In the log's order no value is ever taken while
// another stream has it.
func TestClaimsTorture(t *testing.T) {
	t.Parallel()
	server := esdbtest.Start(t, esdbtest.Options{})
	stores := []eventstore.Store{open(t, server), open(t, server)}
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	var wg sync.WaitGroup
	const enough = 25
	takes, refusals := new(atomic.Int64), new(atomic.Int64)
	for i := range 6 {
		wg.Go(func() {
			l := stores[i%2].Tenant(alpha)
			version, mine := eventstore.Version(0), map[string]bool{}
			for ctx.Err() == nil {
				key := fmt.Sprint(rand.N(3))
				c := eventstore.Claim{Scope: "email", Key: key, Give: mine[key]}
				w := write(fmt.Sprint(i), eventstore.At(version), 1, c)
				w.Events[0].Data = fmt.Appendf(nil, `{"key":%q,"give":%v}`, key, c.Give)
				var claim *eventstore.ClaimError
				_, err := l.Append(t.Context(), w)
				for err != nil && !errors.As(err, &claim) { // repeated until it is decided
					var conflict *eventstore.ConflictError
					if errors.As(err, &conflict) { // nobody else writes to the stream
						t.Error(err)
						return
					}
					_, err = l.Append(t.Context(), w)
				}
				if err != nil {
					refusals.Add(1)
					continue
				}
				version++
				mine[key] = !c.Give
				if !c.Give && takes.Add(1) >= enough && refusals.Load() >= enough {
					stop()
				}
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(rand.N(100 * time.Millisecond)):
			}
			if rand.N(2) == 0 {
				server.BreakAfterAppends(1)
			} else {
				server.Cut()
			}
		}
	})
	wg.Wait()
	server.BreakAfterAppends(0)
	owners := map[string]string{}
	for _, rec := range whole(t, stores[0], 0, 500) {
		var e struct {
			Key  string
			Give bool
		}
		if err := json.Unmarshal(rec.Data, &e); err != nil {
			t.Fatal(err)
		}
		if owner := owners[e.Key]; owner != "" && owner != rec.Stream.ID {
			t.Fatalf("at %d stream %s touches value %s, which stream %s has", rec.Position, rec.Stream.ID, e.Key, owner)
		}
		owners[e.Key] = rec.Stream.ID
		if e.Give {
			delete(owners, e.Key)
		}
	}
	var want []string
	for key, owner := range owners {
		want = append(want, "email "+key+" "+owner)
	}
	slices.Sort(want)
	for _, s := range stores {
		wantHeld(t, s, want...)
	}
	t.Logf("%d taken, %d refused", takes.Load(), refusals.Load())
	if takes.Load() < enough || refusals.Load() < enough {
		t.Errorf("%d taken, %d refused within %s; want %d of each", takes.Load(), refusals.Load(), patience, enough)
	}
}
