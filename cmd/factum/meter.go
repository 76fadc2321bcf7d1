package main

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/factum-platform/factum/eventstore"
)

const (
	barEvery  = 100 * time.Millisecond
	lineEvery = 5 * time.Second
)

// meter shows how far a copy or a rebuild is: a bar on a terminal, else a line now and then. It is for one goroutine.
type meter struct {
	out      io.Writer
	terminal bool

	title string
	head  eventstore.Position
	from  eventstore.Position // where it stood when it was first asked
	asked bool
	bar   *progressbar.ProgressBar
	begun time.Time
	shown time.Time
}

// begin starts to show the way to head; done ends that.
func (m *meter) begin(title string, head eventstore.Position) (done func()) {
	m.title, m.head, m.begun, m.asked = title, head, time.Now(), false
	m.shown = m.begun
	m.bar = nil
	if m.terminal && head > 0 {
		// The bar counts positions, which are known to the end on every engine; its text counts events.
		m.bar = progressbar.NewOptions64(int64(head), progressbar.OptionSetWriter(m.out), progressbar.OptionSetDescription(title),
			progressbar.OptionSetPredictTime(true), progressbar.OptionSetWidth(30), progressbar.OptionClearOnFinish())
	}
	return func() {
		if m.bar != nil {
			_ = m.bar.Clear() // only the terminal can fail
		}
	}
}

// reach sets how far the way is, where that is found out on it.
func (m *meter) reach(head eventstore.Position) {
	if m.head == head {
		return
	}
	m.head = head
	if m.bar != nil {
		m.bar.ChangeMax64(int64(head))
	}
}

// progress implements [copylog.Progress].
func (m *meter) progress(events uint64, at eventstore.Position) {
	now := time.Now()
	if !m.asked {
		m.asked, m.from = true, at
	}
	rate := float64(events) / max(now.Sub(m.begun).Seconds(), 0.001)
	if m.bar != nil {
		if now.Sub(m.shown) >= barEvery {
			m.shown = now
			_ = m.bar.Set64(int64(min(at, m.head))) // only the terminal can fail
			m.bar.Describe(fmt.Sprintf("%s: %d events, %.0f/s", m.title, events, rate))
		}
		return
	}
	if now.Sub(m.shown) >= lineEvery {
		m.shown = now
		fmt.Fprintf(m.out, "%s: %d events, %.0f/s, %d %%%s\n", m.title, events, rate, int(100*float64(at)/float64(max(m.head, 1))), m.left(now, at))
	}
}

// left says how long it still takes, once that can be told from the way that lies behind.
func (m *meter) left(now time.Time, at eventstore.Position) string {
	if at <= m.from || at >= m.head {
		return ""
	}
	left := time.Duration(float64(now.Sub(m.begun)) * float64(m.head-at) / float64(at-m.from))
	return fmt.Sprintf(", %s left", left.Round(time.Second))
}
