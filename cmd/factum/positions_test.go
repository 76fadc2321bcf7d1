package main

import (
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// positioned is a transport that demands a position and keeps the headers of the last answer.
type positioned struct {
	mu     sync.Mutex
	demand string // Factum-Min-Position; "" demands none
	last   http.Header
	status int
}

// RoundTrip implements [http.RoundTripper].
func (p *positioned) RoundTrip(req *http.Request) (*http.Response, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.demand != "" {
		req = req.Clone(req.Context())
		req.Header.Set("Factum-Min-Position", p.demand)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err == nil {
		p.last, p.status = res.Header, res.StatusCode
	}
	return res, err
}

// TestReadYourWritesOverProcesses: who writes at one API process reads it at another, while the read models are moved by a third; and without a
// projector the answers say so.
func TestReadYourWritesOverProcesses(t *testing.T) {
	s := newSite(t)
	_, first := s.start(t, "roles", "api")
	_, second := s.start(t, "roles", "api")
	projector, _ := s.start(t, "roles", "projector")
	c, tenant := tenantClient(t, first)
	var at positioned
	c.http.Transport = &at
	documents := "/api/tenants/" + tenant + "/documents"
	var longest time.Duration
	for n := range 20 {
		c.base, at.demand = first.BaseURL, ""
		var up struct {
			Data struct {
				ID string `json:"id"`
			} `json:"data"`
		}
		must(t, c.upload(t.Context(), documents, "report.txt", []byte("content "+strconv.Itoa(n)), &up))
		written := at.last.Get("Factum-Position")
		if written == "" || at.last.Get("Factum-Pending") != "" {
			t.Fatalf("the write was answered with position %q, pending %q", written, at.last.Get("Factum-Pending"))
		}
		c.base, at.demand = second.BaseURL, written
		begun := time.Now()
		must(t, c.call(t.Context(), "GET", documents+"/"+up.Data.ID, nil, nil))
		longest = max(longest, time.Since(begun))
		if reached, want := number(t, at.last.Get("Factum-Position")), number(t, written); reached < want {
			t.Fatalf("the other process answered from position %d; %d was demanded", reached, want)
		}
	}
	t.Log("longest read at the other process:", longest)

	projector.kill(syscall.SIGKILL)
	c.base, at.demand = first.BaseURL, ""
	must(t, c.upload(t.Context(), documents, "late.txt", []byte("nobody projects this yet"), &struct{}{}))
	written := at.last.Get("Factum-Position")
	if at.status != http.StatusCreated || at.last.Get("Factum-Pending") != "documents" {
		t.Errorf("without a projector a write is answered %d, pending %q", at.status, at.last.Get("Factum-Pending"))
	}
	c.base, at.demand = second.BaseURL, written
	err := c.call(t.Context(), "GET", documents, nil, nil)
	if err == nil || at.status != http.StatusServiceUnavailable || at.last.Get("Retry-After") == "" {
		t.Errorf("a position that nobody reaches is answered %d, %v", at.status, err)
	}
	at.demand = ""
	must(t, c.call(t.Context(), "GET", documents, nil, nil)) // who demands nothing gets what there is
	if reached, want := number(t, at.last.Get("Factum-Position")), number(t, written); reached >= want {
		t.Errorf("it says that it has reached %d", reached)
	}

	s.start(t, "roles", "projector")
	at.demand = written
	deadline := time.Now().Add(time.Minute)
	for c.call(t.Context(), "GET", documents, nil, nil) != nil {
		if time.Now().After(deadline) {
			t.Fatal("the new projector does not catch up")
		}
	}
}

func number(t *testing.T, text string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 64)
	must(t, err)
	return n
}
