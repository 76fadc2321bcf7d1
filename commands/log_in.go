package commands

import (
	"context"

	"github.com/factum-platform/factum/domain/user"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/auth"
)

// LogIn asks for a session.
type LogIn struct{ Email, Password string }

// LoggedIn is a new session.
type LoggedIn struct {
	User   User
	Tokens auth.Tokens
}

// LogIn checks the password and begins a session. An unknown address costs the same time as a wrong password and gives the
// same error. Errors: *[ValidationError], auth.ErrInvalidCredentials, auth.ErrBusy. The account is read from the log, so a login
// succeeds as soon as the registration was answered.
func (c *Commands) LogIn(ctx context.Context, in LogIn) (LoggedIn, error) {
	email := normaliseEmail(in.Email)
	p := problems{}
	p.add("email", checkEmail(email))
	if in.Password == "" {
		p.add("password", "Must not be empty.")
	}
	if err := p.err(); err != nil {
		return LoggedIn{}, err
	}
	if len(in.Password) > maxPasswordBytes {
		return LoggedIn{}, auth.ErrInvalidCredentials
	}
	loginKey, err := c.c.MAC(ctx, string(eventstore.PlatformTenant), "email", email)
	if err != nil {
		return LoggedIn{}, err
	}
	// A registration that failed half-way may have left a credential without an account; the log tells which is real.
	var account user.State
	candidates, err := c.c.Auth.Candidates(ctx, loginKey)
	if err != nil {
		return LoggedIn{}, err
	}
	for _, id := range candidates {
		s, _, err := fold(ctx, c.c.Store.Tenant(eventstore.PlatformTenant), c.c.Codec, user.Decider, eventstore.StreamID{Kind: user.Kind, ID: id}, nil)
		if err != nil {
			return LoggedIn{}, err
		}
		if s.Exists {
			account = s
			break
		}
	}
	if err := c.c.Auth.CheckPassword(ctx, account.ID, in.Password); err != nil {
		return LoggedIn{}, err
	}
	tokens, err := c.c.Auth.BeginSession(ctx, account.ID)
	if err != nil {
		return LoggedIn{}, err
	}
	return LoggedIn{userOf(account), tokens}, nil
}

// RefreshSession exchanges a refresh token for new tokens. Replaying a used one ends the session. Errors: those of
// auth.Refresh.
func (c *Commands) RefreshSession(ctx context.Context, refreshToken string) (auth.Tokens, error) {
	return c.c.Auth.Refresh(ctx, refreshToken)
}

// LogOut ends the session: its access and refresh tokens are refused from now on.
func (c *Commands) LogOut(ctx context.Context, p auth.Principal) error {
	return c.c.Auth.EndSession(ctx, p.SessionID)
}
