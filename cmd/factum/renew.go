package main

import (
	"context"

	"github.com/factum-platform/factum/infra/jobs"
	"github.com/factum-platform/factum/projections/runner"
)

// renewReadModels builds the read models anew that an older binary has written, before anybody reads them. It is for a process that is alone
// on its databases. A read model that cannot be built stays as it was, and its consumer says so.
func (p *platform) renewReadModels(ctx context.Context) error {
	queue, err := jobs.New(jobs.Config{Pool: p.pool, Logger: p.log})
	if err != nil {
		return err
	}
	models := readModels()
	operator, err := runner.NewOperator(p.consumers(models))
	if err != nil {
		return err
	}
	for _, m := range models {
		list, err := operator.Status(ctx, runner.Filter{Projection: m.Name})
		if err != nil {
			return err
		}
		for _, s := range list {
			// The read model of all tenants has a line for each log; it is built once.
			if s.State != "live" || s.Version >= m.Version || (m.Home == runner.PlatformHome && s.Tenant != "platform") {
				continue
			}
			p.log.Info("a read model of an older version is built anew", "projection", m.Name, "tenant", s.Tenant, "from", s.Version, "to", m.Version)
			if _, err := operator.Rebuild(ctx, m.Name, s.Tenant, runner.RebuildOptions{Parallel: 2, Retiring: p.retiring(queue)}); err != nil {
				if ctx.Err() != nil {
					return err
				}
				p.log.Error("a read model of an older version could not be built anew; queries see it as it was", "projection", m.Name, "tenant", s.Tenant, "error", err)
			}
		}
	}
	return nil
}
