package rest

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/infra/httpapi"
)

func (r routes) invitations(api huma.API) {
	const ofTenant, own = "/api/tenants/{tenant_id}/invitations", "/api/users/me/invitations/{invitation_id}"
	route(api, httpapi.Op{
		ID: "invite", Method: http.MethodPost, Path: ofTenant, Tag: "invitations", Accepts: true, Status: http.StatusCreated,
		Summary: "Invite an e-mail address, which need not have an account; a mail brings a link that is good for seven days", Errors: []int{http.StatusConflict},
	}, r.invite)
	route(api, httpapi.Op{
		ID: "resend-invitation", Method: http.MethodPost, Path: ofTenant + "/{invitation_id}/resend", Tag: "invitations",
		Summary: "Have the link mailed again, for seven days more; at most three mails an hour are sent", Errors: []int{http.StatusConflict},
	}, r.resendInvitation)
	route(api, httpapi.Op{
		ID: "revoke-invitation", Method: http.MethodDelete, Path: ofTenant + "/{invitation_id}", Tag: "invitations",
		Summary: "Take an invitation back", Errors: []int{http.StatusConflict},
	}, r.revokeInvitation)
	route(api, httpapi.Op{
		ID: "accept-invitation", Method: http.MethodPost, Path: own + "/accept", Tag: "invitations",
		Summary: "Become a member; the caller's e-mail address must be the invited one, and verified", Errors: []int{http.StatusConflict, http.StatusNotFound},
	}, r.acceptInvitation)
	route(api, httpapi.Op{
		ID: "decline-invitation", Method: http.MethodPost, Path: own + "/decline", Tag: "invitations",
		Summary: "Turn an invitation down", Errors: []int{http.StatusConflict, http.StatusNotFound},
	}, r.declineInvitation)
	route(api, httpapi.Op{
		ID: "accept-invitation-by-link", Method: http.MethodPost, Path: "/api/invitations/accept", Tag: "invitations", Accepts: true,
		Summary: "Become a member by the mailed link; the caller's e-mail address must be the invited one, and verified",
		Errors:  []int{http.StatusConflict, http.StatusNotFound},
	}, r.acceptByLink)
	route(api, httpapi.Op{
		ID: "decline-invitation-by-link", Method: http.MethodPost, Path: "/api/invitations/decline", Tag: "invitations", Accepts: true,
		Summary: "Turn an invitation down by the mailed link, without an account", Errors: []int{http.StatusConflict, http.StatusNotFound},
	}, r.declineByLink)
}

type newInvitation struct {
	httpapi.InTenant
	httpapi.Repeatable
	Body struct {
		Email string `json:"email" minLength:"1" maxLength:"255" example:"noor@plant.example"`
		Role  string `json:"role" enum:"admin,user,viewer"`
	}
}

// Resolve implements huma.Resolver.
func (in *newInvitation) Resolve(huma.Context) []error {
	return httpapi.Wrong(commands.CheckEmail(in.Body.Email))
}

func (r routes) invite(ctx context.Context, in *newInvitation) (*httpapi.Answer[httpapi.Invitation], error) {
	made, receipt, err := r.Commands.Invite(ctx, r.caller(ctx, in.IdempotencyKey), httpapi.MembershipOf(ctx).ID, in.Body.Email, in.Body.Role)
	if err != nil {
		return nil, err
	}
	at := r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Directory())
	return httpapi.Answered(at, "The address is invited; a mail is on its way.", invitationOf(made)), nil
}

type oneInvitation struct {
	httpapi.InTenant
	httpapi.Repeatable
	InvitationID string `path:"invitation_id" format:"uuid"`
}

func (r routes) resendInvitation(ctx context.Context, in *oneInvitation) (*httpapi.Answer[httpapi.Invitation], error) {
	again, receipt, err := r.Commands.ResendInvitation(ctx, r.caller(ctx, in.IdempotencyKey), httpapi.MembershipOf(ctx).ID, strings.ToLower(in.InvitationID))
	if err != nil {
		return nil, err
	}
	at := r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Directory())
	return httpapi.Answered(at, "Another mail is on its way.", invitationOf(again)), nil
}

func (r routes) revokeInvitation(ctx context.Context, in *oneInvitation) (*httpapi.Done, error) {
	receipt, err := r.Commands.RevokeInvitation(ctx, r.caller(ctx, in.IdempotencyKey), httpapi.MembershipOf(ctx).ID, strings.ToLower(in.InvitationID))
	if err != nil {
		return nil, err
	}
	return httpapi.DoneWith(r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Directory()), "The invitation is revoked."), nil
}

type ownInvitation struct {
	httpapi.Repeatable
	InvitationID string `path:"invitation_id" format:"uuid"`
}

func (r routes) acceptInvitation(ctx context.Context, in *ownInvitation) (*httpapi.Answer[memberRole], error) {
	return r.accept(ctx, r.caller(ctx, in.IdempotencyKey), strings.ToLower(in.InvitationID), false)
}

func (r routes) accept(ctx context.Context, by commands.Caller, id string, linked bool) (*httpapi.Answer[memberRole], error) {
	joined, receipt, err := r.Commands.AcceptInvitation(ctx, by, id, linked)
	if err != nil {
		return nil, err
	}
	at := r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Directory())
	return httpapi.Answered(at, "You are a member.", memberRoleOf(joined.TenantID, by.UserID, joined.Member)), nil
}

func (r routes) declineInvitation(ctx context.Context, in *ownInvitation) (*httpapi.Done, error) {
	receipt, err := r.Commands.DeclineInvitation(ctx, r.caller(ctx, in.IdempotencyKey), strings.ToLower(in.InvitationID))
	if err != nil {
		return nil, err
	}
	return httpapi.DoneWith(r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Directory()), "The invitation is declined."), nil
}

type invitationLink struct {
	httpapi.Repeatable
	Body struct {
		Token string `json:"token" minLength:"1" maxLength:"200" doc:"What follows #invite= in the mailed link."`
	}
}

func (r routes) acceptByLink(ctx context.Context, in *invitationLink) (*httpapi.Answer[memberRole], error) {
	id, err := r.Commands.InvitationOfLink(ctx, in.Body.Token)
	if err != nil {
		return nil, err
	}
	return r.accept(ctx, r.caller(ctx, in.IdempotencyKey), id, true)
}

func (r routes) declineByLink(ctx context.Context, in *invitationLink) (*httpapi.Done, error) {
	receipt, err := r.Commands.DeclineByLink(ctx, r.caller(ctx, in.IdempotencyKey), in.Body.Token)
	if err != nil {
		return nil, err
	}
	return httpapi.DoneWith(r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Directory()), "The invitation is declined."), nil
}

func invitationOf(i commands.Invitation) httpapi.Invitation {
	return httpapi.Invitation{
		ID: i.ID, TenantID: i.TenantID, Email: i.Email, Role: i.Role, State: "open", InvitedBy: i.InvitedBy,
		InvitedAt: httpapi.Time(i.InvitedAt), ExpiresAt: httpapi.Time(i.ExpiresAt),
	}
}
