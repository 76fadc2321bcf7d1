package rest

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/factum-platform/factum/domain/membership"
	"github.com/factum-platform/factum/infra/httpapi"
)

func (r routes) members(api huma.API) {
	const all, one = "/api/tenants/{tenant_id}/users", "/api/tenants/{tenant_id}/users/{user_id}"
	route(api, httpapi.Op{
		ID: "add-member", Method: http.MethodPost, Versioned: httpapi.TagMembers, Path: all, Tag: "members", Accepts: true, Status: http.StatusCreated,
		Summary: "Make a user a member", Errors: []int{http.StatusConflict},
	}, r.addMember)
	route(api, httpapi.Op{
		ID: "change-role", Method: http.MethodPut, Versioned: httpapi.TagMembers, Path: one, Tag: "members", Accepts: true,
		Summary: "Give a member another role; the last admin stays one", Errors: []int{http.StatusConflict},
	}, r.changeRole)
	route(api, httpapi.Op{
		ID: "remove-member", Method: http.MethodDelete, Versioned: httpapi.TagMembers, Path: one, Tag: "members",
		Summary: "End a membership, also one's own; the last admin stays. What the user uploaded stays too", Errors: []int{http.StatusConflict},
	}, r.removeMember)
}

type newMember struct {
	httpapi.InTenant
	httpapi.Repeatable
	Body struct {
		UserID string `json:"user_id" format:"uuid"`
		Role   string `json:"role" enum:"admin,user,viewer"`
	}
}

type memberRole struct {
	UserID   string       `json:"user_id" format:"uuid"`
	TenantID string       `json:"tenant_id" format:"uuid"`
	Role     string       `json:"role" enum:"admin,user,viewer"`
	JoinedAt httpapi.Time `json:"joined_at"`
}

func (r routes) addMember(ctx context.Context, in *newMember) (*httpapi.Answer[memberRole], error) {
	tenant, user := httpapi.MembershipOf(ctx).ID, strings.ToLower(in.Body.UserID)
	m, receipt, err := r.Commands.AddMember(ctx, r.caller(ctx, in.IdempotencyKey), tenant, user, in.Body.Role)
	if err != nil {
		return nil, err
	}
	httpapi.Tag(ctx, httpapi.TagMembers, uint64(receipt.Version))
	at := r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Directory())
	return httpapi.Answered(at, "The user is a member.", memberRoleOf(tenant, user, m)), nil
}

type oneMember struct {
	httpapi.InTenant
	httpapi.Repeatable
	UserID string `path:"user_id" format:"uuid"`
}

type newRole struct {
	httpapi.InTenant
	httpapi.Repeatable
	UserID string `path:"user_id" format:"uuid"`
	Body   struct {
		Role string `json:"role" enum:"admin,user,viewer"`
	}
}

func (r routes) changeRole(ctx context.Context, in *newRole) (*httpapi.Answer[memberRole], error) {
	tenant, user := httpapi.MembershipOf(ctx).ID, strings.ToLower(in.UserID)
	m, receipt, err := r.Commands.ChangeRole(ctx, r.caller(ctx, in.IdempotencyKey), tenant, user, in.Body.Role)
	if err != nil {
		return nil, err
	}
	httpapi.Tag(ctx, httpapi.TagMembers, uint64(receipt.Version))
	at := r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Directory())
	return httpapi.Answered(at, "The member has the role.", memberRoleOf(tenant, user, m)), nil
}

func (r routes) removeMember(ctx context.Context, in *oneMember) (*httpapi.Done, error) {
	receipt, err := r.Commands.RemoveMember(ctx, r.caller(ctx, in.IdempotencyKey), httpapi.MembershipOf(ctx).ID, strings.ToLower(in.UserID))
	if err != nil {
		return nil, err
	}
	return httpapi.DoneWith(r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Directory()), "The user is a member no longer."), nil
}

func memberRoleOf(tenant, user string, m membership.Member) memberRole {
	return memberRole{UserID: user, TenantID: tenant, Role: m.Role, JoinedAt: httpapi.Time(m.JoinedAt)}
}
