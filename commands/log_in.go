package commands

import (
	"cmp"
	"context"
	"errors"

	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/user"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/clientaddr"
)

// LogIn asks for a session. Address is the client's network address and Agent what it calls itself; both may be empty.
type LogIn struct{ Email, Password, Address, Agent string }

// LoggedIn is a new session.
type LoggedIn struct {
	User   User
	Tokens auth.Tokens
}

// Busy is auth.ErrBusy while a log-in would be refused for it. Asked first, it lets a flood of them cost next to nothing; an answer of nil promises
// nothing.
func (c *Commands) Busy() error { return c.c.Auth.Busy() }

// LogIn checks the password and begins a session. An unknown address costs the same time as a wrong password and gives the
// same error. After some failures, of an account or of a network address, passwords are not looked at for a while. Errors:
// *[ValidationError], auth.ErrInvalidCredentials, *auth.ThrottledError, auth.ErrBusy; *[es.Refusal] user.inactive, and user.unverified where
// verification is demanded, after a right password only. The account is read from the log, so a
// login succeeds as soon as the registration was answered.
func (c *Commands) LogIn(ctx context.Context, in LogIn) (LoggedIn, error) {
	p := problems(CheckEmail(in.Email))
	if in.Password == "" {
		p.add("password", "Must not be empty.")
	}
	if err := p.err(); err != nil {
		return LoggedIn{}, err
	}
	place, err := c.c.Auth.Place()
	if err != nil {
		return LoggedIn{}, err
	}
	defer place.Leave()
	loginKey, err := c.loginKey(ctx, normaliseEmail(in.Email))
	if err != nil {
		return LoggedIn{}, err
	}
	attempt := auth.Attempt{Account: loginKey}
	if attempt.Address, err = c.addressKey(ctx, in.Address); err != nil {
		return LoggedIn{}, err
	}
	if err := c.c.Auth.Admit(ctx, attempt); err != nil {
		return LoggedIn{}, err
	}
	account, err := c.account(ctx, loginKey)
	if err != nil {
		return LoggedIn{}, err
	}
	if err := c.checkPassword(ctx, place, attempt, account.ID, in.Password); err != nil {
		return LoggedIn{}, err
	}
	if account.Inactive {
		return LoggedIn{}, es.Refuse("user.inactive", "This account is switched off. Ask who runs this installation.")
	}
	if c.c.VerifiedOnly && !account.EmailVerified {
		return LoggedIn{}, es.Refuse("user.unverified", "Follow the link that was mailed to you, or ask for a new password, to show that this address is yours.")
	}
	tokens, err := c.c.Auth.BeginSession(ctx, account.ID, in.Agent)
	if err != nil {
		return LoggedIn{}, err
	}
	return LoggedIn{userOf(account), tokens}, nil
}

// loginKey is the HMAC under which the credential of an e-mail address is found.
func (c *Commands) loginKey(ctx context.Context, email string) ([]byte, error) {
	return c.c.MAC(ctx, string(eventstore.PlatformTenant), "email", email)
}

// addressKey is the HMAC of a network address, of an IPv6 address that of its /64, which one customer has for itself. What is no address is
// not counted.
func (c *Commands) addressKey(ctx context.Context, address string) ([]byte, error) {
	network, ok := clientaddr.Network(address)
	if !ok {
		return nil, nil // a socket without an address, as in tests: the account is counted all the same
	}
	return c.c.MAC(ctx, string(eventstore.PlatformTenant), "address", network.String())
}

// noUser is the id of no account.
const noUser = "00000000-0000-0000-0000-000000000000"

// account finds the account of a login key; without one it answers the zero state. A registration that failed half-way may have left a
// credential without an account; the log tells which is real.
func (c *Commands) account(ctx context.Context, loginKey []byte) (user.State, error) {
	candidates, err := c.c.Auth.Candidates(ctx, loginKey)
	if err != nil {
		return user.State{}, err
	}
	if len(candidates) == 0 {
		candidates = []string{noUser} // which takes as long
	}
	for _, id := range candidates {
		s, err := c.accountByID(ctx, id)
		if err != nil || s.Exists {
			return s, err
		}
	}
	return user.State{}, nil
}

func (c *Commands) accountByID(ctx context.Context, id string) (user.State, error) {
	s, _, err := fold(ctx, c.c.Store.Tenant(eventstore.PlatformTenant), c.c.Codec, user.Decider, eventstore.StreamID{Kind: user.Kind, ID: id}, nil)
	return s, err
}

// checkPassword compares and counts; userID may be "". The attempt was admitted. Once others that were made at the same moment have failed too
// often, it says nothing of the password: else as many as can wait could be tried at once.
func (c *Commands) checkPassword(ctx context.Context, place auth.Place, attempt auth.Attempt, userID, password string) error {
	err := auth.ErrInvalidCredentials
	if len(password) <= auth.MaxPasswordBytes {
		err = place.CheckPassword(ctx, userID, password)
	}
	wrong := errors.Is(err, auth.ErrInvalidCredentials)
	if err != nil && !wrong {
		return err
	}
	refused := c.c.Auth.Admit(ctx, attempt)
	if wrong {
		// Uncounted, the answer would be worth a guess.
		return cmp.Or(c.c.Auth.Failed(ctx, attempt), refused, err)
	}
	if refused != nil {
		return refused
	}
	return c.c.Auth.Succeeded(ctx, attempt)
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

// LogOutEverywhere ends all sessions of the user, this one too, and says how many there were.
func (c *Commands) LogOutEverywhere(ctx context.Context, p auth.Principal) (int, error) {
	return c.c.Auth.EndSessions(ctx, p.UserID)
}

// EndSession ends one session of the user. Refusal: session.unknown, also for one that has ended or is somebody else's.
func (c *Commands) EndSession(ctx context.Context, p auth.Principal, sessionID string) error {
	ended, err := c.c.Auth.EndSessionOf(ctx, p.UserID, sessionID)
	if err == nil && !ended {
		return es.Refuse("session.unknown", "There is no such session, or it has ended.")
	}
	return err
}
