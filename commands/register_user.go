package commands

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/mail"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"

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
	maxLocalBytes = 64 // in front of the @ (RFC 5321 §4.5.3.1.1)
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

// normaliseEmail gives an address the one spelling under which it is kept and found: lower case, composed characters (Unicode NFC), and the
// domain as people read it, also where it was given in its ASCII form (RFC 5891).
func normaliseEmail(s string) string {
	s = norm.NFC.String(strings.ToLower(strings.TrimSpace(s)))
	at := strings.LastIndex(s, "@")
	if domain, err := domainName(s[at+1:]); at > 0 && err == nil {
		return s[:at+1] + domain
	}
	return s
}

// hostNames checks the names of hosts: their characters, labels and length (RFC 5891, RFC 1035 §2.3.4).
var hostNames = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.VerifyDNSLength(true))

func domainName(s string) (string, error) {
	ascii, err := hostNames.ToASCII(s)
	if err != nil {
		return "", fmt.Errorf("commands: a domain: %w", err)
	}
	return hostNames.ToUnicode(ascii)
}

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
	case n == 0 || utf8.ValidString(s) && !strings.ContainsFunc(s, visible):
		return "Must not be blank."
	case n > most:
		return fmt.Sprintf("Has at most %d characters.", most)
	case !plainText(s):
		return "Must be valid text without control characters."
	}
	return ""
}

// plainText tells whether s can be stored and shown on one line, and leaves what is around it as it is: valid UTF-8 without control characters,
// line separators, and what turns the direction of writing.
func plainText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control)
	})
}

// visible tells whether r can be seen where it stands alone.
func visible(r rune) bool { return unicode.IsGraphic(r) && !unicode.IsSpace(r) }

// checkEmail says what is wrong with a normalised address, or "". What cannot be seen makes one address look like another.
func checkEmail(s string) string {
	if utf8.RuneCountInString(s) > maxEmailChars {
		return "Has at most 255 characters."
	}
	at := strings.LastIndex(s, "@")
	addr, err := mail.ParseAddress(s) // RFC 5322
	if err != nil || addr.Address != s || addr.Name != "" || at > maxLocalBytes || !utf8.ValidString(s) ||
		strings.ContainsFunc(s, func(r rune) bool { return r == ' ' || !unicode.IsPrint(r) }) {
		return "Not a valid e-mail address."
	}
	domain := s[at+1:]
	_, malformed := domainName(domain)
	if _, err := netip.ParseAddr(domain); err == nil || malformed != nil || !strings.Contains(domain, ".") {
		return "Not a valid e-mail address."
	}
	return ""
}
