package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofiber/fiber/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// serve starts the server on a free port and returns its address.
func serve(t *testing.T, s *Server) string {
	t.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Listen(ln) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error("shut down:", err)
		}
		if err := <-done; err != nil {
			t.Error("listen:", err)
		}
	})
	return ln.Addr().String()
}

// raw sends bytes and reads one answer.
func raw(t *testing.T, addr, request string) (*http.Response, []byte) {
	t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%.60q: %v", request, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%.60q: %v", request, err)
	}
	return resp, body
}

// wantProblem asserts the one error form.
func wantProblem(t *testing.T, resp *http.Response, body []byte, status int, code string) {
	t.Helper()
	if got := resp.Header.Get("Content-Type"); got != problemType {
		t.Errorf("Content-Type %q; want %q (body %.200s)", got, problemType, body)
	}
	var p map[string]any
	if err := json.Unmarshal(body, &p); err != nil {
		t.Fatalf("%v in %.200s", err, body)
	}
	fault, _ := p["error"].(map[string]any)
	if resp.StatusCode != status || p["status"] != float64(status) || p["success"] != false || fault["code"] != code || fault["message"] == "" ||
		p["title"] != http.StatusText(status) || p["type"] != "about:blank" || p["detail"] != fault["message"] || p["instance"] == nil {
		t.Errorf("status %d, body %s; want %d %s", resp.StatusCode, body, status, code)
	}
}

func TestWhatNoRouteAnswersHasTheOneErrorForm(t *testing.T) {
	s := New(Config{})
	s.app.Get("/panic", func(fiber.Ctx) error { panic("the secret text") })
	s.app.Get("/fails", func(fiber.Ctx) error { return errors.New("the secret text") })
	addr := serve(t, s)
	head := " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
	for _, c := range []struct {
		request string
		status  int
		code    string
	}{
		{"GET /nothing/here" + head + "\r\n", 404, "not_found"},
		{"GET /health/" + head + "\r\n", 404, "not_found"},
		{"GET /HEALTH" + head + "\r\n", 404, "not_found"},
		{"GET /%zz%00" + head + "\r\n", 404, "not_found"},
		{"GET /api/docs/../../etc/passwd" + head + "\r\n", 404, "not_found"},
		{"GET /api/docs/index.html" + head + "\r\n", 404, "not_found"},
		{"DELETE /health" + head + "\r\n", 405, "method_not_allowed"},
		{"BREW /health" + head + "\r\n", 405, "method_not_allowed"},
		{"BREW /nowhere" + head + "\r\n", 404, "not_found"},
		{"OPTIONS *" + head + "\r\n", 404, "not_found"},
		{"CONNECT x:1" + head + "\r\n", 404, "not_found"},
		{"GET /health" + head + "X-Long: " + strings.Repeat("x", 20<<10) + "\r\n\r\n", 431, "request_header_fields_too_large"},
		{"GET /health" + head + strings.Repeat("X-Short: x\r\n", 2<<10) + "\r\n", 431, "request_header_fields_too_large"},
		{"GET /health?" + strings.Repeat("x", 16<<10-40) + head + "X-Long: " + strings.Repeat("x", 16<<10) + "\r\n\r\n", 431, "request_header_fields_too_large"},
		{"GET /health?" + strings.Repeat("x", 20<<10) + head + "\r\n", 414, "uri_too_long"},
		{"GET /health?" + strings.Repeat("x", 200<<10) + head + "\r\n", 414, "uri_too_long"},
		{"nonsense\r\n\r\n", 400, "bad_request"},
		{"GET /panic" + head + "\r\n", 500, "internal_server_error"},
		{"GET /fails" + head + "\r\n", 500, "internal_server_error"},
	} {
		resp, body := raw(t, addr, c.request)
		t.Run(fmt.Sprintf("%.30q", c.request), func(t *testing.T) {
			wantProblem(t, resp, body, c.status, c.code)
			if strings.Contains(string(body), "secret") {
				t.Errorf("the body repeats an internal text: %s", body)
			}
		})
	}
}

