package httpapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v3"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"github.com/factum-platform/factum/infra/clientaddr"
	"github.com/factum-platform/factum/infra/tenants"
)

// request is what is known of a request; its handler's goroutine alone writes it.
type request struct {
	id, trace string
	user      string // opaque id
	route     string // as in [Policy]; "" for a path nobody serves
	cause     error  // of a failure; for the log only
	client    Client
	tags      []string // of the answer; see Tag
	tagWhole  bool
	secret    bool                // the answer must not be compressed; see Op.Secret
	shed      bool                // it was refused to do others well; see Overloaded
	wrong     map[string][]string // by field; see note
}

// note keeps what is wrong with a path or a header until the body was looked at, so that one answer tells it all; no handler runs then.
func note(ctx context.Context, field, message string) {
	if r := requestOf(ctx); r != nil {
		if r.wrong == nil {
			r.wrong = map[string][]string{}
		}
		r.wrong[field] = []string{message}
	}
}

// noted is what is wrong by then; nil when nothing is.
func noted(ctx context.Context) map[string][]string {
	if r := requestOf(ctx); r != nil {
		return r.wrong
	}
	return nil
}

// Client is what is known of who sent a request. It is personal data: not for logs.
type Client struct{ Address, Agent string }

// ClientOf is the client of the request that ctx belongs to.
func ClientOf(ctx context.Context) Client {
	if r := requestOf(ctx); r != nil {
		return r.client
	}
	return Client{}
}

type requestKey struct{}

func requestOf(ctx context.Context) *request {
	r, _ := ctx.Value(requestKey{}).(*request)
	return r
}

// RequestID is the id of the request that ctx belongs to, as in X-Request-Id; "" outside of one.
func RequestID(ctx context.Context) string {
	if r := requestOf(ctx); r != nil {
		return r.id
	}
	return ""
}

var (
	idForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	// traceForm is a traceparent (W3C Trace Context §3.2): version, trace id, parent id, flags. Versions to come may have more.
	traceForm = regexp.MustCompile(`^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?$`)
)

// traceOf is the trace id of a traceparent; "" for one that is not valid, which is as good as none.
func traceOf(header string) string {
	m := traceForm.FindStringSubmatch(header)
	if m == nil || m[1] == "ff" || (m[1] == "00" && m[4] != "") || strings.Trim(m[2], "0") == "" || strings.Trim(m[3], "0") == "" {
		return ""
	}
	return m[2]
}

// observe is the outermost layer: ids, headers, the error form, panics, metrics and the log line.
func (s *Server) observe(c fiber.Ctx) error {
	start := time.Now()
	r := &request{id: requestID(c.RequestCtx()), client: Client{s.clientAddress(c), c.Get("User-Agent")}}
	r.trace = traceOf(c.Get("Traceparent"))
	c.SetContext(context.WithValue(s.base, requestKey{}, r))
	s.protect(c.RequestCtx(), r.id)

	err := s.handle(c)
	if err != nil && r.route == "" {
		err = s.searched(c, err)
	}
	if err != nil {
		c.Response().ResetBody()
		if err := s.answerError(c, err); err != nil {
			return err
		}
	}
	leaveNothingUnread(c)
	if err := compress(c, r.secret); err != nil {
		return err
	}

	status, took := c.Response().StatusCode(), time.Since(start)
	route := r.route
	if route == "" {
		route = "none"
	}
	s.metrics.count(c.Method(), route, status, took)
	if r.shed {
		if n := s.shed.told(start); n > 0 {
			s.c.Logger.LogAttrs(c.Context(), slog.LevelWarn, "requests were refused, because there are too many; factum_http_requests_total counts them",
				slog.String("route", route), slog.Int("status", status), slog.Int64("since_last_told", n))
		}
		return nil
	}
	level := slog.LevelInfo
	attrs := []slog.Attr{
		slog.String("request_id", r.id), slog.String("method", c.Method()), slog.String("route", route), slog.Int("status", status),
		slog.Duration("took", took), slog.String("user", r.user), slog.String("trace_id", r.trace),
	}
	var schema *tenants.SchemaError
	switch {
	case errors.As(r.cause, &schema) && !s.firstRefusal(schema):
		// It was said; all requests of this tenant fail alike until somebody has migrated it.
	case status >= http.StatusInternalServerError:
		level = slog.LevelError
		if r.cause != nil {
			attrs = append(attrs, slog.String("error", r.cause.Error()))
		}
	}
	s.c.Logger.LogAttrs(c.Context(), level, "request", attrs...)
	return nil
}

