package readapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/infra/httpapi"
	"github.com/factum-platform/factum/infra/readmodel"
)

func (r routes) files(api huma.API) {
	httpapi.Route(api, get("list-files", "/api/files/{tenant_id}/files", "files", "The tenant's stored contents, newest first unless sorted otherwise"), r.listFiles)
	httpapi.Route(api, versioned(httpapi.TagFile, get("get-file", "/api/files/{tenant_id}/files/{file_id}", "files", "A stored content with its time-stamp and its documents")), r.getFile)
}

type fileQuery struct {
	httpapi.InTenant
	httpapi.Fresh
	ListPage
	Period
	Sort         string `query:"sort" default:"-created_at" enum:"created_at,-created_at,file_size,-file_size" doc:"Column to sort by; - sorts downwards."`
	Orphaned     string `query:"orphaned" enum:"true,false" doc:"Only contents that no document refers to, or only the others."`
	Timestamp    string `query:"timestamp" enum:"none,pending,success,error" doc:"Only contents whose time-stamp is so far."`
	IncludeStats string `query:"include_stats" doc:"\"true\" adds what FileFull has over FileBasic." example:"true"`

	selected *list
}

// Resolve implements huma.Resolver.
func (in *fileQuery) Resolve(huma.Context) (wrong []error) {
	in.selected, wrong = in.list()
	return wrong
}

// FileBasic is a stored content in short.
type FileBasic struct {
	ID        string       `json:"id" format:"uuid"`
	MD5Hash   string       `json:"md5_hash"`
	S3Path    string       `json:"s3_path"`
	FileSize  int64        `json:"file_size" doc:"Bytes."`
	CreatedAt httpapi.Time `json:"created_at"`
}

// FileMore is what FileFull of the contract has over [FileBasic].
type FileMore struct {
	SHA256Hash    string       `json:"sha256_hash"`
	Metadata      fileMetadata `json:"file_metadata"`
	UpdatedAt     httpapi.Time `json:"updated_at"`
	CreatedBy     string       `json:"created_by" format:"uuid"`
	DocumentCount int          `json:"document_count"`
	IsOrphaned    bool         `json:"is_orphaned" doc:"No document refers to it."`
}

type fileMetadata struct {
	Timestamp *timestamp `json:"tsa_timestamp,omitempty" doc:"Absent when no time-stamp was asked for."`
}

// timestamp is an RFC 3161 time-stamp and what became of the attempts to get it.
type timestamp struct {
	Status        string        `json:"status" enum:"pending,success,error" doc:"error: given up."`
	Provider      *string       `json:"provider,omitempty"`
	Token         *string       `json:"token,omitempty" doc:"The whole TimeStampResp (RFC 3161 §2.4.2), DER in base64."`
	Algorithm     *string       `json:"algorithm,omitempty" doc:"Of the message imprint." example:"sha256"`
	SerialNumber  *string       `json:"serial_number,omitempty" example:"0x1A2B"`
	GenTime       *httpapi.Time `json:"gen_time,omitempty"`
	PolicyOID     *string       `json:"policy_oid,omitempty"`
	TSAAuthority  *string       `json:"tsa_authority,omitempty" doc:"Subject of the signing certificate."`
	TimestampedAt *httpapi.Time `json:"timestamped_at,omitempty" doc:"When the time-stamp was recorded here."`
	RequestedAt   *httpapi.Time `json:"requested_at,omitempty"`
	RetryCount    int           `json:"retry_count" doc:"Attempts that failed."`
	ErrorMessage  *string       `json:"error_message,omitempty" doc:"Why the last attempt failed."`
	LastAttempt   *httpapi.Time `json:"last_attempt,omitempty"`
	NextAttempt   *httpapi.Time `json:"next_attempt,omitempty" doc:"When the next attempt is due."`
}

// fileFull is a file with everything; written without FileMore it is a FileBasic.
type fileFull struct {
	FileBasic
	*FileMore
}

// MarshalJSON leaves out what was not asked for.
func (f fileFull) MarshalJSON() ([]byte, error) {
	if f.FileMore == nil {
		return json.Marshal(f.FileBasic)
	}
	return json.Marshal(struct {
		FileBasic
		FileMore
	}{f.FileBasic, *f.FileMore})
}