func TestOptionsNamesTheAllowedMethods(t *testing.T) {
	resp, _ := raw(t, serve(t, New(Config{})), "OPTIONS /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if resp.StatusCode != http.StatusNoContent || !strings.Contains(resp.Header.Get("Allow"), "GET") {
		t.Errorf("status %d, Allow %q", resp.StatusCode, resp.Header.Get("Allow"))
	}
}

func TestEveryAnswerHasAnIdAndSafeHeaders(t *testing.T) {
	addr := serve(t, New(Config{Version: "9.9"}))
	resp, body := raw(t, addr, "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: my-id.1\r\n\r\n")
	if resp.StatusCode != 200 || string(body) != `{"status":"healthy","service":"factum","version":"9.9"}`+"\n" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	for name, want := range map[string]string{"X-Request-Id": "my-id.1", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cache-Control": "no-store"} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q; want %q", name, got, want)
		}
	}
	resp, _ = raw(t, addr, "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: <script>\r\n\r\n")
	if got := resp.Header.Get("X-Request-Id"); len(got) != 36 {
		t.Errorf("a malformed X-Request-Id was answered with %q", got)
	}
}

func TestAnUnreadBodyIsNotTakenForTheNextRequest(t *testing.T) {
	smuggled := "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, size := range map[string]int{"small": len(smuggled), "large": 3 << 20} {
		t.Run(name, func(t *testing.T) {
			body := smuggled + strings.Repeat("x", size-len(smuggled))
			resp, answer := raw(t, serve(t, New(Config{})), fmt.Sprintf("POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", size, body)+
				"GET /also/nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			wantProblem(t, resp, answer, 404, "not_found")
			if name == "large" && !resp.Close {
				t.Error("the connection stays open although 3 MiB of the body were not read")
			}
		})
	}
}

// TestTheRefusalOfALargeHeaderIsNotLost: closing a socket with unread bytes would reset it before the client has read the answer.
func TestTheRefusalOfALargeHeaderIsNotLost(t *testing.T) {
	addr := serve(t, New(Config{}))
	for range 20 {
		resp, body := raw(t, addr, "GET /health HTTP/1.1\r\nHost: x\r\nX-Long: "+strings.Repeat("x", 1<<20)+"\r\n\r\n")
		wantProblem(t, resp, body, 431, "request_header_fields_too_large")
	}
}

// TestNoRouteGoesPastThePolicy looks at the router itself: what is registered there and not by [Route] is in no document.
func TestNoRouteGoesPastThePolicy(t *testing.T) {
	s := New(Config{MetricsHandler: http.NotFoundHandler()})
	for _, r := range s.app.GetRoutes(true) {
		path := strings.NewReplacer(":asset", "{asset}").Replace(r.Path)
		if method := strings.Replace(r.Method, "HEAD", "GET", 1); rules[method+" "+path].Access != Anyone {
			t.Errorf("%s %s is registered without a row for everybody in Policy", r.Method, r.Path)
		}
	}
}

