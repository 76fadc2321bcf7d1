package runner

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are few and have no tenant label, so that a thousand tenants do not make a thousand series.
type metrics struct {
	seconds *prometheus.HistogramVec
}

func newMetrics(r *Runner, to prometheus.Registerer) (*metrics, error) {
	m := &metrics{seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "factum_projection_slice_seconds", Help: "Duration of one slice: decode, apply and commit.",
	}, []string{"projection"})}
	if to == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.seconds, lags{r}} {
		if err := to.Register(c); err != nil {
			return nil, fmt.Errorf("runner: metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) slice(projection string, took time.Duration) {
	m.seconds.WithLabelValues(projection).Observe(took.Seconds())
}

// lags reads what the consumers know of themselves when it is asked.
type lags struct{ runner *Runner }

var (
	lagDesc    = prometheus.NewDesc("factum_projection_lag_events", "Events that the slowest tenant's log is ahead of the projection.", []string{"projection"}, nil)
	parkedDesc = prometheus.NewDesc("factum_projection_parked", "Streams that are parked, over all tenants.", []string{"projection"}, nil)
)

// Describe implements prometheus.Collector.
func (lags) Describe(out chan<- *prometheus.Desc) {
	out <- lagDesc
	out <- parkedDesc
}

// Collect implements prometheus.Collector.
func (l lags) Collect(out chan<- prometheus.Metric) {
	lag, parked := map[string]int64{}, map[string]int64{}
	for i := range l.runner.config.Projections {
		lag[l.runner.config.Projections[i].Name] = 0
	}
	l.runner.mu.Lock()
	for _, list := range l.runner.consumers {
		for _, c := range list {
			lag[c.projection.Name] = max(lag[c.projection.Name], c.lag.Load())
			parked[c.projection.Name] += c.parkedStreams.Load()
		}
	}
	l.runner.mu.Unlock()
	for name := range lag {
		out <- prometheus.MustNewConstMetric(lagDesc, prometheus.GaugeValue, float64(lag[name]), name)
		out <- prometheus.MustNewConstMetric(parkedDesc, prometheus.GaugeValue, float64(parked[name]), name)
	}
}
