package commands

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/mail"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/user"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/auth"
)

// RegisterUser asks for an account.
type RegisterUser struct{ FirstName, LastName, Email, Password string }

// User is an account as its owner sees it.
type User struct {
	ID                         string
	FirstName, LastName, Email string
	IsActive, EmailVerified    bool
	CreatedAt, UpdatedAt       time.Time
}

// Check says what is wrong with the request, by field; nothing when nothing is.
func (in RegisterUser) Check(rules auth.PasswordRules) map[string][]string {
	in = in.normalised()
	p := problems{}
	p.add("first_name", checkName(in.FirstName))
	p.add("last_name", checkName(in.LastName))
	p.add("email", checkEmail(in.Email))
	p.add("password", rules.Check(in.Password, in.Email, in.FirstName, in.LastName))
	return p
}

func (in RegisterUser) normalised() RegisterUser {
	return RegisterUser{strings.TrimSpace(in.FirstName), strings.TrimSpace(in.LastName), normaliseEmail(in.Email), in.Password}
}

const (
	maxNameChars  = 100
	maxEmailChars = 255
)

// RegisterUser makes an account. Errors: *[ValidationError]; *[es.Refusal] user.email_taken; auth.ErrBusy. The credential is
// written before the fact: a crash between the two leaves a credential that belongs to nobody and harms nothing.
func (c *Commands) RegisterUser(ctx context.Context, by Caller, in RegisterUser) (User, Receipt, error) {
	in = in.normalised()
	if err := problems(in.Check(c.c.Passwords)).err(); err != nil {
		return User{}, Receipt{}, err
	}
	loginKey, err := c.loginKey(ctx, in.Email)
	if err != nil {
		return User{}, Receipt{}, err
	}
	// The address is part of the id: whoever repeats the command id of somebody else meets nobody.
	id := es.Key("user", by.Command, hex.EncodeToString(loginKey))
	if by.UserID == "" {
		by.UserID = id // people register themselves
	}
	if err := c.c.Auth.SetPassword(ctx, id, loginKey, in.Password); err != nil {
		return User{}, Receipt{}, err
	}
	claim := eventstore.Claim{Scope: "email", Key: hex.EncodeToString(loginKey)}
	step := &Decision[user.State, user.Command, user.Event]{
		Decider: user.Decider,
		Stream:  eventstore.StreamID{Kind: user.Kind, ID: id},
		Command: user.Register{
			UserID: id, Email: es.Person(in.Email), FirstName: es.Person(in.FirstName), LastName: es.Person(in.LastName), At: stamp(by.At),
		},
		Claims: func(before, after user.State) []eventstore.Claim {
			if !before.Exists && after.Exists {
				return []eventstore.Claim{claim}
			}
			return nil
		},
	}
	receipt, err := c.x.Execute(ctx, eventstore.PlatformTenant, by.meta(), step)
	var taken *eventstore.ClaimError
	if errors.As(err, &taken) {
		err = es.Refuse("user.email_taken", "This e-mail address has an account already.")
	}
	if err != nil {
		if !MayHaveHappened(err) {
			err = errors.Join(err, c.c.Auth.RemovePassword(ctx, id))
		}
		return User{}, Receipt{}, err
	}
	return userOf(step.State), receipt, nil
}

func userOf(s user.State) User {
	return User{
		ID: s.ID, FirstName: s.FirstName.Reveal(), LastName: s.LastName.Reveal(), Email: s.Email.Reveal(),
		IsActive: !s.Inactive, EmailVerified: s.EmailVerified, CreatedAt: s.RegisteredAt, UpdatedAt: s.ChangedAt,
	}
}

func normaliseEmail(s string) string { return strings.ToLower(strings.TrimSpace(s)) }

// CheckEmail says what is wrong with an e-mail address that is asked for as email, by field; nothing when nothing is.
func CheckEmail(email string) map[string][]string {
	p := problems{}
	p.add("email", checkEmail(normaliseEmail(email)))
	return p
}

func checkName(s string) string { return checkText(s, maxNameChars) }

// checkText says what is wrong with a name of at most so many characters, or "".
func checkText(s string, most int) string {
	switch n := utf8.RuneCountInString(s); {
	case n == 0:
		return "Must not be blank."
	case n > most:
		return fmt.Sprintf("Has at most %d characters.", most)
	case !plainText(s):
		return "Must be valid text without control characters."
	}
	return ""
}

// plainText tells whether s can be stored and shown: valid UTF-8 without control characters.
func plainText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

func checkEmail(s string) string {
	if utf8.RuneCountInString(s) > maxEmailChars {
		return "Has at most 255 characters."
	}
	addr, err := mail.ParseAddress(s) // RFC 5322
	if err != nil || addr.Address != s || addr.Name != "" || !plainText(s) {
		return "Not a valid e-mail address."
	}
	_, domain, _ := strings.Cut(s, "@")
	if !strings.Contains(strings.Trim(domain, "."), ".") {
		return "Not a valid e-mail address."
	}
	return ""
}
