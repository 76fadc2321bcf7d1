package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/factum-platform/factum/cmd/factum/steering"
	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/commands/rest"
	"github.com/factum-platform/factum/domain"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/measured"
	"github.com/factum-platform/factum/eventstore/seal"
	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/httpapi"
	"github.com/factum-platform/factum/infra/idempotency"
	"github.com/factum-platform/factum/infra/jobs"
	"github.com/factum-platform/factum/infra/keyring"
	"github.com/factum-platform/factum/infra/members"
	"github.com/factum-platform/factum/infra/notify"
	"github.com/factum-platform/factum/infra/objectstore"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/ratelimit"
	"github.com/factum-platform/factum/infra/readmodel"
	"github.com/factum-platform/factum/infra/telemetry"
	"github.com/factum-platform/factum/infra/tenants"
	"github.com/factum-platform/factum/infra/tsa"
	"github.com/factum-platform/factum/projections/audit"
	"github.com/factum-platform/factum/projections/directory"
	"github.com/factum-platform/factum/projections/documents"
	"github.com/factum-platform/factum/projections/process"
	"github.com/factum-platform/factum/projections/runner"
	"github.com/factum-platform/factum/readapi"
)

// settings is all that the platform needs to know of the outside.
type settings struct {
	databases
	roles     roles
	engine    engine
	objects   objectstore.Config // with the role api
	tsa       tsa.Config         // unless the process is a projector only
	passwords auth.PasswordRules
	mails     mails
	edge      edge
	exclusive bool // no other process works on these databases
	log       *slog.Logger

	connections int // to all tenants' databases together; 0: the usual number
}

// mails says how people are mailed, and where the links lead.
type mails struct {
	sender       commands.Mailer // nil sends none
	accountURL   string
	verifiedOnly bool // no log-in before the address was verified
}

// finishEvery is how often an API process tries to finish tenants while it cannot.
const finishEvery = 5 * time.Second

// platform is the running composition of all rooms, as far as the process's roles need them.
type platform struct {
	settings
	commands *commands.Commands // nil in a process that is a projector only
	pool     *pgxpool.Pool
	dbs      *tenants.Databases
	store    eventstore.Store
	raw      eventstore.Store // the engine itself, whose appends nobody checks, marks or counts
	keys     *keyring.Keyring
	codec    *seal.Codec
	accounts *auth.Auth         // likewise
	contents *objectstore.Store // with the role api
	moves    *readmodel.Moves
	waiter   *readmodel.Waiter
	metrics  *prometheus.Registry
	activity tenants.Activity
	hub      *notify.Hub
	runner   atomic.Pointer[runner.Runner] // nil without the role projector
}

// lookChannel is where processes tell each other that somebody changed something about a tenant's consumers.
const lookChannel = "look"

// readModels are the projections that can be built anew at any time, in the order in which the events of a log come to them: who has uploaded
// something waits for documents.
func readModels() []runner.Projection {
	return []runner.Projection{documents.Projection(), directory.Projection(), audit.Projection()}
}

