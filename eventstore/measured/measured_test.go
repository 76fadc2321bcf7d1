package measured_test

import (
	"context"
	"maps"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/measured"
	"github.com/factum-platform/factum/eventstore/memstore"
	"github.com/factum-platform/factum/eventstore/storetest"
)

func TestContract(t *testing.T) {
	storetest.Run(t, storetest.Engine{Open: func(*testing.T) eventstore.Store { return measured.Wrap(memstore.New(), prometheus.NewRegistry()) }})
}

func TestEveryOutcomeIsCounted(t *testing.T) {
	r := prometheus.NewRegistry()
	s := measured.Wrap(memstore.New(), r)
	l := s.Tenant("alpha")
	name := eventstore.Claim{Scope: "name", Key: "k"}
	write := func(command, stream string, claims ...eventstore.Claim) []eventstore.Write {
		return []eventstore.Write{{Stream: eventstore.StreamID{Kind: "doc", ID: stream}, Expected: eventstore.NoStream(), Claims: claims, Events: []eventstore.Proposed{
			{ID: eventstore.NewEventID("alpha", "tester", command, 0), Type: "thing.happened", Schema: 1, Data: []byte(`{}`)},
			{ID: eventstore.NewEventID("alpha", "tester", command, 1), Type: "thing.happened", Schema: 1, Data: []byte(`{}`)},
		}}}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	want := map[string]uint64{}
	for _, step := range []struct {
		outcome string
		ctx     context.Context
		writes  []eventstore.Write
	}{
		{"done", t.Context(), write("1", "a", name)},
		{"replayed", t.Context(), write("1", "a", name)},
		{"conflict", t.Context(), write("2", "a")},
		{"claimed", t.Context(), write("3", "b", name)},
		{"reused", t.Context(), write("1", "c")},
		{"invalid", t.Context(), nil},
		{"cancelled", ended, write("4", "d")},
		{"failed", t.Context(), write("5", "e")},
	} {
		if step.outcome == "failed" {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		_, err := l.Append(step.ctx, step.writes...)
		if (err == nil) != (step.outcome == "done" || step.outcome == "replayed") {
			t.Fatalf("%s: %v", step.outcome, err)
		}
		want[step.outcome]++
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got, events := map[string]uint64{}, 0.0
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			switch family.GetName() {
			case "factum_append_seconds":
				got[metric.GetLabel()[0].GetValue()] = metric.GetHistogram().GetSampleCount()
			case "factum_appended_events_total":
				events = metric.GetCounter().GetValue()
			}
		}
	}
	if !maps.Equal(got, want) || events != 2 {
		t.Errorf("counted %v and %v events; want %v and 2", got, events, want)
	}
}
