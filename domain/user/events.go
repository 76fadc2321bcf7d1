// Package user decides about the people who have an account. Its log is the platform's.
package user

import (
	"time"

	"github.com/factum-platform/factum/domain/es"
)

// Kind is the stream kind; the stream id is the user's id.
const Kind = "user"

// Event is a fact about a user.
type Event interface{ isUserEvent() }

// Registered says that a person has an account. The password's hash is not a fact; it lives beside the log.
type Registered struct {
	UserID    string      `json:"user_id"`
	Email     es.Personal `json:"email"` // trimmed and lower-cased
	FirstName es.Personal `json:"first_name"`
	LastName  es.Personal `json:"last_name"`
	At        time.Time   `json:"at"`
}

func (Registered) isUserEvent() {}

// EmailVerified says that somebody who reads the mails of the account's address has followed a link that was sent there.
type EmailVerified struct {
	UserID string    `json:"user_id"`
	At     time.Time `json:"at"`
}

func (EmailVerified) isUserEvent() {}

// Renamed says that the person goes by these names now.
type Renamed struct {
	UserID    string      `json:"user_id"`
	FirstName es.Personal `json:"first_name"`
	LastName  es.Personal `json:"last_name"`
	At        time.Time   `json:"at"`
}

func (Renamed) isUserEvent() {}

// Deactivated says that an account is switched off: it logs in no more, and its memberships are hidden.
type Deactivated struct {
	UserID        string    `json:"user_id"`
	DeactivatedBy string    `json:"deactivated_by"`
	At            time.Time `json:"at"`
}

func (Deactivated) isUserEvent() {}

// Activated says that an account that was switched off is in use again.
type Activated struct {
	UserID      string    `json:"user_id"`
	ActivatedBy string    `json:"activated_by"`
	At          time.Time `json:"at"`
}

func (Activated) isUserEvent() {}
