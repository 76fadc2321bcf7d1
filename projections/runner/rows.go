package runner

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// manyEvents is from how many events in a slice on their rows are added up.
const manyEvents = 32

// Table is a table of a projection's DDL whose rows are written one by one by their key. Where few events are applied, each row is written by a
// statement of its own; where there are many, what they do to a row is added up first, and many rows go in one statement.
type Table struct {
	Name    string
	Columns []string // at most 64; the first is the primary key. There must be no foreign keys.
}

// Change gives a column of a row a new value.
type Change struct {
	column string
	value  any // what it is set to, or how much is added
	add    bool
}

// Set gives the column the value.
func Set(column string, value any) Change { return Change{column, value, false} }

// Add adds n to the column, which holds a whole number and is not null.
func Add(column string, n int64) Change { return Change{column, n, true} }

// Insert queues a row with a value for each of the table's columns. A key is a value that Go can compare, of one type for the whole table.
func (w *Writes) Insert(t *Table, values ...any) {
	if w.collect {
		w.rows().insert(t, values)
		return
	}
	w.Exec(`insert into `+w.Table(t.Name)+` (`+strings.Join(t.Columns, ", ")+`) values (`+placeholders(len(values))+`)`, values...)
}

// Update queues changes of the row with the key, at most one for each column. Without such a row it does nothing.
func (w *Writes) Update(t *Table, key any, changes ...Change) {
	if w.collect {
		w.rows().update(t, key, changes)
		return
	}
	var sql strings.Builder
	args := []any{key}
	for i, c := range changes {
		sql.WriteString([]string{"update " + w.Table(t.Name) + " set ", ", "}[min(i, 1)] + c.column + " = ")
		if c.add {
			sql.WriteString(c.column + " + ")
		}
		args = append(args, c.value)
		sql.WriteString("$" + strconv.Itoa(len(args)))
	}
	w.Exec(sql.String()+` where `+t.Columns[0]+` = $1`, args...)
}

// Delete queues the removal of the row with the key, if there is one.
func (w *Writes) Delete(t *Table, key any) {
	if w.collect {
		w.rows().remove(t, key)
		return
	}
	w.Exec(`delete from `+w.Table(t.Name)+` where `+t.Columns[0]+` = $1`, key)
}

func placeholders(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = "$" + strconv.Itoa(i+1)
	}
	return strings.Join(list, ", ")
}

// rows is what a run of Insert, Update and Delete comes to. What must not be taken together, such as a row that is inserted again after it
// was deleted, begins another one.
type rows struct {
	tables []*tableRows
	w      *Writes
}

type tableRows struct {
	table    *Table
	byKey    map[any]*row
	inserted []*row
	updated  []*row
	deleted  []any
}

type row struct {
	values   []any
	set, add uint64 // by column: the value is new, or is to be added; of an inserted row all values are
	inserted bool
	deleted  bool
}

func (r *rows) of(t *Table) *tableRows {
	for _, known := range r.tables {
		if known.table == t {
			return known
		}
	}
	fresh := &tableRows{table: t, byKey: map[any]*row{}}
	r.tables = append(r.tables, fresh)
	return fresh
}

func (r *rows) insert(t *Table, values []any) {
	of := r.of(t)
	fresh := &row{values: values, inserted: true}
	switch known := of.byKey[values[0]]; {
	case known == nil:
		of.byKey[values[0]] = fresh
	case !known.inserted || known.deleted: // what was said of the row before meant another one, or none
		of = r.w.newRows().of(t)
		of.byKey[values[0]] = fresh
	} // else it is a second row with the same key, which PostgreSQL refuses
	of.inserted = append(of.inserted, fresh)
}

func (r *rows) update(t *Table, key any, changes []Change) {
	of := r.of(t)
	known := of.byKey[key]
	if known == nil {
		known = &row{values: make([]any, len(t.Columns))}
		known.values[0] = key
		of.byKey[key] = known
		of.updated = append(of.updated, known)
	}
	if known.deleted {
		return
	}
	for _, c := range changes {
		i := slices.Index(t.Columns, c.column)
		bit := uint64(1) << i
		switch {
		case !c.add:
			known.values[i] = c.value
			known.set, known.add = known.set|bit, known.add&^bit
		default:
			known.values[i] = whole(known.values[i]) + c.value.(int64)
			if !known.inserted && known.set&bit == 0 {
				known.add |= bit
			}
		}
	}
}

// whole is the number that is added to; nothing is 0.
func whole(v any) int64 {
	switch n := v.(type) {
	case int64:
		return n
	case int:
		return int64(n)
	default:
		return 0
	}
}

func (r *rows) remove(t *Table, key any) {
	of := r.of(t)
	known := of.byKey[key]
	if known == nil {
		known = &row{}
		of.byKey[key] = known
	}
	known.deleted = true
	of.deleted = append(of.deleted, key)
}

// fewRows is how many rows are inserted by statements of their own rather than by COPY, which takes two round trips more.
const fewRows = 8

// write sends the rows: first what is inserted, then what is changed, then what is deleted.
func (r *rows) write(ctx context.Context, tx pgx.Tx, types columnTypes) error {
	var batch pgx.Batch
	for _, of := range r.tables {
		if len(of.inserted) < fewRows {
			for _, row := range of.inserted {
				batch.Queue(`insert into `+r.w.Table(of.table.Name)+` (`+strings.Join(of.table.Columns, ", ")+`) values (`+placeholders(len(row.values))+`)`, row.values...)
			}
		} else if err := of.copy(ctx, tx, r.w.schema, types[of.table.Name]); err != nil {
			return err
		}
		of.queueUpdates(&batch, r.w.schema, types[of.table.Name])
		if len(of.deleted) > 0 {
			key := of.table.Columns[0]
			batch.Queue(`delete from `+r.w.Table(of.table.Name)+` where `+key+` = any($1::`+types[of.table.Name][key]+`[])`, of.deleted)
		}
	}
	if batch.Len() == 0 {
		return nil
	}
	return sending(tx.SendBatch(ctx, &batch).Close())
}