// startPlatform wires the rooms and starts what the roles need, in order: log, commands, jobs, projector, API. The listener is the HTTP
// server's from here on.
func startPlatform(ctx context.Context, st *stack, s settings, ln net.Listener) (*platform, error) {
	st.started("listener", func(context.Context) error {
		if err := ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	p := &platform{settings: s, moves: &readmodel.Moves{}, metrics: telemetry.Metrics(version)}
	p.waiter = readmodel.NewWaiter(p.moves)
	if err := p.openLog(ctx, st); err != nil {
		return nil, err
	}
	if s.exclusive {
		if err := p.migrateTenants(ctx); err != nil {
			return nil, err
		}
		if err := p.renewReadModels(ctx); err != nil {
			return nil, err
		}
	}
	if err := tellWaiting(ctx, p.dbs, p.log); err != nil {
		return nil, err
	}
	if s.roles.has(roleWorker) {
		st.background("sweeping of what has expired", p.sweep)
		if err := p.startWorker(ctx, st); err != nil {
			return nil, err
		}
	}
	if s.roles.has(roleProjector) {
		if err := p.startProjector(ctx, st); err != nil {
			return nil, err
		}
	}
	if err := p.startServer(st, ln); err != nil {
		return nil, err
	}
	switch {
	case s.roles.has(roleAPI) && s.roles.has(roleProjector):
		return p, p.finishTenants(ctx)
	case s.roles.has(roleAPI): // the directory moves only while some other process is a projector
		st.background("finishing of tenants", p.finishTenantsWhenPossible)
	}
	return p, nil
}

// openLog opens the databases, the log and the commands.
func (p *platform) openLog(ctx context.Context, st *stack) error {
	if err := guardLog(ctx, st, p.settings); err != nil {
		return err
	}
	var err error
	if p.pool, err = postgres.Open(ctx, p.platformDSN, 20); err != nil {
		return err
	}
	st.started("platform pool", func(context.Context) error { p.pool.Close(); return nil })
	p.activity = tenants.Activity{Pool: p.pool}
	p.openHub(st)
	keys := keyring.Open(p.pool, p.kek)
	if p.dbs, err = p.openTenants(ctx, p.pool, keys, tenants.Config{Connections: p.connections, Metrics: p.metrics, Logger: p.log}); err != nil {
		return err
	}
	st.started("tenant pools", func(context.Context) error { p.dbs.Close(); return nil })
	types, err := eventstore.NewRegistry(domain.Catalog()...)
	if err != nil {
		return err
	}
	store, err := openStore(ctx, p.engine, p.dbs, p.pool, p.log)
	if err != nil {
		return err
	}
	p.raw, p.keys = store, keys
	st.started("log", func(context.Context) error { return store.Close() })
	if err := sameLog(ctx, p.pool, store); err != nil {
		return err
	}
	if err := rememberEngine(ctx, p.settings); err != nil {
		return err
	}
	if claims, ok := store.(sweeper); ok && p.roles.has(roleWorker) {
		st.background("settling of claims", func(ctx context.Context) error { return sweepClaims(ctx, claims, p.dbs.Tenants, p.log) })
	}
	if w, ok := store.(watched); ok {
		p.metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "factum_log_stuck_tenants", Help: "Tenants whose log has grown and whose readers are not given the new events.",
		}, func() float64 { return float64(w.Stuck()) }))
	}
	mark := func(ctx context.Context, t eventstore.TenantID) error { return p.activity.Mark(ctx, string(t)) }
	p.store = measured.Wrap(eventstore.Guard(eventstore.Mark(store, mark), types), p.metrics)
	p.codec = &seal.Codec{Registry: types, Keys: sealKeys{keys}}
	if !p.roles.has(roleAPI) && !p.roles.has(roleWorker) {
		return nil
	}
	return p.openCommands(ctx, keys)
}

// openHub lets this process and the others hear of each other.
func (p *platform) openHub(st *stack) {
	p.hub = notify.Open(p.pool, p.log, map[string]func(notify.Hint){
		readmodel.Channel: p.moves.Hear,
		lookChannel: func(h notify.Hint) {
			if r := p.runner.Load(); r != nil {
				r.Look(eventstore.TenantID(h.Key))
			}
		},
	})
	p.moves.Share(func(h notify.Hint) { p.hub.Send(readmodel.Channel, h) }, p.hub.Connected)
	st.started("hints between processes", func(context.Context) error { p.hub.Close(); return nil })
}

// provision makes a tenant's database and lets its read models be built at once, and not when a projector happens to look.
func (p *platform) provision(ctx context.Context, tenant, database string) error {
	err := p.dbs.Provision(ctx, tenant, database)
	if err == nil {
		p.look(tenant)
	}
	return err
}

// look lets the projector of the tenant look at its consumers anew, whichever process it runs in.
func (p *platform) look(tenant string) { p.hub.Send(lookChannel, notify.Hint{Key: tenant}) }

// openCommands prepares the use cases: for people, and for the jobs that report.
func (p *platform) openCommands(ctx context.Context, keys *keyring.Keyring) (err error) {
	if p.accounts, err = auth.New(ctx, auth.Config{Pool: p.pool, Secrets: keys}); err != nil {
		return err
	}
	c := commands.Config{
		Store: p.store, Codec: p.codec, Provision: p.provision, MAC: keys.MAC, Auth: p.accounts, Passwords: p.passwords,
		Mailer: p.mails.sender, AccountURL: p.mails.accountURL, VerifiedOnly: p.mails.verifiedOnly,
		TSAProvider: p.tsa.Provider, Now: time.Now, NewID: uuid.NewString, Logger: p.log,
	}
	if p.roles.has(roleAPI) {
		if p.contents, err = objectstore.Open(ctx, p.objects); err != nil {
			return err
		}
		c.Objects = p.contents
		queue, err := jobs.New(jobs.Config{Pool: p.pool, Logger: p.log})
		if err != nil {
			return err
		}
		c.Outbox = &process.Outbox{Pool: p.pool, Queue: queue}
	}
	p.commands, err = commands.New(c)
	return err
}

