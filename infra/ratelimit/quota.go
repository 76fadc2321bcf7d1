package ratelimit

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Quota is how many requests are admitted in a window, for instance 600/1m. The zero value, "off", admits all.
type Quota struct {
	Requests int           // at least 1, and at most 100,000 for each second of the window
	Window   time.Duration // 1 s to 24 h
}

const (
	longestWindow = 24 * time.Hour
	shortestEach  = 10 * time.Microsecond // PostgreSQL keeps microseconds
)

// Off tells whether nothing is limited.
func (q Quota) Off() bool { return q.Requests == 0 }

// String returns the form that [Quota.UnmarshalText] reads.
func (q Quota) String() string {
	if q.Off() {
		return "off"
	}
	return fmt.Sprintf("%d/%s", q.Requests, q.Window)
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (q *Quota) UnmarshalText(text []byte) error {
	*q = Quota{}
	if string(text) == "off" {
		return nil
	}
	requests, window, _ := strings.Cut(string(text), "/")
	n, err := strconv.Atoi(requests)
	if err != nil || n < 1 {
		return malformed(text)
	}
	per, err := time.ParseDuration(window)
	if err != nil || per < time.Second || per > longestWindow || per%time.Second != 0 || per/time.Duration(n) < shortestEach {
		return malformed(text)
	}
	*q = Quota{n, per}
	return nil
}

func malformed(text []byte) error {
	return fmt.Errorf(`%q is no limit: give requests per window of whole seconds, such as 600/1m, or off`, text)
}

// each is the time in which one request's room comes back.
func (q Quota) each() time.Duration { return q.Window / time.Duration(q.Requests) }
