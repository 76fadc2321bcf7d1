package commands

import (
	"context"
	"errors"

	"github.com/factum-platform/factum/domain/user"
	"github.com/factum-platform/factum/infra/auth"
)

// ChangePassword asks for another password. Address is the client's network address.
type ChangePassword struct{ Current, New, Address string }

// ChangePassword replaces the caller's password and ends all other sessions of the caller. A wrong current password counts like a failed
// log-in. Errors: *[ValidationError], also for a wrong current password; *auth.ThrottledError, auth.ErrBusy.
func (c *Commands) ChangePassword(ctx context.Context, by auth.Principal, in ChangePassword) error {
	account, err := c.accountByID(ctx, by.UserID)
	if err != nil {
		return err
	}
	p := problems{}
	if in.Current == "" {
		p.add("current_password", "Must not be empty.")
	}
	p.add("new_password", c.checkNewPassword(in.New, account))
	if err := p.err(); err != nil {
		return err
	}
	var attempt auth.Attempt
	if attempt.Account, err = c.loginKey(ctx, account.Email.Reveal()); err != nil {
		return err
	}
	if attempt.Address, err = c.addressKey(ctx, in.Address); err != nil {
		return err
	}
	if err := c.c.Auth.Admit(ctx, attempt); err != nil {
		return err
	}
	place, err := c.c.Auth.Place()
	if err != nil {
		return err
	}
	err = c.checkPassword(ctx, place, attempt, by.UserID, in.Current)
	place.Leave()
	if errors.Is(err, auth.ErrInvalidCredentials) {
		p.add("current_password", "Is not your password.")
		return p.err()
	}
	if err != nil {
		return err
	}
	return c.c.Auth.ChangePassword(ctx, by.UserID, in.New, by.SessionID)
}

// PasswordRules are those of this installation.
func (c *Commands) PasswordRules() auth.PasswordRules { return c.c.Passwords }

// CheckNewPassword says what is wrong with a password that is asked for as new_password, whoever's it is to be, by field; nothing when nothing
// is. The command also knows the words that have to do with the person.
func (c *Commands) CheckNewPassword(password string) map[string][]string {
	p := problems{}
	p.add("new_password", c.c.Passwords.Check(password))
	return p
}

// checkNewPassword says what is wrong with a password for the account, or "".
func (c *Commands) checkNewPassword(password string, account user.State) string {
	return c.c.Passwords.Check(password, account.Email.Reveal(), account.FirstName.Reveal(), account.LastName.Reveal())
}
