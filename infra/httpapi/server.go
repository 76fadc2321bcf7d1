// Package httpapi is the HTTP side of the platform: server, one error form, one policy table, authentication, positions and the
// OpenAPI documents. The routes themselves live in commands/rest and readapi.
package httpapi

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humafiber"
	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"
	"github.com/gofiber/fiber/v3/middleware/cors"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/clientaddr"
	"github.com/factum-platform/factum/infra/idempotency"
	"github.com/factum-platform/factum/infra/readmodel"
)

const (
	maxHeaderBytes = 16 << 10
	maxJSONBytes   = 1 << 20
	headerTimeout  = 15 * time.Second // to send the header and the first byte of the body
	bodyTimeout    = 30 * time.Second // to send a JSON body; between two pieces of an upload or a download
	idleTimeout    = 2 * time.Minute
)

// Authenticator verifies access tokens and API keys as far as that needs no look-up; what needs one is asked together with the membership.
// Errors: auth.ErrInvalidToken, auth.ErrTokenExpired.
type Authenticator interface {
	Claim(ctx context.Context, bearer string) (*auth.Claim, error)
	Ended() uint64 // as of [auth.Auth]
}

// Config is what a server needs. A server whose only use is its OpenAPI document needs none of it.
type Config struct {
	Logger     *slog.Logger // nil discards
	Auth       Authenticator
	Platform   *pgxpool.Pool // holds the read model "directory", and the sessions
	TenantPool func(ctx context.Context, tenant string) (*pgxpool.Pool, error)
	// Refresh makes TenantPool look anew where the tenant lives, after a read that its database refused. Optional.
	Refresh func(ctx context.Context, tenant string) error
	Waiter  *readmodel.Waiter     // nil waits by polling
	Unbuilt func(tenant string)   // told that a read model of the tenant's log is not there; it must not wait. Optional.
	Metrics prometheus.Registerer // nil counts nothing
	// MetricsHandler is served at /metrics, to everybody who reaches the listener; nil serves nothing there.
	MetricsHandler http.Handler
	Version        string
	// ProbesOnly serves /health and /metrics and nothing else, for a process that is to be observed but is not the API.
	ProbesOnly bool
	Origins    []string // that browsers may call from (CORS); empty allows none but the server's own
	Now        func() time.Time
	Limits     Limits             // the zero value limits nothing
	TLS        bool               // clients reach the server through TLS, and are told to insist on it (HSTS)
	Answers    *idempotency.Store // of requests with an Idempotency-Key; nil remembers none
	Proxies    clientaddr.Proxies // whose word on the client's address is taken; the zero value takes nobody's

	headerWithin time.Duration // in place of headerTimeout, in tests
}

// Server serves the API. It is safe for concurrent use once all routes are registered.
type Server struct {
	c       Config
	app     *fiber.App
	api     huma.API
	metrics *metrics
	base    context.Context // ends when the server was stopped
	stop    context.CancelFunc
	docs    documents
	shed    shed
	refused sync.Map // by tenant, the tenants.SchemaError that was logged last
	guesses readmodel.Guesses

	admissions *admissions
}

// New returns a server with the routes that are not about data: /, /health, the documentation, /metrics; see [Config.ProbesOnly].
func New(c Config) *Server {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Waiter == nil {
		c.Waiter = readmodel.NewWaiter(nil)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	takeOver()
	s := &Server{c: c, metrics: newMetrics(c.Metrics)}
	s.admissions = newAdmissions(s)
	s.base, s.stop = context.WithCancel(context.Background())
	s.app = fiber.New(fiber.Config{
		AppName: "Factum", StrictRouting: true, CaseSensitive: true, Immutable: true,
		StreamRequestBody: true, DisablePreParseMultipartForm: true,
		RequestMethods: append(slices.Clone(fiber.DefaultMethods), otherMethod),
		BodyLimit:      1, // all bodies are streamed, and capped where they are read: what stalls is known by its route
		ReadBufferSize: maxHeaderBytes, ReadTimeout: cmp.Or(c.headerWithin, headerTimeout), WriteTimeout: bodyTimeout, IdleTimeout: idleTimeout,
		ErrorHandler: s.answerBroken,
	})
	s.routeEverything()
	s.app.Use(s.observe)
	if len(c.Origins) > 0 {
		s.app.Use(cors.New(cors.Config{
			AllowOrigins: c.Origins, AllowCredentials: true, MaxAge: 3600,
			AllowMethods:  []string{"GET", "POST", "PUT", "DELETE", "OPTIONS"},
			AllowHeaders:  []string{"Content-Type", "Authorization", "Idempotency-Key", "Factum-Min-Position", "If-Match", "If-None-Match", "X-Request-Id", "Traceparent"},
			ExposeHeaders: []string{"Factum-Position", "Factum-Pending", "X-Request-Id", "Retry-After", "RateLimit", "RateLimit-Policy", "Idempotency-Replayed", "ETag"},
		}))
	}
	s.api = humafiber.New(s.app, openAPIConfig(c.Version))
	s.api.UseMiddleware(s.guard)
	s.registerHealth()
	if !c.ProbesOnly {
		s.registerRoot()
		s.registerDocs()
	}
	if c.MetricsHandler != nil {
		// Its own context would be fasthttp's, which a goroutine that waits for it may not ask while the server is being stopped.
		s.app.Get("/metrics", adaptor.HTTPHandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c.MetricsHandler.ServeHTTP(w, r.WithContext(s.base))
		}))
	}
	return s
}

// API is where routes are registered; see [Route].
func (s *Server) API() huma.API { return s.api }

