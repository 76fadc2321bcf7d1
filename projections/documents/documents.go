// Package documents is the read model of one tenant's documents and files with their time-stamps, in the tenant's database.
package documents

import (
	_ "embed"
	"fmt"

	"github.com/factum-platform/factum/domain/document"
	"github.com/factum-platform/factum/domain/file"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/projections/runner"
)

//go:embed schema.sql
var schema string

//go:embed indexes.sql
var indexes string

// Projection consumes the tenant's own log.
func Projection() runner.Projection {
	return runner.Projection{
		Name: "documents", Version: 1, Home: runner.TenantHome, DDL: schema, Indexes: indexes,
		Types: []string{
			"file.stored", "file.linked", "file.unlinked", "file.timestamp_requested", "file.timestamped", "file.timestamp_failed",
			"file.timestamp_abandoned", "document.uploaded", "document.deleted",
		},
		Apply: apply,
	}
}

func apply(w *runner.Writes, rec eventstore.Recorded, fact any) error {
	files, documents := w.Table("files"), w.Table("documents")
	switch f := fact.(type) {
	case file.Stored:
		w.Exec(`insert into `+files+` (id, sha256_hash, md5_hash, s3_path, file_size, document_count, created_by, created_at, updated_at)
			values ($1, $2, $3, $4, $5, 0, $6, $7, $7)`, f.FileID, f.SHA256, f.MD5, f.ObjectKey, f.Size, f.StoredBy, f.At)
	case file.Linked:
		w.Exec(`update `+files+` set document_count = document_count + 1, updated_at = $2 where id = $1`, f.FileID, f.At)
	case file.Unlinked:
		w.Exec(`update `+files+` set document_count = document_count - 1, updated_at = $2 where id = $1`, f.FileID, f.At)
	case file.TimestampRequested:
		w.Exec(`update `+files+` set ts_status = 'pending', ts_attempts = 0, ts_reason = null, ts_requested_at = $2, ts_last_attempt = null,
			ts_next_attempt = $2, updated_at = $2 where id = $1`, f.FileID, f.At)
	case file.Timestamped:
		w.Exec(`update `+files+` set ts_status = 'success', ts_attempts = $2, ts_reason = null, ts_last_attempt = $3, ts_next_attempt = null, ts_response = $4,
			ts_gen_time = $5, ts_serial = $6, ts_policy = $7, ts_algorithm = $8, ts_authority = $9, ts_stamped_at = $3, updated_at = $3 where id = $1`,
			f.FileID, f.Attempt, f.At, f.Response, f.GenTime, f.Serial, f.Policy, f.Algorithm, f.Authority)
	case file.TimestampFailed:
		w.Exec(`update `+files+` set ts_attempts = $2, ts_reason = $3, ts_last_attempt = $4, ts_next_attempt = $5, updated_at = $4 where id = $1`,
			f.FileID, f.Attempt, f.Reason, f.At, f.NextAttempt)
	case file.TimestampAbandoned:
		w.Exec(`update `+files+` set ts_status = 'error', ts_attempts = $2, ts_reason = $3, ts_last_attempt = $4, ts_next_attempt = null, updated_at = $4 where id = $1`,
			f.FileID, f.Attempt, f.Reason, f.At)
	case document.Uploaded:
		w.Exec(`insert into `+documents+` (id, file_id, filename, mime_type, user_id, created_by, created_at, updated_at, version)
			values ($1, $2, $3, $4, $5, $5, $6, $6, $7)`, f.DocumentID, f.FileID, f.Filename.Reveal(), f.MimeType, f.UploadedBy, f.At, int64(rec.Version))
	case document.Deleted:
		w.Exec(`delete from `+documents+` where id = $1`, f.DocumentID)
	default:
		return fmt.Errorf("documents: no rows are known for %s", rec.Type)
	}
	return nil
}
