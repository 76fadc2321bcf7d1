package tenants

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

var serverForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)

// oldestServer is PostgreSQL 15 as server_version_num.
const oldestServer = 150000

// Server is what an operator sees of a database server.
type Server struct {
	Name      string
	Address   string // host and port
	Accepting bool   // new tenants
	Tenants   int
	AddedAt   time.Time
	Version   string // of PostgreSQL; "" when it cannot be reached
	Err       error  // why not
}

// Servers lists the servers, [MainServer] first, and tries to reach each of them, for five seconds at most.
func (d *Databases) Servers(ctx context.Context) ([]Server, error) {
	rows, err := d.c.Platform.Query(ctx, `select s.name, s.accepting, s.added_at, count(b.tenant) from placement.servers s
		left join placement.databases b on b.server = s.name group by s.name order by s.name <> 'main', s.name`)
	if err != nil {
		return nil, fmt.Errorf("tenants: list the servers: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s Server, err error) {
		err = row.Scan(&s.Name, &s.Accepting, &s.AddedAt, &s.Tenants)
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("tenants: list the servers: %w", err)
	}
	var wg sync.WaitGroup
	for i := range list {
		wg.Go(func() { list[i].Address, list[i].Version, list[i].Err = d.reach(ctx, list[i].Name) })
	}
	wg.Wait()
	return list, nil
}

func (d *Databases) reach(ctx context.Context, name string) (address, version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	s, err := d.server(ctx, name)
	if err != nil {
		return "", "", err
	}
	if u, err := url.Parse(s.dsn); err == nil {
		address = u.Host
	}
	conn, err := s.connect(ctx, "")
	if err != nil {
		return address, "", err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	err = conn.QueryRow(ctx, `show server_version`).Scan(&version)
	return address, version, err
}

// AddServer makes a PostgreSQL server one that holds tenants' databases. dsn is the URL of a role there that may create databases and
// roles; the database in it must exist. The group roles and the template are made there. A server that is known already gets the
// new URL, if it is the same server or holds no tenant.
func (d *Databases) AddServer(ctx context.Context, name, dsn string) error {
	if !serverForm.MatchString(name) || name == MainServer {
		return fmt.Errorf("tenants: %q cannot be the name of a server: want a letter, then up to 30 of [a-z0-9-], and not %s", name, MainServer)
	}
	u, err := url.Parse(dsn)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") || u.Hostname() == "" || strings.Trim(u.Path, "/") == "" {
		return errors.New("tenants: the server's address is not a URL such as postgres://user:password@host:5432/postgres") // err would hold the password
	}
	s := newServer(name, dsn)
	defer s.close()
	identifier, err := d.suitable(ctx, s)
	if err != nil {
		return err
	}
	if err := d.another(ctx, name, identifier); err != nil {
		return err
	}
	sealed, err := d.c.Secrets.Seal(ctx, serverPurpose(name), []byte(dsn))
	if err != nil {
		return fmt.Errorf("tenants: seal the URL of server %s: %w", name, err)
	}
	if err := d.prepare(ctx, s); err != nil {
		return err
	}
	main, err := d.mainAdmin(ctx)
	if err != nil {
		return err
	}
	tag, err := main.Exec(ctx, `insert into placement.servers as s (name, dsn, identifier) values ($1, $2, $3)
		on conflict (name) do update set dsn = excluded.dsn, identifier = excluded.identifier
		where s.identifier = excluded.identifier or not exists (select from placement.databases b where b.server = s.name)`, name, sealed, identifier)
	if err != nil {
		return fmt.Errorf("tenants: add server %s: %w", name, err)
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("tenants: %s is another server than the one that holds tenants under the name %s; nothing was changed: give the new one a name of its own and move the tenants", u.Host, name)
	}
	d.forgetServer(name)
	return nil
}

// suitable checks what a server must be able to do, and returns its identifier.
func (d *Databases) suitable(ctx context.Context, s *server) (identifier string, err error) {
	conn, err := s.connect(ctx, "")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	var number int
	var version, role string
	var creates, recovering bool
	err = conn.QueryRow(ctx, `select current_setting('server_version_num')::int, current_setting('server_version'), current_user,
		(select rolsuper or (rolcreatedb and rolcreaterole) from pg_roles where rolname = current_user), pg_is_in_recovery()`).
		Scan(&number, &version, &role, &creates, &recovering)
	switch {
	case err != nil:
		return "", fmt.Errorf("tenants: look at server %s: %w", s.name, err)
	case number < oldestServer:
		return "", fmt.Errorf("tenants: server %s is PostgreSQL %s; 15 or newer is needed", s.name, version)
	case recovering:
		return "", fmt.Errorf("tenants: server %s is a standby and cannot be written; give the URL of its primary", s.name)
	case !creates:
		return "", fmt.Errorf("tenants: role %s of server %s may not create databases and roles: ALTER ROLE … CREATEDB CREATEROLE, or give another role", role, s.name)
	}
	err = conn.QueryRow(ctx, `select system_identifier::text from pg_control_system()`).Scan(&identifier)
	if err != nil {
		return "", fmt.Errorf("tenants: role %s of server %s may not read the server's identifier: GRANT EXECUTE ON FUNCTION pg_control_system() TO %s: %w", role, s.name, role, err)
	}
	return identifier, nil
}

// another refuses a server that is known under another name: the names of roles would meet there.
func (d *Databases) another(ctx context.Context, name, identifier string) error {
	main, err := d.mainAdmin(ctx)
	if err != nil {
		return err
	}
	var known string
	err = main.QueryRow(ctx, `select s.name from placement.servers s where s.name <> $1 and
		coalesce(s.identifier, (select system_identifier::text from pg_control_system())) = $2`, name, identifier).Scan(&known)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("tenants: look for the same server under another name: %w", err)
	}
	return fmt.Errorf("tenants: this server is known already, as %s", known)
}

// Accept lets new tenants come to the server, or keeps them away. Error: [ErrUnknownServer].
func (d *Databases) Accept(ctx context.Context, name string, accepting bool) error {
	main, err := d.mainAdmin(ctx)
	if err != nil {
		return err
	}
	tag, err := main.Exec(ctx, `update placement.servers set accepting = $2 where name = $1`, name, accepting)
	if err != nil {
		return fmt.Errorf("tenants: change server %s: %w", name, err)
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("%w: %s", ErrUnknownServer, name)
	}
	return nil
}
