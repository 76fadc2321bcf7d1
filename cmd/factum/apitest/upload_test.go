package apitest

import (
	"runtime"
	"testing"
	"time"
)

// peakHeap samples the heap until the returned function is called, which answers the growth in bytes.
func peakHeap() func() uint64 {
	var start, m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&start)
	stop, peak := make(chan struct{}), make(chan uint64)
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		var top uint64
		for {
			select {
			case <-tick.C:
				runtime.ReadMemStats(&m)
				top = max(top, m.HeapAlloc)
			case <-stop:
				peak <- top
				return
			}
		}
	}()
	return func() uint64 {
		close(stop)
		return max(<-peak, start.HeapAlloc) - start.HeapAlloc
	}
}

func TestALargeUploadIsStreamed(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	tenant := w.tenant(mina, "A")
	const size = 60 << 20
	kind, body := big(size)
	grown := peakHeap()
	a := w.want(w.send("POST", "/api/tenants/"+tenant+"/documents", mina.token, kind, body), 201)
	if got := grown(); got > 24<<20 {
		t.Errorf("the heap grew by %d MiB for an upload of 60 MiB; want at most 24", got>>20)
	}
	if a.at("data.file.file_size") != float64(size) {
		t.Errorf("%s", a.body)
	}
}

func TestAFileOfMoreThan100MiBIsRefused(t *testing.T) {
	w := newWorld(t)
	mina := w.person("Mina")
	tenant := w.tenant(mina, "A")
	before := w.settle(tenant)
	kind, body := big(100<<20 + 1)
	w.problem(w.send("POST", "/api/tenants/"+tenant+"/documents", mina.token, kind, body), 413, "PAYLOAD_TOO_LARGE")
	if after := w.settle(tenant); after != before {
		t.Errorf("the refused upload left events: %s to %s", before, after)
	}
}
