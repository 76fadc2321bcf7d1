package commands

import (
	"context"
	"encoding/hex"
	"errors"
	"time"

	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/invitation"
	"github.com/factum-platform/factum/domain/membership"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/auth"
)

// Invitation is an invitation as the tenant's admins see it.
type Invitation struct {
	ID, TenantID, Email, Role, InvitedBy string
	InvitedAt, ExpiresAt                 time.Time
}

func invitationStep(id string, command invitation.Command) *Decision[invitation.State, invitation.Command, invitation.Event] {
	return &Decision[invitation.State, invitation.Command, invitation.Event]{
		Decider: invitation.Decider, Stream: eventstore.StreamID{Kind: invitation.Kind, ID: id}, Command: command,
	}
}

func (c *Commands) invitation(ctx context.Context, id string) (invitation.State, error) {
	s, _, err := fold(ctx, c.c.Store.Tenant(eventstore.PlatformTenant), c.c.Codec, invitation.Decider, eventstore.StreamID{Kind: invitation.Kind, ID: id}, nil)
	return s, err
}

func invitationOf(s invitation.State) Invitation {
	return Invitation{
		ID: s.ID, TenantID: s.TenantID, Email: s.Email.Reveal(), Role: s.Role, InvitedBy: s.InvitedBy, InvitedAt: s.IssuedAt, ExpiresAt: s.ExpiresAt,
	}
}

// Invite asks the person behind an address to become a member of the tenant; a job mails the link. It does the same whether the address has
// an account or not, unless that is a member. Errors: *[ValidationError]; *[es.Refusal] membership.role, membership.exists, and invitation.exists
// for an address that is invited already.
func (c *Commands) Invite(ctx context.Context, by Caller, tenantID, email, role string) (Invitation, Receipt, error) {
	if err := errors.Join(problems(CheckEmail(email)).err(), membership.CheckRole(role)); err != nil {
		return Invitation{}, Receipt{}, err
	}
	email = normaliseEmail(email)
	if err := c.mustBeNoMember(ctx, tenantID, email); err != nil {
		return Invitation{}, Receipt{}, err
	}
	mac, err := c.c.MAC(ctx, string(eventstore.PlatformTenant), "invitation", tenantID+" "+email)
	if err != nil {
		return Invitation{}, Receipt{}, err
	}
	id := es.Key("invitation", hex.EncodeToString(mac))
	return c.invitationAfter(ctx, by, id, invitation.Issue{InvitationID: id, TenantID: tenantID, Email: es.Person(email), Role: role, By: by.UserID, At: stamp(by.At)})
}

// mustBeNoMember refuses the address of a member, whom an invitation would not change. Accounts of others take as long as none. Refusal:
// membership.exists.
func (c *Commands) mustBeNoMember(ctx context.Context, tenantID, email string) error {
	key, err := c.loginKey(ctx, email)
	if err != nil {
		return err
	}
	candidates, err := c.c.Auth.Candidates(ctx, key)
	if err != nil {
		return err
	}
	members, err := c.members(ctx, tenantID)
	if err != nil {
		return err
	}
	for _, id := range candidates {
		if _, ok := members[id]; ok {
			return es.Refuse("membership.exists", "This address is a member's already. Change the role instead.")
		}
	}
	return nil
}

// ResendInvitation has the link mailed again; the invitation is good for seven days from now, and who asks vouches for it. Refusal:
// invitation.unknown, also for one that was answered or revoked.
func (c *Commands) ResendInvitation(ctx context.Context, by Caller, tenantID, id string) (Invitation, Receipt, error) {
	if err := c.ofTenant(ctx, tenantID, id); err != nil {
		return Invitation{}, Receipt{}, err
	}
	return c.invitationAfter(ctx, by, id, invitation.Resend{By: by.UserID, At: stamp(by.At)})
}

// RevokeInvitation takes an invitation back; its links are good no longer. Refusal: invitation.unknown, as above.
func (c *Commands) RevokeInvitation(ctx context.Context, by Caller, tenantID, id string) (Receipt, error) {
	if err := c.ofTenant(ctx, tenantID, id); err != nil {
		return Receipt{}, err
	}
	return c.closeInvitation(ctx, by, id, invitation.Revoke{By: by.UserID, At: stamp(by.At)})
}

func (c *Commands) ofTenant(ctx context.Context, tenantID, id string) error {
	s, err := c.invitation(ctx, id)
	if err == nil && s.TenantID != tenantID {
		return noInvitation()
	}
	return err
}

func noInvitation() error {
	return es.Refuse("invitation.unknown", "There is no such invitation, or it was answered or revoked.")
}

func (c *Commands) invitationAfter(ctx context.Context, by Caller, id string, command invitation.Command) (Invitation, Receipt, error) {
	step := invitationStep(id, command)
	receipt, err := c.x.Execute(ctx, eventstore.PlatformTenant, by.meta(), step)
	if err != nil {
		return Invitation{}, Receipt{}, err
	}
	return invitationOf(step.State), receipt, nil
}

// closeInvitation carries out a command that ends an invitation, and then spends its links.
func (c *Commands) closeInvitation(ctx context.Context, by Caller, id string, command invitation.Command) (Receipt, error) {
	receipt, err := c.x.Execute(ctx, eventstore.PlatformTenant, by.meta(), invitationStep(id, command))
	if err != nil {
		return Receipt{}, err
	}
	return receipt, c.c.Auth.SpendLink(ctx, auth.Invite, id)
}

