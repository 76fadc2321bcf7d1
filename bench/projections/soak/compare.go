package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/bench/site"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/readmodel"
	"github.com/factum-platform/factum/projections/runner"
)

// comparison is what came of comparing read models with their logs.
type comparison struct {
	events       int
	tables, rows int
	files        int
	stamps       trouble // files that are not stamped exactly once
	differences  trouble
}

// compare computes every read model from its log, from zero and in other databases, and compares all tables. Nobody may write meanwhile.
func (s *soak) compare(ctx context.Context, tenants []site.Tenant) (c *comparison, err error) {
	c = &comparison{}
	databases := map[eventstore.TenantID]string{eventstore.PlatformTenant: "factum"}
	for _, t := range tenants {
		databases[t.Log] = t.Database
	}
	folds := map[string]*pgxpool.Pool{}
	defer func() {
		for _, pool := range folds {
			pool.Close()
		}
	}()
	for log := range databases {
		name := "fold_" + string(log)
		if _, err := s.site.Admin().Exec(ctx, "create database "+name+" template "+site.Template); err != nil {
			return nil, fmt.Errorf("make the database of the comparison: %w", err)
		}
		if folds[string(log)], err = postgres.Open(ctx, s.site.DSN(name), 4); err != nil {
			return nil, err
		}
	}
	if err := s.fold(ctx, tenants, folds); err != nil {
		return nil, err
	}
	for log, database := range databases {
		if err := s.compareDatabase(ctx, c, log, database, folds[string(log)]); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// fold runs a projector over the real logs that writes to the other databases, until it is at the end of all of them.
func (s *soak) fold(ctx context.Context, tenants []site.Tenant, folds map[string]*pgxpool.Pool) (err error) {
	var logs []string
	for _, t := range tenants {
		logs = append(logs, string(t.Log))
	}
	r, err := runner.New(runner.Config{
		Store: s.platform.Store, Codec: s.platform.Codec, Projections: site.ReadModels(), Logger: slog.New(slog.DiscardHandler),
		Pool:    func(_ context.Context, tenant string) (*pgxpool.Pool, error) { return folds[tenant], nil },
		Tenants: func(context.Context) ([]string, error) { return logs, nil },
	})
	if err != nil {
		return err
	}
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- r.Run(running) }()
	defer func() {
		cancel()
		if stopped := <-ended; !errors.Is(stopped, context.Canceled) {
			err = errors.Join(err, stopped)
		}
	}()
	return s.await(ctx, "compare", 10*time.Minute, func(ctx context.Context) (string, error) {
		for _, log := range append(logs, string(eventstore.PlatformTenant)) {
			head, err := s.platform.Store.Tenant(eventstore.TenantID(log)).Head(ctx)
			if err != nil {
				return "", err
			}
			for _, consumer := range consumersOf(eventstore.TenantID(log)) {
				if consumer.projection == "timestamping" {
					continue // a saga, and no read model
				}
				at, err := readmodel.Position(ctx, folds[string(consumer.home)], consumer.projection, log)
				if err != nil {
					return "", err
				}
				if at < uint64(head) {
					return fmt.Sprintf("%s is folded up to %d of %d events of %s", consumer.projection, at, head, log), nil
				}
			}
		}
		return "", nil
	})
}

// compareDatabase compares all tables of the live generations of one database with what was folded, and looks for events that a log
// holds twice.
func (s *soak) compareDatabase(ctx context.Context, c *comparison, log eventstore.TenantID, database string, fold *pgxpool.Pool) error {
	live, err := postgres.Open(ctx, s.site.DSN(database), 2)
	if err != nil {
		return err
	}
	defer live.Close()
	var events, files, wrong, parked int
	err = live.QueryRow(ctx, `select (select count(*) from es.events), (select count(*) from es.events where type = 'file.stored'), (select count(*) from proj.parked),
		(select count(*) from (select e.id from es.events e where e.kind = 'file' group by e.id having count(*) filter (where e.type = 'file.timestamped') <> 1) x)`).
		Scan(&events, &files, &parked, &wrong)
	if err != nil {
		return fmt.Errorf("count the events of %s: %w", log, err)
	}
	c.events, c.files = c.events+events, c.files+files
	for range wrong {
		c.stamps.add("a file of " + string(log))
	}
	for range parked {
		c.differences.add("a stream of " + string(log) + " is parked")
	}
	for _, p := range site.ReadModels() {
		if (p.Home == runner.PlatformHome) != (log == eventstore.PlatformTenant) {
			continue
		}
		applied, err := sums(ctx, live, p.Name)
		if err != nil {
			return err
		}
		folded, err := sums(ctx, fold, p.Name)
		if err != nil {
			return err
		}
		for table, sum := range folded {
			c.tables++
			c.rows += sum.rows
			if applied[table] != sum {
				c.differences.add(fmt.Sprintf("%s of %s: table %s holds %d rows and not the %d that the log leads to, or others", p.Name, log, table, applied[table].rows, sum.rows))
			}
		}
		if len(applied) != len(folded) {
			c.differences.add(fmt.Sprintf("%s of %s has %d tables and not %d", p.Name, log, len(applied), len(folded)))
		}
	}
	return nil
}

// sum is the number of a table's rows and a checksum of their values, whatever their order.
type sum struct {
	rows     int
	checksum string
}

// sums returns those of the tables of a projection's live generation.
func sums(ctx context.Context, pool *pgxpool.Pool, projection string) (map[string]sum, error) {
	out := map[string]sum{}
	_, err := readmodel.Read(ctx, pool, projection, "", 0, func(tx readmodel.Tx, schema string) error {
		rows, err := tx.Query(ctx, `select tablename::text from pg_tables where schemaname = $1`, schema)
		if err != nil {
			return err
		}
		tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		for _, table := range tables {
			var s sum
			err := tx.QueryRow(ctx, `select count(*), coalesce(sum(hashtextextended(t::text, 0)), 0)::text from `+schema+`.`+table+` t`).Scan(&s.rows, &s.checksum)
			if err != nil {
				return err
			}
			out[table] = s
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("sum up %s: %w", projection, err)
	}
	return out, nil
}
