// Package runner drives projections: it pulls each tenant's log in slices and commits the rows that a slice leads to together
// with the checkpoint's compare-and-set, so each event counts exactly once, however many processes run.
package runner

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/eventstore"
)

// Home says where a projection's rows and checkpoints lie and which logs it consumes.
type Home uint8

const (
	// TenantHome keeps rows and checkpoint in the tenant's own database and consumes that tenant's log.
	TenantHome Home = iota + 1
	// PlatformHome keeps rows and one checkpoint per log in the platform's database and consumes every log, the
	// platform's included. Logs have no order among each other: Apply must lead to the same rows in any interleaving, and
	// applying one log again from its beginning must change nothing.
	PlatformHome
)

// Projection is data about how facts become SQL.
type Projection struct {
	Name    string // [a-z]+; its generations are the schemas <name>_g1, <name>_g2 …
	Version int    // from 1; a consumer halts on a live generation of another version, which it would garble
	Home    Home
	Types   []string // wire names; others are skipped without decoding. Empty means all.
	DDL     string   // run once per generation with the generation's schema as search path
	Indexes string   // run after DDL, in the same transaction
	Halt    bool     // on poison stop this consumer for this tenant instead of parking the stream
	Effects bool     // a saga: no schema, never a second generation, no rebuild
	// Positions says that rows hold positions of the log, which are another engine's after a move: the read model is then built anew.
	Positions bool
	// Apply queues SQL; it never reads, calls or waits. An error must not carry personal data: it is stored and logged.
	Apply func(w *Writes, rec eventstore.Recorded, fact any) error
	// InTx runs in the slice's transaction, after the queued SQL and before the commit; it is not called for a slice without
	// facts of its Types. It may run again for the same facts after a rollback. Optional.
	InTx func(ctx context.Context, tx pgx.Tx, tenant eventstore.TenantID, slice []Fact) error
}

// Fact is a recorded event and its decoded value.
type Fact struct {
	eventstore.Recorded
	Value any
}

// Writes collects the SQL of one slice. It is for one goroutine.
type Writes struct {
	schema string
	batch  pgx.Batch

	collect bool   // rows are added up in steps, which follow the batch
	steps   []step // in order
}

// Exec queues a statement. It comes after the rows that were queued before it, and before those that are queued later.
func (w *Writes) Exec(sql string, args ...any) {
	if w.collect {
		w.statements().Queue(sql, args...)
		return
	}
	w.batch.Queue(sql, args...)
}

// Table qualifies a table's name with the schema of the generation that is being written: "files" → "documents_g1.files".
func (w *Writes) Table(name string) string {
	if w.schema == "" {
		return name
	}
	return w.schema + "." + name
}

func (p *Projection) validate() error {
	switch {
	case !nameForm.MatchString(p.Name):
		return fmt.Errorf("runner: projection name %q: want 1 to 40 of [a-z]", p.Name)
	case p.Version < 1:
		return fmt.Errorf("runner: projection %s: version %d; versions count from 1", p.Name, p.Version)
	case p.Home != TenantHome && p.Home != PlatformHome:
		return fmt.Errorf("runner: projection %s: set Home", p.Name)
	case p.Apply == nil && p.InTx == nil:
		return fmt.Errorf("runner: projection %s does nothing: set Apply or InTx", p.Name)
	case p.Effects && p.Positions:
		return fmt.Errorf("runner: projection %s has effects and cannot be built anew, so it must not keep positions", p.Name)
	case p.Effects && (p.DDL != "" || p.Indexes != ""):
		return fmt.Errorf("runner: projection %s has effects, so its tables belong into migrations, not into DDL", p.Name)
	}
	return nil
}

// consumes tells whether the projection reads the tenant's log.
func (p *Projection) consumes(t eventstore.TenantID) bool {
	return p.Home == PlatformHome || t != eventstore.PlatformTenant
}

// root is the log whose checkpoint a generation is created with, in the database where the tenant's rows lie.
func (p *Projection) root(t eventstore.TenantID) eventstore.TenantID {
	if p.Home == PlatformHome {
		return eventstore.PlatformTenant
	}
	return t
}
