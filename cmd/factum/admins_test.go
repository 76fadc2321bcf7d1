package main

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// admins runs factum admins beside the platform and returns what it says.
func (s *site) admins(t *testing.T, code int, args ...string) string {
	t.Helper()
	all := append([]string{"admins"}, args...)
	return launchFactum(t, append(all, "--database-url="+s.flags["database-url"], "--keyring="+s.flags["keyring"])...).ended(t, code)
}

// statusOf is how the API answers a GET.
func statusOf(t *testing.T, base, token, path string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	must(t, res.Body.Close())
	return res.StatusCode
}

func TestAdmins(t *testing.T) {
	s := newSite(t)
	_, info := s.start(t)
	c, _ := tenantClient(t, info)
	var me struct {
		Data struct {
			ID    string `json:"id"`
			Email string `json:"email"`
		} `json:"data"`
	}
	must(t, c.call(t.Context(), "GET", "/api/users/me", nil, &me))
	other, _ := tenantClient(t, info)
	mine, email := me.Data.ID, me.Data.Email
	must(t, other.call(t.Context(), "GET", "/api/users/me", nil, &me))

	if out := s.admins(t, 0, "list"); !strings.Contains(out, "Nobody administers the platform") {
		t.Error(out)
	}
	if got := statusOf(t, info.BaseURL, c.token, "/api/platform/projections"); got != http.StatusForbidden {
		t.Errorf("a tenant's admin gets %d", got)
	}
	if out := s.admins(t, 0, "add", strings.ToUpper(email)); !strings.Contains(out, "("+mine+") administers the platform\n") {
		t.Error(out)
	}
	if out := s.admins(t, 0, "add", mine, me.Data.ID); !strings.Contains(out, mine+" ("+mine+") administers the platform, as before") || !strings.Contains(out, "("+me.Data.ID+") administers the platform\n") {
		t.Error(out)
	}
	var list []adminLine
	must(t, json.Unmarshal([]byte(s.admins(t, 0, "list", "--json")), &list))
	if len(list) != 2 || list[0].UserID != mine || list[0].Email != email || list[0].Since.IsZero() {
		t.Errorf("%+v", list)
	}
	if got := statusOf(t, info.BaseURL, c.token, "/api/platform/projections"); got != http.StatusOK {
		t.Errorf("an administrator gets %d", got)
	}
	if out := s.admins(t, 0, "remove", email); !strings.Contains(out, "does not administer the platform\n") {
		t.Error(out)
	}
	if out := s.admins(t, 0, "list"); strings.Contains(out, mine) || !strings.Contains(out, me.Data.Email) {
		t.Error(out)
	}
	if got := statusOf(t, info.BaseURL, c.token, "/api/platform/projections"); got != http.StatusForbidden {
		t.Errorf("who was removed gets %d", got)
	}
	for name, tc := range map[string]struct {
		args []string
		code int
		want string
	}{
		"the last one":    {[]string{"remove", me.Data.ID}, 1, "This is the last administrator of the platform. Add another one first."},
		"no such user":    {[]string{"add", "11111111-1111-4111-8111-111111111111"}, 1, "There is no such user."},
		"no such address": {[]string{"add", "nobody@example.com"}, 1, "there is no user with the e-mail address nobody@example.com"},
		"neither":         {[]string{"add", "mina"}, 1, `"mina" is neither an e-mail address nor the id of a user`},
		"nobody named":    {[]string{"add"}, 2, "<user>"},
	} {
		t.Run(name, func(t *testing.T) {
			if out := s.admins(t, tc.code, tc.args...); !strings.Contains(out, tc.want) {
				t.Error(out)
			}
		})
	}
}

// TestDevGrantsTheGeneratedAccount: and does not do so again once it was taken away.
func TestDevGrantsTheGeneratedAccount(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	p, info := startDevOn(t, data)
	token := func() string {
		t.Helper()
		var out struct {
			AccessToken string `json:"access_token"`
		}
		c := &demoClient{base: info.BaseURL}
		must(t, c.call(t.Context(), "POST", "/api/auth/login", map[string]string{"email": info.AdminEmail, "password": info.AdminPassword}, &out))
		return out.AccessToken
	}
	if got := statusOf(t, info.BaseURL, token(), "/api/platform/projections"); got != http.StatusOK {
		t.Fatalf("the generated account gets %d", got)
	}
	c, _ := tenantClient(t, info)
	var me struct {
		Data struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	must(t, c.call(t.Context(), "GET", "/api/users/me", nil, &me))
	for _, args := range [][]string{{"add", me.Data.ID}, {"remove", info.AdminEmail}} {
		launchFactum(t, append([]string{"admins", args[0], "--data=" + data}, args[1:]...)...).ended(t, 0)
	}
	if code := p.kill(syscall.SIGTERM); code != 0 {
		t.Fatal(code, p.output)
	}
	_, info = startDevOn(t, data)
	if got := statusOf(t, info.BaseURL, token(), "/api/platform/projections"); got != http.StatusForbidden {
		t.Errorf("the account is an administrator again: %d", got)
	}
}
