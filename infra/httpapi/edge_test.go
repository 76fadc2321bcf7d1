package httpapi

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humafiber"
	"github.com/gofiber/fiber/v3"
)

func get(path string, header ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + strings.Join(append(header, ""), "\r\n") + "\r\n"
}

func TestTextsAreCompressedAsTheClientPrefers(t *testing.T) {
	long := strings.Repeat("a long answer ", 1000)
	s := New(Config{})
	answer := func(kind, body string, secret bool) fiber.Handler {
		return func(c fiber.Ctx) error {
			requestOf(c.Context()).secret = secret
			c.Set("Content-Type", kind)
			c.Set("ETag", `"d3"`)
			return c.SendString(body)
		}
	}
	s.app.Get("/json", answer("application/json", long, false))
	s.app.Get("/short", answer("application/json", "short", false))
	s.app.Get("/secret", answer("application/json", long, true))
	s.app.Get("/image", answer("image/png", long, false))
	s.app.Get("/stream", func(c fiber.Ctx) error {
		c.Set("Content-Type", "text/plain")
		return c.SendStream(strings.NewReader(long), len(long))
	})
	addr := serve(t, s)
	for _, c := range []struct{ path, accept, coding, tag string }{
		{"/json", "gzip", "gzip", `"d3.gzip"`},
		{"/json", "br", "br", `"d3.br"`},
		{"/json", "gzip, deflate, br", "br", `"d3.br"`},
		{"/json", "GZIP;q=0.5, br;q=0", "gzip", `"d3.gzip"`},
		{"/json", "br;q=0.2, gzip ; q=0.8", "gzip", `"d3.gzip"`},
		{"/json", "gzip;q=0.8, br;q=0.8", "br", `"d3.br"`},
		{"/json", "gzip;q=2, br;level=3", "", `"d3"`},
		{"/json", "identity", "", `"d3"`},
		{"/json", "", "", `"d3"`},
		{"/short", "br", "", `"d3"`},
		{"/secret", "gzip, br", "", `"d3"`},
		{"/image", "gzip, br", "", `"d3"`},
		{"/stream", "gzip, br", "", ""},
	} {
		t.Run(c.path+" "+c.accept, func(t *testing.T) {
			resp, body := raw(t, addr, get(c.path, "Accept-Encoding: "+c.accept))
			if resp.Header.Get("Content-Encoding") != c.coding || resp.Header.Get("Etag") != c.tag {
				t.Errorf("Content-Encoding %q, ETag %q", resp.Header.Get("Content-Encoding"), resp.Header.Get("Etag"))
			}
			if vary := resp.Header.Get("Vary"); (vary == "Accept-Encoding") != (c.path == "/json") {
				t.Errorf("Vary %q", vary)
			}
			var in io.Reader = strings.NewReader(string(body))
			switch c.coding {
			case "br":
				in = brotli.NewReader(in)
			case "gzip":
				var err error
				if in, err = gzip.NewReader(in); err != nil {
					t.Fatal(err)
				}
			}
			plain, err := io.ReadAll(in)
			if want := map[bool]string{true: "short", false: long}[c.path == "/short"]; err != nil || string(plain) != want {
				t.Errorf("%d bytes, %v", len(plain), err)
			}
			if c.coding != "" && len(body) > len(long)/4 {
				t.Errorf("%d of %d bytes", len(body), len(long))
			}
		})
	}
}

