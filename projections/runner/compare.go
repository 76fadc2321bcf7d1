package runner

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/eventstore"
)

// Comparison says whether a new generation came to the same rows as the live one, at one position of each log.
type Comparison struct {
	Skipped     string            // why nothing was compared; "" when it was
	SameVersion bool              // both are of the same version of the projection, so that they must agree
	Parked      int               // streams that are parked in the live generation, whose rows may therefore differ
	Tables      []TableComparison // by name
}

// TableComparison compares the columns that both generations of a table have with the same type, by the number of rows and a sum of hashes of
// them, whatever their order.
type TableComparison struct {
	Table       string
	Columns     int // that were compared; 0 when only one generation has the table
	Live, Built int64
	Same        bool
}

// Same tells whether all tables that were compared agree.
func (c Comparison) Same() bool {
	for _, t := range c.Tables {
		if !t.Same {
			return false
		}
	}
	return true
}

// DifferenceError says that the same version of a projection, applied to the same events, came to other rows than the live ones. The live
// generation stays, and the new one stays beside it for inspection.
type DifferenceError struct {
	Projection string
	Tenant     eventstore.TenantID
	Generation int // that was built
	Live       int
	Compared   Comparison
}

// Error implements error.
func (e *DifferenceError) Error() string {
	var why strings.Builder
	fmt.Fprintf(&why, "%s of %s was not promoted: ", e.Projection, e.Tenant)
	if e.Compared.Skipped != "" {
		why.WriteString(e.Compared.Skipped)
	} else {
		fmt.Fprintf(&why, "generation %d, built from the log, differs from the live generation %d:", e.Generation, e.Live)
		for _, t := range e.Compared.Tables {
			switch {
			case t.Same:
			case t.Columns == 0:
				fmt.Fprintf(&why, " table %s exists in one of them only;", t.Table)
			case t.Live != t.Built:
				fmt.Fprintf(&why, " table %s has %d rows live and %d built;", t.Table, t.Live, t.Built)
			default:
				fmt.Fprintf(&why, " table %s has %d rows in both, but not with the same values;", t.Table, t.Live)
			}
		}
		if e.Compared.Parked > 0 {
			fmt.Fprintf(&why, " %d streams are parked in the live generation, which explains differences in what belongs to them;", e.Compared.Parked)
		}
	}
	fmt.Fprintf(&why, " the live generation stays, and schema %s_g%d stays for inspection; if the new rows are right, give the same command with --accept-differences",
		e.Projection, e.Generation)
	return why.String()
}

// differs is the refusal to promote.
func (b *building) differs() error {
	return &DifferenceError{b.p.Name, b.home, b.fresh, b.live, b.compared}
}

// compare compares the two generations where both have applied the same events. The live writer waits for as long as it takes to open a
// snapshot; what takes its time is done in the snapshot.
func (b *building) compare(ctx context.Context) error {
	b.compared.SameVersion = b.version == b.p.Version
	if b.live == 0 {
		b.compared.Skipped = "there is no live generation"
		return nil
	}
	b.stage("comparing")
	var snapshot pgx.Tx
	defer func() {
		if snapshot != nil {
			_ = snapshot.Rollback(context.WithoutCancel(ctx)) // it wrote nothing
		}
	}()
	deadline := time.Now().Add(aheadFor)
	for poll := time.NewTicker(50 * time.Millisecond); ; {
		ahead := ""
		err := b.fence(ctx, func(ctx context.Context, _ pgx.Tx, marks map[eventstore.TenantID]checkpoint) error {
			if ahead = b.ahead(marks); ahead != "" {
				return nil
			}
			if err := b.lost(); err != nil || len(b.vacant) > 0 {
				return err
			}
			pool, err := b.pool(ctx)
			if err != nil {
				return err
			}
			if snapshot, err = pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}); err != nil {
				return err
			}
			return snapshot.QueryRow(ctx, `select count(*) from proj.parked where projection = $1 and generation = $2`, b.p.Name, b.live).Scan(&b.compared.Parked)
		})
		if err != nil || ahead == "" {
			poll.Stop()
			if err != nil {
				return err
			}
			break
		}
		if time.Now().After(deadline) {
			poll.Stop()
			b.compared.Skipped = ahead
			if b.opt.AcceptDifferences {
				return nil
			}
			return b.differs()
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			poll.Stop()
			return ctx.Err()
		}
	}
	if snapshot == nil { // differences are accepted, and the logs do not hold what the live generation shows
		b.compared.Skipped = "the live generation shows what the logs do not hold"
		return nil
	}
	if err := b.compareTables(ctx, snapshot); err != nil {
		return b.failed("compare "+b.schema(b.live)+" with "+b.schema(b.fresh), err)
	}
	if b.compared.SameVersion && !b.compared.Same() && !b.opt.AcceptDifferences {
		return b.differs()
	}
	return nil
}

// ahead says why the two cannot be compared: an earlier call has built further than the live generation is.
func (b *building) ahead(marks map[eventstore.TenantID]checkpoint) string {
	for t, f := range b.feeds {
		if f.at.position > marks[t].position {
			return fmt.Sprintf("an earlier call has built generation %d up to position %d of the log of %s, and the live generation %d stands still at position %d, so that they cannot be compared",
				b.fresh, f.at.position, t, b.live, marks[t].position)
		}
	}
	return ""
}

// tableColumn is a column of a table of a generation.
type tableColumn struct{ name, kind string }

func (b *building) compareTables(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, `set local statement_timeout = 0`); err != nil {
		return err
	}
	live, err := columnsOf(ctx, tx, b.schema(b.live))
	if err != nil {
		return err
	}
	built, err := columnsOf(ctx, tx, b.schema(b.fresh))
	if err != nil {
		return err
	}
	b.compared.Tables = nil
	for _, table := range sortedTables(live, built) {
		var common []string
		for _, c := range live[table] {
			if slices.Contains(built[table], c) {
				common = append(common, pgx.Identifier{c.name}.Sanitize())
			}
		}
		t := TableComparison{Table: table, Columns: len(common)}
		if len(common) > 0 {
			var sums [2]string
			for i, generation := range []int{b.live, b.fresh} {
				rows := []*int64{&t.Live, &t.Built}[i]
				sql := `select count(*), coalesce(sum(hashtextextended(row(` + strings.Join(common, ", ") + `)::text, 0)), 0)::text from ` +
					pgx.Identifier{b.schema(generation), table}.Sanitize()
				if err := tx.QueryRow(ctx, sql).Scan(rows, &sums[i]); err != nil {
					return fmt.Errorf("table %s: %w", table, err)
				}
			}
			t.Same = t.Live == t.Built && sums[0] == sums[1]
		}
		b.compared.Tables = append(b.compared.Tables, t)
	}
	return nil
}

// columnsOf returns the tables of a schema with their columns.
func columnsOf(ctx context.Context, q querier, schema string) (map[string][]tableColumn, error) {
	rows, err := q.Query(ctx, `select c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod)
		from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
		where c.relnamespace = to_regnamespace($1) and c.relkind in ('r', 'p') order by c.relname, a.attnum`, schema)
	if err != nil {
		return nil, err
	}
	tables := map[string][]tableColumn{}
	var table string
	var c tableColumn
	_, err = pgx.ForEachRow(rows, []any{&table, &c.name, &c.kind}, func() error {
		tables[table] = append(tables[table], c)
		return nil
	})
	return tables, err
}

func sortedTables(generations ...map[string][]tableColumn) []string {
	var names []string
	for _, g := range generations {
		for table := range g {
			names = append(names, table)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
