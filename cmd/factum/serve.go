package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/mail"
	"github.com/factum-platform/factum/infra/objectstore"
	"github.com/factum-platform/factum/infra/telemetry"
	"github.com/factum-platform/factum/infra/tsa"
)

// reachTimeout bounds how long a start waits for one server.
const reachTimeout = 15 * time.Second

// logServers are the settings that every command on the logs of a real system needs. Secrets come from the environment or from files
// rather than from flags, which other users of the machine can read.
type logServers struct {
	DatabaseURL string `name:"database-url" env:"FACTUM_DATABASE_URL" placeholder:"URL" help:"PostgreSQL role that may create databases and roles: postgres://user:password@host:5432/postgres. Better in the environment: ${env}."`
	ESDB        string `name:"esdb" env:"ESDB_CONNECTION_STRING" placeholder:"STRING" help:"EventStoreDB: esdb://user:password@host:2113?tls=true. Better in the environment: ${env}."`
	Keyring     string `name:"keyring" env:"FACTUM_KEYRING" placeholder:"FILE" help:"File with the key-encryption key, made at the very first start (${env}). Without it personal data cannot be read."`
	LogLevel    string `name:"log-level" env:"FACTUM_LOG_LEVEL" default:"info" enum:"debug,info,warn,error" help:"Lowest level that is logged, to stderr: ${enum}."`
	LogFormat   string `name:"log-format" env:"FACTUM_LOG_FORMAT" default:"json" enum:"json,text" help:"Form of the log: ${enum}."`
}

// ServeCmd runs API, projector and workers, or some of them.
type ServeCmd struct {
	logServers
	Listen     string   `env:"FACTUM_LISTEN" default:"127.0.0.1:4999" help:"Address of the API, /health and /metrics (${env}). It speaks plain HTTP: put a TLS proxy in front of it."`
	Roles      []string `name:"roles" env:"FACTUM_ROLES" default:"api,projector,worker" placeholder:"ROLE,…" help:"What this process does (${env}): api, projector, worker. Default: all."`
	EventStore string   `name:"event-store" env:"FACTUM_EVENT_STORE" default:"postgres" enum:"postgres,eventstoredb" help:"Engine that holds the logs (${env}): ${enum}."`

	TenantConnections int `name:"tenant-connections" env:"FACTUM_TENANT_CONNECTIONS" default:"150" help:"Connections of this process to all tenants' databases together (${env}). Who finds none free waits."`

	S3Endpoint      string `name:"s3-endpoint" env:"FACTUM_S3_ENDPOINT" placeholder:"URL" help:"S3 server: https://host:port (${env})."`
	S3PublicURL     string `name:"s3-public-url" env:"FACTUM_S3_PUBLIC_URL" placeholder:"URL" help:"How clients outside reach the S3 server, for download URLs; like --s3-endpoint if it is not set (${env})."`
	S3Region        string `name:"s3-region" env:"FACTUM_S3_REGION" default:"us-east-1" help:"Its region (${env})."`
	S3Bucket        string `name:"s3-bucket" env:"FACTUM_S3_BUCKET" default:"factum" help:"Bucket, made when it is missing (${env})."`
	S3AccessKey     string `name:"s3-access-key" env:"FACTUM_S3_ACCESS_KEY" placeholder:"KEY" help:"Access key (${env})."`
	S3SecretKeyFile string `name:"s3-secret-key-file" env:"FACTUM_S3_SECRET_KEY_FILE" placeholder:"FILE" help:"File with the secret key (${env}); else FACTUM_S3_SECRET_KEY holds it."`

	TSAURL      string `name:"tsa-url" env:"FACTUM_TSA_URL" placeholder:"URL" help:"RFC 3161 authority (${env})."`
	TSARoots    string `name:"tsa-roots" env:"FACTUM_TSA_ROOTS" placeholder:"FILE" help:"PEM file with the roots that its certificate must chain to (${env})."`
	TSAProvider string `name:"tsa-provider" env:"FACTUM_TSA_PROVIDER" default:"tsa" help:"Its short name, shown as tsa_provider (${env})."`

	ShortPasswords bool   `name:"short-passwords" env:"FACTUM_SHORT_PASSWORDS" help:"Accept new passwords of 8 characters, with a letter and a digit, for clients of the original system (${env})."`
	VerifiedOnly   bool   `name:"verified-only" env:"FACTUM_VERIFIED_ONLY" help:"Refuse a log-in until the account's e-mail address was verified by a mailed link (${env})."`
	SMTPURL        string `name:"smtp-url" env:"FACTUM_SMTP_URL" placeholder:"URL" help:"Mail server: smtp://user:password@host:587 (STARTTLS), smtps://…:465, or smtp+plain://localhost:25. Better in the environment: ${env}. Without it no mails are sent."`
	MailFrom       string `name:"mail-from" env:"FACTUM_MAIL_FROM" placeholder:"ADDRESS" help:"Sender of mails: Factum <factum@example.com> (${env})."`
	edgeSettings

	PublicURL string `name:"public-url" env:"FACTUM_PUBLIC_URL" placeholder:"URL" help:"How people reach the API: https://factum.example (${env}). Links in mails lead there."`
}

