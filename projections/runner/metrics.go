package runner

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are few and have no tenant label, so that a thousand tenants do not make a thousand series.
type metrics struct {
	seconds *prometheus.HistogramVec
	races   *prometheus.CounterVec
}

func newMetrics(r *Runner, to prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "factum_projection_slice_seconds", Help: "Duration of one slice: decode, apply and commit.",
		}, []string{"projection"}),
		races: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "factum_projection_lost_races_total", Help: "Slices that were rolled back because another process or an operator was faster.",
		}, []string{"projection"}),
	}
	if to == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.seconds, m.races, consumersOf{r}} {
		if err := to.Register(c); err != nil {
			return nil, fmt.Errorf("runner: metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) slice(projection string, took time.Duration) {
	m.seconds.WithLabelValues(projection).Observe(took.Seconds())
}

func (m *metrics) lost(projection string) { m.races.WithLabelValues(projection).Inc() }

// consumersOf reads what the consumers of this process know of themselves when it is asked.
type consumersOf struct{ runner *Runner }

func gauge(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("factum_projection_"+name, help, []string{"projection"}, nil)
}

var (
	lagEventsDesc  = gauge("lag_events", "Events that the log of the slowest tenant of this process is ahead of the projection.")
	lagSecondsDesc = gauge("lag_seconds", "Age of the oldest event that is not applied, over the tenants of this process.")
	parkedDesc     = gauge("parked", "Streams that are parked, over the tenants of this process.")
	haltedDesc     = gauge("halted", "Tenants of this process for which the projection is halted.")
	pausedDesc     = gauge("paused", "Tenants of this process for which the projection is paused.")
)

// Describe implements prometheus.Collector.
func (consumersOf) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{lagEventsDesc, lagSecondsDesc, parkedDesc, haltedDesc, pausedDesc} {
		out <- d
	}
}

// summary is what the metrics say of a projection.
type summary struct{ lag, parked, halted, paused, oldest int64 }

// Collect implements prometheus.Collector.
func (s consumersOf) Collect(out chan<- prometheus.Metric) {
	sums := map[string]*summary{}
	for i := range s.runner.config.Projections {
		sums[s.runner.config.Projections[i].Name] = &summary{}
	}
	s.runner.mu.Lock()
	for _, w := range s.runner.consumers {
		for _, c := range w.list {
			sums[c.projection.Name].add(c)
		}
	}
	s.runner.mu.Unlock()
	for name, sum := range sums {
		age := 0.0
		if sum.oldest > 0 {
			age = max(time.Since(time.Unix(0, sum.oldest)).Seconds(), 0)
		}
		for desc, value := range map[*prometheus.Desc]float64{
			lagEventsDesc: float64(sum.lag), lagSecondsDesc: age, parkedDesc: float64(sum.parked), haltedDesc: float64(sum.halted), pausedDesc: float64(sum.paused),
		} {
			out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, name)
		}
	}
}

func (s *summary) add(c *consumer) {
	s.lag = max(s.lag, c.lag.Load())
	s.parked += c.parkedStreams.Load()
	switch standing(c.standing.Load()) {
	case halted:
		s.halted++
	case paused:
		s.paused++
	case running, waiting:
	}
	if oldest := c.oldest.Load(); oldest > 0 && (s.oldest == 0 || oldest < s.oldest) {
		s.oldest = oldest
	}
}
