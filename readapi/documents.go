package readapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/infra/httpapi"
	"github.com/factum-platform/factum/infra/objectstore"
)

func (r routes) documents(api huma.API) {
	httpapi.Route(api, get("list-documents", "/api/tenants/{tenant_id}/documents", "documents", "The tenant's documents, newest first"), r.listDocuments)
	httpapi.Route(api, get("get-document", "/api/tenants/{tenant_id}/documents/{document_id}", "documents", "A document and its file"), r.document)
	httpapi.Route(api, binary(get("download-document", "/api/tenants/{tenant_id}/documents/{document_id}/download", "documents",
		"The document's content, with its media type"), "*/*"), r.download)
}

type documentQuery struct {
	httpapi.InTenant
	httpapi.Fresh
	httpapi.Page
	Filename string `query:"filename" maxLength:"255" doc:"Only names that contain this, in whatever case."`
}

type documentPage struct {
	Documents  []httpapi.Document `json:"documents" nullable:"false"`
	Pagination httpapi.Pagination `json:"pagination"`
}

const documentColumns = `d.id::text, d.filename, d.mime_type, d.file_id::text, d.user_id::text, d.created_at, d.updated_at, d.created_by::text`

func documentFields(d *httpapi.Document) []any {
	return []any{&d.ID, &d.Filename, &d.MimeType, &d.FileID, &d.UserID, &d.CreatedAt, &d.UpdatedAt, &d.CreatedBy}
}

var likeLiteral = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

func (r routes) listDocuments(ctx context.Context, in *documentQuery) (*httpapi.Answer[documentPage], error) {
	if !utf8.ValidString(in.Filename) || strings.ContainsRune(in.Filename, 0) {
		return nil, httpapi.Invalid(map[string][]string{"filename": {"Must be valid text."}})
	}
	pattern := "%" + likeLiteral.Replace(in.Filename) + "%"
	var out documentPage
	at, err := r.Server.Read(ctx, httpapi.Documents(in.TenantID), in.MinPosition, func(tx pgx.Tx, schema string) error {
		var total int
		if err := tx.QueryRow(ctx, fmt.Sprintf(`select count(*) from %s.documents where filename ilike $1`, schema), pattern).Scan(&total); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, fmt.Sprintf(`select %s from %s.documents d where filename ilike $1 order by d.created_at desc, d.id limit $2 offset $3`,
			documentColumns, schema), pattern, in.PerPage, in.Offset())
		if err != nil {
			return err
		}
		out.Pagination = in.Of(total)
		out.Documents, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (httpapi.Document, error) {
			var d httpapi.Document
			err := row.Scan(documentFields(&d)...)
			return d, err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("readapi: list documents: %w", err)
	}
	return httpapi.Answered(at, "The documents.", out), nil
}

type oneDocument struct {
	httpapi.InTenant
	httpapi.Fresh
	DocumentID string `path:"document_id" format:"uuid"`
}

func (r routes) readDocument(ctx context.Context, in *oneDocument) (httpapi.DocumentWithFile, httpapi.Settled, error) {
	var d httpapi.DocumentWithFile
	at, err := r.Server.Read(ctx, httpapi.Documents(in.TenantID), in.MinPosition, func(tx pgx.Tx, schema string) error {
		return tx.QueryRow(ctx, fmt.Sprintf(`select %[1]s, f.md5_hash, f.s3_path, f.file_size, f.created_at
			from %[2]s.documents d join %[2]s.files f on f.id = d.file_id where d.id = $1`, documentColumns, schema), in.DocumentID).
			Scan(append(documentFields(&d.Document), &d.File.MD5Hash, &d.File.S3Path, &d.File.FileSize, &d.File.CreatedAt)...)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return d, at, httpapi.NotFound()
	}
	if err != nil {
		return d, at, fmt.Errorf("readapi: document: %w", err)
	}
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
