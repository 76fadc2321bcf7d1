package apitest

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// draft is a request before its body is written.
type draft struct {
	*request
	tree  any       // of a JSON body; nil has none
	parts []rawPart // of a form
}

// rawPart is a part of a form: its header's lines, and the content.
type rawPart struct {
	lines   []string
	content string
}

const boundary = "factum-fuzz-boundary"

// finish writes the body.
func (d *draft) finish() *request {
	switch {
	case d.body != nil:
	case d.tree != nil:
		d.body = encoded(d.tree)
	case d.parts != nil:
		d.body = formOf(d.parts)
	}
	d.sentBody = d.sentBody || d.method != http.MethodGet && d.method != http.MethodHead
	return d.request
}

func formOf(parts []rawPart) []byte {
	var b bytes.Buffer
	for _, p := range parts {
		fmt.Fprintf(&b, "--%s\r\n%s\r\n\r\n%s\r\n", boundary, strings.Join(p.lines, "\r\n"), p.content)
	}
	fmt.Fprintf(&b, "--%s--\r\n", boundary)
	return b.Bytes()
}

// mutation makes something of a valid request that no client would send; it says false where there is nothing to change.
type mutation struct {
	name  string
	apply func(g *generator, d *draft) bool
}

var mutations = []mutation{
	{"a hostile path parameter", (*generator).hostileParam},
	{"a path that is none", (*generator).brokenPath},
	{"a hostile query", (*generator).hostileQuery},
	{"a hostile query", (*generator).hostileQuery},
	{"a hostile header", (*generator).hostileHeader},
	{"a hostile header", (*generator).hostileHeader},
	{"another method", (*generator).otherMethod},
	{"a hostile value in the body", (*generator).hostileValue},
	{"a hostile value in the body", (*generator).hostileValue},
	{"a hostile value in the body", (*generator).hostileValue},
	{"other keys in the body", (*generator).otherKeys},
	{"a broken body", (*generator).brokenBody},
	{"a hostile part", (*generator).hostilePart},
	{"a hostile part", (*generator).hostilePart},
	{"a body where none belongs", (*generator).strayBody},
}

// mutate applies one to three of them.
func (g *generator) mutate(d *draft) {
	for n := 1 + g.IntN(3); n > 0; {
		m := one(g, mutations)
		if m.apply(g, d) {
			d.mutated = append(d.mutated, m.name)
			n--
		}
	}
}

// forPath writes any text as a client that knows HTTP would, or as one that does not, but for what would end the request line.
func (g *generator) forPath(text string) string {
	if g.chance(70) {
		return escaped(text)
	}
	return strings.NewReplacer(" ", "%20", "\r", "%0d", "\n", "%0a", "\t", "%09", "\x00", "%00").Replace(text)
}

func (g *generator) hostileParam(d *draft) bool {
	names := keys(d.params)
	if len(names) == 0 {
		return false
	}
	name := one(g, names)
	switch g.IntN(6) {
	case 0:
		d.params[name] = g.uuid() // unknown
	case 1:
		d.params[name] = strings.ToUpper(d.params[name])
	case 2:
		d.params[name] = one(g, g.ids["foreign"])
	case 3:
		d.params[name] = g.id(one(g, keys(g.ids))) // of something else
	default:
		d.params[name] = g.forPath(g.nasty())
	}
	return true
}

func (g *generator) brokenPath(d *draft) bool {
	d.tail = one(g, []string{"/", "//", "/..", "/.", "/%2e%2e/", ";jsessionid=1", "%00", "%", "/x", ".json", "#part", "%20", "/../../../../etc/passwd", "\xff"})
	return true
}

func (g *generator) hostileQuery(d *draft) bool {
	var names []string
	for _, p := range d.op.spec.Parameters {
		if p.Value.In == "query" {
			names = append(names, p.Value.Name)
		}
	}
	name := one(g, append(names, "unknown", "__proto__", "page[]"))
	value := url.QueryEscape(g.nasty())
	if g.chance(15) {
		value = g.forPath(g.nasty()) // not escaped as a query
	}
	more := name + "=" + strings.NewReplacer("#", "%23", " ", "%20").Replace(value)
	if g.chance(10) {
		more = one(g, []string{"&&=&%zz=%", "=", "?", name, name + "=" + name + "=", strings.Repeat("a=1&", g.IntN(2000)), name + "=" + strings.Repeat("9", 400)})
	}
	if d.query != "" {
		more = d.query + "&" + more
	}
	d.query = more
	return true
}

