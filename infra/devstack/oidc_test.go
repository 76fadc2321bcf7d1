package devstack_test

import (
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/zitadel/oidc/v3/pkg/client/rp"
	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/factum-platform/factum/infra/devstack"
)

func TestMain(m *testing.M) {
	if devstack.RunChild() {
		return
	}
	os.Exit(m.Run())
}

const redirect = "http://127.0.0.1:1/callback"

// TestOIDCCodeFlow logs in as a browser would, with the client library of the relying party.
func TestOIDCCodeFlow(t *testing.T) {
	dir := t.TempDir()
	provider, err := devstack.StartOIDC(t.Context(), devstack.OIDCConfig{Dir: dir, Listen: "127.0.0.1:0", Redirect: redirect})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := provider.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	info, err := os.Stat(filepath.Join(dir, "access.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info.Mode(), err)
	}
	access := provider.Access()
	party, err := rp.NewRelyingPartyOIDC(t.Context(), provider.Issuer(), access.ClientID, access.ClientSecret, redirect, []string{oidc.ScopeOpenID, oidc.ScopeEmail})
	if err != nil {
		t.Fatal(err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), redirect) {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	defer browser.CloseIdleConnections()
	page, err := browser.Get(rp.AuthURL("state", party))
	if err != nil {
		t.Fatal(err)
	}
	html, err := io.ReadAll(page.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := page.Body.Close(); err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`name="id" value="([^"]+)"`).FindSubmatch(html)
	if found == nil {
		t.Fatalf("no log-in page: %s", html)
	}
	submit := func(password string) *http.Response {
		t.Helper()
		resp, err := browser.PostForm(provider.Issuer()+"/login/username", url.Values{"id": {string(found[1])}, "username": {access.Username}, "password": {password}})
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Fatal(err)
		}
		return resp
	}
	if got := submit("verysecure").StatusCode; got != http.StatusUnauthorized {
		t.Fatalf("a wrong password answers %d", got)
	}
	back, err := submit(access.Password).Location()
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := rp.CodeExchange[*oidc.IDTokenClaims](t.Context(), back.Query().Get("code"), party)
	if err != nil {
		t.Fatal(back, err)
	}
	if tokens.IDTokenClaims.Subject == "" || tokens.IDTokenClaims.Issuer != provider.Issuer() {
		t.Fatalf("%+v", tokens.IDTokenClaims)
	}
}
