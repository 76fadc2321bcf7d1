// Package mail sends mails: over SMTP, or into a folder where a developer reads them. Who sends what, and when, is not its business.
package mail

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/wneessen/go-mail"
)

// Message is one mail to one person, in plain text.
type Message struct {
	To, Subject, Text string
	Link              string // that the text holds, for those who do not read it; "" for none
}

// RefusedError says that the server will not take this mail, now or later.
type RefusedError struct{ Err error }

// Error implements error.
func (e *RefusedError) Error() string {
	return "mail: the server refuses the mail for good: " + e.Err.Error()
}

// Unwrap makes the cause visible to errors.Is and errors.As.
func (e *RefusedError) Unwrap() error { return e.Err }

const sendTimeout = 30 * time.Second

// SMTP sends over a server. It is safe for concurrent use; each mail has a connection of its own.
type SMTP struct {
	host    string
	options []mail.Option
	from    string
}

// NewSMTP reads the server's address: smtp://user:password@host:587 speaks TLS after STARTTLS and nothing without it,
// smtps://user:password@host:465 from the beginning; smtp+plain://host:25 never, for a relay on the same machine. from is the sender: an
// address, with a name or without.
func NewSMTP(server, from string) (*SMTP, error) {
	u, err := url.Parse(server)
	if err != nil || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" {
		return nil, errors.New("mail: the server's address is not a URL such as smtp://user:password@host:587") // err would hold the password
	}
	s := &SMTP{host: u.Hostname(), from: from, options: []mail.Option{mail.WithTimeout(sendTimeout)}}
	var port string
	switch u.Scheme {
	case "smtp":
		port, s.options = "587", append(s.options, mail.WithTLSPolicy(mail.TLSMandatory))
	case "smtps":
		port, s.options = "465", append(s.options, mail.WithSSL())
	case "smtp+plain":
		port, s.options = "25", append(s.options, mail.WithTLSPolicy(mail.NoTLS))
	default:
		return nil, fmt.Errorf("mail: %q is none of smtp, smtps and smtp+plain", u.Scheme)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("mail: port %q is not a number", port)
	}
	s.options = append(s.options, mail.WithPort(number))
	if password, ok := u.User.Password(); ok {
		s.options = append(s.options, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(u.User.Username()), mail.WithPassword(password))
	}
	if _, err := compose(from, Message{To: "somebody@example.com"}); err != nil {
		return nil, fmt.Errorf("mail: the sender %q is not an address such as Factum <factum@example.com>", from)
	}
	if _, err := mail.NewClient(s.host, s.options...); err != nil {
		return nil, fmt.Errorf("mail: %w", err)
	}
	return s, nil
}

// Send sends the mail, which the server has then taken. Errors: *[RefusedError]; all others pass.
func (s *SMTP) Send(ctx context.Context, m Message) error {
	msg, err := compose(s.from, m)
	if err != nil {
		return &RefusedError{err}
	}
	client, err := mail.NewClient(s.host, s.options...)
	if err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	err = client.DialAndSendWithContext(ctx, msg)
	var sending *mail.SendError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &sending):
		return fmt.Errorf("mail: send over %s: %w", s.host, err)
	}
	// The server's own words may hold the recipient's address.
	told := fmt.Errorf("%s, code %d", sending.Reason, sending.ErrorCode())
	if sending.ErrorCode() >= 500 && judged[sending.Reason] {
		return &RefusedError{told}
	}
	return fmt.Errorf("mail: send over %s: %w", s.host, told)
}

// judged are the steps at which a server judges this mail and not our connection.
var judged = map[mail.SendErrReason]bool{mail.ErrSMTPRcptTo: true, mail.ErrSMTPData: true, mail.ErrSMTPDataClose: true}

// compose makes the mail as it goes over the line.
func compose(from string, m Message) (*mail.Msg, error) {
	msg := mail.NewMsg()
	if err := msg.From(from); err != nil {
		return nil, err
	}
	if err := msg.To(m.To); err != nil {
		return nil, errors.New("the recipient is not an address") // err would hold it
	}
	msg.Subject(m.Subject)
	msg.SetDate()
	msg.SetMessageID()
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no out-of-office notes
	msg.SetBodyString(mail.TypeTextPlain, m.Text)
	return msg, nil
}

// Folder writes mails into files of a folder and sends none. It is safe for concurrent use.
type Folder struct {
	Dir  string
	From string
	// Wrote is told of every mail, and where it lies. Optional.
	Wrote func(m Message, file string)
}

// Send writes the mail as <time>.eml (RFC 5322). The file appears with its whole content.
func (f *Folder) Send(_ context.Context, m Message) (err error) {
	msg, err := compose(f.From, m)
	if err != nil {
		return &RefusedError{err}
	}
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	out, err := os.CreateTemp(f.Dir, ".new-*")
	if err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	_, err = msg.WriteTo(out)
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("mail: write %s: %w", out.Name(), errors.Join(err, os.Remove(out.Name())))
	}
	unique := strings.TrimPrefix(filepath.Base(out.Name()), ".new-")
	file := filepath.Join(f.Dir, time.Now().UTC().Format("20060102T150405.000000Z")+"-"+unique+".eml")
	if err := os.Rename(out.Name(), file); err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	if f.Wrote != nil {
		f.Wrote(m, file)
	}
	return nil
}