// shed counts requests that were refused because there are too many of them. It is safe for concurrent use.
type shed struct{ untold, toldAt atomic.Int64 }

// told counts one more, and answers how many are to be told now: 0, or at most once a second all since the last time.
func (s *shed) told(now time.Time) int64 {
	s.untold.Add(1)
	last := s.toldAt.Load()
	if now.UnixNano()-last < int64(time.Second) || !s.toldAt.CompareAndSwap(last, now.UnixNano()) {
		return 0
	}
	return s.untold.Swap(0)
}

// requestID is the request's own id, or one that is drawn.
func requestID(c *fasthttp.RequestCtx) string {
	if id := string(c.Request.Header.Peek("X-Request-Id")); idForm.MatchString(id) {
		return id
	}
	return uuid.NewString()
}

// protect sets the headers that every answer has, unless its route says otherwise.
func (s *Server) protect(c *fasthttp.RequestCtx, id string) {
	h := &c.Response.Header
	h.Set("X-Request-Id", id)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	if s.c.TLS {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// searched counts a request that no route serves by its network address, so that who looks around is limited too.
func (s *Server) searched(c fiber.Ctx, err error) error {
	ctx, cancel := context.WithTimeout(c.Context(), usualLimit)
	defer cancel()
	tell := func(name, value string) { c.Append(name, value) }
	return cmp.Or(s.take(ctx, tell, "address", networkOf(ClientOf(ctx).Address), s.c.Limits.Address), err)
}

// clientAddress is whom the connection's other end speaks for; see [Config.Proxies].
func (s *Server) clientAddress(c fiber.Ctx) string {
	peer, err := netip.ParseAddrPort(c.RequestCtx().RemoteAddr().String())
	if err != nil {
		return "" // a socket without an address
	}
	header := s.c.Proxies.Header
	if header == "" {
		header = clientaddr.XForwardedFor
	}
	var lines []string
	for _, line := range c.Request().Header.PeekAll(header) {
		lines = append(lines, string(line))
	}
	return s.c.Proxies.Of(peer.Addr(), lines).String()
}

// firstRefusal tells whether the tenant was not yet refused for this reason.
func (s *Server) firstRefusal(e *tenants.SchemaError) bool {
	before, known := s.refused.Swap(e.Tenant, *e)
	return !known || before != *e
}

// handle runs the route and turns a panic into an error whose text stays with us.
func (s *Server) handle(c fiber.Ctx) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = Internal(fmt.Errorf("httpapi: panic: %v\n%s", v, debug.Stack()))
		}
	}()
	return c.Next()
}

const (
	// drainBytes is how much of an unread body is read and thrown away to keep the connection.
	drainBytes = 256 << 10
	drainFor   = 2 * time.Second
)

// leaveNothingUnread makes sure that what is left of a body is not taken for the next request: it is drained, or the connection
// ends with this answer.
func leaveNothingUnread(c fiber.Ctx) {
	body := c.Request().BodyStream()
	if body == nil {
		return
	}
	conn := c.RequestCtx().Conn()
	if c.Response().StatusCode() != http.StatusRequestTimeout && conn.SetReadDeadline(time.Now().Add(drainFor)) == nil {
		if _, err := io.CopyN(io.Discard, body, drainBytes); errors.Is(err, io.EOF) {
			return
		}
	}
	c.Response().SetConnectionClose()
	if l, ok := conn.(*lingeringConn); ok {
		l.unread.Store(true)
	}
}

// metrics are those of the API; nil counts nothing.
type metrics struct {
	requests *prometheus.CounterVec
	refused  *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	if r == nil {
		return nil
	}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "factum_http_requests_total", Help: "Requests answered."}, []string{"method", "route", "status"}),
		refused:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "factum_http_limited_total", Help: "Requests refused with 429 by a quota."}, []string{"scope"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "factum_http_request_seconds", Help: "Time to the answer's header.", Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60},
		}, []string{"method", "route"}),
	}
	r.MustRegister(m.requests, m.refused, m.seconds)
	return m
}

func (m *metrics) count(method, route string, status int, took time.Duration) {
	if m == nil {
		return
	}
	if route == "none" {
		method = "any" // methods of unknown paths are the client's invention
	}
	m.requests.WithLabelValues(method, route, strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(method, route).Observe(took.Seconds())
}

// refuse counts a request that exceeds the quota of the scope.
func (m *metrics) refuse(scope string) {
	if m != nil {
		m.refused.WithLabelValues(scope).Inc()
	}
}
