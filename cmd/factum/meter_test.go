package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestMeter(t *testing.T) {
	t.Run("a terminal has a bar", func(t *testing.T) {
		var out bytes.Buffer
		m := &meter{out: &out, terminal: true}
		done := m.begin("copy acme (1 of 2)", 2000)
		m.shown = m.shown.Add(-time.Second)
		m.begun = m.begun.Add(-time.Second)
		m.progress(100, 1000)
		done()
		for _, want := range []string{"copy acme (1 of 2): 100 events, ", "/s", " 50%", "["} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("the bar lacks %q: %q", want, out.String())
			}
		}
		if strings.Contains(out.String(), "\n") {
			t.Errorf("the bar takes more than a line: %q", out.String())
		}
	})
	t.Run("anything else has lines, not too many", func(t *testing.T) {
		var out bytes.Buffer
		m := &meter{out: &out}
		done := m.begin("compare acme", 2000)
		m.progress(1, 20)
		if out.Len() > 0 {
			t.Errorf("told at once: %q", out.String())
		}
		m.shown, m.begun = m.shown.Add(-lineEvery), m.begun.Add(-10*time.Second)
		m.progress(1000, 1010)
		m.progress(1001, 1011)
		done()
		if got := out.String(); !strings.HasPrefix(got, "compare acme: 1000 events, ") || !strings.HasSuffix(got, "/s, 50 %, 10s left\n") || strings.Count(got, "\n") != 1 {
			t.Errorf("%q", got)
		}
	})
	t.Run("the way may become longer", func(t *testing.T) {
		var out bytes.Buffer
		m := &meter{out: &out}
		m.begin("rebuild", 0)
		m.reach(400)
		m.shown = m.shown.Add(-lineEvery)
		m.progress(100, 100)
		if got := out.String(); !strings.HasSuffix(got, " 25 %\n") { // nothing lies behind that the rest could be told from
			t.Errorf("%q", got)
		}
	})
	t.Run("an empty log has nothing to show", func(t *testing.T) {
		var out bytes.Buffer
		(&meter{out: &out, terminal: true}).begin("copy acme", 0)()
		if out.Len() > 0 {
			t.Errorf("%q", out.String())
		}
	})
}
