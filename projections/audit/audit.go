// Package audit is the audit trail of one tenant: one row per event of its log, in plain words and without personal data.
package audit

import (
	_ "embed"
	"fmt"
	"time"

	"github.com/factum-platform/factum/domain/document"
	"github.com/factum-platform/factum/domain/file"
	"github.com/factum-platform/factum/domain/projection"
	"github.com/factum-platform/factum/domain/timestamping"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/projections/runner"
)

//go:embed schema.sql
var schema string

//go:embed indexes.sql
var indexes string

// entries is the table of schema.sql.
var entries = &runner.Table{Name: "entries", Columns: []string{"position", "event_id", "at", "actor", "type", "kind", "stream_id", "version", "summary"}}

// Projection consumes the tenant's own log, every event of it.
func Projection() runner.Projection {
	return runner.Projection{
		Name: "audit", Version: 1, Home: runner.TenantHome, DDL: schema, Indexes: indexes, Positions: true,
		Apply: func(w *runner.Writes, rec eventstore.Recorded, fact any) error {
			w.Insert(entries, int64(rec.Position), [16]byte(rec.ID), rec.Meta.At, rec.Meta.Actor, rec.Type, rec.Stream.Kind, rec.Stream.ID, int64(rec.Version), summary(rec, fact))
			return nil
		},
	}
}

// summary says in a sentence what happened. Names, file names and addresses do not occur.
func summary(rec eventstore.Recorded, fact any) string {
	switch f := fact.(type) {
	case timestamping.Enabled:
		return fmt.Sprintf("Time-stamping by %s switched on.", f.Provider)
	case timestamping.Disabled:
		return "Time-stamping switched off."
	case file.Stored:
		return fmt.Sprintf("File stored: %d bytes, SHA-256 %s.", f.Size, f.SHA256)
	case file.Linked:
		return fmt.Sprintf("Document %s refers to the file.", f.DocumentID)
	case file.Unlinked:
		return fmt.Sprintf("Document %s no longer refers to the file.", f.DocumentID)
	case file.TimestampRequested:
		return fmt.Sprintf("Time-stamp requested for SHA-256 %s.", f.SHA256)
	case file.Timestamped:
		return fmt.Sprintf("Time-stamp obtained from %s: genTime %s, serial %s, policy %s.", f.Authority, f.GenTime.Format(time.RFC3339), f.Serial, f.Policy)
	case file.TimestampFailed:
		return fmt.Sprintf("Time-stamp attempt %d failed: %s Next attempt %s.", f.Attempt, f.Reason, f.NextAttempt.Format(time.RFC3339))
	case file.TimestampAbandoned:
		return fmt.Sprintf("Time-stamp abandoned after attempt %d: %s", f.Attempt, f.Reason)
	case document.Uploaded:
		return fmt.Sprintf("Document uploaded (%s) as file %s.", f.MimeType, f.FileID)
	case document.Deleted:
		return fmt.Sprintf("Document deleted; its file %s stays.", f.FileID)
	case projection.EventSkipped:
		return fmt.Sprintf("The projection %s passes over event %s of %s %s: %s", f.Projection, f.EventID, f.StreamKind, f.StreamID, f.Reason)
	default:
		return fmt.Sprintf("%s recorded.", rec.Type)
	}
}