// Validate refuses wrong usage before anything is done.
func (c ServeCmd) Validate() error {
	if c.TenantConnections < 1 {
		return errors.New("--tenant-connections (FACTUM_TENANT_CONNECTIONS) must be 1 or more")
	}
	if _, err := c.edge(); err != nil {
		return err
	}
	_, err := parseRoles(c.Roles)
	return err
}

// Run implements the subcommand. It returns when ctx ends, after running requests were finished and everything was stopped.
func (c ServeCmd) Run(ctx context.Context) (err error) {
	s, err := c.settings(ctx)
	if err != nil {
		return err
	}
	ln, err := listen(ctx, c.Listen)
	if err != nil {
		return err
	}
	st := newStack()
	defer func() { err = errors.Join(err, st.stop()) }()
	if err := c.start(ctx, st, s, ln); err != nil {
		return err
	}
	fmt.Printf("ready http://%s roles %s\n", ln.Addr(), s.roles)
	select {
	case <-ctx.Done():
		s.log.Info("stopping")
		return nil
	case err := <-st.failed:
		return err
	}
}

// start connects to the databases and starts the platform, which owns the listener from here on.
func (c ServeCmd) start(ctx context.Context, st *stack, s settings, ln net.Listener) (err error) {
	if s.databases, err = c.prepare(ctx, true); err != nil {
		return errors.Join(err, ln.Close())
	}
	_, err = startPlatform(ctx, st, s, ln)
	return err
}

// prepare brings the platform's database up to date; create makes it when it is missing.
func (c logServers) prepare(ctx context.Context, create bool) (databases, error) {
	run := prepareDatabases
	if !create {
		run = prepareExisting
	}
	d, err := run(ctx, c.DatabaseURL, c.Keyring)
	var unreachable *unreachableError
	if errors.As(err, &unreachable) {
		return d, fmt.Errorf("%w; check --database-url (FACTUM_DATABASE_URL) and that the server runs", err)
	}
	if err != nil && ctx.Err() == nil {
		return d, fmt.Errorf("prepare the platform's database: %w; see --database-url (FACTUM_DATABASE_URL) and --keyring (FACTUM_KEYRING)", err)
	}
	return d, err
}

// logger returns the logger that the settings want.
func (c logServers) logger() (*slog.Logger, error) {
	return telemetry.Logger(os.Stderr, c.LogFormat, c.LogLevel)
}

// setting is one that must be given.
type setting struct{ value, flag, env, want string }

// given says which setting is missing, and what belongs there.
func given(list ...setting) error {
	for _, s := range list {
		if strings.TrimSpace(s.value) == "" {
			return fmt.Errorf("%s is not set: give %s, by %s or %s", s.env, s.want, s.flag, s.env)
		}
	}
	return nil
}

