package rest

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/infra/httpapi"
)

func (r routes) documents(api huma.API) {
	text := &huma.Schema{Type: huma.TypeString}
	route(api, httpapi.Op{
		ID: "upload-document", Method: http.MethodPost, Path: "/api/tenants/{tenant_id}/documents", Tag: "documents",
		Summary: "Keep a file of 1 byte to 100 MiB under a name; the parts may come in any order", Status: http.StatusCreated,
		Errors: []int{http.StatusConflict}, Digest: digest, Makes: true,
		Body: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"multipart/form-data": {Schema: &huma.Schema{
			Type: huma.TypeObject, Required: []string{"file"}, Properties: map[string]*huma.Schema{
				"file": {Type: huma.TypeString, Format: "binary"}, "filename": text, "mime_type": text,
				"metadata": {Type: huma.TypeString, Description: "A JSON object of texts, by key.", Examples: []any{`{"machine":"press 4"}`}},
			},
		}}}},
	}, r.uploadDocument)
	route(api, httpapi.Op{
		ID: "delete-document", Method: http.MethodDelete, Versioned: httpapi.TagDocument, Path: "/api/tenants/{tenant_id}/documents/{document_id}", Tag: "documents",
		Summary: "Remove a document; its file and the file's time-stamp stay", Errors: []int{http.StatusConflict},
	}, r.deleteDocument)
	route(api, httpapi.Op{
		ID: "change-document", Method: http.MethodPut, Versioned: httpapi.TagDocument, Path: "/api/tenants/{tenant_id}/documents/{document_id}", Tag: "documents", Accepts: true,
		Summary: "Change a document's name, media type or metadata; what is not named stays", Errors: []int{http.StatusConflict},
	}, r.changeDocument)
	route(api, httpapi.Op{
		ID: "delete-documents", Method: http.MethodPost, Path: "/api/tenants/{tenant_id}/documents/bulk/delete", Tag: "documents", Accepts: true,
		Summary: "Remove many documents, each by itself", Errors: []int{http.StatusConflict},
	}, r.deleteDocuments)
	route(api, httpapi.Op{
		ID: "change-documents", Method: http.MethodPost, Path: "/api/tenants/{tenant_id}/documents/bulk/metadata", Tag: "documents", Accepts: true,
		Summary: "Change the metadata of many documents, each by itself", Errors: []int{http.StatusConflict},
	}, r.changeDocuments)
}

func (r routes) uploadDocument(ctx context.Context, in *upload) (*httpapi.Answer[httpapi.DocumentWithFile], error) {
	tenant := httpapi.MembershipOf(ctx)
	form, err := in.form()
	if err != nil {
		return nil, err
	}
	content, err := form.file()
	if err != nil {
		return nil, err
	}
	u, receipt, err := r.Commands.UploadDocument(ctx, r.caller(ctx, in.IdempotencyKey), commands.UploadDocument{
		TenantID: tenant.ID, DatabaseName: tenant.DatabaseName, Body: content, Describe: form.describe,
	})
	if err != nil {
		return nil, err
	}
	if err := httpapi.Digested(ctx, form.sum.Sum(nil)); err != nil {
		return nil, err
	}
	httpapi.Tag(ctx, httpapi.TagDocument, uint64(receipt.Version))
	at := r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Documents(tenant.ID))
	return httpapi.Answered(at, "The document is stored.", httpapi.DocumentWithFile{
		Document: httpapi.Document{
			ID: u.DocumentID, Filename: u.Filename, MimeType: u.MimeType, FileID: u.FileID, UserID: u.UserID, CreatedBy: u.UserID,
			CreatedAt: httpapi.Time(u.CreatedAt), UpdatedAt: httpapi.Time(u.CreatedAt), Metadata: u.Metadata,
		},
		File: httpapi.DocumentFile{MD5Hash: u.MD5, S3Path: u.ObjectKey, FileSize: u.Size, CreatedAt: httpapi.Time(u.FileCreatedAt)},
	}), nil
}

type oneDocument struct {
	httpapi.InTenant
	httpapi.Repeatable
	DocumentID string `path:"document_id" format:"uuid"`
}

type deletedDocument struct {
	DeletedDocumentID string `json:"deleted_document_id" format:"uuid"`
	FileOrphaned      bool   `json:"file_orphaned" doc:"No other document refers to the file."`
}

func (r routes) deleteDocument(ctx context.Context, in *oneDocument) (*httpapi.Answer[deletedDocument], error) {
	tenant, id := httpapi.MembershipOf(ctx).ID, strings.ToLower(in.DocumentID)
	orphaned, receipt, err := r.Commands.DeleteDocument(ctx, r.caller(ctx, in.IdempotencyKey), commands.DocumentID{TenantID: tenant, ID: id, Only: httpapi.OwnerOf(ctx)})
	if err != nil {
		return nil, err
	}
	at := r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Documents(tenant))
	return httpapi.Answered(at, "The document is removed.", deletedDocument{id, orphaned}), nil
}

