package jobs

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// readyTimeout bounds the counting for one scrape.
const readyTimeout = 2 * time.Second

var readyDesc = prometheus.NewDesc("factum_jobs_ready", "Jobs that are due and wait for a worker, over all processes.", nil, nil)

// ready counts when it is asked. A database that does not answer costs this metric only, not the scrape.
type ready struct {
	pool *pgxpool.Pool
	log  *slog.Logger
}

// Describe implements prometheus.Collector.
func (ready) Describe(out chan<- *prometheus.Desc) { out <- readyDesc }

// Collect implements prometheus.Collector.
func (r ready) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	var count int64
	err := r.pool.QueryRow(ctx, `select count(*) from `+schema+`.river_job
		where state in ('available', 'scheduled', 'retryable') and scheduled_at <= now()`).Scan(&count)
	if err != nil {
		r.log.Warn("jobs that are ready cannot be counted", "error", err)
		return
	}
	out <- prometheus.MustNewConstMetric(readyDesc, prometheus.GaugeValue, float64(count))
}
