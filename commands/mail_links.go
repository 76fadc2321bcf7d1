package commands

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/user"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/mail"
)

// Mailer sends mails. Errors: *mail.RefusedError for one that will never be taken; all others pass.
type Mailer interface {
	Send(ctx context.Context, m mail.Message) error
}

// Outbox keeps requests for mails until they were sent. A request names an account by the HMAC of its address, whether there is
// such an account or not.
type Outbox interface {
	Ask(ctx context.Context, purpose auth.Purpose, loginKey string) error
}

// welcomeWithin is how long after a registration the first mail is still worth sending, so that a log that is read anew mails nobody.
const welcomeWithin = 7 * 24 * time.Hour

// WelcomeUser sends a new account the link that verifies its address, unless that has happened meanwhile.
func (c *Commands) WelcomeUser(ctx context.Context, userID string) error {
	account, err := c.accountByID(ctx, userID)
	if err != nil || !account.Exists || account.EmailVerified || c.c.Now().Sub(account.RegisteredAt) > welcomeWithin {
		return err
	}
	return c.sendLink(ctx, auth.VerifyEmail, account.ID, account.Email)
}

// SendAskedLink sends what [Outbox.Ask] was asked for. An address without an account, or one that is verified already, is sent nothing.
func (c *Commands) SendAskedLink(ctx context.Context, purpose auth.Purpose, loginKey string) error {
	key, err := hex.DecodeString(loginKey)
	if err != nil {
		return fmt.Errorf("commands: a request for a mail: %w", err)
	}
	account, err := c.account(ctx, key)
	if err != nil || !account.Exists || (purpose == auth.VerifyEmail && account.EmailVerified) {
		return err
	}
	return c.sendLink(ctx, purpose, account.ID, account.Email)
}

// letters are what the mails say; %[1]s is the link, %[2]d the hours that it is good, the rest what the letter is about. Those about an account
// greet nobody by name: the address may be a stranger's, and the name what somebody else wants to tell them.
var letters = map[auth.Purpose]struct{ subject, text string }{
	auth.VerifyEmail: {"Confirm your e-mail address", `Hello,

somebody, we hope you, opened a Factum account with this address. To confirm that it is yours, open this page within %[2]d hours:

%[1]s

If it was not you, do nothing.
`},
	auth.ResetPassword: {"Set a new password", `Hello,

somebody asked for a new password for your Factum account. To set one, open this page within %[2]d hour:

%[1]s

If it was not you, do nothing: your password stays as it is.
`},
	auth.Invite: {"You are invited to a tenant of Factum", `Hello,

you are invited to become a member of "%[3]s" at Factum, in the role %[4]s. To accept or to decline, open this page within %[2]d hours:

%[1]s

To accept you need an account with this address that is confirmed. If you have none, open one first, confirm the address by the mail that
you are sent then, and come back to this link.

If you know nothing of this, do nothing: the invitation expires.
`},
}

// sendLink draws a link and mails it. The token is nowhere kept: a repetition after a lost answer draws another, and both are good.
func (c *Commands) sendLink(ctx context.Context, purpose auth.Purpose, owner string, to es.Personal, about ...any) error {
	if c.c.Mailer == nil {
		c.c.Logger.WarnContext(ctx, "a mail was not sent: this installation has no mail server; set FACTUM_SMTP_URL", "purpose", string(purpose), "owner", owner)
		return nil
	}
	if to.Erased() {
		return nil
	}
	token, err := c.c.Auth.NewLink(ctx, purpose, owner)
	if errors.Is(err, auth.ErrTooManyLinks) {
		c.c.Logger.WarnContext(ctx, "a mail was not sent: the address was sent enough of them for now", "purpose", string(purpose), "owner", owner)
		return nil
	}
	if err != nil {
		return err
	}
	// What follows # stays in the browser: the token is in no server's log.
	link, letter := c.c.AccountURL+"#"+string(purpose)+"="+token, letters[purpose]
	err = c.c.Mailer.Send(ctx, mail.Message{
		To: to.Reveal(), Subject: letter.subject, Link: link,
		Text: fmt.Sprintf(letter.text, append([]any{link, int(auth.LinkLife(purpose).Hours())}, about...)...),
	})
	var refused *mail.RefusedError
	if errors.As(err, &refused) {
		c.c.Logger.WarnContext(ctx, "a mail was not sent", "purpose", string(purpose), "owner", owner, "error", err)
		return nil
	}
	return err
}

