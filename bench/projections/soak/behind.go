package main

import (
	"context"
	"fmt"

	"github.com/factum-platform/factum/bench/site"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/readmodel"
)

// consumer is a projection and the tenant whose database holds how far it is.
type consumer struct {
	projection string
	home       eventstore.TenantID
}

// consumersOf are all that follow the tenant's log.
func consumersOf(log eventstore.TenantID) []consumer {
	all := []consumer{{"directory", eventstore.PlatformTenant}, {"timestamping", eventstore.PlatformTenant}}
	if log != eventstore.PlatformTenant {
		all = append(all, consumer{"documents", log}, consumer{"audit", log})
	}
	return all
}

// behind says which consumer has not applied its log yet, "" when all have.
func (s *soak) behind(ctx context.Context, of []site.Tenant) (string, error) {
	logs := []eventstore.TenantID{eventstore.PlatformTenant}
	for _, t := range of {
		logs = append(logs, t.Log)
	}
	for _, log := range logs {
		head, err := s.platform.Store.Tenant(log).Head(ctx)
		if err != nil {
			return "", err
		}
		for _, c := range consumersOf(log) {
			pool, err := s.platform.Databases.Pool(ctx, string(c.home))
			if err != nil {
				return "", err
			}
			at, err := readmodel.Position(ctx, pool, c.projection, string(log))
			if err != nil {
				return "", err
			}
			if at < uint64(head) {
				return fmt.Sprintf("%s has applied %d of %d events of %s", c.projection, at, head, log), nil
			}
		}
	}
	return "", nil
}
