package readapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/infra/httpapi"
	"github.com/factum-platform/factum/infra/readmodel"
)

// ListPage selects a part of a list by number, as the original does, or by where the part before ended: that costs the same however far
// down it is, and skips and repeats nothing when entries come and go meanwhile.
type ListPage struct {
	httpapi.Page
	Cursor string `query:"cursor" maxLength:"2000" doc:"next_cursor of the part before; it goes before page. Filters and order must be as they were."`
}

// Period limits a list by when its entries were created.
type Period struct {
	CreatedAfter  time.Time `query:"created_after" doc:"Only what was created later."`
	CreatedBefore time.Time `query:"created_before" doc:"Only what was created earlier."`
}

// list is a query for one part of a list of rows with an id. In its texts, {schema} stands for that of the table.
type list struct {
	columns string // what is selected
	besides string // a select that answers one row, whatever is listed; "" for none
	into    []any  // where its columns go
	table   string // without its schema
	as      string // its name in columns
	of      string // the tenant whose rows they are; "" for all

	conditions []string // that rows fulfil
	args       []any    // theirs
	column     string   // that is sorted by
	kind       string   // its SQL type
	descending bool
	page       httpapi.Page
	after      *cursor // the last row of the part before; nil counts from the beginning
	sort       string
	mark       string // that cursors of this list bear
}

// cursor is the last row of a part.
type cursor struct {
	Sort  string `json:"s"`
	Value string `json:"v"` // of the column that is sorted by
	ID    string `json:"i"`
	Page  int    `json:"p"` // the number of the part that follows
	Mark  string `json:"m"` // of the list
}

const timeKind = "timestamptz"

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// orderBy sorts by a column, downwards after a -, and begins where the page or its cursor says; it comes after all conditions. kinds has the SQL
// types of the columns that may be sorted by. It answers what is wrong, by field: a cursor that was not made by this list,
// with these conditions and in this order. What follows it would be no part of that list.
func (l *list) orderBy(sort string, kinds map[string]string, in ListPage) map[string][]string {
	l.sort, l.page = sort, in.Page
	l.column, l.descending = strings.CutPrefix(sort, "-")
	l.kind = kinds[l.column]
	h := fnv.New64a()
	for _, part := range append([]any{l.table, l.of, l.conditions}, l.args...) {
		fmt.Fprintln(h, part)
	}
	l.mark = strconv.FormatUint(h.Sum64(), 36)
	if in.Cursor == "" {
		return nil
	}
	var at cursor
	raw, err := base64.RawURLEncoding.DecodeString(in.Cursor)
	if err == nil {
		err = json.Unmarshal(raw, &at)
	}
	if err != nil || at.Sort != sort || at.Mark != l.mark || !uuidForm.MatchString(at.ID) || at.Page < 1 || !l.holds(at.Value) {
		return map[string][]string{"cursor": {"Not a cursor of this list, with these filters and in this order."}}
	}
	l.after, l.page.Page = &at, at.Page
	return nil
}

// holds tells whether the column that is sorted by can have the value.
func (l *list) holds(value string) bool {
	switch l.kind {
	case timeKind:
		_, err := time.Parse(time.RFC3339Nano, value)
		return err == nil
	case "bigint":
		return len(value) <= 18 && !strings.ContainsFunc(value, func(r rune) bool { return r < '0' || r > '9' }) && value != ""
	default:
		return plain(value)
	}
}

// where demands a condition, in which $ stands for the value.
func (l *list) where(condition string, value any) {
	l.args = append(l.args, value)
	l.conditions = append(l.conditions, strings.ReplaceAll(condition, "$", fmt.Sprintf("$%d", len(l.args))))
}

func (l *list) created(p Period) {
	if !p.CreatedAfter.IsZero() {
		l.where("created_at > $", p.CreatedAfter)
	}
	if !p.CreatedBefore.IsZero() {
		l.where("created_at < $", p.CreatedBefore)
	}
}

// read reads one part of a list, and how many rows there are in all. last says what a cursor keeps of a row: the text of the column that is
// sorted by, and the id.
func read[R any](
	ctx context.Context, s *httpapi.Server, m httpapi.Model, minPosition uint64, l *list,
	scan func(pgx.CollectableRow) (R, error), last func(R) (value, id string),
) (rows []R, pagination httpapi.Pagination, at httpapi.Settled, err error) {
	var total int
	at, err = s.Ask(ctx, m, minPosition, func(schema string) readmodel.Query {
		rows = []R{}
		q := l.query(schema)
		q.Into = append([]any{&total}, q.Into...)
		q.Row = func(row pgx.CollectableRow) error {
			r, err := scan(row)
			rows = append(rows, r)
			return err
		}
		return q
	})
	if err != nil {
		return nil, pagination, at, err
	}
	pagination = l.page.Of(total)
	if len(rows) <= l.page.PerPage {
		return rows, pagination, at, nil
	}
	rows = rows[:l.page.PerPage]
	value, id := last(rows[len(rows)-1])
	raw, err := json.Marshal(cursor{l.sort, value, id, l.page.Page + 1, l.mark})
	if err != nil {
		return nil, pagination, at, fmt.Errorf("readapi: write a cursor: %w", err)
	}
	pagination.NextCursor = base64.RawURLEncoding.EncodeToString(raw)
	return rows, pagination, at, nil
}

// query counts the rows, and selects those of the part and one more, which says whether another part follows.
func (l *list) query(schema string) readmodel.Query {
	where, args := "true", append([]any(nil), l.args...)
	if len(l.conditions) > 0 {
		where = strings.Join(l.conditions, " and ")
	}
	table := schema + "." + l.table + " " + l.as + " where "
	q := readmodel.Query{Head: "select count(*) from " + table + where, Into: l.into}
	if l.besides != "" {
		q.Head = "select (" + q.Head + "), b.* from (" + l.besides + ") b"
	}
	direction, sign, offset := "", ">", l.page.Offset()
	if l.descending {
		direction, sign = " desc", "<"
	}
	if l.after != nil {
		args = append(args, l.after.Value, l.after.ID)
		where += fmt.Sprintf(" and (%[1]s.%[2]s, %[1]s.id) %[3]s ($%[4]d::text::%[5]s, $%[6]d::uuid)", l.as, l.column, sign, len(args)-1, l.kind, len(args))
		offset = 0
	}
	q.Columns, q.From, q.Args = l.columns, table+where, args
	q.Order = fmt.Sprintf("%[1]s.%[2]s%[3]s, %[1]s.id%[3]s", l.as, l.column, direction)
	q.Limit = fmt.Sprintf("%d offset %d", l.page.PerPage+1, offset)
	inSchema := strings.NewReplacer("{schema}", schema)
	q.Head, q.Columns, q.From = inSchema.Replace(q.Head), inSchema.Replace(q.Columns), inSchema.Replace(q.From)
	return q
}

// plain tells whether PostgreSQL can take the text.
func plain(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }
