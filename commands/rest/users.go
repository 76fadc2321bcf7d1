package rest

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/infra/httpapi"
)

func (r routes) users(api huma.API) {
	const one = "/api/platform/users/{user_id}"
	route(api, httpapi.Op{
		ID: "deactivate-user", Method: http.MethodPost, Path: one + "/deactivate", Tag: "platform",
		Summary: "Switch an account off: its sessions end everywhere, and it logs in no more", Errors: []int{http.StatusConflict, http.StatusNotFound},
	}, r.deactivateUser)
	route(api, httpapi.Op{
		ID: "activate-user", Method: http.MethodPost, Path: one + "/activate", Tag: "platform",
		Summary: "Switch an account on again, with the memberships that it had", Errors: []int{http.StatusConflict, http.StatusNotFound},
	}, r.activateUser)
	route(api, httpapi.Op{
		ID: "appoint-admin", Method: http.MethodPost, Path: "/api/platform/tenants/{tenant_id}/admins", Tag: "platform", Accepts: true, Status: http.StatusCreated,
		Summary: "Make a user the admin of a tenant none of whose admins can log in", Errors: []int{http.StatusConflict, http.StatusNotFound},
	}, r.appointAdmin)
}

type newAdmin struct {
	httpapi.InTenant
	httpapi.Repeatable
	Body struct {
		UserID string `json:"user_id" format:"uuid"`
	}
}

func (r routes) appointAdmin(ctx context.Context, in *newAdmin) (*httpapi.Answer[memberRole], error) {
	tenant, user := strings.ToLower(in.TenantID), strings.ToLower(in.Body.UserID)
	m, receipt, err := r.Commands.AppointAdmin(ctx, r.caller(ctx, in.IdempotencyKey), tenant, user)
	if err != nil {
		return nil, err
	}
	return httpapi.Answered(r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Directory()), "The user is an admin of the tenant.", memberRoleOf(tenant, user, m)), nil
}

type oneUser struct {
	httpapi.Repeatable
	UserID string `path:"user_id" format:"uuid"`
}

type switchedUser struct {
	UserID   string `json:"user_id" format:"uuid"`
	IsActive bool   `json:"is_active"`
}

func (r routes) deactivateUser(ctx context.Context, in *oneUser) (*httpapi.Answer[switchedUser], error) {
	return r.switchUser(ctx, in, r.Commands.DeactivateUser, "The account is switched off.", false)
}

func (r routes) activateUser(ctx context.Context, in *oneUser) (*httpapi.Answer[switchedUser], error) {
	return r.switchUser(ctx, in, r.Commands.ActivateUser, "The account is switched on.", true)
}

func (r routes) switchUser(ctx context.Context, in *oneUser, command func(context.Context, commands.Caller, string) (commands.Receipt, error), message string, on bool) (*httpapi.Answer[switchedUser], error) {
	id := strings.ToLower(in.UserID)
	receipt, err := command(ctx, r.caller(ctx, in.IdempotencyKey), id)
	if err != nil {
		return nil, err
	}
	return httpapi.Answered(r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Directory()), message, switchedUser{id, on}), nil
}
