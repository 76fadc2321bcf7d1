package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sync/errgroup"

	"github.com/factum-platform/factum/bench/site"
)

// callTimeout bounds a request of a load.
const callTimeout = 30 * time.Second

// call is one request of a load, sent again and again.
type call struct {
	method, path string
	token        string // "" sends none
	body         []byte // JSON
}

// load sends calls from so many clients, each with a connection of its own that is kept, and each as soon as the one before is answered. It
// returns how many were answered 200 per second and how long those took, after a warm-up of a third of the window. What is answered 503 with
// Retry-After is sent again after a pause, if the load allows that; anything else ends it with an error.
type load struct {
	base    string // URL of the process
	clients int
	calls   []call // client i sends calls[i], calls[i+clients], … in turn
	window  time.Duration
	refused bool          // 503 is no error
	pause   time.Duration // after a 503
}

// loaded is what a load has measured.
type loaded struct {
	perSecond float64
	times     []time.Duration
	refused   int
}

// lean is a client that costs little of the processors that it shares with what it measures. It has at most so many connections to base, and
// keeps them until CloseIdleConnections.
func lean(ctx context.Context, base string, connections int) *fasthttp.HostClient {
	return &fasthttp.HostClient{
		Addr: strings.TrimPrefix(base, "http://"), MaxConns: connections, ReadTimeout: callTimeout, WriteTimeout: callTimeout,
		Dial: func(address string) (net.Conn, error) { // fasthttp's own leaves a goroutine for ever
			return (&net.Dialer{Timeout: callTimeout}).DialContext(ctx, "tcp", address)
		},
		MaxIdleConnDuration:       2 * shortPause, // its cleaner ends so much later than the load
		MaxIdemponentCallAttempts: 1, NoDefaultUserAgentHeader: true,
	}
}

func (l load) run(ctx context.Context) (loaded, error) {
	host := lean(ctx, l.base, l.clients)
	defer host.CloseIdleConnections()
	w := newWindow(l.window)
	var refused atomic.Int64
	all, ctx := errgroup.WithContext(ctx)
	for i := range l.clients {
		all.Go(func() error {
			req, res := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
			defer fasthttp.ReleaseRequest(req)
			defer fasthttp.ReleaseResponse(res)
			for n := i; ctx.Err() == nil && w.open(); n += l.clients {
				c := l.calls[n%len(l.calls)]
				req.Reset()
				req.Header.SetMethod(c.method)
				req.SetRequestURI(l.base + c.path)
				if c.token != "" {
					req.Header.Set("Authorization", "Bearer "+c.token)
				}
				if c.body != nil {
					req.Header.SetContentType("application/json")
					req.SetBody(c.body)
				}
				sent := time.Now()
				if err := host.Do(req, res); err != nil {
					return fmt.Errorf("%s %s: %w", c.method, c.path, err)
				}
				switch {
				case res.StatusCode() == http.StatusOK:
					w.done(sent)
				case l.refused && res.StatusCode() == http.StatusServiceUnavailable && len(res.Header.Peek("Retry-After")) > 0:
					if w.holds(time.Now()) {
						refused.Add(1)
					}
					if err := site.Pass(ctx, l.pause); err != nil {
						return err
					}
				default:
					return fmt.Errorf("%s %s: %d: %.300s", c.method, c.path, res.StatusCode(), res.Body())
				}
			}
			return ctx.Err()
		})
	}
	if err := all.Wait(); err != nil {
		return loaded{}, err
	}
	out := loaded{refused: int(refused.Load())}
	if out.perSecond, out.times = w.counted(); len(out.times) == 0 {
		return out, fmt.Errorf("no request was answered with a success within %v", l.window+callTimeout)
	}
	return out, nil
}