// MailInvitation sends the link of an invitation that is open.
func (c *Commands) MailInvitation(ctx context.Context, id string) error {
	s, err := c.invitation(ctx, id)
	if err != nil || !s.Open || s.Expired(c.c.Now()) {
		return err
	}
	t, err := c.x.TenantState(ctx, s.TenantID)
	if err != nil || !t.Exists || t.Deleted {
		return err
	}
	return c.sendLink(ctx, auth.Invite, s.ID, s.Email, t.Name, s.Role)
}

// InvitationOfLink says which invitation a mailed link belongs to, and leaves it good. Refusal: invitation.link.
func (c *Commands) InvitationOfLink(ctx context.Context, token string) (id string, err error) {
	id, err = c.c.Auth.LinkOwner(ctx, auth.Invite, token)
	if errors.Is(err, auth.ErrInvalidLink) {
		return "", es.Refuse("invitation.link", "This link is not valid: it was used or has expired, or the invitation was revoked. Ask who invited you for another.")
	}
	return id, err
}

// AcceptedInvitation is what the user has become a member of.
type AcceptedInvitation struct {
	TenantID string
	membership.Member
}

// AcceptInvitation makes the caller a member, in the role that the invitation names. The caller's address must be verified and the invited one, so
// that a link which was passed on lets nobody in; and who invited must still be an admin whose account is in use. Accepting twice is accepting once. Refusals:
// invitation.unverified; invitation.unknown, or with linked, for who knows the invitation's secret, invitation.another; invitation.expired;
// membership.exists.
func (c *Commands) AcceptInvitation(ctx context.Context, by Caller, id string, linked bool) (AcceptedInvitation, Receipt, error) {
	s, err := c.invited(ctx, by, id, linked)
	if err != nil {
		return AcceptedInvitation{}, Receipt{}, err
	}
	t, err := c.x.TenantState(ctx, s.TenantID)
	if err != nil {
		return AcceptedInvitation{}, Receipt{}, err
	}
	members, err := c.members(ctx, s.TenantID)
	if err != nil {
		return AcceptedInvitation{}, Receipt{}, err
	}
	vouched, err := c.x.UserExists(ctx, s.InvitedBy)
	if err != nil {
		return AcceptedInvitation{}, Receipt{}, err
	}
	if !t.Exists || t.Deleted || (s.Open && (members[s.InvitedBy].Role != membership.Admin || !vouched)) {
		return AcceptedInvitation{}, Receipt{}, noInvitation()
	}
	// The id derives from what it does: what a crash left half done is finished by accepting once more.
	by.Command = es.Key("accept", id, s.IssuedAt.Format(time.RFC3339Nano))
	at := stamp(by.At)
	accept := invitationStep(id, invitation.Accept{UserID: by.UserID, At: at})
	join := memberStep(s.TenantID, membership.Add{TenantID: s.TenantID, UserID: by.UserID, Role: s.Role, By: s.InvitedBy, At: at})
	receipt, err := c.x.Execute(ctx, eventstore.PlatformTenant, by.meta(), accept, join)
	if err != nil {
		return AcceptedInvitation{}, Receipt{}, err
	}
	if err := c.c.Auth.SpendLink(ctx, auth.Invite, id); err != nil {
		return AcceptedInvitation{}, Receipt{}, err
	}
	m, ok := join.State.Members[by.UserID]
	if !ok { // a repetition, and the membership has ended since
		return AcceptedInvitation{}, Receipt{}, noInvitation()
	}
	return AcceptedInvitation{s.TenantID, m}, receipt, nil
}

// DeclineInvitation says that the caller does not want to. Refusals as those of [Commands.AcceptInvitation].
func (c *Commands) DeclineInvitation(ctx context.Context, by Caller, id string) (Receipt, error) {
	if _, err := c.invited(ctx, by, id, false); err != nil {
		return Receipt{}, err
	}
	return c.closeInvitation(ctx, by, id, invitation.Decline{UserID: by.UserID, At: stamp(by.At)})
}

// DeclineByLink is [Commands.DeclineInvitation] for who reads the mails of the invited address and may have no account. Refusals:
// invitation.link, invitation.unknown.
func (c *Commands) DeclineByLink(ctx context.Context, by Caller, token string) (Receipt, error) {
	id, err := c.InvitationOfLink(ctx, token)
	if err != nil {
		return Receipt{}, err
	}
	by.UserID = id // there need not be an account
	return c.closeInvitation(ctx, by, id, invitation.Decline{At: stamp(by.At)})
}

// invited finds the invitation of the caller's own address, which must be verified.
func (c *Commands) invited(ctx context.Context, by Caller, id string, linked bool) (invitation.State, error) {
	account, err := c.accountByID(ctx, by.UserID)
	if err != nil {
		return invitation.State{}, err
	}
	if !account.EmailVerified {
		return invitation.State{}, es.Refuse("invitation.unverified", "Show first that your e-mail address is yours: follow the link that was mailed to it. POST /api/auth/verify-email/resend has it mailed again.")
	}
	s, err := c.invitation(ctx, id)
	switch {
	case err != nil:
		return invitation.State{}, err
	case s.ID == "" || s.Email.Erased() || account.Email.Erased():
		return invitation.State{}, noInvitation()
	case s.Email != account.Email && linked:
		return invitation.State{}, es.Refuse("invitation.another", "This invitation was sent to another address than your account's. Log in with the account of that address, or ask to be invited under yours.")
	case s.Email != account.Email:
		return invitation.State{}, noInvitation()
	}
	return s, nil
}
