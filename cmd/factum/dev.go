package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/devstack"
	"github.com/factum-platform/factum/infra/mail"
	"github.com/factum-platform/factum/infra/objectstore"
	"github.com/factum-platform/factum/infra/telemetry"
	"github.com/factum-platform/factum/infra/tsa"
)

// DevCmd runs the whole platform in one process. Production's code paths, only smaller servers.
type DevCmd struct {
	Listen         string `default:"127.0.0.1:4999" help:"Address of the API."`
	Data           string `default:".factum" help:"Folder that holds everything: database, objects, keys. Made when absent."`
	Reset          bool   `help:"Delete everything in the data folder first."`
	PgBin          string `name:"pg-bin" help:"Folder of the PostgreSQL binaries; else PATH, then /usr/lib/postgresql, then a download."`
	TSAURL         string `name:"tsa-url" help:"Use this RFC 3161 authority in place of the local one. Needs --tsa-roots."`
	TSARoots       string `name:"tsa-roots" help:"PEM file with the roots that the authority's certificate must chain to."`
	TSAProvider    string `name:"tsa-provider" default:"local" help:"Short name of the authority, shown as tsa_provider."`
	ShortPasswords bool   `name:"short-passwords" help:"Accept new passwords of 8 characters, with a letter and a digit, for clients of the original system."`
	LogLevel       string `name:"log-level" default:"warn" enum:"debug,info,warn,error" help:"Lowest level that is logged (to stderr): ${enum}."`
}

// devInfo is what <data>/dev.json tells scripts and people. It holds secrets: mode 0600.
type devInfo struct {
	BaseURL       string `json:"base_url"`
	AdminEmail    string `json:"admin_email"`
	AdminPassword string `json:"admin_password"`
	DatabaseURL   string `json:"database_url"`
	S3Endpoint    string `json:"s3_endpoint"`
	S3AccessKey   string `json:"s3_access_key"`
	S3SecretKey   string `json:"s3_secret_key"`
	S3Bucket      string `json:"s3_bucket"`
	TSAURL        string `json:"tsa_url"`
	TSARoots      string `json:"tsa_roots"`
	OIDCIssuer    string `json:"oidc_issuer"`
}

// Run implements the subcommand. It returns when ctx ends and everything was stopped.
func (c DevCmd) Run(ctx context.Context) (err error) {
	if (c.TSAURL == "") != (c.TSARoots == "") {
		return errors.New("--tsa-url and --tsa-roots belong together: give both or neither")
	}
	data, err := filepath.Abs(c.Data)
	if err != nil {
		return fmt.Errorf("data folder %s: %w", c.Data, err)
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return fmt.Errorf("data folder %s cannot be made (%w); choose another with --data", data, err)
	}
	unlock, err := lockData(data)
	if err != nil {
		return err
	}
	st := newStack()
	defer func() {
		err = errors.Join(err, st.stop())
		unlock()
	}()
	if c.Reset {
		if err := resetData(ctx, data); err != nil {
			return err
		}
	}

	log, err := telemetry.Logger(os.Stderr, "text", c.LogLevel)
	if err != nil {
		return err
	}

	ln, err := listen(ctx, c.Listen)
	if err != nil {
		return err
	}
	listening := true // until the API server owns the listener
	defer func() {
		if listening {
			err = errors.Join(err, ln.Close())
		}
	}()

	info, s, err := c.startServers(ctx, st, data)
	if err != nil {
		return err
	}
	info.BaseURL = "http://" + ln.Addr().String()
	s.roles, s.exclusive, s.log = allRoles, true, log // the data folder is locked
	s.passwords = auth.PasswordRules{Short: c.ShortPasswords}
	s.edge.limits = generous
	s.mails = mails{sender: devMailer(data), accountURL: info.BaseURL + "/account"}
	// The password is on disk before the account exists: a crash between the two loses nothing.
	if err := writeDevInfo(data, info); err != nil {
		return err
	}
	listening = false
	p, err := startPlatform(ctx, st, s, ln)
	if err != nil {
		return err
	}
	if err := p.ensureAccount(ctx, info.AdminEmail, info.AdminPassword); err != nil {
		return err
	}
	banner(info, data)
	select {
	case <-ctx.Done():
		fmt.Println("stopping …")
		return nil
	case err := <-st.failed:
		return err
	}
}

// devMailer writes mails into the data folder, and their links where the developer looks.
func devMailer(data string) *mail.Folder {
	return &mail.Folder{Dir: filepath.Join(data, "mail"), From: "Factum <factum@factum.localhost>", Wrote: func(m mail.Message, file string) {
		fmt.Printf("mail %q in %s\n  %s\n", m.Subject, file, m.Link)
	}}
}