// validate checks what can be checked without a server; engines are those that are used.
func (c logServers) validate(engines ...string) error {
	list := []setting{
		{c.DatabaseURL, "--database-url", "FACTUM_DATABASE_URL", "the URL of a PostgreSQL role that may create databases and roles (postgres://user:password@host:5432/postgres)"},
		{c.Keyring, "--keyring", "FACTUM_KEYRING", "the file with the key-encryption key; it is made at the very first start, so keep it safe"},
	}
	for _, e := range engines {
		if e == engineEventStoreDB {
			list = append(list, setting{c.ESDB, "--esdb", "ESDB_CONNECTION_STRING", "the connection string of EventStoreDB (esdb://user:password@host:2113?tls=true)"})
		}
	}
	if err := given(list...); err != nil {
		return err
	}
	if _, err := platformURL(c.DatabaseURL, nil); err != nil {
		return fmt.Errorf("--database-url (FACTUM_DATABASE_URL): %w", err)
	}
	return nil
}

// settings reads everything but the databases, which are not touched before the rest is known to be usable.
func (c ServeCmd) settings(ctx context.Context) (s settings, err error) {
	if err := c.validate(c.EventStore); err != nil {
		return s, err
	}
	if s.log, err = c.logger(); err != nil {
		return s, err
	}
	if s.roles, err = parseRoles(c.Roles); err != nil {
		return s, err
	}
	s.engine, s.connections = engine{name: c.EventStore, esdb: c.ESDB}, c.TenantConnections
	s.passwords = auth.PasswordRules{Short: c.ShortPasswords}
	if s.mails, err = c.mails(s.roles); err != nil {
		return s, err
	}
	if s.edge, err = c.edge(); err != nil {
		return s, err
	}
	s.edge.tls = strings.HasPrefix(c.PublicURL, "https://")
	if s.tsa, err = c.authority(ctx, s.roles, s.log); err != nil || !s.roles.has(roleAPI) {
		return s, err
	}
	s.objects, err = c.s3(ctx)
	return s, err
}

// mails reads how people are mailed. Only workers send.
func (c ServeCmd) mails(r roles) (m mails, err error) {
	m.verifiedOnly = c.VerifiedOnly
	if !r.has(roleWorker) {
		return m, nil
	}
	if c.SMTPURL == "" {
		if c.VerifiedOnly {
			return m, errors.New("--verified-only (FACTUM_VERIFIED_ONLY) needs a mail server, or nobody could log in: give --smtp-url or FACTUM_SMTP_URL")
		}
		return m, nil
	}
	err = given(
		setting{c.MailFrom, "--mail-from", "FACTUM_MAIL_FROM", "the sender of mails (Factum <factum@example.com>)"},
		setting{c.PublicURL, "--public-url", "FACTUM_PUBLIC_URL", "the URL at which people reach the API (https://factum.example)"},
	)
	if err != nil {
		return m, err
	}
	u, err := url.Parse(c.PublicURL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return m, fmt.Errorf("--public-url (FACTUM_PUBLIC_URL) %q is not a URL such as https://factum.example", c.PublicURL)
	}
	m.accountURL = strings.TrimRight(c.PublicURL, "/") + "/account"
	if m.sender, err = mail.NewSMTP(c.SMTPURL, c.MailFrom); err != nil {
		return m, fmt.Errorf("--smtp-url (FACTUM_SMTP_URL), --mail-from (FACTUM_MAIL_FROM): %w", err)
	}
	return m, nil
}

// s3 reads where the contents of files lie, and asks for the bucket before anything is made. Only the API needs it.
func (c ServeCmd) s3(ctx context.Context) (o objectstore.Config, err error) {
	secret, err := c.s3Secret()
	if err != nil {
		return o, err
	}
	err = given(
		setting{c.S3Endpoint, "--s3-endpoint", "FACTUM_S3_ENDPOINT", "the URL of the S3 server (https://host:port)"},
		setting{c.S3AccessKey, "--s3-access-key", "FACTUM_S3_ACCESS_KEY", "its access key"},
		setting{secret, "--s3-secret-key-file", "FACTUM_S3_SECRET_KEY", "its secret key"},
	)
	if err != nil {
		return o, err
	}
	o = objectstore.Config{AccessKey: c.S3AccessKey, SecretKey: secret, Bucket: c.S3Bucket, Region: c.S3Region}
	if o.Endpoint, o.TLS, err = s3Address("--s3-endpoint (FACTUM_S3_ENDPOINT)", c.S3Endpoint); err != nil {
		return o, err
	}
	if c.S3PublicURL != "" {
		if o.PublicEndpoint, o.PublicTLS, err = s3Address("--s3-public-url (FACTUM_S3_PUBLIC_URL)", c.S3PublicURL); err != nil {
			return o, err
		}
	}
	return o, c.reachS3(ctx, o)
}

