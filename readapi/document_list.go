package readapi

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/infra/fulltext"
	"github.com/factum-platform/factum/infra/httpapi"
)

type documentQuery struct {
	httpapi.InTenant
	httpapi.Fresh
	ListPage
	Period
	Sort     string   `query:"sort" default:"-created_at" enum:"created_at,-created_at,updated_at,-updated_at,filename,-filename,mime_type,-mime_type" doc:"Column to sort by; - sorts downwards."`
	Q        string   `query:"q" maxLength:"500" doc:"Only documents whose names or metadata have words that begin with all of these." example:"pump north"`
	Filename string   `query:"filename" maxLength:"255" doc:"Only names that contain this, in whatever case."`
	MimeType string   `query:"mime_type" maxLength:"100" doc:"Only this media type, or all of a kind." example:"image/*"`
	UserID   string   `query:"user_id" format:"uuid" doc:"Only what this user uploaded."`
	FileID   string   `query:"file_id" format:"uuid" doc:"Only documents of this file."`
	Metadata []string `query:"metadata,explode" maxItems:"10" doc:"Only documents with this in their metadata; may be given several times." example:"plant=north"`

	selected *list
}

// Resolve implements huma.Resolver.
func (in *documentQuery) Resolve(huma.Context) (wrong []error) {
	in.selected, wrong = in.list()
	return wrong
}

type documentPage struct {
	Documents  []httpapi.Document `json:"documents" nullable:"false"`
	Pagination httpapi.Pagination `json:"pagination"`
}

var documentSorts = map[string]string{"created_at": timeKind, "updated_at": timeKind, "filename": "text", "mime_type": "text"}

var likeLiteral = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// list is the query for the part of the documents that is asked for.
func (in *documentQuery) list() (*list, []error) {
	l := &list{columns: documentColumns, table: "documents", of: strings.ToLower(in.TenantID), as: "d"}
	l.created(in.Period)
	if in.Q != "" {
		l.where("words @@ $::tsquery", fulltext.Query(in.Q))
	}
	if in.Filename != "" {
		l.where("filename ilike $", "%"+likeLiteral.Replace(in.Filename)+"%")
	}
	mime := strings.ToLower(in.MimeType)
	if kind, all := strings.CutSuffix(mime, "/*"); all {
		l.where("mime_type like $", likeLiteral.Replace(kind)+"/%")
	} else if mime != "" {
		l.where("mime_type = $", mime)
	}
	if in.UserID != "" {
		l.where("user_id = $", in.UserID)
	}
	if in.FileID != "" {
		l.where("file_id = $", in.FileID)
	}
	for _, pair := range in.Metadata {
		key, value, _ := strings.Cut(pair, "=")
		raw, err := json.Marshal(map[string]string{key: value})
		if err != nil {
			return nil, []error{fmt.Errorf("readapi: filter by metadata: %w", err)}
		}
		l.where("metadata @> $::jsonb", string(raw))
	}
	wrong := in.unreadable()
	maps.Copy(wrong, l.orderBy(in.Sort, documentSorts, in.ListPage))
	return l, httpapi.Wrong(wrong)
}

// unreadable names the parameters that mean nothing.
func (in *documentQuery) unreadable() map[string][]string {
	wrong := map[string][]string{}
	for name, value := range map[string]string{"q": in.Q, "filename": in.Filename, "mime_type": in.MimeType, "metadata": strings.Join(in.Metadata, "")} {
		if !plain(value) {
			wrong[name] = []string{"Must be valid text."}
		}
	}
	if in.Q != "" && len(fulltext.Words(in.Q)) == 0 {
		wrong["q"] = []string{"Must have a letter or a digit."}
	}
	for _, pair := range in.Metadata {
		if !strings.Contains(pair, "=") {
			wrong["metadata"] = []string{"Must be a key and a value with = between them."}
		}
	}
	return wrong
}

func (r routes) listDocuments(ctx context.Context, in *documentQuery) (*httpapi.Answer[documentPage], error) {
	l := in.selected
	var out documentPage
	var at httpapi.Settled
	var err error
	out.Documents, out.Pagination, at, err = read(ctx, r.Server, httpapi.Documents(in.TenantID), in.MinPosition, l, scanDocument, func(d httpapi.Document) (value, id string) {
		switch l.column {
		case "created_at":
			return d.CreatedAt.String(), d.ID
		case "updated_at":
			return d.UpdatedAt.String(), d.ID
		case "filename":
			return d.Filename, d.ID
		default:
			return d.MimeType, d.ID
		}
	})
	if err != nil {
		return nil, fmt.Errorf("readapi: list documents: %w", err)
	}
	return httpapi.Answered(at, "The documents.", out), nil
}

func scanDocument(row pgx.CollectableRow) (httpapi.Document, error) {
	var d httpapi.Document
	err := row.Scan(documentFields(&d)...)
	return d, err
}