// headerValues are hostile values of headers that somebody looks at. A Factum-Min-Position that the log has not reached is answered 503, as
// described, after 2 s; so large ones are only such as no log can reach.
var headerValues = map[string][]string{
	"Idempotency-Key":               {"", " ", "a b", "é", strings.Repeat("k", 200), strings.Repeat("k", 201), "../..", "a\"b", "'; --", "\x7f", "same"},
	"Factum-Min-Position":           {"-1", "x", "1.5", "", "0", "1", "00", "+1", "0x1", "18446744073709551616", "18446744073709551615", "9223372036854775808", "1e3", " 1", "1;2", "٣"},
	"If-Match":                      {"*", `"1"`, `W/"1"`, `"1", "2"`, "1", `"`, `"99999999999999999999"`, `"-1"`, `""`, "x", strings.Repeat(`"1",`, 300)},
	"If-None-Match":                 {"*", `"1"`, `W/"x"`, `"`, ""},
	"If-Modified-Since":             {"Sat, 29 Oct 1994 19:43:31 GMT", "never", ""},
	"Range":                         {"bytes=0-0", "bytes=-1", "bytes=5-1", "bytes=0-99999999999999999999", "bytes=", "bytes=0-,0-,0-,0-", "lines=1-2", "bytes=9999999-"},
	"Accept":                        {"text/html", "application/xml", "*/*;q=0", "application/json;q=0", "", "a", "application/cbor", "application/problem+json", strings.Repeat("text/a,", 400)},
	"Accept-Encoding":               {"gzip", "br", "gzip, br, zstd", "identity;q=0", "*;q=0", "x", ""},
	"Content-Type":                  {"", "text/plain", "application/xml", "application/json; charset=utf-16", "application/json; charset=utf-8", "application/json;", "APPLICATION/JSON", "application/cbor", "multipart/form-data", `multipart/form-data; boundary="`, "multipart/form-data; boundary=" + strings.Repeat("b", 100), "application/x-www-form-urlencoded", "a/b/c", "*/*", "application/problem+json"},
	"Content-Encoding":              {"gzip", "br", "deflate", "x"},
	"Transfer-Encoding":             {"gzip", "identity"},
	"Authorization":                 {"", "Bearer", "Bearer ", "Basic YWRtaW46YWRtaW4=", "bearer x.y.z", "Bearer " + strings.Repeat("a.", 3000), "Bearer fk_x", "Bearer fk_" + strings.Repeat("A", 60), "Bearer eyJhbGciOiJub25lIn0.e30.", "Digest", "Bearer \xff", "Bearer a b"},
	"X-Request-Id":                  {"", "<script>", strings.Repeat("r", 65), "a b", "é"},
	"Traceparent":                   {"00-00000000000000000000000000000000-0000000000000000-00", "x", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", strings.Repeat("0", 300)},
	"X-Forwarded-For":               {"127.0.0.1", "1.2.3.4, 5.6.7.8", "::1", "x", strings.Repeat("1.1.1.1,", 200)},
	"X-Forwarded-Host":              {"evil.example"},
	"X-Http-Method-Override":        {"DELETE"},
	"X-Original-Url":                {"/metrics"},
	"Origin":                        {"https://evil.example", "null", "x"},
	"Access-Control-Request-Method": {"DELETE"},
	"Host":                          {"evil.example", "a b", "127.0.0.1:99999", "[::1", "x\"y"},
	"Expect":                        {"100-continue", "200-ok"},
	"Connection":                    {"close", "upgrade", "keep-alive", "x"},
	"Upgrade":                       {"websocket", "h2c"},
	"Cookie":                        {"a=b; a=c", "=;;=", strings.Repeat("c=d; ", 200)},
	"User-Agent":                    {"", "<script>alert(1)</script>", "é\xff", strings.Repeat("u", 5000), "'; --"},
	"Prefer":                        {"return=minimal"},
	"Te":                            {"trailers"},
}

func (g *generator) hostileHeader(d *draft) bool {
	switch g.IntN(20) {
	case 0: // larger than the server reads
		d.set("X-Large", strings.Repeat("x", 20<<10))
	case 1:
		for i := range 100 {
			d.fields = append(d.fields, field{"X-Many-" + strconv.Itoa(i), "x"})
		}
	case 2:
		name := one(g, []string{"Authorization", "Content-Type", "Idempotency-Key", "Accept"})
		d.fields = append(d.fields, field{name, one(g, headerValues[name])}) // once more
	default:
		name := one(g, keys(headerValues))
		d.set(name, one(g, headerValues[name]))
		if name == "Authorization" {
			d.caller = "" // it is nobody's token now
		}
	}
	return true
}

func (g *generator) otherMethod(d *draft) bool {
	d.method = one(g, []string{"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"})
	return true
}

// slots are all places of a value in a body.
func slots(root *any) []*any {
	out := []*any{root}
	switch x := (*root).(type) {
	case object:
		for i := range x {
			out = append(out, slots(&x[i].value)...)
		}
	case array:
		for i := range x {
			out = append(out, slots(&x[i])...)
		}
	}
	return out
}

func (g *generator) hostileValue(d *draft) bool {
	if d.tree == nil || d.body != nil {
		return false
	}
	all := slots(&d.tree)
	if len(all) > 1 && g.chance(95) {
		all = all[1:] // seldom the whole body
	}
	at := one(g, all)
	if _, text := (*at).(string); text && g.chance(60) {
		*at = g.nasty() // of the right type
	} else {
		*at = g.wrong()
	}
	return true
}

func (g *generator) otherKeys(d *draft) bool {
	o, ok := d.tree.(object)
	if !ok || len(o) == 0 || d.body != nil {
		return false
	}
	i := g.IntN(len(o))
	switch g.IntN(5) {
	case 0:
		o = append(o[:i:i], o[i+1:]...)
	case 1:
		o = append(o, o[i])
	case 2:
		o = append(o, member{o[i].key, g.wrong()})
	case 3:
		o[i].key = strings.ToUpper(o[i].key)
	default:
		o = append(o, member{one(g, []string{"id", "role", "is_admin", "__proto__", "constructor", "$schema", "tenant_id", g.nasty()}), g.wrong()})
	}
	d.tree = o
	return true
}

func (g *generator) brokenBody(d *draft) bool {
	if d.tree == nil && d.parts == nil || d.body != nil {
		return false
	}
	body := bytes.Clone(d.finish().body)
	switch g.IntN(9) {
	case 0:
		body = body[:g.IntN(len(body)+1)]
	case 1:
		d.missing = 1 + g.IntN(500)
	case 2:
		body[g.IntN(len(body))] = byte(g.IntN(256))
	case 3:
		body = append(body, []byte(one(g, []string{"{}", "x", "\x00", ",", "]", strings.Repeat(" ", 1000)}))...)
	case 4:
		body = append([]byte("\ufeff"), body...)
	case 5:
		body = []byte(one(g, []string{"", "null", "[]", "0", `"x"`, "true", "{", `{"a":`, "[[", "\x00", "\xff", "{}{}", "<xml/>", "a=b&c=d", "%PDF-1.7", "\x1f\x8b\x08\x00", "--" + boundary + "--"}))
	case 6:
		at := g.IntN(len(body))
		body = append(body[:at:at], append([]byte(g.nasty()), body[at:]...)...)
	case 7:
		if !g.chance(20) {
			return false
		}
		body = append(body[:len(body)-1:len(body)-1], bytes.Repeat([]byte(" "), 1<<20)...) // more than a JSON body may have
	default:
		body = bytes.ReplaceAll(body, []byte(boundary), []byte("another"))
	}
	d.body = body
	return true
}

func (g *generator) hostilePart(d *draft) bool {
	if len(d.parts) == 0 || d.body != nil {
		return false
	}
	i := g.IntN(len(d.parts))
	text := strings.NewReplacer("\r", "", "\n", "").Replace(g.nasty()) // it stands in a header
	switch g.IntN(9) {
	case 0:
		d.parts[i].lines[0] = `Content-Disposition: form-data; name="file"; filename="` + text + `"`
	case 1:
		d.parts[i].lines[0] = `Content-Disposition: form-data; name="` + text + `"`
	case 2:
		d.parts = append(d.parts, d.parts[i])
	case 3:
		d.parts = append(d.parts, rawPart{[]string{`Content-Disposition: form-data; name="` + one(g, []string{"filename", "mime_type"}) + `"`}, g.nasty()})
	case 4:
		d.parts[i].lines = append(d.parts[i].lines, one(g, []string{"Content-Type: " + text, "Content-Transfer-Encoding: base64", "X: " + text, "broken line", "Content-Type: multipart/mixed; boundary=" + boundary}))
	case 5:
		d.parts = append(d.parts[:i:i], d.parts[i+1:]...)
	case 6:
		d.parts[i].content = g.nasty()
	case 7:
		d.parts[i].lines[0] = `Content-Disposition: form-data; name="file"; filename*=UTF-8''` + escaped(text)
	default:
		for range 20 {
			d.parts = append(d.parts, rawPart{[]string{`Content-Disposition: form-data; name="x"`}, "y"})
		}
	}
	return true
}

func (g *generator) strayBody(d *draft) bool {
	if d.tree != nil || d.parts != nil || d.body != nil {
		return false
	}
	d.body = []byte(one(g, []string{"{}", "x", strings.Repeat("x", 300_000), `{"a":1}`, "\x00"}))
	d.set("Content-Type", one(g, []string{"application/json", "text/plain", "multipart/form-data; boundary=" + boundary}))
	return true
}
