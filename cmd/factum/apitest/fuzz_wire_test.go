package apitest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/andybalholm/brotli"
)

// field is a header as it is sent.
type field struct{ name, value string }

// request is what the fuzz sends, byte for byte: Go's client would refuse to send half of it.
type request struct {
	op     *operation
	caller string // whose token it has
	method string
	params map[string]string // of the path, escaped
	tail   string            // put behind the path
	query  string
	fields []field
	body   []byte
	// missing is how many bytes of the body are announced and not sent; the connection's sending half ends then.
	missing  int
	mutated  []string // what was made of the valid request
	sentBody bool     // also an empty one
}

func (r *request) path() string {
	path := r.op.path
	for name, value := range r.params {
		path = strings.Replace(path, "{"+name+"}", value, 1)
	}
	return path + r.tail
}

func (r *request) target() string {
	if r.query == "" {
		return r.path()
	}
	return r.path() + "?" + r.query
}

// onTheWay is the path as a server sees it: without what looks like a query or a fragment.
func (r *request) onTheWay() string {
	path, _, _ := strings.Cut(r.path(), "#")
	path, _, _ = strings.Cut(path, "?")
	return path
}

func (r *request) header(name string) string {
	for _, f := range r.fields {
		if strings.EqualFold(f.name, name) {
			return f.value
		}
	}
	return ""
}

// set replaces a header, or adds it.
func (r *request) set(name, value string) {
	r.drop(name)
	r.fields = append(r.fields, field{name, value})
}

func (r *request) drop(name string) {
	kept := r.fields[:0]
	for _, f := range r.fields {
		if !strings.EqualFold(f.name, name) {
			kept = append(kept, f)
		}
	}
	r.fields = kept
}

func (r *request) bytes() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", r.method, r.target())
	if r.header("Host") == "" {
		b.WriteString("Host: factum.example\r\n")
	}
	for _, f := range r.fields {
		fmt.Fprintf(&b, "%s: %s\r\n", f.name, f.value)
	}
	if (r.sentBody || len(r.body) > 0) && r.header("Content-Length") == "" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(r.body)+r.missing)
	}
	b.WriteString("\r\n")
	b.Write(r.body)
	return b.Bytes()
}

// maxPasted is the longest body that is shown in the command itself.
const maxPasted = 2 << 10

// pasteable is the request as a command for a shell with $URL and $TOKEN; a long body goes into a file.
func (r *request) pasteable() string {
	var b strings.Builder
	fmt.Fprintf(&b, "curl -sS -i --path-as-is -X %s", r.method)
	for _, f := range r.fields {
		switch value := f.value; {
		case f.name == "Authorization" && r.caller != "" && strings.HasPrefix(value, "Bearer "):
			fmt.Fprintf(&b, ` -H "Authorization: Bearer $TOKEN"`)
		default:
			fmt.Fprintf(&b, " -H %s", shellQuoted(f.name+": "+value))
		}
	}
	switch {
	case len(r.body) > maxPasted:
		file, err := os.CreateTemp("", "factum-fuzz-*.body")
		if err == nil {
			_, err = file.Write(r.body)
			err = errors.Join(err, file.Close())
		}
		if err != nil {
			fmt.Fprintf(&b, " # the body of %d bytes could not be kept: %v", len(r.body), err)
			break
		}
		fmt.Fprintf(&b, " --data-binary @%s", file.Name())
	case len(r.body) > 0 && bytes.IndexByte(r.body, 0) >= 0:
		fmt.Fprintf(&b, " --data-binary @<(printf %%b %s)", shellQuoted(strings.ReplaceAll(strings.ReplaceAll(string(r.body), `\`, `\\`), "\x00", `\0000`)))
	case len(r.body) > 0:
		fmt.Fprintf(&b, " --data-binary %s", shellQuoted(string(r.body)))
	}
	fmt.Fprintf(&b, ` "$URL"%s`, shellQuoted(r.target()))
	if r.missing > 0 {
		fmt.Fprintf(&b, " # with a Content-Length that is larger by %d, and the connection's sending half closed", r.missing)
	}
	return fmt.Sprintf("%s   # TOKEN: %s; made of a valid request by: %s", b.String(), orNone(r.caller), orNone(strings.Join(r.mutated, ", ")))
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// shellQuoted writes any bytes but NUL as one word of bash.
func shellQuoted(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e || r == '\'' }) {
		return "'" + s + "'"
	}
	var b strings.Builder
	b.WriteString("$'")
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\'' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < 0x20 || c > 0x7e:
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteString("'")
	return b.String()
}

// reply is an answer with its body read.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// line is a connection that is kept between requests, as clients do: what one request leaves in it would meet the next.
type line struct {
	addr string
	conn *net.TCPConn
	in   *bufio.Reader
}

const answerWithin = 40 * time.Second // longer than any route of the fuzz may take

func (l *line) close() {
	if l.conn != nil {
		_ = l.conn.Close() // the server may have been faster
	}
	l.conn = nil
}

// send answers what came back. A connection that the server closed meanwhile, as it may between two requests, is replaced once.
func (l *line) send(r *request) (reply, error) {
	used := l.conn != nil
	a, err := l.try(r)
	if err != nil && used {
		l.close()
		a, err = l.try(r)
	}
	if err != nil {
		l.close()
	}
	return a, err
}

func (l *line) try(r *request) (reply, error) {
	if l.conn == nil {
		conn, err := net.DialTimeout("tcp", l.addr, answerWithin)
		if err != nil {
			return reply{}, err
		}
		l.conn, l.in = conn.(*net.TCPConn), bufio.NewReader(conn)
	}
	if err := l.conn.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return reply{}, err
	}
	// A server that refuses a body early may stop reading it: what it says counts, not that it was not listening to the end.
	_, sendErr := l.conn.Write(r.bytes())
	if r.missing > 0 && sendErr == nil {
		sendErr = l.conn.CloseWrite()
	}
	for {
		resp, err := http.ReadResponse(l.in, &http.Request{Method: r.method})
		if err != nil {
			return reply{}, errors.Join(fmt.Errorf("no answer: %w", err), sendErr)
		}
		body, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			return reply{}, fmt.Errorf("the answer %d broke off: %w", resp.StatusCode, err)
		}
		if resp.StatusCode < 200 {
			continue // 100 Continue
		}
		if resp.Close || r.missing > 0 || sendErr != nil {
			l.close()
		}
		if resp.ContentLength >= 0 {
			resp.Header.Set("Content-Length", fmt.Sprint(resp.ContentLength))
		}
		if body, err = plain(resp.Header.Get("Content-Encoding"), body); err != nil {
			return reply{}, fmt.Errorf("the answer %d cannot be unpacked: %w", resp.StatusCode, err)
		}
		return reply{resp.StatusCode, resp.Header, body}, nil
	}
}

// plain is a body without its coding; that of an answer to HEAD is empty.
func plain(coding string, body []byte) ([]byte, error) {
	if len(body) == 0 {
		return body, nil
	}
	switch coding {
	case "gzip":
		in, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(in)
	case "br":
		return io.ReadAll(brotli.NewReader(bytes.NewReader(body)))
	default:
		return body, nil
	}
}

func escaped(segment string) string { return url.PathEscape(segment) }