// Schema implements huma.SchemaProvider: the fields of FileBasic are always there, the others with include_stats.
func (fileFull) Schema(registry huma.Registry) *huma.Schema {
	type documented struct {
		FileBasic
		SHA256Hash    *string       `json:"sha256_hash,omitempty"`
		Metadata      *fileMetadata `json:"file_metadata,omitempty"`
		UpdatedAt     *httpapi.Time `json:"updated_at,omitempty"`
		CreatedBy     *string       `json:"created_by,omitempty" format:"uuid"`
		DocumentCount *int          `json:"document_count,omitempty"`
		IsOrphaned    *bool         `json:"is_orphaned,omitempty"`
	}
	return huma.SchemaFromType(registry, reflect.TypeFor[documented]())
}

type fileStats struct {
	TotalFiles   int     `json:"total_files"`
	StorageBytes int64   `json:"total_storage_bytes"`
	StorageMB    float64 `json:"total_storage_mb" doc:"Units of 1,048,576 bytes, two decimals."`
	Orphaned     int     `json:"orphaned_files" doc:"Files that no document refers to."`
	OrphanBytes  int64   `json:"orphaned_storage_bytes"`
}

type filePage struct {
	Files      []fileFull         `json:"files" nullable:"false"`
	Pagination httpapi.Pagination `json:"pagination"`
	Stats      fileStats          `json:"stats" doc:"Of all files of the tenant, whatever is listed."`
}

const fileColumns = `f.id::text, f.md5_hash, f.s3_path, f.file_size, f.created_at, f.sha256_hash, f.updated_at, f.created_by::text, f.document_count,
	f.ts_status, f.ts_attempts, f.ts_reason, f.ts_requested_at, f.ts_last_attempt, f.ts_next_attempt, f.ts_response, f.ts_gen_time, f.ts_serial,
	f.ts_policy, f.ts_algorithm, f.ts_authority, f.ts_stamped_at, f.version`

// storedFile is a row of the table files.
type storedFile struct {
	basic    FileBasic
	more     FileMore
	response []byte
	version  uint64
}

func scanFile(row pgx.CollectableRow) (storedFile, error) {
	var (
		f                                                        storedFile
		t                                                        timestamp
		attempts                                                 int
		requested, lastAttempt, nextAttempt, generated, recorded *time.Time
	)
	err := row.Scan(&f.basic.ID, &f.basic.MD5Hash, &f.basic.S3Path, &f.basic.FileSize, &f.basic.CreatedAt, &f.more.SHA256Hash, &f.more.UpdatedAt,
		&f.more.CreatedBy, &f.more.DocumentCount, &t.Status, &attempts, &t.ErrorMessage, &requested, &lastAttempt, &nextAttempt,
		&f.response, &generated, &t.SerialNumber, &t.PolicyOID, &t.Algorithm, &t.TSAAuthority, &recorded, &f.version)
	if err != nil {
		return f, err
	}
	f.more.IsOrphaned = f.more.DocumentCount == 0
	if t.Status == "none" {
		return f, nil
	}
	t.RetryCount = attempts
	if t.Status == "success" {
		t.RetryCount = max(attempts-1, 0) // the last attempt was the one that succeeded
		token := base64.StdEncoding.EncodeToString(f.response)
		t.Token, t.ErrorMessage, nextAttempt = &token, nil, nil
	}
	t.RequestedAt, t.LastAttempt, t.NextAttempt = httpapi.TimeOf(requested), httpapi.TimeOf(lastAttempt), httpapi.TimeOf(nextAttempt)
	t.GenTime, t.TimestampedAt = httpapi.TimeOf(generated), httpapi.TimeOf(recorded)
	f.more.Metadata.Timestamp = &t
	return f, nil
}

// list is the query for the part of the files that is asked for.
func (in *fileQuery) list() (*list, []error) {
	l := &list{columns: fileColumns, table: "files", of: strings.ToLower(in.TenantID), as: "f"}
	l.created(in.Period)
	switch in.Orphaned {
	case "true":
		l.conditions = append(l.conditions, "document_count = 0")
	case "false":
		l.conditions = append(l.conditions, "document_count > 0")
	}
	if in.Timestamp != "" {
		l.where("ts_status = $", in.Timestamp)
	}
	return l, httpapi.Wrong(l.orderBy(in.Sort, map[string]string{"created_at": timeKind, "file_size": "bigint"}, in.ListPage))
}

