package process

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// countTimeout bounds the counting for one scrape.
const countTimeout = 2 * time.Second

var (
	waitingDesc = prometheus.NewDesc("factum_jobs_waiting", "Jobs that are due and held back because their tenant has enough in River, over all tenants.", nil, nil)
	oldestDesc  = prometheus.NewDesc("factum_jobs_oldest_seconds", "How long the oldest job that is not done has been due; 0 when there is none.", nil, nil)
)

// backlog counts when it is asked. A database that does not answer costs these metrics only, not the scrape.
type backlog struct {
	pool *pgxpool.Pool
	log  *slog.Logger
}

// Describe implements prometheus.Collector.
func (backlog) Describe(out chan<- *prometheus.Desc) {
	out <- waitingDesc
	out <- oldestDesc
}

// Collect implements prometheus.Collector.
func (b backlog) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), countTimeout)
	defer cancel()
	var waiting int64
	var oldest float64
	err := b.pool.QueryRow(ctx, `select count(*) filter (where state = 'waiting'), coalesce(extract(epoch from now() - min(due)), 0)::float8
		from saga.job where state in ('waiting', 'admitted')`).Scan(&waiting, &oldest)
	if err != nil {
		b.log.Warn("jobs that wait cannot be counted", "error", err)
		return
	}
	out <- prometheus.MustNewConstMetric(waitingDesc, prometheus.GaugeValue, float64(waiting))
	out <- prometheus.MustNewConstMetric(oldestDesc, prometheus.GaugeValue, max(0, oldest))
}