func TestOnlyNamedOriginsMayCallFromABrowser(t *testing.T) {
	addr := serve(t, New(Config{Origins: []string{"https://app.example"}}))
	preflight := func(origin string) *http.Response {
		resp, _ := raw(t, addr, "OPTIONS /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nOrigin: "+origin+
			"\r\nAccess-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: authorization, if-match, idempotency-key\r\n\r\n")
		return resp
	}
	h := preflight("https://app.example").Header
	if h.Get("Access-Control-Allow-Origin") != "https://app.example" || h.Get("Access-Control-Allow-Credentials") != "true" || h.Get("Access-Control-Max-Age") != "3600" ||
		!strings.Contains(h.Get("Access-Control-Allow-Methods"), "PUT") || !strings.Contains(h.Get("Access-Control-Allow-Headers"), "If-Match") {
		t.Errorf("%v", h)
	}
	for _, origin := range []string{"https://evil.example", "https://app.example.evil.example", "null", "http://app.example"} {
		if got := preflight(origin).Header.Get("Access-Control-Allow-Origin"); got != "" {
			t.Errorf("%s is answered %q", origin, got)
		}
	}
	resp, _ := raw(t, addr, get("/health", "Origin: https://app.example"))
	if exposed := resp.Header.Get("Access-Control-Expose-Headers"); !strings.Contains(exposed, "ETag") || !strings.Contains(exposed, "RateLimit") || !strings.Contains(exposed, "Factum-Position") {
		t.Errorf("exposed: %q", exposed)
	}
	// Without the setting there is no CORS at all.
	resp, _ = raw(t, serve(t, New(Config{})), get("/health", "Origin: https://app.example"))
	if got := resp.Header.Get("Access-Control-Allow-Origin"); got != "" {
		t.Errorf("without a setting: %q", got)
	}
}

func TestFilesOfTheDocumentationAreCompressedForThoseWhoSaySo(t *testing.T) {
	addr := serve(t, New(Config{Origins: []string{"https://app.example"}}))
	for accept, want := range map[string]string{"gzip": "gzip", "gzip;q=0": "", "x-gzip": "", "": ""} {
		resp, _ := raw(t, addr, get("/api/docs/swagger-ui-bundle.js", "Accept-Encoding: "+accept, "Origin: https://app.example"))
		if got := resp.Header.Get("Content-Encoding"); got != want {
			t.Errorf("%q: Content-Encoding %q", accept, got)
		}
		if vary := strings.Join(resp.Header.Values("Vary"), ", "); !strings.Contains(vary, "Origin") || !strings.Contains(vary, "Accept-Encoding") {
			t.Errorf("Vary %q", vary)
		}
	}
}

func TestAnswersTellBrowsersWhatNotToDo(t *testing.T) {
	for tls, want := range map[bool]string{true: "max-age=31536000", false: ""} {
		resp, _ := raw(t, serve(t, New(Config{TLS: tls})), get("/health"))
		if got := resp.Header.Get("Strict-Transport-Security"); got != want {
			t.Errorf("TLS %v: Strict-Transport-Security %q", tls, got)
		}
	}
	addr := serve(t, New(Config{}))
	const nothing = "default-src 'none'; frame-ancestors 'none'"
	for path, policy := range map[string]string{
		get("/health"): nothing, get("/nowhere"): nothing, get("/api/docs/"): docsPolicy, "BREW / HTTP/1.1\r\nHost: x\r\n\r\n": nothing,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": nothing, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n": nothing, "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n": nothing, "nonsense\r\n\r\n": nothing, get("/health", "X-Long: "+strings.Repeat("x", 17<<10)): nothing,
		"GET /health HTTP/1.0\r\n\r\n": nothing, "OPTIONS /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n": nothing,
	} {
		resp, _ := raw(t, addr, path)
		path = fmt.Sprintf("%.30q", path)
		if _, err := http.ParseTime(resp.Header.Get("Date")); err != nil || resp.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s: Date %q, X-Request-Id %q", path, resp.Header.Get("Date"), resp.Header.Get("X-Request-Id"))
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Content-Security-Policy": policy} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s: %s %q; want %q", path, name, got, want)
			}
		}
		if policy == nothing && resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: Cache-Control %q", path, resp.Header.Get("Cache-Control"))
		}
	}
}