func (r routes) listFiles(ctx context.Context, in *fileQuery) (*httpapi.Answer[filePage], error) {
	l := in.selected
	out := filePage{Files: []fileFull{}}
	l.besides = `select count(*), coalesce(sum(file_size), 0)::bigint, count(*) filter (where document_count = 0),
		coalesce(sum(file_size) filter (where document_count = 0), 0)::bigint from {schema}.files`
	l.into = []any{&out.Stats.TotalFiles, &out.Stats.StorageBytes, &out.Stats.Orphaned, &out.Stats.OrphanBytes}
	files, pagination, at, err := read(ctx, r.Server, httpapi.Documents(in.TenantID), in.MinPosition, l, scanFile, func(f storedFile) (value, id string) {
		if l.column == "file_size" {
			return strconv.FormatInt(f.basic.FileSize, 10), f.basic.ID
		}
		return f.basic.CreatedAt.String(), f.basic.ID
	})
	if err != nil {
		return nil, fmt.Errorf("readapi: list files: %w", err)
	}
	out.Pagination = pagination
	for _, f := range files {
		full := fileFull{FileBasic: f.basic}
		if in.IncludeStats == "true" {
			full.FileMore = &f.more
		}
		out.Files = append(out.Files, full)
	}
	out.Stats.StorageMB = math.Round(float64(out.Stats.StorageBytes)/(1<<20)*100) / 100
	return httpapi.Answered(at, "The files.", out), nil
}

type oneFile struct {
	httpapi.InTenant
	httpapi.Fresh
	FileID string `path:"file_id" format:"uuid"`
}

type fileDocument struct {
	ID        string       `json:"id" format:"uuid"`
	Filename  string       `json:"filename"`
	MimeType  string       `json:"mime_type"`
	CreatedAt httpapi.Time `json:"created_at"`
}

type fileWithDocuments struct {
	FileBasic
	FileMore
	Documents []fileDocument `json:"documents" nullable:"false"`
}

// readFile reads the file, and more in the same transaction if more is not nil. Error: [httpapi.NotFound].
func (r routes) readFile(ctx context.Context, in *oneFile, more func(tx readmodel.Tx, schema string) error) (storedFile, httpapi.Settled, error) {
	var f storedFile
	at, err := r.Server.Read(ctx, httpapi.Documents(in.TenantID), in.MinPosition, func(tx readmodel.Tx, schema string) error {
		rows, err := tx.Query(ctx, fmt.Sprintf(`select %s from %s.files f where f.id = $1`, fileColumns, schema), in.FileID)
		if err != nil {
			return err
		}
		if f, err = pgx.CollectExactlyOneRow(rows, scanFile); err != nil || more == nil {
			return err
		}
		return more(tx, schema)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return f, at, httpapi.NotFound()
	}
	if err != nil {
		return f, at, fmt.Errorf("readapi: file: %w", err)
	}
	return f, at, nil
}

func (r routes) getFile(ctx context.Context, in *oneFile) (*httpapi.Answer[fileWithDocuments], error) {
	var documents []fileDocument
	f, at, err := r.readFile(ctx, in, func(tx readmodel.Tx, schema string) error {
		rows, err := tx.Query(ctx, fmt.Sprintf(`select id::text, filename, mime_type, created_at from %s.documents where file_id = $1 order by created_at, id limit 1000`, schema), in.FileID)
		if err != nil {
			return err
		}
		documents, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (fileDocument, error) {
			var d fileDocument
			err := row.Scan(&d.ID, &d.Filename, &d.MimeType, &d.CreatedAt)
			return d, err
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	httpapi.Tag(ctx, httpapi.TagFile, f.version)
	httpapi.TagWhole(ctx) // it shows documents too
	return httpapi.Answered(at, "The file.", fileWithDocuments{f.basic, f.more, documents}), nil
}
