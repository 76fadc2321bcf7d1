package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/argon2"
	"golang.org/x/sync/errgroup"

	"github.com/factum-platform/factum/bench/ratio"
	"github.com/factum-platform/factum/commands"
)

const (
	// clientsPerCore is how many log-ins the API takes per core at once: one that is hashed and eight that wait (infra/auth).
	clientsPerCore = 9
	// overload is how many times as many clients come.
	overload = 3
	// shortPause is how long a client that was refused waits: a tenth of what Retry-After asks.
	shortPause = 100 * time.Millisecond
)

// person can log in.
type person struct {
	Email    string `json:"email"`
	Password string `json:"password"`
}

// register makes the accounts that log in.
func (b *bench) register(ctx context.Context, figure string) error {
	if len(b.people) > 0 {
		return nil
	}
	b.say(figure, "registering %d accounts", b.accounts)
	people := make([]person, b.accounts)
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(runtime.GOMAXPROCS(0))
	for i := range people {
		all.Go(func() error {
			people[i] = person{uuid.NewString() + "@example.com", "a1" + uuid.NewString()}
			_, _, err := b.platform.Commands.RegisterUser(ctx, commands.Caller{Command: uuid.NewString(), Correlation: "bench", At: time.Now()},
				commands.RegisterUser{FirstName: "Mina", LastName: "Okoro", Email: people[i].Email, Password: people[i].Password})
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return err
	}
	b.people = people
	return nil
}

// logIns is a load of right passwords, from so many times the clients that the API takes.
func (b *bench) logIns(times int) (load, error) {
	l := load{base: b.serving.URL, clients: times * b.perCore * runtime.GOMAXPROCS(0), window: b.logins}
	for _, p := range b.people {
		body, err := json.Marshal(p)
		if err != nil {
			return l, err
		}
		l.calls = append(l.calls, call{method: http.MethodPost, path: "/api/auth/login", body: body})
	}
	return l, nil
}

// login sets log-ins per second at saturation against the hashes that the processors make alone.
func (b *bench) login() ratio.Figure {
	return ratio.Figure{
		Name: "login", What: "log-ins at saturation, over bare argon2id of as many goroutines as cores", Unit: "1/s", Bar: 0.9,
		Measure: func(ctx context.Context, rounds ratio.Rounds) error {
			if err := b.register(ctx, "login"); err != nil {
				return err
			}
			l, err := b.logIns(1)
			if err != nil {
				return err
			}
			params, err := b.params(ctx)
			if err != nil {
				return err
			}
			b.facts = append(b.facts, ratio.Fact{Name: "argon2id", Value: fmt.Sprintf("%d KiB, %d passes, %d threads; %d clients at saturation",
				params.memory, params.time, params.threads, l.clients)})
			return rounds(func(ctx context.Context) (float64, float64, error) {
				var ours loaded
				theirs, err := around(func() (float64, error) { return params.rate(b.logins), ctx.Err() }, func() (err error) {
					ours, err = l.run(ctx)
					return err
				})
				if err != nil {
					return 0, 0, err
				}
				b.say("login", "half of the log-ins within %.0f ms, 99 of 100 %.0f", milliseconds(ratio.Median(ours.times)), milliseconds(ratio.Percentile(ours.times, 0.99)))
				return ours.perSecond, theirs, nil
			})
		},
	}
}

// around measures before between and after it, and returns the mean: a machine that becomes slower or faster meanwhile does not count for one side.
func around(measure func() (float64, error), between func() error) (float64, error) {
	before, err := measure()
	if err == nil {
		err = between()
	}
	if err != nil {
		return 0, err
	}
	after, err := measure()
	return (before + after) / 2, err
}

// collapse sets log-ins per second from three times the clients against those at saturation. Who is refused comes back after a short pause.
func (b *bench) collapse() ratio.Figure {
	return b.overloaded("collapse", fmt.Sprintf("log-ins of %d times the clients, back after %v, over those at saturation", overload, shortPause), shortPause, 0.9)
}

// storm is collapse with clients that come back at once, whatever Retry-After says.
func (b *bench) storm() ratio.Figure {
	return b.overloaded("storm", fmt.Sprintf("log-ins of %d times the clients, back at once, over those at saturation", overload), 0, 0)
}

func (b *bench) overloaded(name, what string, pause time.Duration, bar float64) ratio.Figure {
	return ratio.Figure{
		Name: name, What: what, Unit: "1/s", Bar: bar,
		Measure: func(ctx context.Context, rounds ratio.Rounds) error {
			if err := b.register(ctx, name); err != nil {
				return err
			}
			saturation, err := b.logIns(1)
			if err != nil {
				return err
			}
			flood, err := b.logIns(overload)
			if err != nil {
				return err
			}
			flood.refused, flood.pause = true, pause
			var accepted []time.Duration
			refused := 0
			err = rounds(func(ctx context.Context) (float64, float64, error) {
				var ours loaded
				theirs, err := around(func() (float64, error) {
					l, err := saturation.run(ctx)
					return l.perSecond, err
				}, func() (err error) {
					ours, err = flood.run(ctx)
					return err
				})
				accepted, refused = append(accepted, ours.times...), refused+ours.refused
				return ours.perSecond, theirs, err
			})
			if err != nil {
				return err
			}
			b.facts = append(b.facts, ratio.Fact{Name: name, Value: fmt.Sprintf("%d clients: half of the accepted log-ins within %.0f ms, 99 of 100 %.0f; for each, %.1f were refused with Retry-After",
				flood.clients, milliseconds(ratio.Median(accepted)), milliseconds(ratio.Percentile(accepted, 0.99)), float64(refused)/float64(len(accepted)))})
			return nil
		},
	}
}

// params are those of argon2id.
type params struct {
	memory, time uint32 // KiB, passes
	threads      uint8
}

// params reads the parameters out of a hash that the platform has made.
func (b *bench) params(ctx context.Context) (p params, err error) {
	var hash string
	if err := b.platform.Pool.QueryRow(ctx, `select hash from auth.credentials limit 1`).Scan(&hash); err != nil {
		return p, err
	}
	if _, err := fmt.Sscanf(hash, "$argon2id$v=19$m=%d,t=%d,p=%d$", &p.memory, &p.time, &p.threads); err != nil {
		return p, fmt.Errorf("read the parameters of a password's hash: %w", err)
	}
	return p, nil
}

// rate is how many hashes per second as many goroutines as cores make within a window of that length.
func (p params) rate(length time.Duration) float64 {
	w := newWindow(length)
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			salt := make([]byte, 16)
			for w.open() {
				begun := time.Now()
				argon2.IDKey([]byte("stator coil 7 humming"), salt, p.time, p.memory, p.threads, 32)
				w.done(begun)
			}
		})
	}
	all.Wait()
	perSecond, _ := w.counted()
	return perSecond
}
