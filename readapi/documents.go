package readapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/infra/httpapi"
	"github.com/factum-platform/factum/infra/objectstore"
	"github.com/factum-platform/factum/infra/readmodel"
)

func (r routes) documents(api huma.API) {
	httpapi.Route(api, get("list-documents", "/api/tenants/{tenant_id}/documents", "documents", "The tenant's documents, newest first unless sorted otherwise"), r.listDocuments)
	httpapi.Route(api, versioned(httpapi.TagDocument, get("get-document", "/api/tenants/{tenant_id}/documents/{document_id}", "documents", "A document and its file")), r.document)
	httpapi.Route(api, secret(get("download-url", "/api/tenants/{tenant_id}/documents/{document_id}/download-url", "documents",
		"A URL by which whoever has it may read the document's content for a while")), r.downloadURL)
	httpapi.Route(api, binary(get("download-document", "/api/tenants/{tenant_id}/documents/{document_id}/download", "documents",
		"The document's content, with its media type"), "*/*"), r.download)
}

const documentColumns = `d.id::text, d.filename, d.mime_type, d.file_id::text, d.user_id::text, d.created_at, d.updated_at, d.created_by::text, d.metadata`

func documentFields(d *httpapi.Document) []any {
	return []any{&d.ID, &d.Filename, &d.MimeType, &d.FileID, &d.UserID, &d.CreatedAt, &d.UpdatedAt, &d.CreatedBy, &d.Metadata}
}

type oneDocument struct {
	httpapi.InTenant
	httpapi.Fresh
	DocumentID string `path:"document_id" format:"uuid"`
}

func (r routes) readDocument(ctx context.Context, in *oneDocument) (httpapi.DocumentWithFile, httpapi.Settled, error) {
	var d httpapi.DocumentWithFile
	var version uint64
	at, err := r.Server.Read(ctx, httpapi.Documents(in.TenantID), in.MinPosition, func(tx readmodel.Tx, schema string) error {
		return tx.QueryRow(ctx, fmt.Sprintf(`select %[1]s, f.md5_hash, f.s3_path, f.file_size, f.created_at, d.version
			from %[2]s.documents d join %[2]s.files f on f.id = d.file_id where d.id = $1`, documentColumns, schema), in.DocumentID).
			Scan(append(documentFields(&d.Document), &d.File.MD5Hash, &d.File.S3Path, &d.File.FileSize, &d.File.CreatedAt, &version)...)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return d, at, httpapi.NotFound()
	}
	if err != nil {
		return d, at, fmt.Errorf("readapi: document: %w", err)
	}
	httpapi.Tag(ctx, httpapi.TagDocument, version)
	return d, at, nil
}

func (r routes) document(ctx context.Context, in *oneDocument) (*httpapi.Answer[httpapi.DocumentWithFile], error) {
	d, at, err := r.readDocument(ctx, in)
	if err != nil {
		return nil, err
	}
	return httpapi.Answered(at, "The document.", d), nil
}

func (r routes) download(ctx context.Context, in *oneDocument) (*streamed, error) {
	d, at, err := r.readDocument(ctx, in)
	if err != nil {
		return nil, err
	}
	content, size, err := r.open(ctx, d.File.S3Path)
	if errors.Is(err, objectstore.ErrNotFound) {
		return nil, httpapi.NewProblem(http.StatusNotFound, "", "The document's content is missing in the object store.")
	}
	if err != nil {
		return nil, fmt.Errorf("readapi: download: %w", err)
	}
	return &streamed{at.Position, func(hc huma.Context) {
		httpapi.Stream(hc, map[string]string{
			"Content-Type":            d.MimeType,
			"Content-Disposition":     attachment(d.Filename),
			"Cache-Control":           "no-store, no-cache, must-revalidate, private",
			"Pragma":                  "no-cache",
			"Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
		}, content, size)
	}}, nil
}

type urlQuery struct {
	httpapi.InTenant
	httpapi.Fresh
	DocumentID string `path:"document_id" format:"uuid"`
	ExpiresIn  int    `query:"expires_in" default:"3600" minimum:"60" maximum:"86400" doc:"Seconds until the URL is good no longer."`
}

type downloadURL struct {
	DownloadURL string       `json:"download_url"`
	ExpiresIn   int          `json:"expires_in" doc:"Seconds."`
	ExpiresAt   httpapi.Time `json:"expires_at"`
	Filename    string       `json:"filename"`
	MimeType    string       `json:"mime_type"`
	FileSize    int64        `json:"file_size" doc:"Bytes."`
}

func (r routes) downloadURL(ctx context.Context, in *urlQuery) (*httpapi.Answer[downloadURL], error) {
	d, at, err := r.readDocument(ctx, &oneDocument{in.InTenant, in.Fresh, in.DocumentID})
	if err != nil {
		return nil, err
	}
	life := time.Duration(in.ExpiresIn) * time.Second
	expires := r.Now().Add(life)
	url, err := r.Objects.Presign(ctx, d.File.S3Path, life, d.MimeType, attachment(d.Filename))
	if err != nil {
		return nil, fmt.Errorf("readapi: sign a URL: %w", err)
	}
	return httpapi.Answered(at, "The URL is good until it expires, also when the document is deleted.",
		downloadURL{url, in.ExpiresIn, httpapi.Time(expires), d.Filename, d.MimeType, d.File.FileSize}), nil
}

// attachment is a Content-Disposition (RFC 6266): a plain name for old clients, in which what is not safe in a quoted string became
// _, and the real one by RFC 8187.
func attachment(filename string) string {
	const unreserved = "!#$&+-.^_`|~"
	var plain, encoded strings.Builder
	for _, c := range filename {
		if c < 0x20 || c > 0x7e || c == '"' || c == '\\' || c == '%' {
			c = '_'
		}
		plain.WriteRune(c)
	}
	for i := range len(filename) {
		c := filename[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(unreserved, c) >= 0 {
			encoded.WriteByte(c)
		} else {
			fmt.Fprintf(&encoded, "%%%02X", c)
		}
	}
	return fmt.Sprintf(`attachment; filename="%s"; filename*=UTF-8''%s`, plain.String(), encoded.String())
}
