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
		Errors: []int{http.StatusConflict},
		Body: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"multipart/form-data": {Schema: &huma.Schema{
			Type: huma.TypeObject, Required: []string{"file"}, Properties: map[string]*huma.Schema{
				"file": {Type: huma.TypeString, Format: "binary"}, "filename": text, "mime_type": text,
			},
		}}}},
	}, r.uploadDocument)
	route(api, httpapi.Op{
		ID: "delete-document", Method: http.MethodDelete, Path: "/api/tenants/{tenant_id}/documents/{document_id}", Tag: "documents",
		Summary: "Remove a document; its file and the file's time-stamp stay", Errors: []int{http.StatusConflict},
	}, r.deleteDocument)
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
	at := r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Documents(tenant.ID))
	return httpapi.Answered(at, "The document is stored.", httpapi.DocumentWithFile{
		Document: httpapi.Document{
			ID: u.DocumentID, Filename: u.Filename, MimeType: u.MimeType, FileID: u.FileID, UserID: u.UserID, CreatedBy: u.UserID,
			CreatedAt: httpapi.Time(u.CreatedAt), UpdatedAt: httpapi.Time(u.CreatedAt),
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
	orphaned, receipt, err := r.Commands.DeleteDocument(ctx, r.caller(ctx, in.IdempotencyKey), tenant, id)
	if err != nil {
		return nil, err
	}
	at := r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Documents(tenant))
	return httpapi.Answered(at, "The document is removed.", deletedDocument{id, orphaned}), nil
}