func (c ServeCmd) s3Secret() (string, error) {
	if c.S3SecretKeyFile == "" {
		return os.Getenv("FACTUM_S3_SECRET_KEY"), nil
	}
	raw, err := os.ReadFile(c.S3SecretKeyFile)
	if err != nil {
		return "", fmt.Errorf("--s3-secret-key-file (FACTUM_S3_SECRET_KEY_FILE) cannot be read: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}

// s3Address reads an S3 server's URL; setting is where it comes from.
func s3Address(setting, endpoint string) (hostPort string, tls bool, err error) {
	u, err := url.Parse(endpoint)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return "", false, fmt.Errorf("%s %q is not a URL such as https://host:port", setting, endpoint)
	}
	return u.Host, u.Scheme == "https", nil
}

// reachS3 asks for the bucket.
func (c ServeCmd) reachS3(ctx context.Context, o objectstore.Config) error {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	if _, err := objectstore.Open(ctx, o); err != nil {
		return fmt.Errorf("%w; see --s3-endpoint (FACTUM_S3_ENDPOINT), --s3-access-key (FACTUM_S3_ACCESS_KEY), FACTUM_S3_SECRET_KEY and --s3-bucket (FACTUM_S3_BUCKET)", err)
	}
	return nil
}

// authority reads who time-stamps: a worker asks the authority, and the API verifies what it answered. An authority that is away is only
// logged: uploads do not wait for it.
func (c ServeCmd) authority(ctx context.Context, r roles, log *slog.Logger) (tsa.Config, error) {
	if !r.has(roleAPI) && !r.has(roleWorker) {
		return tsa.Config{}, nil
	}
	err := given(
		setting{c.TSAURL, "--tsa-url", "FACTUM_TSA_URL", "the URL of an RFC 3161 time-stamping authority"},
		setting{c.TSARoots, "--tsa-roots", "FACTUM_TSA_ROOTS", "a PEM file with the roots that the authority's certificate must chain to"},
	)
	if err != nil {
		return tsa.Config{}, err
	}
	roots, err := c.roots()
	if err != nil {
		return tsa.Config{}, err
	}
	out := tsa.Config{URL: c.TSAURL, Provider: c.TSAProvider, Roots: roots}
	client, err := tsa.New(out)
	if err != nil {
		return out, fmt.Errorf("--tsa-url (FACTUM_TSA_URL): %w", err)
	}
	client.Close()
	if !r.has(roleWorker) {
		return out, nil // only workers ask it
	}
	u, err := url.Parse(c.TSAURL)
	if err != nil {
		return out, fmt.Errorf("--tsa-url (FACTUM_TSA_URL): %w", err)
	}
	port := u.Port()
	if port == "" {
		port = u.Scheme // "http" and "https" are names of ports
	}
	d := net.Dialer{Timeout: connectTimeout}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		log.Warn("the time-stamping authority cannot be reached; files wait for their time-stamps; check --tsa-url (FACTUM_TSA_URL)", "error", err)
		return out, nil
	}
	return out, conn.Close()
}

func (c ServeCmd) roots() (*x509.CertPool, error) {
	roots, err := tsa.LoadRoots(c.TSARoots)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("--tsa-roots (FACTUM_TSA_ROOTS): there is no file %s", c.TSARoots)
	}
	if err != nil {
		return nil, fmt.Errorf("--tsa-roots (FACTUM_TSA_ROOTS): %w", err)
	}
	return roots, nil
}

// listen opens the API's address.
func listen(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is taken by another program; stop it or choose another address with --listen", address)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s (%w); choose another address with --listen", address, err)
	}
	return ln, nil
}