func TestATraceparentThatIsNotValidIsNone(t *testing.T) {
	const trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	for header, want := range map[string]string{
		"00-" + trace + "-" + parent + "-01":                   trace,
		"cc-" + trace + "-" + parent + "-01-what.will.come":    trace,
		"00-" + trace + "-" + parent + "-01-more":              "",
		"ff-" + trace + "-" + parent + "-01":                   "",
		"00-" + strings.Repeat("0", 32) + "-" + parent + "-01": "",
		"00-" + trace + "-" + strings.Repeat("0", 16) + "-01":  "",
		"00-" + strings.ToUpper(trace) + "-" + parent + "-01":  "",
		"00-" + trace + "-" + parent:                           "",
		"":                                                     "",
	} {
		if got := traceOf(header); got != want {
			t.Errorf("%q: %q; want %q", header, got, want)
		}
	}
}

// TestAClientThatTricklesIsCutOff sends a header slower than anybody may, which would otherwise hold a connection for ever.
func TestAClientThatTricklesIsCutOff(t *testing.T) {
	const within = 300 * time.Millisecond
	addr := serve(t, New(Config{headerWithin: within}))
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	start := time.Now()
	if err := conn.SetDeadline(start.Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, conn) // ends when the server ends the connection
		closed <- err
	}()
	if _, err := io.WriteString(conn, "GET /health HTTP/1.1\r\nHost: x\r\n"); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case err := <-closed:
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Fatal("the connection was held for 20 s")
			}
			if took := time.Since(start); took < within {
				t.Errorf("cut off after %v already", took)
			}
			return
		case <-tick.C:
			if _, err := fmt.Fprintf(conn, "X-%d: y\r\n", i); err != nil {
				tick.Stop() // it is closed; the reader says so too
			}
		}
	}
}

// TestABodyThatStallsIsAnswered408 sends no more than a part of a body and waits. What is not JSON, or has a length that was not announced, is read by
// other code.
func TestABodyThatStallsIsAnswered408(t *testing.T) {
	const within = 300 * time.Millisecond
	s := New(Config{headerWithin: within})
	type named struct {
		Body struct {
			Name string `json:"name"`
		}
	}
	ran := make(chan string, 1)
	op := Op{ID: "test-json", Method: http.MethodPost, Path: "/api/auth/login", Accepts: true}
	Route(s.API(), op, func(context.Context, *named) (*struct{}, error) {
		ran <- "the JSON route"
		return &struct{}{}, nil
	})
	operationOf(s.API(), op).BodyReadTimeout = within
	s.app.Post("/upload", func(c fiber.Ctx) error {
		ctx, cancel := context.WithTimeout(c.Context(), within)
		defer cancel()
		in, err := Inflow(huma.WithContext(humafiber.NewContext(operationOf(s.API(), op), c), ctx), 1<<30)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, in)
		return err
	})
	addr := serve(t, s)
	some := `{"name":"` + strings.Repeat("x", 100)
	for name, c := range map[string]struct{ path, length, body, instance string }{
		"not a byte":            {"/api/auth/login", "Content-Length: 1000", "", "/"}, // it is read before anybody knows the route
		"a few bytes":           {"/api/auth/login", "Content-Length: 1000", some, "/api/auth/login"},
		"much, but not all":     {"/api/auth/login", "Content-Length: 900000", some + strings.Repeat("x", 500_000), "/api/auth/login"},
		"half a chunk":          {"/api/auth/login", "Transfer-Encoding: chunked", "fff\r\n" + some, "/api/auth/login"},
		"no last chunk":         {"/api/auth/login", "Transfer-Encoding: chunked", fmt.Sprintf("%x\r\n%s\r\n", len(some), some), "/api/auth/login"},
		"an upload":             {"/upload", "Content-Length: 100000000", strings.Repeat("x", 2<<20), "/upload"},
		"an upload of no bytes": {"/upload", "Content-Length: 1000", "x", "/upload"},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			resp, body := raw(t, addr, "POST "+c.path+" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"+c.length+"\r\n\r\n"+c.body)
			wantProblem(t, resp, body, http.StatusRequestTimeout, "request_timeout")
			var p Problem
			if err := json.Unmarshal(body, &p); err != nil || p.Instance != c.instance {
				t.Errorf("instance %q, %v; want %q", p.Instance, err, c.instance)
			}
			if took := time.Since(began); took < within || took > within+drainFor {
				t.Errorf("it took %v; want a little more than %v", took, within)
			}
			if !resp.Close {
				t.Error("the connection stays open, and the rest of the body would be taken for a request")
			}
		})
	}
	select {
	case what := <-ran:
		t.Error("half a body was taken by", what)
	default:
	}
}

