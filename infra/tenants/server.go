package tenants

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/infra/postgres"
)

const (
	// MainServer is the PostgreSQL server that also holds the platform's database. Its URL is a setting and is stored nowhere.
	MainServer = "main"
	// dialsPerServer bounds the connections to one server that are being made at once, so that one which is gone holds few slots.
	dialsPerServer = 16
	// answerWithin bounds one connection, from the first packet to its readiness.
	answerWithin = 5 * time.Second
	// avoidFor is how long a server that does not answer is not asked again; every caller is told at once meanwhile.
	avoidFor = 2 * time.Second
	// adminConns bounds the administrator's connections of this process to one server.
	adminConns = 4
)

// ErrUnknownServer says that no server of that name was added.
var ErrUnknownServer = errors.New("tenants: there is no such database server; 'factum servers list' shows them")

// ServerError says that a PostgreSQL server that holds tenants' databases cannot be reached. Tenants on other servers are served.
type ServerError struct {
	Server string
	Err    error
}

// Error implements error.
func (e *ServerError) Error() string {
	return fmt.Sprintf("tenants: database server %s cannot be reached: %v", e.Server, e.Err)
}

// Unwrap makes the cause visible to errors.Is and errors.As.
func (e *ServerError) Unwrap() error { return e.Err }

// Temporary says that waiting may cure it.
func (e *ServerError) Temporary() bool { return true }

// server is one PostgreSQL server as this process knows it. It is safe for concurrent use.
type server struct {
	name string
	dsn  string // the administrator's
	gate gate

	mu     sync.Mutex
	admin  *pgxpool.Pool // opened at the first use
	ready  bool          // its template was found or made
	closed bool
}

func newServer(name, dsn string) *server {
	return &server{name: name, dsn: dsn, gate: gate{name: name, dialing: make(chan struct{}, dialsPerServer)}}
}

// server returns what is known of a server, which is read at the first use.
func (d *Databases) server(ctx context.Context, name string) (*server, error) {
	d.mu.Lock()
	s, ok := d.servers[name]
	d.mu.Unlock()
	if ok {
		return s, nil
	}
	var sealed []byte
	err := d.c.Platform.QueryRow(ctx, `select dsn from placement.servers where name = $1`, name).Scan(&sealed)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("%w: %s", ErrUnknownServer, name)
	}
	if err != nil {
		return nil, fmt.Errorf("tenants: look up server %s: %w", name, err)
	}
	dsn, err := d.c.Secrets.Open(ctx, serverPurpose(name), sealed)
	if err != nil {
		return nil, fmt.Errorf("tenants: the URL of server %s: %w", name, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	if s, ok := d.servers[name]; ok {
		return s, nil
	}
	s = newServer(name, string(dsn))
	d.servers[name] = s
	return s, nil
}

// adminPool is the administrator's pool in the database of the server's URL, which for [MainServer] is the platform's.
func (s *server) adminPool(ctx context.Context) (*pgxpool.Pool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if s.admin != nil {
		return s.admin, nil
	}
	pool, err := postgres.Open(ctx, s.dsn, adminConns)
	if err != nil {
		return nil, &ServerError{s.name, err}
	}
	s.admin = pool
	return pool, nil
}

// connect opens one connection of the administrator in a database; "" is the one of the server's URL.
func (s *server) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	dsn, err := s.url(database, nil)
	if err != nil {
		return nil, err
	}
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("tenants: the URL of server %s cannot be read", s.name) // err might print its password
	}
	c.ConnectTimeout = answerWithin
	c.RuntimeParams["application_name"] = "factum"
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return nil, &ServerError{s.name, err}
	}
	return conn, nil
}

// url is the administrator's URL with another database and user; "" and nil leave them as they are.
func (s *server) url(database string, user *url.Userinfo) (string, error) {
	u, err := url.Parse(s.dsn)
	if err != nil {
		return "", fmt.Errorf("tenants: the address of server %s is not a URL", s.name) // err would print its password
	}
	if database != "" {
		u.Path = "/" + database
	}
	if user != nil {
		u.User = user
	}
	return u.String(), nil
}

func (s *server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.admin != nil {
		s.admin.Close()
	}
}

// Admin opens a connection of the server's administrator in one of its databases; "" is the one of the server's URL. It has none of
// the guards of a pool and counts against no budget; the caller closes it. Errors: [ErrUnknownServer], *[ServerError].
func (d *Databases) Admin(ctx context.Context, server, database string) (*pgx.Conn, error) {
	s, err := d.server(ctx, server)
	if err != nil {
		return nil, err
	}
	return s.connect(ctx, database)
}

// gate keeps dials off a server that does not answer, and bounds how many are made at once.
type gate struct {
	name    string
	dialing chan struct{}

	mu     sync.Mutex
	failed error // of the last dial; nil when the server answered
	until  time.Time
	probed bool // somebody tries again
}

// enter waits for a turn to dial. After a failure it answers that failure at once for a while; then one caller tries again, and the
// others go on being told.
func (g *gate) enter(ctx context.Context) (leave func(answered bool, err error), err error) {
	probe, err := g.pass(false)
	if err != nil {
		return nil, err
	}
	done := func(answered bool, err error) {
		g.mu.Lock()
		defer g.mu.Unlock()
		if probe {
			g.probed = false
		}
		switch {
		case answered:
			g.failed = nil
		case err != nil:
			g.failed, g.until = err, time.Now().Add(avoidFor)
		}
	}
	select {
	case g.dialing <- struct{}{}:
	case <-ctx.Done():
		done(false, nil)
		return nil, ctx.Err()
	}
	if _, err := g.pass(true); err != nil && !probe { // it failed while we waited
		<-g.dialing
		return nil, err
	}
	return func(answered bool, err error) {
		<-g.dialing
		done(answered, err)
	}, nil
}

// pass tells whether a dial may be made, and whether it is the one that tries a failed server again; with look it claims nothing.
func (g *gate) pass(look bool) (probe bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failed == nil {
		return false, nil
	}
	if look || g.probed || time.Now().Before(g.until) {
		return false, &ServerError{g.name, g.failed}
	}
	g.probed = true
	return true, nil
}
