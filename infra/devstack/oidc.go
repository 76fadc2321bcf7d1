package devstack

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// oidcUserID is the one person that the local provider knows.
const oidcUserID = "dev-user"

// OIDCConfig describes a local OpenID provider. Dir keeps its account, its client and its port.
type OIDCConfig struct {
	Dir      string
	Listen   string // host:port; port 0 picks a free one and remembers it in Dir
	Redirect string // the client's redirect URI; "" means http://127.0.0.1:4999/api/auth/sso/azure/callback
}

// OIDCAccess is what the provider's one client and one person log in with; all of it is generated and kept in
// <Dir>/access.json (mode 0600).
type OIDCAccess struct {
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	Username     string `json:"username"`
	Password     string `json:"password"`
}

// OIDC is a running OpenID provider: discovery, keys and the authorization-code flow with PKCE. It speaks the real protocol; what
// it cannot show is Microsoft Entra's own claims and policies. Its signing key and its sessions are new at each start.
type OIDC struct {
	issuer string
	access OIDCAccess
	server *http.Server
	served chan error
}

// StartOIDC starts the provider.
func StartOIDC(ctx context.Context, c OIDCConfig) (*OIDC, error) {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("devstack: OpenID folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("devstack: OpenID folder: %w", err)
	}
	access, err := loadOrCreateAccess(filepath.Join(dir, "access.json"))
	if err != nil {
		return nil, err
	}
	if c.Redirect == "" {
		c.Redirect = "http://127.0.0.1:4999/api/auth/sso/azure/callback"
	}
	ln, err := listenRemembered(ctx, c.Listen, filepath.Join(dir, "port"))
	if err != nil {
		return nil, err
	}
	o := &OIDC{issuer: "http://" + ln.Addr().String(), access: access, served: make(chan error, 1)}
	handler, err := oidcHandler(o.issuer, access, c.Redirect)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("devstack: OpenID provider: %w", err), ln.Close())
	}
	o.server = &http.Server{Handler: handler, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 30 * time.Second}
	go func() { o.served <- o.server.Serve(ln) }()
	return o, nil
}

// Issuer is the issuer's URL; discovery is below it.
func (o *OIDC) Issuer() string { return o.issuer }

// Access is what its client and its person log in with.
func (o *OIDC) Access() OIDCAccess { return o.access }

// Stop ends the server after the running requests.
func (o *OIDC) Stop(ctx context.Context) error {
	return stopHTTP(ctx, o.server, o.served, "the OpenID provider")
}

// people is the user store of one person.
type people struct {
	user storage.User
	// nobody names the service account that the library's storage wants; it is drawn at random, so that nobody can be it.
	nobody string
}

// GetUserByID implements storage.UserStore.
func (p people) GetUserByID(id string) *storage.User {
	if id != p.user.ID {
		return nil
	}
	return &p.user
}

// GetUserByUsername implements storage.UserStore.
func (p people) GetUserByUsername(name string) *storage.User {
	if name != p.user.Username {
		return nil
	}
	return &p.user
}

// ExampleClientID implements storage.UserStore.
func (p people) ExampleClientID() string { return p.nobody }

func oidcHandler(issuer string, access OIDCAccess, redirect string) (http.Handler, error) {
	kept := storage.NewStorageWithClients(
		people{storage.User{
			ID: oidcUserID, Username: access.Username, Password: access.Password,
			FirstName: "Dev", LastName: "User", Email: access.Username, EmailVerified: true,
		}, draw()},
		map[string]*storage.Client{access.ClientID: storage.WebClient(access.ClientID, access.ClientSecret, redirect)})
	var key [32]byte
	rand.Read(key[:]) // never fails (Go 1.24)
	provider, err := op.NewProvider(&op.Config{
		CryptoKey: key, CryptoKeyId: "dev", CodeMethodS256: true, AuthMethodPost: true, GrantTypeRefreshToken: true,
	}, kept, op.StaticIssuer(issuer), op.WithAllowInsecure(), op.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, err
	}
	callback := op.AuthCallbackURL(provider)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /login/username", func(w http.ResponseWriter, r *http.Request) {
		showLogin(w, http.StatusOK, r.FormValue("authRequestID"), "")
	})
	mux.Handle("POST /login/username", op.NewIssuerInterceptor(provider.IssuerFromRequest).HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 4096)
		id, name, password := r.FormValue("id"), r.FormValue("username"), r.FormValue("password")
		// The library compares with ==; ours takes the same time for every wrong password.
		same := subtle.ConstantTimeCompare([]byte(password), []byte(access.Password)) & subtle.ConstantTimeCompare([]byte(name), []byte(access.Username))
		if same != 1 {
			showLogin(w, http.StatusUnauthorized, id, "That is not the user name and password in access.json.")
			return
		}
		if err := kept.CheckUsernamePassword(name, password, id); err != nil {
			showLogin(w, http.StatusBadRequest, id, "This log-in was not asked for or is over; begin again.")
			return
		}
		http.Redirect(w, r, callback(r.Context(), id), http.StatusFound)
	}))
	mux.Handle("/", provider)
	return mux, nil
}

var loginPage = template.Must(template.New("login").Parse(`<!doctype html><meta charset="utf-8"><title>Log in</title>
<style>body{font:16px system-ui;max-width:24rem;margin:15vh auto}input,button{font:inherit;width:100%;margin:.3rem 0;padding:.4rem;box-sizing:border-box}</style>
<h1>Local OpenID provider</h1><p>{{.Wrong}}</p>
<form method="post" action="/login/username"><input type="hidden" name="id" value="{{.ID}}">
<input name="username" placeholder="user name" autocomplete="username"><input name="password" type="password" placeholder="password" autocomplete="current-password">
<button>Log in</button></form>`))

func showLogin(w http.ResponseWriter, status int, id, wrong string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action *; frame-ancestors 'none'")
	w.WriteHeader(status)
	if err := loginPage.Execute(w, map[string]string{"ID": id, "Wrong": wrong}); err != nil {
		return // the browser has gone; there is nobody to tell
	}
}

func loadOrCreateAccess(path string) (OIDCAccess, error) {
	var a OIDCAccess
	raw, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(raw, &a)
	} else if errors.Is(err, fs.ErrNotExist) {
		a = OIDCAccess{ClientID: "factum-dev", ClientSecret: draw(), Username: "dev@factum.localhost", Password: draw()}
		if raw, err = json.MarshalIndent(a, "", "  "); err == nil {
			err = os.WriteFile(path, raw, 0o600)
		}
	}
	if err != nil {
		return a, fmt.Errorf("devstack: %s: %w", path, err)
	}
	return a, nil
}

// draw makes a secret of 144 bits.
func draw() string {
	var b [18]byte
	rand.Read(b[:]) // never fails (Go 1.24)
	return base64.RawURLEncoding.EncodeToString(b[:])
}
