package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/commands/rest"
	"github.com/factum-platform/factum/domain"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/measured"
	"github.com/factum-platform/factum/eventstore/seal"
	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/httpapi"
	"github.com/factum-platform/factum/infra/keyring"
	"github.com/factum-platform/factum/infra/objectstore"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/readmodel"
	"github.com/factum-platform/factum/infra/telemetry"
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
	engine    engine
	objects   objectstore.Config
	tsa       tsa.Config
	exclusive bool // no other process works on these databases
	log       *slog.Logger
}

// platform is the running composition of all rooms.
type platform struct {
	commands *commands.Commands
	pool     *pgxpool.Pool
	store    eventstore.Store
	waiter   *readmodel.Waiter
	log      *slog.Logger
}

// readModels are the projections that can be built anew at any time.
func readModels() []runner.Projection {
	return []runner.Projection{directory.Projection(), documents.Projection(), audit.Projection()}
}

// startPlatform wires the rooms and starts them in order: log, commands, projector, jobs, API. The listener is the API's from
// here on.
func startPlatform(ctx context.Context, st *stack, s settings, ln net.Listener) (*platform, error) {
	st.started("listener", func(context.Context) error {
		if err := ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	if err := guardLog(ctx, st, s); err != nil {
		return nil, err
	}
	pool, err := postgres.Open(ctx, s.platformDSN, 20)
	if err != nil {
		return nil, err
	}
	st.started("platform pool", func(context.Context) error { pool.Close(); return nil })
	keys := keyring.Open(pool, s.kek)
	dbs, err := s.openTenants(ctx, pool, keys)
	if err != nil {
		return nil, err
	}
	st.started("tenant pools", func(context.Context) error { dbs.Close(); return nil })
	types, err := eventstore.NewRegistry(domain.Catalog()...)
	if err != nil {
		return nil, err
	}
	registry := telemetry.Metrics(version)
	store, err := openStore(ctx, s.engine, dbs, pool, s.log)
	if err != nil {
		return nil, err
	}
	st.started("log", func(context.Context) error { return store.Close() })
	if err := sameLog(ctx, pool, store); err != nil {
		return nil, err
	}
	if err := rememberEngine(ctx, s); err != nil {
		return nil, err
	}
	if claims, ok := store.(sweeper); ok {
		st.background("settling of claims", func(ctx context.Context) error { return sweepClaims(ctx, claims, dbs.Tenants, s.log) })
	}
	if w, ok := store.(watched); ok {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "factum_log_stuck_tenants", Help: "Tenants whose log has grown and whose readers are not given the new events.",
		}, func() float64 { return float64(w.Stuck()) }))
	}
	store = measured.Wrap(eventstore.Guard(store, types), registry)
	objects, err := objectstore.Open(ctx, s.objects)
	if err != nil {
		return nil, err
	}
	stamper, err := tsa.New(s.tsa)
	if err != nil {
		return nil, err
	}
	st.started("time-stamping client", func(context.Context) error { stamper.Close(); return nil })
	codec := &seal.Codec{Registry: types, Keys: sealKeys{keys}}
	accounts, err := auth.New(ctx, auth.Config{Pool: pool, Secrets: keys})
	if err != nil {
		return nil, err
	}
	cmds, err := commands.New(commands.Config{
		Store: store, Codec: codec, Objects: objects, Provision: dbs.Provision, MAC: keys.MAC, Auth: accounts,
		TSAProvider: s.tsa.Provider, Now: time.Now, NewID: uuid.NewString, Logger: s.log,
	})
	if err != nil {
		return nil, err
	}

	moves := &readmodel.Moves{}
	waiter := readmodel.NewWaiter(moves)
	queue, stampingSaga, err := process.Timestamping(process.Deps{
		Pool: pool, Commands: cmds, TSA: stamper, Logger: s.log, Metrics: registry, Exclusive: s.exclusive,
	})
	if err != nil {
		return nil, err
	}
	projector, err := runner.New(runner.Config{
		Store: store, Codec: codec, Pool: dbs.Pool, Tenants: dbs.Tenants, Moves: moves, Logger: s.log, Registerer: registry,
		Projections: append(readModels(), stampingSaga),
	})
	if err != nil {
		return nil, err
	}
	if err := queue.Start(context.WithoutCancel(ctx)); err != nil {
		return nil, err
	}
	st.started("job queue", queue.Stop)
	st.background("projector", projector.Run)

	server := httpapi.New(httpapi.Config{
		Logger: s.log, Auth: accounts, Platform: pool, TenantPool: dbs.Pool, Waiter: waiter,
		Metrics: registry, MetricsHandler: telemetry.Handler(registry), Version: version,
	})
	rest.Register(server.API(), rest.Deps{Commands: cmds, Server: server})
	readapi.Register(server.API(), readapi.Deps{Server: server, Objects: objects, Roots: s.tsa.Roots})
	go func() {
		if err := server.Listen(ln); err != nil {
			st.fail(fmt.Errorf("API: %w", err))
		}
	}()
	st.started("API", server.Shutdown)

	p := &platform{commands: cmds, pool: pool, store: store, waiter: waiter, log: s.log}
	return p, p.finishTenants(ctx)
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
	err = readmodel.Read(ctx, p.pool, "directory", func(tx pgx.Tx, schema string) error {
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

// ensureAccount registers the generated administrator at the first start.
func (p *platform) ensureAccount(ctx context.Context, email, password string) error {
	_, _, err := p.commands.RegisterUser(ctx,
		commands.Caller{Command: "first-account", Correlation: "start", At: time.Now()},
		commands.RegisterUser{FirstName: "Factum", LastName: "Administrator", Email: email, Password: password})
	var refusal *es.Refusal
	if errors.As(err, &refusal) && refusal.Code == "user.email_taken" {
		return nil
	}
	return err
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