// Listen serves ln until [Server.Shutdown]; it closes ln.
func (s *Server) Listen(ln net.Listener) error {
	err := s.app.Listener(lingering{ln}, fiber.ListenConfig{DisableStartupMessage: true})
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("httpapi: serve %s: %w", ln.Addr(), err)
	}
	return nil
}

// Shutdown stops accepting, lets running requests finish as long as ctx allows, and cancels those that are left.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.stop()
	if err := s.app.ShutdownWithContext(ctx); err != nil {
		return fmt.Errorf("httpapi: shut down: %w", err)
	}
	return nil
}

func openAPIConfig(version string) huma.Config {
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Factum", Version: version,
				Description: "Documents whose existence is proven by RFC 3161 time-stamps, in tenants that share nothing. " +
					"Every answer that is not a success has the form of the schema Problem.",
				License: &huma.License{Name: "MIT"},
			},
			Servers: []*huma.Server{{URL: "/"}},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				Headers: headerComponents(),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"bearer": {Type: "http", Scheme: "bearer", BearerFormat: "JWT", Description: "The access_token of a login; only POST /api/auth/refresh takes the refresh_token."},
				},
			},
		},
		Formats:       map[string]huma.Format{"application/json": strictJSON, "json": strictJSON},
		DefaultFormat: "application/json",
		Transformers: []huma.Transformer{func(ctx huma.Context, _ string, v any) (any, error) {
			if p, ok := v.(*Problem); ok {
				return p.completed(humafiber.Unwrap(ctx).Path(), rules[ctx.Operation().Method+" "+ctx.Operation().Path]), nil
			}
			return v, nil
		}},
	}
}

// answerBroken answers what could not be read as a request. The rest of it is left unread.
func (s *Server) answerBroken(c fiber.Ctx, err error) error {
	if l, ok := c.RequestCtx().Conn().(*lingeringConn); ok {
		l.unread.Store(true)
	}
	return s.answerError(c, err)
}

// answerError answers what did not come out of a route: unknown paths, wrong methods, broken requests, panics.
func (s *Server) answerError(c fiber.Ctx, err error) error {
	var p, known *Problem
	var status *fiber.Error
	switch {
	case errors.As(err, &known):
		p = known
	case errors.As(err, &status) && status.Code == http.StatusMethodNotAllowed && c.Method() == http.MethodOptions:
		return c.SendStatus(http.StatusNoContent) // the router has set Allow
	case errors.As(err, &status) && status.Code == http.StatusRequestHeaderFieldsTooLarge && longRequestLine(c.RequestCtx().Conn()):
		p = NewProblem(http.StatusRequestURITooLong, "", "The request's path and query are longer than 16 KiB.")
	case errors.As(err, &status) && status.Code < http.StatusInternalServerError:
		p = NewProblem(status.Code, "", s.statusDetail(status.Code))
	default:
		p = Internal(err)
	}
	if r := requestOf(c.Context()); r != nil && r.cause == nil {
		r.cause = p.cause
	}
	for name := range p.headers {
		c.Set(name, p.headers.Get(name))
	}
	c.Set(fiber.HeaderContentType, problemType)
	return c.Status(p.Status).Send(p.completed(c.Path(), Rule{}).encode())
}

// workerIdle is also how long the last goroutine outlives a stopped server.
const workerIdle = 200 * time.Millisecond

// otherMethod stands in logs and metrics for every method that HTTP does not know, as OpenTelemetry has it (http.request.method).
const otherMethod = "_OTHER"

// routeEverything lets requests that are not of this API come to the router like all others. By itself it would answer unknown methods as plain
// text, and targets without a slash ("OPTIONS *", "CONNECT host:1"), past the headers, the limits, the metrics and the log.
func (s *Server) routeEverything() {
	known := map[string]bool{}
	for _, method := range s.app.Config().RequestMethods {
		known[method] = true
	}
	server := s.app.Server()
	server.MaxIdleWorkerDuration = workerIdle
	route := server.Handler
	server.Handler = func(c *fasthttp.RequestCtx) {
		if !known[string(c.Method())] {
			c.Request.Header.SetMethod(otherMethod)
		}
		if target := c.URI().PathOriginal(); !bytes.HasPrefix(target, []byte("/")) {
			c.URI().SetPath("/" + string(target))
		}
		route(c)
	}
}

func (s *Server) statusDetail(status int) string {
	switch status {
	case http.StatusNotFound:
		if s.c.ProbesOnly {
			return "This process serves /health and /metrics only; the API is served by processes with the role api."
		}
		return "There is nothing at this path; see /api/docs."
	case http.StatusMethodNotAllowed:
		return "This path does not take this method; see the header Allow."
	case http.StatusRequestHeaderFieldsTooLarge:
		return "The request's header is larger than 16 KiB."
	case http.StatusRequestTimeout:
		return "The request did not arrive in time."
	case http.StatusBadRequest:
		return "This is not a valid HTTP request."
	default:
		return http.StatusText(status) + "."
	}
}

// Stream answers with content of a known size, read as the client takes it; it closes content. A client that takes nothing for
// 30 s is cut off.
func Stream(ctx huma.Context, header map[string]string, content io.ReadCloser, size int64) {
	c := humafiber.Unwrap(ctx)
	for name, value := range header {
		c.Set(name, value)
	}
	ctx.SetStatus(http.StatusOK)
	c.RequestCtx().SetBodyStream(&outflow{content, c.RequestCtx().Conn()}, int(size))
}

// outflow moves the write deadline on with every piece that the client took.
type outflow struct {
	io.ReadCloser
	conn net.Conn
}

// Read implements io.Reader.
func (o *outflow) Read(p []byte) (int, error) {
	if err := o.conn.SetWriteDeadline(time.Now().Add(bodyTimeout)); err != nil {
		return 0, err
	}
	return o.ReadCloser.Read(p)
}