// startServers starts the servers that production has elsewhere and says where they are.
func (c DevCmd) startServers(ctx context.Context, st *stack, data string) (devInfo, settings, error) {
	var s settings
	info, err := readDevInfo(data)
	if err != nil {
		return info, s, err
	}
	if info.AdminPassword == "" {
		info.AdminEmail, info.AdminPassword = "admin@factum.localhost", secret()
	}
	if info.S3SecretKey == "" {
		info.S3AccessKey, info.S3SecretKey, info.S3Bucket = "factum-dev", secret(), "factum"
	}

	pg, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{Dir: filepath.Join(data, "postgres"), BinDir: c.PgBin})
	if err != nil {
		return info, s, err
	}
	st.started("PostgreSQL", pg.Stop)
	st.watch("PostgreSQL", pg.Exited())
	if s.databases, err = prepareDatabases(ctx, pg.AdminDSN(), filepath.Join(data, "keyring.json")); err != nil {
		return info, s, err
	}
	s.engine = engine{name: enginePostgres}
	info.DatabaseURL = s.adminDSN

	s3, err := devstack.StartS3(ctx, devstack.S3Config{Dir: filepath.Join(data, "s3"), AccessKey: info.S3AccessKey, SecretKey: info.S3SecretKey})
	if err != nil {
		return info, s, err
	}
	st.started("S3", s3.Stop)
	st.watch("the S3 server", s3.Exited())
	info.S3Endpoint = "http://" + s3.Endpoint()
	s.objects = objectstore.Config{Endpoint: s3.Endpoint(), AccessKey: info.S3AccessKey, SecretKey: info.S3SecretKey, Bucket: info.S3Bucket, Region: "us-east-1"}

	authority, err := devstack.StartTSA(ctx, devstack.TSAConfig{Dir: filepath.Join(data, "tsa"), Listen: "127.0.0.1:0"})
	if err != nil {
		return info, s, err
	}
	st.started("time-stamping authority", authority.Stop)
	info.TSAURL, info.TSARoots = authority.URL(), authority.RootsPath()
	if c.TSAURL != "" {
		info.TSAURL, info.TSARoots = c.TSAURL, c.TSARoots
	}
	roots, err := tsa.LoadRoots(info.TSARoots)
	if err != nil {
		return info, s, err
	}
	s.tsa = tsa.Config{URL: info.TSAURL, Provider: c.TSAProvider, Roots: roots}

	provider, err := devstack.StartOIDC(ctx, devstack.OIDCConfig{Dir: filepath.Join(data, "oidc"), Listen: "127.0.0.1:0"})
	if err != nil {
		return info, s, err
	}
	st.started("OpenID provider", provider.Stop)
	info.OIDCIssuer = provider.Issuer()
	return info, s, nil
}

// lockData makes sure that one process at a time uses the data folder. The lock is the kernel's, so that it is gone with a
// killed process.
func lockData(data string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(data, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data folder %s cannot be written (%w); choose another with --data", data, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		at := ""
		if info, err := readDevInfo(data); err == nil && info.BaseURL != "" {
			at = " at " + info.BaseURL
		}
		return nil, fmt.Errorf("factum dev is already running on %s%s; stop it first or choose another folder with --data", data, at)
	}
	return func() {
		if err := f.Close(); err != nil { // closing releases the lock
			fmt.Fprintln(os.Stderr, "factum: unlock:", err)
		}
	}, nil
}

// resetData empties the data folder but for the lock. A PostgreSQL that a killed process left behind is stopped first.
func resetData(ctx context.Context, data string) error {
	if err := devstack.StopOrphanedPostgres(ctx, filepath.Join(data, "postgres")); err != nil {
		return err
	}
	entries, err := os.ReadDir(data)
	if err != nil {
		return fmt.Errorf("reset %s: %w", data, err)
	}
	for _, e := range entries {
		if e.Name() == "lock" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(data, e.Name())); err != nil {
			return fmt.Errorf("reset %s: %w", data, err)
		}
	}
	return nil
}

// readDevInfo reads <data>/dev.json; a folder without one gives the zero value.
func readDevInfo(data string) (devInfo, error) {
	var info devInfo
	path := filepath.Join(data, "dev.json")
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return info, nil
	}
	if err != nil {
		return info, fmt.Errorf("read %s: %w", path, err)
	}
	if err := json.Unmarshal(raw, &info); err != nil {
		return info, fmt.Errorf("%s is damaged (%w); start with --reset to begin anew", path, err)
	}
	return info, nil
}

// writeDevInfo replaces <data>/dev.json in one step, so that a crash leaves the old or the new one.
func writeDevInfo(data string, info devInfo) error {
	raw, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return fmt.Errorf("dev.json: %w", err)
	}
	tmp := filepath.Join(data, "dev.json.new")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write dev.json: %w", err)
	}
	_, err = f.Write(append(raw, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write dev.json: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(data, "dev.json")); err != nil {
		return fmt.Errorf("write dev.json: %w", err)
	}
	return nil
}

// secret draws 144 bits for a generated password.
func secret() string {
	var b [18]byte
	rand.Read(b[:]) // never fails: crypto/rand aborts the process instead (Go 1.24)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func banner(info devInfo, data string) {
	fmt.Printf(`
Factum %s: everything in one process, data in %s
  API            %s
  API docs       %s/api/docs
  administrator  %s
  password       %s
  time-stamps    %s
  OpenID issuer  %s
  S3             %s
  for scripts    %s (mode 0600)
ready %s
`, version, data, info.BaseURL, info.BaseURL, info.AdminEmail, info.AdminPassword, info.TSAURL, info.OIDCIssuer, info.S3Endpoint,
		filepath.Join(data, "dev.json"), info.BaseURL)
}
