package main

import (
	"sync"
	"time"
)

// window counts what is completed in a stretch of time, after a warm-up of a third of it. It becomes longer when nothing is completed in it,
// until something is, by callTimeout at most: on a machine that is busy with other things even one password can take longer. It is safe for
// concurrent use.
type window struct {
	length     time.Duration
	warm, ends time.Time

	mu    sync.Mutex
	times []time.Duration // of what was completed
	until time.Time       // when the last of it was
}

func newWindow(length time.Duration) *window {
	begun := time.Now()
	return &window{length: length, warm: begun.Add(length / 3), ends: begun.Add(length * 4 / 3)}
}

// open tells whether to go on.
func (w *window) open() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	ends := w.ends
	if len(w.times) == 0 {
		ends = ends.Add(callTimeout)
	}
	return time.Now().Before(ends)
}

// holds tells whether what is completed now counts.
func (w *window) holds(now time.Time) bool { return now.After(w.warm) && now.Before(w.ends) }

// done notes what was begun then and is completed now.
func (w *window) done(begun time.Time) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.holds(now) || now.After(w.warm) && len(w.times) == 0 {
		w.times, w.until = append(w.times, now.Sub(begun)), now
	}
}

// counted returns how many were completed per second, and how long each took.
func (w *window) counted() (perSecond float64, times []time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return float64(len(w.times)) / max(w.length, w.until.Sub(w.warm)).Seconds(), w.times
}
