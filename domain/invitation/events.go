// Package invitation decides about invitations: an admin asks the person behind an e-mail address to become a member of a tenant. Its log is
// the platform's.
package invitation

import (
	"time"

	"github.com/factum-platform/factum/domain/es"
)

// Kind is the stream kind. The stream id stands for a tenant and an e-mail address, from which it derives under a secret: whoever is invited
// anew is invited in the same stream, and so an address has at most one open invitation of a tenant.
const Kind = "invitation"

// Event is a fact about an invitation.
type Event interface{ isInvitationEvent() }

// Issued says that an address was invited. It is sealed under a key of the invitation's own, for there need not be an account.
type Issued struct {
	InvitationID string      `json:"invitation_id"`
	TenantID     string      `json:"tenant_id"`
	Email        es.Personal `json:"email"` // trimmed and lower-cased
	Role         string      `json:"role"`  // admin, user or viewer
	InvitedBy    string      `json:"invited_by"`
	ExpiresAt    time.Time   `json:"expires_at"`
	At           time.Time   `json:"at"`
}

// Resent says that another mail was asked for; the invitation is good for longer.
type Resent struct {
	InvitationID string    `json:"invitation_id"`
	ResentBy     string    `json:"resent_by"`
	ExpiresAt    time.Time `json:"expires_at"`
	At           time.Time `json:"at"`
}

// Accepted says that a user whose address was invited became a member.
type Accepted struct {
	InvitationID string    `json:"invitation_id"`
	UserID       string    `json:"user_id"`
	At           time.Time `json:"at"`
}

// Declined says that the person does not want to become a member.
type Declined struct {
	InvitationID string    `json:"invitation_id"`
	UserID       string    `json:"user_id"` // "" for who followed the mailed link without an account
	At           time.Time `json:"at"`
}

// Revoked says that the tenant takes the invitation back.
type Revoked struct {
	InvitationID string    `json:"invitation_id"`
	RevokedBy    string    `json:"revoked_by"`
	At           time.Time `json:"at"`
}

func (Issued) isInvitationEvent()   {}
func (Resent) isInvitationEvent()   {}
func (Accepted) isInvitationEvent() {}
func (Declined) isInvitationEvent() {}
func (Revoked) isInvitationEvent()  {}
