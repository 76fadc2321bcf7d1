package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/term"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/domain"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/seal"
	"github.com/factum-platform/factum/infra/keyring"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/tenants"
)

// TenantsCmd groups what works on tenants as a whole.
type TenantsCmd struct {
	Move   TenantsMoveCmd   `cmd:"" help:"Move a tenant to another PostgreSQL server while the platform serves it. It may be killed and repeated."`
	Export TenantsExportCmd `cmd:"" help:"Write a tenant's log, claims and wrapped keys into one file while the platform serves it."`
	Import TenantsImportCmd `cmd:"" help:"Bring back, or take over, a tenant from a file that 'factum tenants export' wrote. It may be killed and repeated."`
	Delete TenantsDeleteCmd `cmd:"" help:"Take a tenant out of service and drop its database a day later."`
}

// live is the platform as a command sees it that works beside the processes that serve.
type live struct {
	platform *pgxpool.Pool
	engine   engine
	dbs      *tenants.Databases
	keys     *keyring.Keyring
	store    eventstore.Store // the platform's engine, whose appends are checked
	raw      eventstore.Store // the engine as it is
	codec    *seal.Codec
	commands *commands.Executor
	log      *slog.Logger
	out      io.Writer
	meter    *meter
}

// openLive opens the platform's databases and its log. No copy of logs to another engine runs as long as the stack lives.
func (c logServers) openLive(ctx context.Context, st *stack) (_ *live, err error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	l := &live{out: os.Stdout, meter: terminalMeter()}
	if l.log, err = c.logger(); err != nil {
		return nil, err
	}
	d, err := c.prepare(ctx, false)
	if err != nil {
		return nil, err
	}
	admin, err := connect(ctx, d.adminDSN)
	if err != nil {
		return nil, err
	}
	st.started("lock of the log", admin.Close)
	if err := l.rightEngine(ctx, admin, c); err != nil {
		return nil, err
	}
	if l.platform, err = postgres.Open(ctx, d.platformDSN, 4); err != nil {
		return nil, err
	}
	st.started("platform pool", func(context.Context) error { l.platform.Close(); return nil })
	l.keys = keyring.Open(l.platform, d.kek)
	if l.dbs, err = d.openTenants(ctx, l.platform, l.keys); err != nil {
		return nil, err
	}
	st.started("tenant pools", func(context.Context) error { l.dbs.Close(); return nil })
	types, err := eventstore.NewRegistry(domain.Catalog()...)
	if err != nil {
		return nil, err
	}
	if l.raw, err = openStore(ctx, l.engine, l.dbs, l.platform, l.log); err != nil {
		return nil, err
	}
	st.started("log", func(context.Context) error { return l.raw.Close() })
	l.store = eventstore.Guard(l.raw, types)
	l.codec = &seal.Codec{Registry: types, Keys: sealKeys{l.keys}}
	l.commands = commands.NewExecutor(l.store, l.codec)
	return l, nil
}

// terminalMeter shows progress on standard error.
func terminalMeter() *meter {
	return &meter{out: os.Stderr, terminal: term.IsTerminal(int(os.Stderr.Fd()))}
}

// rightEngine takes the log's lock, as those who serve do, and finds the engine that holds the logs.
func (l *live) rightEngine(ctx context.Context, admin *pgx.Conn, c logServers) error {
	err := lockLog(ctx, admin, `pg_advisory_lock_shared`)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == lockNotAvailable {
		return errCopyRuns
	}
	if err != nil {
		return err
	}
	found, err := tenants.RememberedEngine(ctx, admin)
	if err != nil {
		return err
	}
	if found.Name == "" {
		return errors.New("the platform has no log yet: nothing has been served with these settings")
	}
	l.engine = engine{found.Name, c.ESDB}
	if err := rightEngine(found, found.Name); err != nil {
		return err
	}
	return c.validate(found.Name)
}

// caller is who gives the commands of an operator.
func operatorCaller(what string) commands.Caller {
	return commands.Caller{UserID: commands.System, Command: uuid.NewString(), Correlation: what, At: time.Now()}
}

var tenantText = regexp.MustCompile(`^[0-9a-f]{32}$`)

// tenantOf reads a tenant's id, in the API's form or the log's.
func tenantOf(text string) (id string, log eventstore.TenantID, err error) {
	plain := strings.ReplaceAll(strings.ToLower(strings.TrimSpace(text)), "-", "")
	if !tenantText.MatchString(plain) {
		return "", "", fmt.Errorf("%q is not a tenant's id, such as 3f0c9a52-8f0e-4a55-9a0f-5be3c3a0d6a1; 'factum tenants list' shows them", text)
	}
	return uuidText(plain), eventstore.TenantID(plain), nil
}

// uuidText is the API's form of a log's id.
func uuidText(log string) string {
	if len(log) != 32 {
		return log
	}
	return log[:8] + "-" + log[8:12] + "-" + log[12:16] + "-" + log[16:20] + "-" + log[20:]
}

// stopped says that a command was interrupted and may be given again.
func stopped(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errors.New("stopped before the end; the same command goes on where this one ended") // a failure, unlike the end of a server
	}
	return err
}
