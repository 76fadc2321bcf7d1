// Package process runs sagas: deciders whose output is jobs. Their state, their checkpoint and their jobs commit together in
// the platform's database, so an event yields its jobs exactly once; a job does the outside call at least once and reports by a
// command whose id derives from the job, so a repetition changes nothing. Of each tenant only a few jobs are in River at once; the
// others wait in the table saga.job, in turn, so that a tenant that asks for thousands holds up nobody else. A saga is never replayed with effects on: should
// its checkpoint be lost, the keys of its jobs are known already and none is inserted again.
package process

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/projections/runner"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the goose files of the schema saga.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic("process: embedded migrations: " + err.Error())
	}
	return sub
}

// Process is a saga: a pure state machine over the events E. Its functions read no clock and do no I/O; S is kept as JSON.
type Process[S, E any] struct {
	Name  string   // [a-z]+; part of every job's key, so it never changes
	Types []string // wire names of the events it cares for; each decodes as an E
	// Correlate names the instance that an event belongs to.
	Correlate func(E) (instance string, interested bool)
	// Initial is the state of an instance before its first event, and after it was done.
	Initial func() S
	Evolve  func(S, E) S
	// React answers the state after the event with jobs. Their order is part of their keys.
	React func(S, E) []Job
	// Done tells that an instance has come to its end and need not be remembered.
	Done func(S) bool
}

// Job asks for work.
type Job struct {
	Kind string    // which worker does it: "tsa.stamp"
	Args any       // encoded as JSON; opaque ids only, because jobs are kept for a day and shown to operators
	Due  time.Time // in the past means now
}

// Projection lets the runner drive the saga.
func Projection[S, E any](p Process[S, E], queue Queue) runner.Projection {
	return runner.Projection{
		Name: p.Name, Version: 1, Home: runner.PlatformHome, Types: p.Types, Halt: true, Effects: true,
		InTx: func(ctx context.Context, tx pgx.Tx, tenant eventstore.TenantID, slice []runner.Fact) error {
			return p.advance(ctx, tx, queue, tenant, slice)
		},
	}
}

// reaction is an event that the saga cares for, and the instance it belongs to.
type reaction[E any] struct {
	instance string
	cause    eventstore.EventID
	event    E
}

// advance applies a slice of facts: all state is read, moved and written, and the jobs are kept and admitted, in the checkpoint's
// own transaction.
func (p Process[S, E]) advance(ctx context.Context, tx pgx.Tx, queue Queue, tenant eventstore.TenantID, slice []runner.Fact) error {
	var todo []reaction[E]
	for _, f := range slice {
		event, ok := f.Value.(E)
		if !ok {
			return fmt.Errorf("process: %s does not know %s (%T)", p.Name, f.Type, f.Value)
		}
		if instance, interested := p.Correlate(event); interested {
			todo = append(todo, reaction[E]{instance, f.ID, event})
		}
	}
	if len(todo) == 0 {
		return nil
	}
	states, err := p.load(ctx, tx, tenant, todo)
	if err != nil {
		return err
	}
	var list []wanted
	for _, r := range todo {
		s := p.Evolve(states[r.instance], r.event)
		states[r.instance] = s
		for ordinal, job := range p.React(s, r.event) {
			// The same event asks for the same job, however often it is read.
			list = append(list, wanted{es.Key(p.Name, string(tenant), r.instance, r.cause.String(), strconv.Itoa(ordinal)), job})
		}
	}
	if err := p.save(ctx, tx, tenant, states); err != nil {
		return err
	}
	return ask(ctx, tx, queue, p.Name, string(tenant), list, time.Now())
}

// load reads the state of all instances that occur.
func (p Process[S, E]) load(ctx context.Context, tx pgx.Tx, tenant eventstore.TenantID, todo []reaction[E]) (map[string]S, error) {
	states := map[string]S{}
	var instances []string
	for _, r := range todo {
		if _, known := states[r.instance]; !known {
			states[r.instance] = p.Initial()
			instances = append(instances, r.instance)
		}
	}
	rows, err := tx.Query(ctx, `select instance, state from saga.state where saga = $1 and tenant = $2 and instance = any($3)`, p.Name, string(tenant), instances)
	if err != nil {
		return nil, fmt.Errorf("process: load %s of tenant %s: %w", p.Name, tenant, err)
	}
	var instance string
	var raw []byte
	_, err = pgx.ForEachRow(rows, []any{&instance, &raw}, func() error {
		var s S
		if err := json.Unmarshal(raw, &s); err != nil {
			return err
		}
		states[instance] = s
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("process: load %s of tenant %s: %w", p.Name, tenant, err)
	}
	return states, nil
}

// save writes the states, and forgets the instances that are done.
func (p Process[S, E]) save(ctx context.Context, tx pgx.Tx, tenant eventstore.TenantID, states map[string]S) error {
	var done, open, kept []string
	for instance, s := range states {
		if p.Done(s) {
			done = append(done, instance)
			continue
		}
		raw, err := json.Marshal(s)
		if err != nil {
			return fmt.Errorf("process: encode the state of %s: %w", p.Name, err)
		}
		open, kept = append(open, instance), append(kept, string(raw))
	}
	var b pgx.Batch
	b.Queue(`delete from saga.state where saga = $1 and tenant = $2 and instance = any($3)`, p.Name, string(tenant), done)
	b.Queue(`insert into saga.state (saga, tenant, instance, state)
		select $1, $2, instance, state::json from unnest($3::text[], $4::text[]) as s (instance, state)
		on conflict (saga, tenant, instance) do update set state = excluded.state`, p.Name, string(tenant), open, kept)
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("process: save %s of tenant %s: %w", p.Name, tenant, err)
	}
	return nil
}
