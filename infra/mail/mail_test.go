package mail_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/factum-platform/factum/infra/mail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// relay is an SMTP server (RFC 5321) for one connection: it answers RCPT as it is told and gives back what it was sent.
func relay(t *testing.T, recipient string) (address string, sent <-chan string) {
	t.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan string, 1)
	go func() {
		defer close(out)
		defer ln.Close()
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		say := func(line string) { fmt.Fprintf(conn, "%s\r\n", line) }
		say("220 relay")
		var text strings.Builder
		data := false
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			line := lines.Text()
			switch {
			case data && line == ".":
				data = false
				out <- text.String()
				say("250 taken")
			case data:
				text.WriteString(line + "\r\n")
			case strings.HasPrefix(line, "RCPT"):
				say(recipient)
			case line == "DATA":
				data = true
				say("354 go on")
			case line == "QUIT":
				say("221 bye")
				return
			default:
				say("250 ok")
			}
		}
	}()
	return ln.Addr().String(), out
}

var message = mail.Message{
	To: "mina@plant.example", Subject: "Bestätigen", Text: "Hello Mina,\n\nhttp://factum.example/account#verify=abc\n", Link: "http://factum.example/account#verify=abc",
}

func TestSMTP(t *testing.T) {
	address, sent := relay(t, "250 ok")
	s, err := mail.NewSMTP("smtp+plain://"+address, "Factum <factum@factum.example>")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), message); err != nil {
		t.Fatal(err)
	}
	checkMail(t, <-sent)
}

// checkMail reads the mail with another library.
func checkMail(t *testing.T, raw string) {
	t.Helper()
	m, err := netmail.ReadMessage(strings.NewReader(raw))
	if err != nil {
		t.Fatal(err, raw)
	}
	from, err := m.Header.AddressList("From")
	if err != nil || from[0].Address != "factum@factum.example" {
		t.Error(from, err)
	}
	if m.Header.Get("To") != "<mina@plant.example>" || m.Header.Get("Auto-Submitted") != "auto-generated" || m.Header.Get("Message-ID") == "" {
		t.Error(m.Header)
	}
	if date, err := m.Header.Date(); err != nil || time.Since(date) > time.Minute {
		t.Error(date, err)
	}
	if !strings.Contains(raw, "#verify=3Dabc") { // quoted-printable
		t.Error(raw)
	}
}

func TestWhatTheServerRefusesForGoodIsToldApart(t *testing.T) {
	for answer, good := range map[string]bool{"550 <mina@plant.example>: no such mailbox": true, "451 <mina@plant.example>: greylisted": false} {
		address, sent := relay(t, answer)
		s, err := mail.NewSMTP("smtp+plain://"+address, "factum@factum.example")
		if err != nil {
			t.Fatal(err)
		}
		err = s.Send(t.Context(), message)
		var refused *mail.RefusedError
		if err == nil || errors.As(err, &refused) != good || strings.Contains(err.Error(), "mina") {
			t.Errorf("%s: %v", answer, err)
		}
		for range sent {
			t.Error("a mail was taken")
		}
	}
	s, err := mail.NewSMTP("smtp+plain://127.0.0.1:1", "factum@factum.example")
	if err != nil {
		t.Fatal(err)
	}
	var refused *mail.RefusedError
	if err := s.Send(t.Context(), message); err == nil || errors.As(err, &refused) {
		t.Error("a server that is away:", err)
	}
	if err := s.Send(t.Context(), mail.Message{To: "a@b\r\nBcc: c@d"}); !errors.As(err, &refused) {
		t.Error("a recipient that is none:", err)
	}
}

func TestSettingsAreChecked(t *testing.T) {
	for _, c := range [][2]string{
		{"", "a@b.c"},
		{"smtp://", "a@b.c"},
		{"http://mail.example", "a@b.c"},
		{"smtp://mail.example:port", "a@b.c"},
		{"smtp://mail.example/x", "a@b.c"},
		{"smtp://mail.example", ""},
		{"smtps://mail.example", "no address"},
		{"smtp://user:hunter2@mail.example:99999", "a@b.c"},
	} {
		if _, err := mail.NewSMTP(c[0], c[1]); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", c, err)
		}
	}
	for _, server := range []string{"smtp://mail.example", "smtps://user:p%40ss@mail.example", "smtp://u:p@mail.example:2525/"} {
		if _, err := mail.NewSMTP(server, "Factum <factum@factum.example>"); err != nil {
			t.Errorf("%s: %v", server, err)
		}
	}
}

func TestFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "mail")
	var told []string
	f := &mail.Folder{Dir: dir, From: "factum@factum.example", Wrote: func(m mail.Message, file string) { told = append(told, m.Link, file) }}
	if err := f.Send(context.Background(), message); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 || len(told) != 2 || told[0] != message.Link || told[1] != files[0] || filepath.Ext(files[0]) != ".eml" {
		t.Fatal(files, told, err)
	}
	raw, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	checkMail(t, string(raw))
}