// VerifyEmail says that a mailed link was followed. A link can be followed once. Errors: auth.ErrInvalidLink.
func (c *Commands) VerifyEmail(ctx context.Context, by Caller, token string) (Receipt, error) {
	id, err := c.c.Auth.LinkOwner(ctx, auth.VerifyEmail, token)
	if err != nil {
		return Receipt{}, err
	}
	receipt, err := c.verified(ctx, by, id)
	if err != nil {
		return Receipt{}, err
	}
	return receipt, c.c.Auth.SpendLink(ctx, auth.VerifyEmail, id)
}

func (c *Commands) verified(ctx context.Context, by Caller, userID string) (Receipt, error) {
	by.UserID = userID
	step := userStep(userID, user.VerifyEmail{At: stamp(by.At)})
	return c.x.Execute(ctx, eventstore.PlatformTenant, by.meta(), step)
}

func userStep(id string, command user.Command) *Decision[user.State, user.Command, user.Event] {
	return &Decision[user.State, user.Command, user.Event]{Decider: user.Decider, Stream: eventstore.StreamID{Kind: user.Kind, ID: id}, Command: command}
}

// AskToVerify asks for another mail with a link that verifies the caller's address.
func (c *Commands) AskToVerify(ctx context.Context, userID string) error {
	account, err := c.accountByID(ctx, userID)
	if err != nil || account.EmailVerified {
		return err
	}
	key, err := c.loginKey(ctx, account.Email.Reveal())
	if err != nil {
		return err
	}
	return c.c.Outbox.Ask(ctx, auth.VerifyEmail, hex.EncodeToString(key))
}

// AskToReset asks for a mail with a link that sets a new password. It does the same, in the same time, whether the address has an account or
// not. network is the client's network address. Errors: *[ValidationError], *auth.ThrottledError.
func (c *Commands) AskToReset(ctx context.Context, email, network string) error {
	if err := problems(CheckEmail(email)).err(); err != nil {
		return err
	}
	address, err := c.addressKey(ctx, network)
	if err != nil {
		return err
	}
	if err := c.c.Auth.Charge(ctx, address); err != nil {
		return err
	}
	key, err := c.loginKey(ctx, normaliseEmail(email))
	if err != nil {
		return err
	}
	return c.c.Outbox.Ask(ctx, auth.ResetPassword, hex.EncodeToString(key))
}

// ResetPassword sets a new password by a mailed link; all sessions end, and the address counts as verified. Errors: *[ValidationError],
// auth.ErrInvalidLink, auth.ErrBusy.
func (c *Commands) ResetPassword(ctx context.Context, by Caller, token, password string) (Receipt, error) {
	id, err := c.c.Auth.LinkOwner(ctx, auth.ResetPassword, token)
	if err != nil {
		return Receipt{}, err
	}
	account, err := c.accountByID(ctx, id)
	if err != nil {
		return Receipt{}, err
	}
	p := problems{}
	p.add("new_password", c.checkNewPassword(password, account))
	if err := p.err(); err != nil {
		return Receipt{}, err
	}
	if id, err = c.c.Auth.ResetPassword(ctx, token, password); err != nil {
		return Receipt{}, err
	}
	key, err := c.loginKey(ctx, account.Email.Reveal())
	if err != nil {
		return Receipt{}, err
	}
	// Whoever was kept out by somebody else's guessing has shown who they are.
	if err := c.c.Auth.Succeeded(ctx, auth.Attempt{Account: key}); err != nil {
		return Receipt{}, err
	}
	return c.verified(ctx, by, id)
}