// TestALongLineIsNamedForWhatItIs has, before a header that is too long, a body without a line feed.
func TestALongLineIsNamedForWhatItIs(t *testing.T) {
	addr := serve(t, New(Config{}))
	var d net.Dialer
	for what, next := range map[string]string{
		"431 request_header_fields_too_large": "GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("x", 20<<10),
		"414 uri_too_long":                    "GET /health?" + strings.Repeat("x", 20<<10),
	} {
		conn, err := d.DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n"+strings.Repeat("x", 30000)+next); err != nil {
			t.Fatal(err)
		}
		answers := bufio.NewReader(conn)
		for _, want := range []string{"404 not_found", what} {
			resp, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			var p Problem
			err = json.NewDecoder(resp.Body).Decode(&p)
			if got := fmt.Sprint(resp.StatusCode, " ", p.Fault.Code); err != nil || got != want {
				t.Errorf("%s, %v; want %s", got, err, want)
			}
			resp.Body.Close()
		}
	}
}

// TestAnswersDoNotDependOnAccept has headers that clients send without thinking: none is worth to be refused what was asked for.
func TestAnswersDoNotDependOnAccept(t *testing.T) {
	addr := serve(t, New(Config{}))
	for _, accept := range []string{"", "*/*", "text/html", "application/xml;q=0.9", "application/json;q=0", "nonsense"} {
		for path, kind := range map[string]string{"/health": "application/json", "/nowhere": problemType} {
			resp, body := raw(t, addr, get(path, "Accept: "+accept))
			if resp.Header.Get("Content-Type") != kind || resp.StatusCode == http.StatusNotAcceptable || !json.Valid(body) {
				t.Errorf("%s, Accept %q: %d %s %s", path, accept, resp.StatusCode, resp.Header.Get("Content-Type"), body)
			}
		}
	}
}

func TestAStopFinishesRequestsThatRun(t *testing.T) {
	s := New(Config{})
	running, goOn := make(chan struct{}), make(chan struct{})
	s.app.Get("/slow", func(c fiber.Ctx) error {
		close(running)
		<-goOn
		return c.SendString("finished")
	})
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Listen(ln) }()
	addr := ln.Addr().String()

	var d net.Dialer
	idle, err := d.DialContext(t.Context(), "tcp", addr) // a connection that is kept for a next request holds nobody up
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if _, err := io.WriteString(idle, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	first, err := http.ReadResponse(bufio.NewReader(idle), nil)
	if err != nil {
		t.Fatal(err)
	}
	first.Body.Close()

	answered := make(chan string, 1)
	go func() {
		resp, body := raw(t, addr, get("/slow"))
		answered <- fmt.Sprint(resp.StatusCode, " ", string(body))
	}()
	<-running
	stopped := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		defer cancel()
		stopped <- s.Shutdown(ctx)
	}()
	if err := <-served; err != nil { // the listener is closed
		t.Error(err)
	}
	if conn, err := d.DialContext(t.Context(), "tcp", addr); err == nil {
		conn.Close()
		t.Error("a server that is being stopped takes new connections")
	}
	select {
	case err := <-stopped:
		t.Error("it stopped while a request ran:", err)
	default:
	}
	close(goOn)
	if got := <-answered; got != "200 finished" {
		t.Errorf("the running request was answered %s", got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
