package devstack

import (
	"context"

	"github.com/factum-platform/factum/infra/postgres/cluster"
)

// PostgresConfig describes the private cluster of factum dev.
type PostgresConfig struct {
	Dir    string // everything the cluster keeps lies below it; made when absent
	BinDir string // PostgreSQL's binaries; "" looks for them
}

// Postgres is a running cluster. fsync is on: what it acknowledges survives.
type Postgres struct{ cluster *cluster.Cluster }

// StartPostgres starts the cluster; see [cluster.Start]. It ends with this process, also after kill -9.
func StartPostgres(ctx context.Context, c PostgresConfig) (*Postgres, error) {
	started, err := cluster.Start(ctx, cluster.Config{Dir: c.Dir, BinDir: c.BinDir})
	if err != nil {
		return nil, err
	}
	return &Postgres{started}, nil
}

// AdminDSN is the superuser's connection URL; it holds the password.
func (p *Postgres) AdminDSN() string { return p.cluster.DSN() }

// Exited is closed when the server has ended, whoever ended it.
func (p *Postgres) Exited() <-chan struct{} { return p.cluster.Exited() }

// Stop ends the cluster.
func (p *Postgres) Stop(ctx context.Context) error { return p.cluster.Stop(ctx) }

// StopOrphanedPostgres ends what a killed process left running in the folder.
func StopOrphanedPostgres(ctx context.Context, dir string) error {
	return cluster.StopOrphans(ctx, dir)
}
