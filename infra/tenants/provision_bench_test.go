package tenants_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/cluster"
	"github.com/factum-platform/factum/infra/tenants"
)

// BenchmarkProvision compares a tenant's database with a bare CREATE DATABASE from the same template, on a server with fsync, alternately.
// The ratio is that of the medians.
func BenchmarkProvision(b *testing.B) {
	c, err := cluster.Start(b.Context(), cluster.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := c.Stop(context.Background()); err != nil {
			b.Error(err)
		}
	})
	d, _ := openOn(b, platformOn(b, c), b.TempDir()+"/kek.json", nil)
	admin, err := pgx.Connect(b.Context(), c.DSN())
	if err != nil {
		b.Fatal(err)
	}
	defer admin.Close(context.Background())
	var ours, bare []time.Duration
	for b.Loop() {
		n := len(ours)
		begun := time.Now()
		if err := d.Provision(b.Context(), fmt.Sprintf("t%d", n), fmt.Sprintf("tenant_%d", n)); err != nil {
			b.Fatal(err)
		}
		between := time.Now()
		if _, err := admin.Exec(b.Context(), fmt.Sprintf(`create database bare_%d template factum_tenant_template`, n)); err != nil {
			b.Fatal(err)
		}
		ours, bare = append(ours, between.Sub(begun)), append(bare, time.Since(between))
	}
	slices.Sort(ours)
	slices.Sort(bare)
	half := len(ours) / 2
	b.ReportMetric(float64(ours[half].Microseconds())/1000, "ms/tenant")
	b.ReportMetric(float64(bare[half].Microseconds())/1000, "ms/bare")
	b.ReportMetric(float64(ours[half])/float64(bare[half]), "ratio")
}

// platformOn makes a platform's database on a server of the test's own.
func platformOn(t testing.TB, c *cluster.Cluster) string {
	t.Helper()
	if err := postgres.Migrate(t.Context(), c.DSN(), postgres.Migrations{Name: "placement", FS: tenants.Migrations()}); err != nil {
		t.Fatal(err)
	}
	return c.DSN()
}
