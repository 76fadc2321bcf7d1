// Package process runs sagas: deciders whose output is jobs. Their state, their checkpoint and their jobs commit together in
// the platform's database, so an event yields its jobs exactly once; a job does the outside call at least once and reports by a
// command whose id derives from the job, so a repetition changes nothing. A saga is never replayed with effects on: should
// its checkpoint be lost, its jobs look again before they act and find nothing to do.
package process

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/jobs"
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

// Process is a saga: a pure state machine. Its functions read no clock and do no I/O.
type Process[S any] struct {
	Name  string   // [a-z]+
	Types []string // wire names of the events it cares for
	// Correlate names the instance that a fact belongs to.
	Correlate func(rec eventstore.Recorded, fact any) (instance string, interested bool)
	Evolve    func(S, any) S
	// React answers the state after the fact with jobs.
	React func(s S, tenant eventstore.TenantID, fact any) []Job
	// Done tells that an instance has come to its end and need not be remembered.
	Done func(S) bool
}

// Job asks for work. Make builds its arguments around its key, which is the id of the command that will report the outcome.
type Job struct {
	Make func(key string) jobs.Job
}

// Inserter inserts jobs with a transaction.
type Inserter interface {
	InsertTx(ctx context.Context, tx pgx.Tx, list []jobs.Job) error
}

// Projection lets the runner drive the saga.
func Projection[S any](p Process[S], queue Inserter) runner.Projection {
	return runner.Projection{
		Name: p.Name, Version: 1, Home: runner.PlatformHome, Types: p.Types, Halt: true, Effects: true,
		InTx: func(ctx context.Context, tx pgx.Tx, tenant eventstore.TenantID, slice []runner.Fact) error {
			return p.advance(ctx, tx, queue, tenant, slice)
		},
	}
}

// advance applies a slice of facts: all state is read, moved and written, and the jobs are inserted, in the checkpoint's own
// transaction.
func (p Process[S]) advance(ctx context.Context, tx pgx.Tx, queue Inserter, tenant eventstore.TenantID, slice []runner.Fact) error {
	states := map[string]S{}
	for _, f := range slice {
		instance, interested := p.Correlate(f.Recorded, f.Value)
		if !interested {
			continue
		}
		if _, loaded := states[instance]; !loaded {
			s, err := p.load(ctx, tx, tenant, instance)
			if err != nil {
				return err
			}
			states[instance] = s
		}
	}
	var list []jobs.Job
	for _, f := range slice {
		instance, interested := p.Correlate(f.Recorded, f.Value)
		if !interested {
			continue
		}
		s := p.Evolve(states[instance], f.Value)
		states[instance] = s
		for ordinal, job := range p.React(s, tenant, f.Value) {
			list = append(list, job.Make(es.Key(p.Name, string(tenant), instance, f.ID.String(), strconv.Itoa(ordinal))))
		}
	}
	for instance, s := range states {
		if err := p.save(ctx, tx, tenant, instance, s); err != nil {
			return err
		}
	}
	return queue.InsertTx(ctx, tx, list)
}

func (p Process[S]) load(ctx context.Context, tx pgx.Tx, tenant eventstore.TenantID, instance string) (s S, err error) {
	var raw []byte
	err = tx.QueryRow(ctx, `select state from saga.state where saga = $1 and tenant = $2 and instance = $3`, p.Name, string(tenant), instance).Scan(&raw)
	if errors.Is(err, pgx.ErrNoRows) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	if err != nil {
		return s, fmt.Errorf("process: load %s of tenant %s: %w", p.Name, tenant, err)
	}
	return s, nil
}

func (p Process[S]) save(ctx context.Context, tx pgx.Tx, tenant eventstore.TenantID, instance string, s S) error {
	var err error
	if p.Done(s) {
		_, err = tx.Exec(ctx, `delete from saga.state where saga = $1 and tenant = $2 and instance = $3`, p.Name, string(tenant), instance)
	} else {
		var raw []byte
		if raw, err = json.Marshal(s); err == nil {
			_, err = tx.Exec(ctx, `insert into saga.state (saga, tenant, instance, state) values ($1, $2, $3, $4)
				on conflict (saga, tenant, instance) do update set state = excluded.state`, p.Name, string(tenant), instance, string(raw))
		}
	}
	if err != nil {
		return fmt.Errorf("process: save %s of tenant %s: %w", p.Name, tenant, err)
	}
	return nil
}
