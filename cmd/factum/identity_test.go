package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestAnAddressIsVerifiedAndAStolenKeyIsReplaced runs the whole platform: the mail comes out of the saga, and the key is replaced by the
// command that an operator gives.
func TestAnAddressIsVerifiedAndAStolenKeyIsReplaced(t *testing.T) {
	data := t.TempDir()
	p, info := startDevOn(t, data)
	mailed := p.told("#verify=")
	c := &demoClient{base: info.BaseURL}
	person := map[string]string{"first_name": "Mina", "last_name": "Okoro", "email": "mina@example.com", "password": "stator coil 7"}
	must(t, c.call(t.Context(), "POST", "/api/auth/register", person, nil))
	p.await(mailed)

	link := regexp.MustCompile(`/account#verify=([A-Za-z0-9_-]+)`)
	var token string
	deadline := time.Now().Add(time.Minute)
	for token == "" {
		files, err := filepath.Glob(filepath.Join(data, "mail", "*.eml"))
		must(t, err)
		for _, file := range files {
			raw, err := os.ReadFile(file)
			must(t, err)
			m, err := mail.ReadMessage(bytes.NewReader(raw))
			must(t, err)
			body, err := io.ReadAll(m.Body)
			must(t, err)
			plain := strings.NewReplacer("=\r\n", "", "=3D", "=").Replace(string(body)) // RFC 2045 §6.7
			if m.Header.Get("To") == "<mina@example.com>" {
				token = link.FindStringSubmatch(plain)[1]
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("no mail lies in the data folder")
		}
	}
	must(t, c.call(t.Context(), "POST", "/api/auth/verify-email", map[string]string{"token": token}, nil))
	var in struct {
		AccessToken string `json:"access_token"`
	}
	login := map[string]string{"email": "mina@example.com", "password": "stator coil 7"}
	must(t, c.call(t.Context(), "POST", "/api/auth/login", login, &in))
	c.token = in.AccessToken
	var me struct {
		Data struct {
			EmailVerified bool `json:"email_verified"`
		} `json:"data"`
	}
	must(t, c.call(t.Context(), "GET", "/api/users/me", nil, &me))
	if !me.Data.EmailVerified {
		t.Error("the address is not verified")
	}
	for _, path := range []string{"/account", "/account.js"} {
		raw, err := c.fetch(t.Context(), path)
		if err != nil || !strings.Contains(string(raw), "account") && !strings.Contains(string(raw), "token") {
			t.Error(path, err)
		}
	}

	settings := logServers{DatabaseURL: info.DatabaseURL, Keyring: filepath.Join(data, "keyring.json")}
	must(t, KeysListCmd{settings}.Run(t.Context()))
	if err := (KeysRotateCmd{settings, time.Second, false}).Run(t.Context()); err == nil {
		t.Error("a lead of a second")
	}
	must(t, KeysRotateCmd{settings, time.Minute, false}.Run(t.Context()))
	must(t, c.call(t.Context(), "GET", "/api/users/me", nil, nil))
	must(t, KeysRotateCmd{settings, 0, true}.Run(t.Context()))
	begun := time.Now()
	for c.call(t.Context(), "GET", "/api/users/me", nil, nil) == nil {
		if time.Since(begun) > 30*time.Second {
			t.Fatal("a token of the stolen key still lets in")
		}
	}
	must(t, c.call(t.Context(), http.MethodPost, "/api/auth/login", login, &in))
	c.token = in.AccessToken
	must(t, c.call(t.Context(), "GET", "/api/users/me", nil, nil))
}

// TestTheSessionsOfTheDocs runs the blocks of docs/api.md as they stand.
func TestTheSessionsOfTheDocs(t *testing.T) {
	raw, err := os.ReadFile("../../docs/api.md")
	must(t, err)
	folder := t.TempDir()
	startDevOn(t, filepath.Join(folder, ".factum"))
	for name, wanted := range map[string][]string{
		"session": {
			"invited as user, open", "joined as user", "stored pump-3.txt", "found 2: pump-3.txt pump-4.txt", "removed 2, failed 0", "left 0",
		},
		"identity": {
			"@example.com verified: true", "panel\tfalse", "your other sessions have ended", "(as it should be)", `"total": 0`, `"ended":1`,
		},
	} {
		_, rest, marked := strings.Cut(string(raw), "<!-- "+name+":")
		_, rest, fenced := strings.Cut(rest, "\n```bash\n")
		block, _, closed := strings.Cut(rest, "\n```\n")
		if !marked || !fenced || !closed {
			t.Fatalf("docs/api.md has no block marked %s", name)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		script := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", block)
		script.Dir = folder
		out, err := script.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		for _, want := range wanted {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: the output lacks %q:\n%s", name, want, out)
			}
		}
	}
}

func TestMailSettings(t *testing.T) {
	for name, c := range map[string]struct {
		cmd  ServeCmd
		says string // "" for no error
	}{
		"none":                       {ServeCmd{}, ""},
		"demanded without a server":  {ServeCmd{VerifiedOnly: true}, "FACTUM_SMTP_URL"},
		"no sender":                  {ServeCmd{SMTPURL: "smtp://mail.example", PublicURL: "https://factum.example"}, "FACTUM_MAIL_FROM"},
		"no address for the links":   {ServeCmd{SMTPURL: "smtp://mail.example", MailFrom: "a@b.example"}, "FACTUM_PUBLIC_URL"},
		"a bad address for links":    {ServeCmd{SMTPURL: "smtp://mail.example", MailFrom: "a@b.example", PublicURL: "factum.example"}, "FACTUM_PUBLIC_URL"},
		"a bad server":               {ServeCmd{SMTPURL: "mail.example", MailFrom: "a@b.example", PublicURL: "https://factum.example"}, "FACTUM_SMTP_URL"},
		"everything":                 {ServeCmd{SMTPURL: "smtps://u:p@mail.example", MailFrom: "F <a@b.example>", PublicURL: "https://factum.example/", VerifiedOnly: true}, ""},
		"demanded, by the API alone": {ServeCmd{VerifiedOnly: true}, ""},
	} {
		roles := allRoles
		if strings.HasSuffix(name, "alone") {
			roles = []string{roleAPI}
		}
		m, err := c.cmd.mails(roles)
		if (c.says == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if name == "everything" && (m.sender == nil || m.accountURL != "https://factum.example/account" || !m.verifiedOnly) {
			t.Errorf("%s: %+v", name, m)
		}
	}
}
