package httpapi

import (
	"errors"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5/pgtype"
)

// Time is a point in time as every answer writes it: RFC 3339 in UTC with microseconds, 2025-03-04T09:15:30.123456Z.
type Time time.Time

const timeForm = "2006-01-02T15:04:05.000000Z"

// MarshalJSON implements json.Marshaler.
func (t Time) MarshalJSON() ([]byte, error) { return []byte(`"` + t.String() + `"`), nil }

// String returns the text form.
func (t Time) String() string { return time.Time(t).UTC().Format(timeForm) }

// Schema implements huma.SchemaProvider.
func (Time) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "date-time", Examples: []any{"2025-03-04T09:15:30.123456Z"}}
}

// TimeOf returns nil for nil.
func TimeOf(t *time.Time) *Time {
	if t == nil {
		return nil
	}
	out := Time(*t)
	return &out
}

// ScanTimestamptz implements pgtype.TimestamptzScanner. It takes no null; scan those into a *time.Time and see [TimeOf].
func (t *Time) ScanTimestamptz(v pgtype.Timestamptz) error {
	if !v.Valid || v.InfinityModifier != pgtype.Finite {
		return errors.New("httpapi: a time that must be there is null or infinite")
	}
	*t = Time(v.Time)
	return nil
}
