package rest

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/factum-platform/factum/infra/httpapi"
)

func (r routes) timestamping(api huma.API) {
	route(api, httpapi.Op{
		ID: "enable-tsa", Method: http.MethodPut, Path: "/api/tenants/{tenant_id}/tsa/enable", Tag: "time-stamps",
		Summary: "Time-stamp the files that are stored from now on", Errors: []int{http.StatusConflict},
	}, r.enableTSA)
	route(api, httpapi.Op{
		ID: "disable-tsa", Method: http.MethodPut, Path: "/api/tenants/{tenant_id}/tsa/disable", Tag: "time-stamps",
		Summary: "Do not time-stamp the files that are stored from now on", Errors: []int{http.StatusConflict},
	}, r.disableTSA)
}

type tsaSwitch struct {
	httpapi.InTenant
	httpapi.Repeatable
}

type tsaEnabled struct {
	TenantID    string `json:"tenant_id" format:"uuid"`
	TSAEnabled  bool   `json:"tsa_enabled"`
	TSAProvider string `json:"tsa_provider"`
}

func (r routes) enableTSA(ctx context.Context, in *tsaSwitch) (*httpapi.Answer[tsaEnabled], error) {
	if r.Commands.TSAProvider() == "" {
		return nil, httpapi.NewProblem(http.StatusBadRequest, "", "This installation has no time-stamping authority.")
	}
	id := httpapi.MembershipOf(ctx).ID
	receipt, err := r.Commands.EnableTSA(ctx, r.caller(ctx, in.IdempotencyKey), id)
	if err != nil {
		return nil, err
	}
	at := r.Server.Settle(ctx, uint64(receipt.Position), httpapi.DirectoryOf(id))
	return httpapi.Answered(at, "New files are time-stamped.", tsaEnabled{id, true, r.Commands.TSAProvider()}), nil
}

type tsaDisabled struct {
	TenantID   string `json:"tenant_id" format:"uuid"`
	TSAEnabled bool   `json:"tsa_enabled"`
}

func (r routes) disableTSA(ctx context.Context, in *tsaSwitch) (*httpapi.Answer[tsaDisabled], error) {
	id := httpapi.MembershipOf(ctx).ID
	receipt, err := r.Commands.DisableTSA(ctx, r.caller(ctx, in.IdempotencyKey), id)
	if err != nil {
		return nil, err
	}
	at := r.Server.Settle(ctx, uint64(receipt.Position), httpapi.DirectoryOf(id))
	return httpapi.Answered(at, "New files are not time-stamped.", tsaDisabled{id, false}), nil
}