func TestTheDocumentationNeedsNoOutsideHost(t *testing.T) {
	addr := serve(t, New(Config{}))
	resp, body := raw(t, addr, "GET /api/docs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if resp.StatusCode != http.StatusPermanentRedirect || resp.Header.Get("Location") != "/api/docs/" {
		t.Errorf("%d %q %s", resp.StatusCode, resp.Header.Get("Location"), body)
	}
	for path, want := range map[string]string{
		"/api/docs/": "swagger-ui-bundle.js", "/api/docs/start.js": "/api/docs/openapi.json", "/api/docs/swagger-ui.css": ".swagger-ui",
		"/api/docs/swagger-ui-bundle.js": "SwaggerUIBundle", "/api/docs/swagger.yaml": "openapi: 3.0.3", "/api/docs/openapi.json": `"openapi":"3.1.0"`,
	} {
		resp, body := raw(t, addr, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if resp.StatusCode != 200 || !strings.Contains(string(body), want) {
			t.Errorf("%s: status %d without %q", path, resp.StatusCode, want)
		}
		if (path == "/api/docs/" || path == "/api/docs/start.js") && strings.Contains(string(body), "//") {
			t.Errorf("%s names a host: %s", path, body)
		}
	}
}

func TestRequestsAreLoggedAndCountedWithoutTheirPaths(t *testing.T) {
	var log strings.Builder
	registry := prometheus.NewRegistry()
	s := New(Config{Logger: slog.New(slog.NewTextHandler(&log, nil)), Metrics: registry})
	addr := serve(t, s)
	raw(t, addr, "GET /mina@plant.example HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	raw(t, addr, "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n")
	if got := log.String(); strings.Contains(got, "mina") || !strings.Contains(got, "route=/health status=200") ||
		!strings.Contains(got, "trace_id=0af7651916cd43dd8448eb211c80319c") || !strings.Contains(got, "route=none status=404") {
		t.Error(got)
	}
	families, err := registry.Gather()
	if err != nil || len(families) != 2 {
		t.Errorf("%d metrics, %v; want 2", len(families), err)
	}
}

// TestAFloodIsRefusedCheaply: who comes when there are too many is refused before anything else is looked at, told when to come back, counted,
// and not given a line of the log each.
func TestAFloodIsRefusedCheaply(t *testing.T) {
	var log strings.Builder
	registry := prometheus.NewRegistry()
	s := New(Config{Logger: slog.New(slog.NewTextHandler(&log, nil)), Metrics: registry})
	var flood atomic.Pointer[Problem]
	flood.Store(Overloaded("Too many."))
	type named struct {
		Body struct {
			Name string `json:"name"`
		}
	}
	Route(s.API(), Op{ID: "test-flood", Method: http.MethodPost, Path: "/api/auth/login", Accepts: true, Overloaded: func() error {
		if p := flood.Load(); p != nil {
			return p
		}
		return nil
	}}, func(context.Context, *named) (*struct{}, error) { return &struct{}{}, nil })
	addr := serve(t, s)
	const refused = 50
	const head = "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 6\r\n"
	began := time.Now()
	for range refused {
		resp, body := raw(t, addr, head+"\r\nnojson") // nobody says that it is none
		wantProblem(t, resp, body, http.StatusServiceUnavailable, "service_unavailable")
		if resp.Header.Get("Retry-After") != "1" {
			t.Errorf("Retry-After %q", resp.Header.Get("Retry-After"))
		}
	}
	took := time.Since(began)
	if lines := strings.Count(log.String(), "\n"); lines < 1 || time.Duration(lines-1)*time.Second > took {
		t.Errorf("%d lines of the log in %v: %s", lines, took, log.String())
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "factum_http_requests_total" && (len(f.GetMetric()) != 1 || f.GetMetric()[0].GetCounter().GetValue() != refused) {
			t.Errorf("counted %v; want %d", f.GetMetric(), refused)
		}
	}
	flood.Store(nil)
	if resp, body := raw(t, addr, head+"Content-Type: text/plain\r\n\r\nnojson"); resp.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("after the flood %d: %s", resp.StatusCode, body)
	}
}

func TestATimeHasMicrosecondsAndZ(t *testing.T) {
	at := time.Date(2025, 3, 4, 10, 15, 30, 123456789, time.FixedZone("", 3600))
	for in, want := range map[time.Time]string{at: `"2025-03-04T09:15:30.123456Z"`, at.Truncate(time.Second): `"2025-03-04T09:15:30.000000Z"`} {
		if got, err := json.Marshal(Time(in)); err != nil || string(got) != want {
			t.Errorf("%s, %v; want %s", got, err, want)
		}
	}
}

func TestABearerTokenIsReadStrictly(t *testing.T) {
	for header, want := range map[string]error{
		"": errNoToken, "Bearer": auth.ErrInvalidToken, "Bearer  ": auth.ErrInvalidToken, "Basic abc": auth.ErrInvalidToken, "Bearer abc": nil, "bearer abc": nil,
	} {
		if _, err := bearer(header); !errors.Is(err, want) {
			t.Errorf("%q: %v; want %v", header, err, want)
		}
	}
}
