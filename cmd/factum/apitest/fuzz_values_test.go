package apitest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"
)

// A body is made of these, of strings and of what encoding/json takes, so that it can hold what no encoder writes: a key twice, invalid UTF-8,
// numbers beyond every type.
type (
	member struct {
		key   string
		value any
	}
	object []member
	array  []any
	rawly  string // JSON as it stands, or not quite
)

// encoded writes a body.
func encoded(v any) []byte {
	var b bytes.Buffer
	encode(&b, v)
	return b.Bytes()
}

func encode(b *bytes.Buffer, v any) {
	switch x := v.(type) {
	case object:
		b.WriteByte('{')
		for i, m := range x {
			if i > 0 {
				b.WriteByte(',')
			}
			quote(b, m.key)
			b.WriteByte(':')
			encode(b, m.value)
		}
		b.WriteByte('}')
	case array:
		b.WriteByte('[')
		for i, e := range x {
			if i > 0 {
				b.WriteByte(',')
			}
			encode(b, e)
		}
		b.WriteByte(']')
	case rawly:
		b.WriteString(string(x))
	case string:
		quote(b, x)
	default:
		text, err := json.Marshal(x)
		if err != nil {
			panic(err) // the fuzz's own mistake
		}
		b.Write(text)
	}
}

// quote leaves invalid UTF-8 as it is.
func quote(b *bytes.Buffer, s string) {
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < 0x20:
			fmt.Fprintf(b, `\u%04x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
}

// hostile are texts that have broken programs.
var hostile = []string{
	"", " ", "\t", "a\tb", "\x00", "a\x00b", "\x7f", "a\r\nX-Injected: yes", "a\nb", "\u0085", "\u2028", "\ufeff", "\u202etxt.exe", "\xff\xfe", "a\xffb", "\xed\xa0\x80", "\xc0\xaf", "\xf4\x90\x80\x80",
	"' OR '1'='1", "'; DROP TABLE es.events; --", `" OR ""="`, "1); SELECT pg_sleep(10); --", `\'; --`, "$1", "%s%n%d", "$(id)", "`id`", "|id", "{{7*7}}", "${jndi:ldap://127.0.0.1/a}",
	"<script>alert(1)</script>", `"><img src=x onerror=alert(1)>`, "javascript:alert(1)", "<!--", "&lt;", "]]>",
	"..", ".", "/", `\`, "../../../../etc/passwd", `..\..\windows\win.ini`, "%2e%2e%2f", "..%2f", "%00", "%", "%zz", "/etc/passwd\x00.pdf", "file:///etc/passwd", "CON", "a:b", "~", "C:\\a", "//host/share",
	"a & | ! b", "foo:*", "'':*", "a <-> b", "(((", "*", "_%", `\%`, "(?:a+)+$", "[", "\\u0000", `{"$ne":1}`,
	"0", "-1", "1e400", "NaN", "Infinity", "0x1F", "1,5", "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616", "-9223372036854775809", "true", "null", "undefined", "[]", "{}",
	"2025-02-30T00:00:00Z", "0000-00-00T00:00:00Z", "99999-01-01T00:00:00Z", "2025-03-04T09:15:30+99:99", "-infinity", "now()", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z",
	"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "dddddddd-dddd-dddd-dddd-dddddddddddd", "11111111-1111-4111-8111-11111111111g", "{11111111-1111-4111-8111-111111111111}", "urn:uuid:11111111-1111-4111-8111-111111111111",
	"Ünïcödé", "👩‍👩‍👧‍👦", "İıſK", "ﷺ", "田中さん", "Z̷̡͇̠̗̲̑͒a̶͚̭͑l̵̜̓g̷̜͋o̸͔͑", "𝕳𝖊𝖑𝖑𝖔", "ÿ", "text/html", "multipart/form-data", "image/*", "application/json; charset=utf-16", "*/*", "mina@plant.example", "=1+1", "@SUM(1)",
}

// numbers are JSON numbers that do not fit, or only just.
var numbers = []rawly{
	"0", "-0", "-1", "1", "0.1", "1.0", "1e2", "-1e-400", "1e400", "-1e400", "2147483648", "9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775809", "18446744073709551616",
	"100000000000000000000000000000000000000000", "3.141592653589793238462643383279502884197", rawly("1" + strings.Repeat("0", 5000)),
}

// generator makes values for one driver.
type generator struct {
	*rand.Rand
	ids map[string][]string // by the parameter's name: what is there, the newest last
}

// chance is true so many times in a hundred.
func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func one[T any](g *generator, of []T) T { return of[g.IntN(len(of))] }

// nasty is a hostile text; at times a long one.
func (g *generator) nasty() string {
	switch {
	case g.chance(4):
		return strings.Repeat(one(g, []string{"A", "ﷺ", "é", "\u0301", "%00", "../", "'", "<b>"}), g.IntN(3000))
	case g.chance(10):
		return one(g, hostile) + one(g, hostile)
	default:
		return one(g, hostile)
	}
}

// wrong is a hostile JSON value.
func (g *generator) wrong() any {
	switch g.IntN(8) {
	case 0:
		return one(g, numbers)
	case 1:
		return one(g, []any{nil, true, false, array{}, object{}, array{nil}, object{{"", nil}}})
	case 2:
		depth := one(g, []int{3, 50, 1000, 9999, 10001, 100000})
		return one(g, []rawly{
			rawly(strings.Repeat("[", depth) + strings.Repeat("]", depth)), rawly(strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth)), rawly(strings.Repeat("[", depth)),
		})
	case 3:
		return array{g.nasty(), one(g, numbers), nil}
	case 4:
		if g.chance(20) { // a bomb: short to send, and a million values if somebody copies it at every level
			return rawly("[" + strings.Repeat("0,", g.IntN(100_000)) + "0]")
		}
		return object{{g.nasty(), g.nasty()}}
	default:
		return g.nasty()
	}
}

// id is one that exists where the name says what it is of; "" else.
func (g *generator) id(name string) string {
	known := g.ids[strings.TrimSuffix(name, "s")]
	if len(known) == 0 {
		return ""
	}
	if g.chance(70) {
		return known[len(known)-1]
	}
	return one(g, known)
}

// keep remembers an id.
func (g *generator) keep(name, id string) {
	const most = 8
	if id == "" || slices.Contains(g.ids[name], id) {
		return
	}
	g.ids[name] = append(g.ids[name], id)
	if over := len(g.ids[name]) - most; over > 0 {
		g.ids[name] = g.ids[name][over:]
	}
}

func (g *generator) forget(name, id string) {
	g.ids[name] = slices.DeleteFunc(g.ids[name], func(known string) bool { return strings.EqualFold(known, id) })
}

// valid makes a value that the schema describes, as far as a schema can say.
func (g *generator) valid(name string, s *openapi3.Schema) any {
	switch {
	case len(s.Enum) > 0:
		return one(g, s.Enum)
	case s.Type.Is("object"):
		return g.validObject(s)
	case s.Type.Is("array"):
		out := array{}
		for range max(1, int(s.MinItems)) + g.IntN(2) {
			out = append(out, g.valid(name, s.Items.Value))
		}
		return out
	case s.Type.Is("boolean"):
		return g.chance(50)
	case s.Type.Is("integer"), s.Type.Is("number"):
		low, high := 0, 50
		if s.Min != nil {
			low = int(*s.Min)
		}
		if s.Max != nil && int(*s.Max) < low+high {
			high = int(*s.Max) - low
		}
		return low + g.IntN(high+1)
	default:
		return g.validText(name, s)
	}
}

func (g *generator) validObject(s *openapi3.Schema) any {
	out := object{}
	for _, name := range keys(s.Properties) {
		if slices.Contains(s.Required, name) || g.chance(60) {
			out = append(out, member{name, g.valid(name, s.Properties[name].Value)})
		}
	}
	if more := s.AdditionalProperties.Schema; more != nil {
		for i := range 1 + g.IntN(3) {
			out = append(out, member{fmt.Sprintf("key-%d", i), g.valid("", more.Value)})
		}
	}
	return out
}

func (g *generator) validText(name string, s *openapi3.Schema) string {
	if id := g.id(name); id != "" {
		return id
	}
	example, _ := s.Example.(string)
	switch {
	case s.Format == "uuid":
		return g.uuid()
	case s.Format == "date-time":
		return time.Date(2020+g.IntN(10), 5, 17, 9, 15, 30, 0, time.UTC).Format(time.RFC3339)
	case example != "" && (s.Pattern != "" || strings.ContainsAny(example, "=/@") || g.chance(50)):
		return example
	}
	text := one(g, []string{"stator", "Kühlwasserpumpe", "north mill 7", "<b>bold</b>", "O'Brien; --", "田中", "x"}) + fmt.Sprint(g.IntN(1000))
	if s.MaxLength != nil && utf8.RuneCountInString(text) > int(*s.MaxLength) {
		text = text[:*s.MaxLength]
	}
	return text
}

// uuid is drawn from the seed.
func (g *generator) uuid() string {
	var id uuid.UUID
	for i := range id {
		id[i] = byte(g.IntN(256))
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id.String()
}
