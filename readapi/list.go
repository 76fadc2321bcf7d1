package readapi

import (
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

// list is a query for one part of a list of rows with an id. In columns and conditions, {schema} stands for that of the table.
type list struct {
	columns string // what is selected
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

// read queues what counts the rows and reads those of the part into out. last says what a cursor keeps of a row: the text of the column that
// is sorted by, and the id.
func read[R any](b *pgx.Batch, schema string, l *list, scan func(pgx.CollectableRow) (row R, err error), last func(R) (value, id string), out *[]R, pagination *httpapi.Pagination) {
	where, args := "true", append([]any(nil), l.args...)
	if len(l.conditions) > 0 {
		where = inSchema(schema, strings.Join(l.conditions, " and "))
	}
	b.Queue(fmt.Sprintf(`select count(*) from %s.%s %s where %s`, schema, l.table, l.as, where), args...).QueryRow(func(row pgx.Row) error {
		var total int
		err := row.Scan(&total)
		*pagination = l.page.Of(total)
		return err
	})
	direction, sign, offset := "", ">", l.page.Offset()
	if l.descending {
		direction, sign = " desc", "<"
	}
	if l.after != nil {
		args = append(args, l.after.Value, l.after.ID)
		where += fmt.Sprintf(" and (%[1]s.%[2]s, %[1]s.id) %[3]s ($%[4]d::text::%[5]s, $%[6]d::uuid)", l.as, l.column, sign, len(args)-1, l.kind, len(args))
		offset = 0
	}
	// One row more than asked for says whether another part follows.
	b.Queue(fmt.Sprintf(`select %[1]s from %[2]s.%[3]s %[4]s where %[5]s order by %[4]s.%[6]s%[7]s, %[4]s.id%[7]s limit %[8]d offset %[9]d`,
		inSchema(schema, l.columns), schema, l.table, l.as, where, l.column, direction, l.page.PerPage+1, offset), args...).Query(func(rows pgx.Rows) (err error) {
		if *out, err = pgx.CollectRows(rows, scan); err != nil || len(*out) <= l.page.PerPage {
			return err
		}
		*out = (*out)[:l.page.PerPage]
		value, id := last((*out)[len(*out)-1])
		raw, err := json.Marshal(cursor{l.sort, value, id, l.page.Page + 1, l.mark})
		if err != nil {
			return fmt.Errorf("readapi: write a cursor: %w", err)
		}
		pagination.NextCursor = base64.RawURLEncoding.EncodeToString(raw)
		return nil
	})
}

func inSchema(schema, sql string) string { return strings.ReplaceAll(sql, "{schema}", schema) }

// plain tells whether PostgreSQL can take the text.
func plain(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }
