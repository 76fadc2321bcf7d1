package site

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/domain"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/pgstore"
	"github.com/factum-platform/factum/eventstore/seal"
	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/keyring"
	"github.com/factum-platform/factum/infra/objectstore"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/readmodel"
	"github.com/factum-platform/factum/infra/tenants"
	"github.com/factum-platform/factum/infra/tsa"
	"github.com/factum-platform/factum/projections/audit"
	"github.com/factum-platform/factum/projections/directory"
	"github.com/factum-platform/factum/projections/documents"
	"github.com/factum-platform/factum/projections/runner"
)

// Template is the database that those of tenants are copied from (infra/tenants).
const Template = "factum_tenant_template"

// tokenLife is how long a token is used: one that expires during a request would be a failure.
const tokenLife = auth.AccessLife / 2

// Platform is what factum is made of, in this process, on the databases of a site, with the roles that the program itself takes. It is safe
// for concurrent use.
type Platform struct {
	Pool      *pgxpool.Pool // to the platform's database
	Databases *tenants.Databases
	Store     eventstore.Store // its appends mark tenants and wake the processes of the site, as those of the program do
	Codec     *seal.Codec
	Commands  *commands.Commands
	Objects   *objectstore.Store

	Person string // the id of the account that owns all tenants

	site  *Site
	store *pgstore.Store
	auth  *auth.Auth

	mu     sync.Mutex
	token  string
	signed time.Time
}

// Options says how to open a platform. The zero value is usable.
type Options struct {
	Person string // the id of an account that an earlier platform has made; "" makes one
	// Provision is called in place of what makes a tenant's database, and calls it. Optional.
	Provision func(ctx context.Context, next func(context.Context) error) error
}

// Open opens the platform's databases. A first start of factum serve makes them, unless one was served before.
func (s *Site) Open(ctx context.Context, o Options) (_ *Platform, err error) {
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	kek, err := keyring.LoadOrCreateKEK(s.keyring())
	if err != nil {
		return nil, err
	}
	dsn, err := s.loginDSN(ctx, keyring.Open(nil, kek)) // to unseal needs the key only
	if err != nil {
		return nil, err
	}
	p := &Platform{site: s, Person: o.Person}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if p.Pool, err = postgres.Open(ctx, dsn, 20); err != nil {
		return nil, err
	}
	keys := keyring.Open(p.Pool, kek)
	p.Databases, err = tenants.Open(ctx, tenants.Config{
		Platform: p.Pool, AdminDSN: s.DSN(platformDatabase), Secrets: keys,
		TenantMigrations: []postgres.Migrations{{Name: "es", FS: pgstore.Migrations()}, {Name: "proj", FS: runner.Migrations()}},
	})
	if err != nil {
		return nil, err
	}
	types, err := eventstore.NewRegistry(domain.Catalog()...)
	if err != nil {
		return nil, err
	}
	if p.store, err = pgstore.Open(ctx, pgstore.Config{Databases: p.Databases, Notify: p.Pool}); err != nil {
		return nil, err
	}
	activity := tenants.Activity{Pool: p.Pool}
	mark := func(ctx context.Context, t eventstore.TenantID) error { return activity.Mark(ctx, string(t)) }
	p.Store = eventstore.Guard(eventstore.Mark(p.store, mark), types)
	p.Codec = &seal.Codec{Registry: types, Keys: sealKeys{keys}}
	if p.auth, err = auth.New(ctx, auth.Config{Pool: p.Pool, Secrets: keys}); err != nil {
		return nil, err
	}
	p.Objects, err = objectstore.Open(ctx, objectstore.Config{
		Endpoint: s.s3.Endpoint(), AccessKey: accessKey, SecretKey: s.secret, Bucket: bucket, Region: "us-east-1",
	})
	if err != nil {
		return nil, err
	}
	p.Commands, err = commands.New(commands.Config{
		Store: p.Store, Codec: p.Codec, Objects: p.Objects, MAC: keys.MAC, Auth: p.auth, TSAProvider: "bench", Now: time.Now, NewID: uuid.NewString,
		Logger: slog.New(slog.DiscardHandler),
		Provision: func(ctx context.Context, tenant, database string) error {
			next := func(ctx context.Context) error { return p.Databases.Provision(ctx, tenant, database) }
			if o.Provision == nil {
				return next(ctx)
			}
			return o.Provision(ctx, next)
		},
	})
	if err != nil {
		return nil, err
	}
	if p.Person == "" {
		err = p.register(ctx)
	}
	return p, err
}

// prepare lets the program make its databases.
func (s *Site) prepare(ctx context.Context) error {
	if _, err := os.Stat(s.keyring()); err == nil {
		return nil
	}
	first, err := s.Serve(ctx)
	if err != nil {
		return err
	}
	return first.Stop()
}

// loginDSN is how the program itself reaches the platform's database.
func (s *Site) loginDSN(ctx context.Context, keys *keyring.Keyring) (_ string, err error) {
	conn, err := pgx.Connect(ctx, s.DSN(platformDatabase))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	password, err := tenants.Login(ctx, conn, keys, appLogin)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(s.DSN(platformDatabase))
	if err != nil {
		return "", errors.New("the platform's DSN is not a URL") // err would print its password
	}
	u.User = url.UserPassword(appLogin, password)
	return u.String(), nil
}

// register makes the account that owns all tenants.
func (p *Platform) register(ctx context.Context) error {
	var secret [12]byte
	rand.Read(secret[:]) // never fails (Go 1.24)
	password := "a1" + hex.EncodeToString(secret[:])
	user, _, err := p.Commands.RegisterUser(ctx, commands.Caller{Command: uuid.NewString(), Correlation: "bench", At: time.Now()},
		commands.RegisterUser{FirstName: "Mina", LastName: "Okoro", Email: uuid.NewString() + "@example.com", Password: password})
	p.Person = user.ID
	return err
}

// Close closes what [Site.Open] opened.
func (p *Platform) Close() (err error) {
	if p.store != nil {
		err = p.store.Close()
	}
	if p.Databases != nil {
		p.Databases.Close()
	}
	if p.Pool != nil {
		p.Pool.Close()
	}
	return err
}

// Token is a valid access token of [Platform.Person].
func (p *Platform) Token(ctx context.Context) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.signed) < tokenLife {
		return p.token, nil
	}
	tokens, err := p.auth.BeginSession(ctx, p.Person, "bench")
	if err != nil {
		return "", err
	}
	p.token, p.signed = tokens.Access, time.Now()
	return p.token, nil
}

// Tenant is a tenant as the API and the log name it.
type Tenant struct {
	ID       string
	Log      eventstore.TenantID
	Database string
}

// NewTenant makes a tenant as the API does: recorded, with a database and a role of its own, and with time-stamping on.
func (p *Platform) NewTenant(ctx context.Context, name string) (Tenant, error) {
	t, _, err := p.Commands.CreateTenant(ctx, commands.Caller{UserID: p.Person, Command: uuid.NewString(), Correlation: "bench", At: time.Now()}, name)
	if err != nil {
		return Tenant{}, fmt.Errorf("make tenant %s: %w", name, err)
	}
	return Tenant{t.ID, commands.LogOf(t.ID), t.DatabaseName}, nil
}

// Stamp obtains one verified time-stamp from the site's authority: what every log that is filled holds for each of its files.
func (s *Site) Stamp(ctx context.Context) (tsa.Stamp, error) {
	roots, err := tsa.LoadRoots(s.tsa.RootsPath())
	if err != nil {
		return tsa.Stamp{}, err
	}
	client, err := tsa.New(tsa.Config{URL: s.tsa.URL(), Provider: "bench", Roots: roots})
	if err != nil {
		return tsa.Stamp{}, err
	}
	defer client.Close()
	sum := sha256.Sum256([]byte("bench"))
	return client.Stamp(ctx, sum[:])
}

// ReadModels are the projections of cmd/factum that can be built from the log.
func ReadModels() []runner.Projection {
	return []runner.Projection{documents.Projection(), directory.Projection(), audit.Projection()}
}

// sealKeys lets the keyring serve the sealing codec, as cmd/factum does.
type sealKeys struct{ *keyring.Keyring }

// For implements seal.Keys.
func (k sealKeys) For(ctx context.Context, tenant, subject string) ([]byte, error) {
	key, err := k.Keyring.For(ctx, tenant, subject)
	if errors.Is(err, keyring.ErrErased) {
		return nil, seal.ErrErased
	}
	return key, err
}

// LiveSchema is where the tenant's documents lie; it waits until they do.
func LiveSchema(ctx context.Context, conn *pgx.Conn) (string, error) {
	for {
		var generation int
		err := conn.QueryRow(ctx, `select generation from proj.live where projection = 'documents'`).Scan(&generation)
		if err == nil {
			return readmodel.Schema("documents", generation), nil
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return "", err
		}
		if err := Pass(ctx, 50*time.Millisecond); err != nil {
			return "", fmt.Errorf("no projector has met the tenant: %w", err)
		}
	}
}
