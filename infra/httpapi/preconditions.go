package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humafiber"
)

// An entity tag (RFC 9110 §8.8.3) of ours is made of parts with dots between them: a letter and the version of a stream that the answer
// shows, and, where it shows more than streams of its own, h and a digest of the whole answer: "t3.m5.h0f3c…". If-Match compares the part
// of the stream that the command changes, in the command's own append.

// The letters of streams in entity tags, and of [Op.Versioned].
const (
	TagDocument = "d"
	TagFile     = "f"
	TagMembers  = "m" // all of a tenant's members are one stream
	TagTenant   = "t"
	TagUser     = "u"
)

type ifMatchKey struct{}

// tagged tells whether a success may have an entity tag.
func (o Op) tagged() bool { return o.Versioned != "" || o.Makes }

// Tag gives the answer of the request that ctx belongs to the part of an entity tag for a stream's version.
func Tag(ctx context.Context, letter string, version uint64) {
	if r := requestOf(ctx); r != nil {
		r.tags = append(r.tags, letter+strconv.FormatUint(version, 10))
	}
}

// TagWhole adds the digest of the whole answer to its entity tag.
func TagWhole(ctx context.Context) {
	if r := requestOf(ctx); r != nil {
		r.tagWhole = true
	}
}

// IfMatchOf is the versions of the route's own stream, see [Op.Versioned], that the client would change; nil for any. It is not nil and empty
// when the client named no version of this stream.
func IfMatchOf(ctx context.Context) []uint64 {
	versions, _ := ctx.Value(ifMatchKey{}).([]uint64)
	return versions
}

var (
	tagForm  = regexp.MustCompile(`^(W/)?"[\x21\x23-\x7e]*"$`)
	partForm = regexp.MustCompile(`^([a-z])([0-9]{1,19})$`)
)

// tagsOf takes a list of entity tags apart; nil stands for *. It is false for what is no such list.
func tagsOf(header string) ([]string, bool) {
	if strings.TrimSpace(header) == "*" {
		return nil, true
	}
	tags := []string{}
	for _, tag := range strings.Split(header, ",") {
		if tag = strings.TrimSpace(tag); !tagForm.MatchString(tag) {
			return nil, false
		}
		tags = append(tags, tag)
	}
	return tags, true
}

// lines is a header that may come in several lines, as one (RFC 9110 §5.3).
func lines(hc huma.Context, name string) string {
	return string(bytes.Join(humafiber.Unwrap(hc).Request().Header.PeekAll(name), []byte(", ")))
}

// precondition reads If-Match. A weak tag never matches (RFC 9110 §13.1.1).
func precondition(ctx context.Context, hc huma.Context, op Op) (context.Context, error) {
	header := lines(hc, "If-Match")
	if op.Versioned == "" || op.Method == http.MethodGet {
		return ctx, nil
	}
	if header == "" {
		if MembershipOf(ctx).RequireIfMatch && op.Method != http.MethodPost { // what a POST makes has no version yet
			return ctx, NewProblem(http.StatusPreconditionRequired, "", "This tenant demands If-Match with the ETag of what you would change.")
		}
		return ctx, nil
	}
	tags, ok := tagsOf(header)
	if !ok {
		note(ctx, "If-Match", `Is * or a list of entity tags such as "d3".`)
	}
	if tags == nil {
		return ctx, nil
	}
	versions := []uint64{}
	for _, tag := range tags {
		for _, part := range strings.Split(strings.Trim(tag, `"`), ".") {
			m := partForm.FindStringSubmatch(part)
			if m == nil || m[1] != op.Versioned || strings.HasPrefix(tag, "W/") {
				continue
			}
			version, err := strconv.ParseUint(m[2], 10, 63)
			if err != nil {
				continue // no stream has so many events
			}
			versions = append(versions, version)
		}
	}
	return context.WithValue(ctx, ifMatchKey{}, versions), nil
}

// Stale is the answer to an If-Match that does not hold.
func Stale() *Problem {
	return NewProblem(http.StatusPreconditionFailed, "", "It is not, or no longer, as If-Match says. Read it again, and decide anew.")
}

// tagged sets the entity tag of a success, and answers 304 to a query whose client has it.
func tagged(hc huma.Context, next func(huma.Context)) {
	next(hc)
	r, c := requestOf(hc.Context()), humafiber.Unwrap(hc)
	status := c.Response().StatusCode()
	op, _ := hc.Operation().Metadata[opKey].(Op)
	if !op.tagged() || r == nil || len(r.tags) == 0 || status < 200 || status > 299 {
		return
	}
	parts := r.tags
	if r.tagWhole {
		sum := sha256.Sum256(c.Response().Body())
		parts = append(parts, "h"+hex.EncodeToString(sum[:8]))
	}
	tag := fmt.Sprintf("%q", strings.Join(parts, "."))
	hc.SetHeader("Etag", tag)
	known := lines(hc, "If-None-Match")
	if hc.Operation().Method != http.MethodGet || known == "" {
		return
	}
	tags, ok := tagsOf(known)
	if !ok {
		return // as if it were not there: the whole answer is never wrong
	}
	for _, t := range tags {
		if plainTag(strings.TrimPrefix(t, "W/")) == tag {
			tags = nil
			break
		}
	}
	if tags == nil {
		c.Response().ResetBody()
		c.Response().Header.Del("Content-Type")
		hc.SetStatus(http.StatusNotModified)
	}
}

// describeTags documents the conditions that a route takes.
func describeTags(op Op, operation *huma.Operation) {
	if op.Versioned == "" {
		return
	}
	name, doc := "If-Match", `Change it only if it is as the entity tag says that it had ("*" for as it is); else 412. The ETag of any answer about it will do.`
	if op.Method == http.MethodGet {
		name, doc = "If-None-Match", "Answer 304 without a body if it is still as one of these entity tags says."
	}
	most := 1000
	operation.Parameters = append(operation.Parameters, &huma.Param{
		Name: name, In: "header", Description: doc, Schema: &huma.Schema{Type: huma.TypeString, MaxLength: &most}, Example: `"d3"`,
	})
}
