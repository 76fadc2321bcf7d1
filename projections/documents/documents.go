// Package documents is the read model of one tenant's documents and files with their time-stamps, in the tenant's database.
package documents

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/factum-platform/factum/domain/document"
	"github.com/factum-platform/factum/domain/file"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/fulltext"
	"github.com/factum-platform/factum/projections/runner"
)

//go:embed schema.sql
var schema string

//go:embed indexes.sql
var indexes string

// Projection consumes the tenant's own log.
func Projection() runner.Projection {
	return runner.Projection{
		Name: "documents", Version: 3, Home: runner.TenantHome, DDL: schema, Indexes: indexes,
		Types: []string{
			"file.stored", "file.linked", "file.unlinked", "file.timestamp_requested", "file.timestamped", "file.timestamp_failed",
			"file.timestamp_abandoned", "file.deleted",
			"document.uploaded", "document.renamed", "document.mime_type_changed", "document.metadata_set", "document.deleted",
		},
		Apply: apply,
	}
}

// files and documents are the tables of schema.sql.
var (
	files = &runner.Table{Name: "files", Columns: []string{
		"id", "sha256_hash", "md5_hash", "s3_path", "file_size", "document_count", "created_by", "created_at", "updated_at", "ts_status", "ts_attempts", "ts_reason",
		"ts_requested_at", "ts_last_attempt", "ts_next_attempt", "ts_response", "ts_gen_time", "ts_serial", "ts_policy", "ts_algorithm", "ts_authority", "ts_stamped_at",
		"version",
	}}
	documents = &runner.Table{Name: "documents", Columns: []string{
		"id", "file_id", "filename", "mime_type", "user_id", "created_by", "created_at", "updated_at", "version",
		"metadata", "name_words", "metadata_words",
	}}
)

func apply(w *runner.Writes, rec eventstore.Recorded, fact any) error {
	set, version := runner.Set, int64(rec.Version)
	switch f := fact.(type) {
	case file.Stored:
		w.Insert(files, f.FileID, f.SHA256, f.MD5, f.ObjectKey, f.Size, 0, f.StoredBy, f.At, f.At, "none", 0, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, version)
	case file.Linked:
		w.Update(files, f.FileID, set("version", version), runner.Add("document_count", 1), set("updated_at", f.At))
	case file.Unlinked:
		w.Update(files, f.FileID, set("version", version), runner.Add("document_count", -1), set("updated_at", f.At))
	case file.TimestampRequested:
		w.Update(files, f.FileID, set("version", version), set("ts_status", "pending"), set("ts_attempts", 0), set("ts_reason", nil), set("ts_requested_at", f.At),
			set("ts_last_attempt", nil), set("ts_next_attempt", f.At), set("updated_at", f.At))
	case file.Timestamped:
		w.Update(files, f.FileID, set("version", version), set("ts_status", "success"), set("ts_attempts", f.Attempt), set("ts_reason", nil), set("ts_last_attempt", f.At),
			set("ts_next_attempt", nil), set("ts_response", f.Response), set("ts_gen_time", f.GenTime), set("ts_serial", f.Serial), set("ts_policy", f.Policy),
			set("ts_algorithm", f.Algorithm), set("ts_authority", f.Authority), set("ts_stamped_at", f.At), set("updated_at", f.At))
	case file.TimestampFailed:
		w.Update(files, f.FileID, set("version", version), set("ts_attempts", f.Attempt), set("ts_reason", f.Reason), set("ts_last_attempt", f.At), set("ts_next_attempt", f.NextAttempt),
			set("updated_at", f.At))
	case file.TimestampAbandoned:
		w.Update(files, f.FileID, set("version", version), set("ts_status", "error"), set("ts_attempts", f.Attempt), set("ts_reason", f.Reason), set("ts_last_attempt", f.At),
			set("ts_next_attempt", nil), set("updated_at", f.At))
	case file.Deleted:
		w.Delete(files, f.FileID)
	case document.Uploaded:
		name := f.Filename.Reveal()
		w.Insert(documents, f.DocumentID, f.FileID, name, f.MimeType, f.UploadedBy, f.UploadedBy, f.At, f.At, version, "{}", wordsOf(name), "")
	case document.Renamed:
		name := f.Filename.Reveal()
		w.Update(documents, f.DocumentID, set("filename", name), set("name_words", wordsOf(name)), set("updated_at", f.At), set("version", version))
	case document.MimeTypeChanged:
		w.Update(documents, f.DocumentID, set("mime_type", f.MimeType), set("updated_at", f.At), set("version", version))
	case document.MetadataSet:
		metadata, words, err := metadataOf(f)
		if err != nil {
			return err
		}
		w.Update(documents, f.DocumentID, set("metadata", metadata), set("metadata_words", words), set("updated_at", f.At), set("version", version))
	case document.Deleted:
		w.Delete(documents, f.DocumentID)
	default:
		return fmt.Errorf("documents: no rows are known for %s", rec.Type)
	}
	return nil
}

// wordsOf is how the words of a text are kept.
func wordsOf(text string) string { return strings.Join(fulltext.Words(text), " ") }

// metadataOf are the metadata as JSON, and the words by which they are found. Erased metadata are none.
func metadataOf(f document.MetadataSet) (metadata, words string, err error) {
	all := document.Metadata(f.Metadata)
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(all)) {
		text.WriteString(key + " " + all[key] + " ")
	}
	raw, err := json.Marshal(all)
	if err != nil {
		return "", "", fmt.Errorf("documents: metadata of document %s: %w", f.DocumentID, err)
	}
	return string(raw), wordsOf(text.String()), nil
}