type documentChange struct {
	httpapi.InTenant
	httpapi.Repeatable
	DocumentID string `path:"document_id" format:"uuid"`
	Body       struct {
		Filename *string            `json:"filename,omitempty" minLength:"1" maxLength:"255" example:"pump.pdf"`
		MimeType *string            `json:"mime_type,omitempty" minLength:"1" maxLength:"100" example:"application/pdf"`
		Metadata map[string]*string `json:"metadata,omitempty" doc:"New values by key; null removes one; keys that are not named stay."`
	}
}

// Resolve implements huma.Resolver.
func (in *documentChange) Resolve(huma.Context) []error {
	if in.Body.Filename == nil && in.Body.MimeType == nil && in.Body.Metadata == nil {
		return httpapi.Wrong(map[string][]string{"_schema": {"Name at least one field."}})
	}
	return httpapi.Wrong(in.command().Check())
}

func (in *documentChange) command() commands.ChangeDocument {
	return commands.ChangeDocument{Filename: in.Body.Filename, MimeType: in.Body.MimeType, Metadata: in.Body.Metadata}
}

func (r routes) changeDocument(ctx context.Context, in *documentChange) (*httpapi.Answer[httpapi.Document], error) {
	tenant, id := httpapi.MembershipOf(ctx).ID, strings.ToLower(in.DocumentID)
	d, receipt, err := r.Commands.ChangeDocument(ctx, r.caller(ctx, in.IdempotencyKey), commands.DocumentID{TenantID: tenant, ID: id, Only: httpapi.OwnerOf(ctx)}, in.command())
	if err != nil {
		return nil, err
	}
	at := r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Documents(tenant))
	httpapi.Tag(ctx, httpapi.TagDocument, uint64(receipt.Version))
	return httpapi.Answered(at, "The document is changed.", httpapi.Document{
		ID: d.ID, Filename: d.Filename, MimeType: d.MimeType, FileID: d.FileID, UserID: d.UserID, CreatedBy: d.UserID,
		CreatedAt: httpapi.Time(d.CreatedAt), UpdatedAt: httpapi.Time(d.UpdatedAt), Metadata: d.Metadata,
	}), nil
}

type manyDocuments struct {
	httpapi.InTenant
	httpapi.Repeatable
	Body struct {
		DocumentIDs []string `json:"document_ids" format:"uuid" minItems:"1" maxItems:"1000" nullable:"false"`
	}
}

func (r routes) deleteDocuments(ctx context.Context, in *manyDocuments) (*httpapi.Answer[results], error) {
	tenant := httpapi.MembershipOf(ctx).ID
	items, receipt, err := r.Commands.DeleteDocuments(ctx, r.caller(ctx, in.IdempotencyKey), tenant, httpapi.OwnerOf(ctx), distinct(in.Body.DocumentIDs))
	if err != nil {
		return nil, err
	}
	at := r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Documents(tenant))
	return httpapi.Answered(at, "The documents are removed, as far as each could be.", resultsOf(items)), nil
}

type manyChanges struct {
	httpapi.InTenant
	httpapi.Repeatable
	Body struct {
		DocumentIDs []string           `json:"document_ids" format:"uuid" minItems:"1" maxItems:"1000" nullable:"false"`
		Metadata    map[string]*string `json:"metadata" nullable:"false" doc:"New values by key; null removes one; keys that are not named stay."`
	}
}

// Resolve implements huma.Resolver.
func (in *manyChanges) Resolve(huma.Context) []error {
	if len(in.Body.Metadata) == 0 {
		return httpapi.Wrong(map[string][]string{"metadata": {"Name at least one key."}})
	}
	return httpapi.Wrong(commands.ChangeDocument{Metadata: in.Body.Metadata}.Check())
}

func (r routes) changeDocuments(ctx context.Context, in *manyChanges) (*httpapi.Answer[results], error) {
	tenant := httpapi.MembershipOf(ctx).ID
	items, receipt, err := r.Commands.ChangeDocuments(ctx, r.caller(ctx, in.IdempotencyKey), tenant, httpapi.OwnerOf(ctx), distinct(in.Body.DocumentIDs),
		commands.ChangeDocument{Metadata: in.Body.Metadata})
	if err != nil {
		return nil, err
	}
	at := r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Documents(tenant))
	return httpapi.Answered(at, "The documents are changed, as far as each could be.", resultsOf(items)), nil
}