// expireEvery is how often sessions, links and counts that have expired are deleted.
const expireEvery = time.Hour

func (p *platform) sweep(ctx context.Context) error {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for {
		if err := errors.Join(p.accounts.Sweep(ctx), ratelimit.Sweep(ctx, p.pool), idempotency.Sweep(ctx, p.pool)); err != nil && ctx.Err() == nil {
			p.log.Warn("what has expired cannot be deleted; this is tried again", "after", expireEvery, "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// startWorker carries out the jobs of the sagas.
func (p *platform) startWorker(ctx context.Context, st *stack) error {
	stamper, err := tsa.New(p.tsa)
	if err != nil {
		return err
	}
	st.started("time-stamping client", func(context.Context) error { stamper.Close(); return nil })
	operator, err := runner.NewOperator(p.consumers(readModels()))
	if err != nil {
		return err
	}
	worker, err := process.NewWorker(process.Deps{
		Pool: p.pool, Commands: p.commands, TSA: stamper, Retired: operator, Logger: p.log, Metrics: p.metrics, Exclusive: p.exclusive,
	})
	if err != nil {
		return err
	}
	if err := worker.Start(ctx); err != nil {
		return err
	}
	st.started("jobs", worker.Stop)
	st.background("databases out of service", func(ctx context.Context) error { return tidyDatabases(ctx, p.dbs, p.log) })
	return nil
}

// consumers says what runs and steers the projections of this platform.
func (p *platform) consumers(projections []runner.Projection) runner.Config {
	return runner.Config{
		Store: p.store, Codec: p.codec, Pool: p.dbs.Pool, Tenants: p.dbs.Tenants, Projections: projections, Marks: p.activity, Logger: p.log,
		Ring: func(ctx context.Context, tenant string) error {
			return notify.Send(ctx, p.pool, lookChannel, notify.Hint{Key: tenant})
		},
	}
}

// startProjector moves read models and sagas along the logs, of the tenants that are this process's among those that do so. It inserts jobs and
// works on none.
func (p *platform) startProjector(ctx context.Context, st *stack) error {
	queue, err := jobs.New(jobs.Config{Pool: p.pool, Logger: p.log})
	if err != nil {
		return err
	}
	c := p.consumers(append(readModels(), process.Sagas(queue)...))
	member, err := members.Join(ctx, p.pool, runner.Group(c.Projections), p.log)
	if err != nil {
		return err
	}
	st.started("membership of projectors", func(context.Context) error { member.Leave(); return nil })
	c.Moves, c.Registerer, c.Share, c.Server = p.moves, p.metrics, member, p.dbs.ServerOf
	projector, err := runner.New(c)
	if err != nil {
		return err
	}
	p.runner.Store(projector)
	st.background("projector", projector.Run)
	return nil
}

// startServer serves the API, or only what shows how a process without that role does.
func (p *platform) startServer(st *stack, ln net.Listener) error {
	c := httpapi.Config{
		Logger: p.log, Platform: p.pool, TenantPool: p.dbs.Pool, Refresh: p.refresh, Waiter: p.waiter, Unbuilt: p.look,
		Metrics: p.metrics, MetricsHandler: telemetry.Handler(p.metrics), Version: version, ProbesOnly: !p.roles.has(roleAPI),
	}
	if p.roles.has(roleAPI) {
		c.Auth, c.Origins, c.Proxies, c.Limits, c.TLS = p.accounts, p.edge.origins, p.edge.proxies, p.edge.limits, p.edge.tls
		c.Limits.Limiter = ratelimit.New(ratelimit.Config{Pool: p.pool, MAC: func(ctx context.Context, scope, value string) ([]byte, error) {
			return p.keys.MAC(ctx, tenants.Platform, "ratelimit", scope+" "+value)
		}})
		c.Answers = idempotency.New(idempotency.Config{Pool: p.pool, Secrets: p.keys, Logger: p.log, MAC: func(ctx context.Context, value string) ([]byte, error) {
			return p.keys.MAC(ctx, tenants.Platform, "idempotency", value)
		}})
	}
	server := httpapi.New(c)
	if p.roles.has(roleAPI) {
		queue, err := jobs.New(jobs.Config{Pool: p.pool, Logger: p.log})
		if err != nil {
			return err
		}
		operator, err := runner.NewOperator(p.consumers(append(readModels(), process.Sagas(queue)...)))
		if err != nil {
			return err
		}
		rest.Register(server.API(), rest.Deps{Commands: p.commands, Server: server, Operator: steering.Operator{Runner: operator, Commands: p.commands}})
		readapi.Register(server.API(), readapi.Deps{Server: server, Accounts: p.accounts, Objects: p.contents, Roots: p.tsa.Roots})
	}
	go func() {
		if err := server.Listen(ln); err != nil {
			st.fail(fmt.Errorf("API: %w", err))
		}
	}()
	st.started("API", server.Shutdown)
	return nil
}

// finishTenantsWhenPossible tries until it has succeeded once; the process serves meanwhile.
func (p *platform) finishTenantsWhenPossible(ctx context.Context) error {
	tick := time.NewTicker(finishEvery)
	defer tick.Stop()
	for {
		err := p.finishTenants(ctx)
		if err == nil {
			<-ctx.Done()
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.log.Warn("tenants that a crash left half made cannot be finished yet; this is tried again", "after", finishEvery, "error", err)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// finishTenants provisions what a crash left between a tenant's creation and its first use.
func (p *platform) finishTenants(ctx context.Context) error {
	head, err := p.store.Tenant(eventstore.PlatformTenant).Head(ctx)
	if err != nil || head == 0 {
		return err // the first start
	}
	if err := p.waiter.Wait(ctx, p.pool, "directory", string(eventstore.PlatformTenant), uint64(head)); err != nil {
		return fmt.Errorf("the directory does not catch up with the platform's log: %w", err)
	}
	var unfinished []string
	_, err = readmodel.Read(ctx, p.pool, "directory", string(eventstore.PlatformTenant), uint64(head), func(tx readmodel.Tx, schema string) error {
		rows, err := tx.Query(ctx, `select id::text from `+schema+`.tenants where not provisioned and is_active`)
		if err != nil {
			return err
		}
		unfinished, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		return err
	}
	for _, id := range unfinished {
		if err := p.commands.ProvisionTenant(ctx, id); err != nil {
			return fmt.Errorf("finish tenant %s: %w", id, err)
		}
		p.log.Info("finished a tenant that a crash left half made", "tenant", id)
	}
	return nil
}

// ensureAccount registers the generated administrator at the first start, and lets it administer the platform. What was taken away from it
// later stays so: the same command is carried out once.
func (p *platform) ensureAccount(ctx context.Context, email, password string) error {
	account, _, err := p.commands.RegisterUser(ctx,
		commands.Caller{Command: "first-account", Correlation: "start", At: time.Now()},
		commands.RegisterUser{FirstName: "Factum", LastName: "Administrator", Email: email, Password: password})
	var refusal *es.Refusal
	if errors.As(err, &refusal) && refusal.Code == "user.email_taken" {
		return nil
	}
	if err != nil {
		return err
	}
	by := commands.Caller{UserID: commands.System, Command: es.Key("first-administrator", account.ID), Correlation: "start", At: time.Now()}
	receipt, err := commands.NewExecutor(p.store, p.codec).GrantAdministrator(ctx, by, account.ID)
	if err != nil || receipt.Position == 0 {
		return err
	}
	return p.waiter.Wait(ctx, p.pool, "directory", string(eventstore.PlatformTenant), uint64(receipt.Position))
}

// sealKeys lets the keyring serve the sealing codec, which has an error of its own for an erased person.
type sealKeys struct{ *keyring.Keyring }

// For implements seal.Keys.
func (k sealKeys) For(ctx context.Context, tenant, subject string) ([]byte, error) {
	key, err := k.Keyring.For(ctx, tenant, subject)
	if errors.Is(err, keyring.ErrErased) {
		return nil, seal.ErrErased
	}
	return key, err
}
