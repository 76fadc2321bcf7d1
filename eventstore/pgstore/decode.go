package pgstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
)

// columns are those of an event, in the order in which [decode] reads them.
const columns = `e.pos, e.kind, e.id, e.version, e.event_id, e.type, e.schema, e.data, e.meta, e.recorded_at`

// binaryFormats asks for PostgreSQL's binary format of columns and of the number behind them: integers are big-endian, text and JSON
// are their bytes, times are microseconds since 2000.
var binaryFormats = pgx.QueryResultFormats{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}

var epoch2000 = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// query reads events and, from the last column of any row, where they end. Rows are decoded by hand: a replay of a log is nothing
// but this, and pgx's general Scan and the general JSON reader would take most of its time.
func (l *log) query(ctx context.Context, pool *pgxpool.Pool, sql string, args ...any) (events []eventstore.Recorded, end uint64, err error) {
	rows, err := pool.Query(ctx, sql, append([]any{binaryFormats}, args...)...)
	if err != nil {
		return nil, 0, fmt.Errorf("pgstore: read the log of tenant %s: %w", l.tenant, err)
	}
	defer rows.Close()
	for rows.Next() {
		raw := rows.RawValues()
		rec, err := decode(raw)
		if err != nil {
			return nil, 0, fmt.Errorf("pgstore: read the log of tenant %s: %w", l.tenant, err)
		}
		rec.Tenant = l.tenant
		events, end = append(events, rec), binary.BigEndian.Uint64(raw[10])
	}
	if err := rows.Err(); err != nil {
		return nil, 0, fmt.Errorf("pgstore: read the log of tenant %s: %w", l.tenant, err)
	}
	return events, end, nil
}

// decode copies one row: its buffer belongs to the connection.
func decode(raw [][]byte) (rec eventstore.Recorded, err error) {
	rec.Position = eventstore.Position(binary.BigEndian.Uint64(raw[0]))
	rec.Version = eventstore.Version(binary.BigEndian.Uint64(raw[3]))
	rec.ID = eventstore.EventID(raw[4])
	rec.Schema = uint16(binary.BigEndian.Uint32(raw[6]))
	rec.Data = bytes.Clone(raw[7])
	rec.Recorded = epoch2000.Add(time.Duration(binary.BigEndian.Uint64(raw[9])) * time.Microsecond)
	// One string holds all texts of the row.
	var texts strings.Builder
	texts.Grow(len(raw[1]) + len(raw[2]) + len(raw[5]) + len(raw[8]))
	for _, i := range []int{1, 2, 5, 8} {
		texts.Write(raw[i])
	}
	all := texts.String()
	cut := func(n int) (s string) {
		s, all = all[:n], all[n:]
		return s
	}
	rec.Stream.Kind, rec.Stream.ID, rec.Type = cut(len(raw[1])), cut(len(raw[2])), cut(len(raw[5]))
	rec.Meta, err = decodeMeta(all)
	return rec, err
}

// decodeMeta reads what Append wrote: the members of [eventstore.Meta] in their order, without blanks. Anything else, such as a
// text with an escape in it, is left to the JSON package.
func decodeMeta(s string) (eventstore.Meta, error) {
	var m eventstore.Meta
	var at string
	rest := s
	for _, member := range []struct {
		name  string
		value *string
	}{
		{`{"command":"`, &m.Command}, {`,"correlation":"`, &m.Correlation}, {`,"causation":"`, &m.Causation}, {`,"actor":"`, &m.Actor}, {`,"at":"`, &at},
	} {
		var ok bool
		if rest, ok = strings.CutPrefix(rest, member.name); !ok {
			return generalMeta(s)
		}
		if *member.value, rest, ok = strings.Cut(rest, `"`); !ok || strings.Contains(*member.value, `\`) {
			return generalMeta(s)
		}
	}
	var err error
	if m.At, err = time.Parse(time.RFC3339Nano, at); err != nil || rest != "}" || m.At.Location() != time.UTC {
		return generalMeta(s)
	}
	return m, nil
}

func generalMeta(s string) (eventstore.Meta, error) {
	var m eventstore.Meta
	if err := json.Unmarshal([]byte(s), &m); err != nil {
		return m, fmt.Errorf("the metadata of an event: %w", err)
	}
	m.At = m.At.UTC()
	return m, nil
}