// copy inserts by COPY. Texts of UUIDs are read here: pgx finds out by an error for each that they are texts.
func (of *tableRows) copy(ctx context.Context, tx pgx.Tx, schema string, types map[string]string) error {
	var uuids []int
	for i, name := range of.table.Columns {
		if types[name] == "uuid" {
			uuids = append(uuids, i)
		}
	}
	_, err := tx.CopyFrom(ctx, pgx.Identifier{schema, of.table.Name}, of.table.Columns, pgx.CopyFromSlice(len(of.inserted), func(i int) ([]any, error) {
		values := of.inserted[i].values
		for _, c := range uuids {
			if text, ok := values[c].(string); ok {
				id, err := uuid.Parse(text)
				if err != nil {
					return nil, err
				}
				values[c] = pgtype.UUID{Bytes: id, Valid: true}
			}
		}
		return values, nil
	}))
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "57014" && ctx.Err() == nil { // we have broken it off, for a value that cannot be encoded
		return &factError{"send", &sendError{errors.New("a value of a row has the wrong type or form")}}
	}
	return sending(err)
}

// queueUpdates queues one statement for all rows of which the same columns change.
func (of *tableRows) queueUpdates(batch *pgx.Batch, schema string, types map[string]string) {
	type changed struct{ set, add uint64 }
	groups := map[changed][]*row{}
	var order []changed
	for _, row := range of.updated {
		if row.set|row.add == 0 {
			continue
		}
		which := changed{row.set, row.add}
		if groups[which] == nil {
			order = append(order, which)
		}
		groups[which] = append(groups[which], row)
	}
	for _, which := range order {
		key := of.table.Columns[0]
		var sets []string
		unnest, names, args := []string{`$1::` + types[key] + `[]`}, []string{"k"}, []any{column(groups[which], 0)}
		for mask := which.set | which.add; mask != 0; mask &= mask - 1 {
			i := bits.TrailingZeros64(mask)
			name := of.table.Columns[i]
			args = append(args, column(groups[which], i))
			unnest = append(unnest, fmt.Sprintf("$%d::%s[]", len(args), types[name]))
			names = append(names, fmt.Sprintf("v%d", i))
			set := fmt.Sprintf("%s = u.v%d", name, i)
			if which.add&(1<<i) != 0 {
				set = fmt.Sprintf("%s = t.%s + u.v%d", name, name, i)
			}
			sets = append(sets, set)
		}
		batch.Queue(`update `+schema+`.`+of.table.Name+` as t set `+strings.Join(sets, ", ")+` from unnest(`+strings.Join(unnest, ", ")+`) as u (`+
			strings.Join(names, ", ")+`) where t.`+key+` = u.k`, args...)
	}
}

// column is one column of the rows.
func column(list []*row, i int) []any {
	out := make([]any, len(list))
	for n, row := range list {
		out[n] = row.values[i]
	}
	return out
}

// columnTypes are the types of a generation's columns, by table and column.
type columnTypes map[string]map[string]string

// columnTypesOf reads them.
func columnTypesOf(ctx context.Context, q querier, schema string) (columnTypes, error) {
	list, err := columnsOf(ctx, q, schema)
	if err != nil {
		return nil, err
	}
	types := columnTypes{}
	for table, columns := range list {
		types[table] = map[string]string{}
		for _, c := range columns {
			types[table][c.name] = c.kind
		}
	}
	return types, nil
}

// begin queues what a transaction of a read model begins with. With many rows they are added up.
func (w *Writes) begin(many bool) {
	w.batch.Queue(`set local synchronous_commit = off`)
	if !many {
		return
	}
	w.collect = true
	// Many rows are found by their keys, however small the table was when the statement was planned.
	w.batch.Queue(`set local enable_seqscan = off`)
	w.batch.Queue(`set local enable_hashjoin = off`)
	w.batch.Queue(`set local enable_mergejoin = off`)
}

// writeRows sends what was added up.
func (w *Writes) writeRows(ctx context.Context, tx pgx.Tx, types columnTypes) error {
	for _, step := range w.steps {
		if err := step.write(ctx, tx, types); err != nil {
			return err
		}
	}
	return nil
}

// step is a part of the SQL of a slice: a batch of statements, or rows.
type step interface {
	write(ctx context.Context, tx pgx.Tx, types columnTypes) error
}

// statements are SQL that is sent as it is.
type statements struct{ batch pgx.Batch }

func (s *statements) write(ctx context.Context, tx pgx.Tx, _ columnTypes) error {
	return sending(tx.SendBatch(ctx, &s.batch).Close())
}

// rows are where the next row goes.
func (w *Writes) rows() *rows {
	if len(w.steps) > 0 {
		if r, ok := w.steps[len(w.steps)-1].(*rows); ok {
			return r
		}
	}
	return w.newRows()
}

func (w *Writes) newRows() *rows {
	r := &rows{w: w}
	w.steps = append(w.steps, r)
	return r
}

// statements are where the next statement goes.
func (w *Writes) statements() *pgx.Batch {
	if len(w.steps) > 0 {
		if s, ok := w.steps[len(w.steps)-1].(*statements); ok {
			return &s.batch
		}
	}
	s := &statements{}
	w.steps = append(w.steps, s)
	return &s.batch
}
