package rest

import (
	"context"
	"math"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/factum-platform/factum/infra/httpapi"
)

func (r routes) files(api huma.API) {
	route(api, httpapi.Op{
		ID: "delete-file", Method: http.MethodDelete, Versioned: httpapi.TagFile, Path: "/api/files/{tenant_id}/files/{file_id}", Tag: "files",
		Summary: "Keep a content no longer that no document refers to; its object goes", Errors: []int{http.StatusConflict},
	}, r.deleteFile)
	route(api, httpapi.Op{
		ID: "delete-files", Method: http.MethodPost, Path: "/api/files/{tenant_id}/files/bulk/delete", Tag: "files", Accepts: true,
		Summary: "Keep many contents no longer, each by itself; ?orphaned=true lists those that can go", Errors: []int{http.StatusConflict},
	}, r.deleteFiles)
}

type oneFile struct {
	httpapi.InTenant
	httpapi.Repeatable
	FileID string `path:"file_id" format:"uuid"`
}

type deletedFile struct {
	FileID     string  `json:"file_id" format:"uuid"`
	MD5Hash    string  `json:"md5_hash"`
	FreedBytes int64   `json:"freed_storage_bytes"`
	FreedMB    float64 `json:"freed_storage_mb" doc:"Units of 1,048,576 bytes, two decimals."`
}

func (r routes) deleteFile(ctx context.Context, in *oneFile) (*httpapi.Answer[deletedFile], error) {
	tenant := httpapi.MembershipOf(ctx).ID
	f, receipt, err := r.Commands.DeleteFile(ctx, r.caller(ctx, in.IdempotencyKey), tenant, strings.ToLower(in.FileID))
	if err != nil {
		return nil, err
	}
	at := r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Documents(tenant))
	return httpapi.Answered(at, "The file is deleted.", deletedFile{f.ID, f.MD5, f.Size, math.Round(float64(f.Size)/(1<<20)*100) / 100}), nil
}

type manyFiles struct {
	httpapi.InTenant
	httpapi.Repeatable
	Body struct {
		FileIDs []string `json:"file_ids" format:"uuid" minItems:"1" maxItems:"1000" nullable:"false"`
	}
}

func (r routes) deleteFiles(ctx context.Context, in *manyFiles) (*httpapi.Answer[results], error) {
	tenant := httpapi.MembershipOf(ctx).ID
	items, receipt, err := r.Commands.DeleteFiles(ctx, r.caller(ctx, in.IdempotencyKey), tenant, distinct(in.Body.FileIDs))
	if err != nil {
		return nil, err
	}
	at := r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Documents(tenant))
	return httpapi.Answered(at, "The files are deleted, as far as each could be.", resultsOf(items)), nil
}
