package httpapi

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"mime"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/gofiber/fiber/v3"
)

// compressFrom is the size from which compressing is worth the time.
const compressFrom = 1 << 10

// encoder is what compressing writers have in common.
type encoder interface {
	io.WriteCloser
	Reset(io.Writer)
}

// encoders are the codings that clients may ask for; of those that a client likes equally the first is used. Speed counts: answers are read once.
var encoders = []struct {
	coding string
	pool   *sync.Pool
}{
	{"br", &sync.Pool{New: func() any { return brotli.NewWriterLevel(nil, brotli.BestSpeed) }}},
	{"gzip", &sync.Pool{New: func() any {
		w, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
		if err != nil {
			panic("httpapi: " + err.Error()) // of a level that does not exist
		}
		return w
	}}},
}

// weight is the one that an Accept-Encoding (RFC 9110 §12.5.3) gives the coding: 0, for one that must not be used, to 1. What it does not name
// is not used, for "*" may be said without thinking.
func weight(header, coding string) float64 {
	for item := range strings.SplitSeq(header, ",") {
		name, parameter, weighed := strings.Cut(item, ";")
		if !strings.EqualFold(strings.TrimSpace(name), coding) {
			continue
		}
		if !weighed {
			return 1
		}
		q, value, _ := strings.Cut(parameter, "=")
		w, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || !strings.EqualFold(strings.TrimSpace(q), "q") || !(w >= 0 && w <= 1) {
			return 0
		}
		return w
	}
	return 0
}

// compress does so with texts that are gathered in memory. Contents of files are left as they are, and so is what holds a secret: its length
// would tell of it (BREACH). It is ours because fiber's puts digests in place of entity tags and keeps goroutines that never end.
func compress(c fiber.Ctx, secret bool) error {
	response := c.Response()
	if secret || response.IsBodyStream() || len(response.Body()) < compressFrom || c.GetRespHeader(fiber.HeaderContentEncoding) != "" ||
		!compressible(c.GetRespHeader(fiber.HeaderContentType)) {
		return nil
	}
	c.Vary(fiber.HeaderAcceptEncoding)
	if c.Method() == fiber.MethodHead {
		return nil
	}
	best, most := -1, 0.0
	for i, e := range encoders {
		if w := weight(c.Get(fiber.HeaderAcceptEncoding), e.coding); w > most {
			best, most = i, w
		}
	}
	if best < 0 {
		return nil
	}
	return encode(c, encoders[best].coding, encoders[best].pool)
}

func encode(c fiber.Ctx, coding string, pool *sync.Pool) error {
	w, ok := pool.Get().(encoder)
	if !ok {
		return fmt.Errorf("httpapi: no encoder for %s", coding)
	}
	defer pool.Put(w)
	var out bytes.Buffer
	w.Reset(&out)
	_, err := w.Write(c.Response().Body())
	if err := errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("httpapi: compress an answer: %w", err)
	}
	c.Response().SetBody(out.Bytes())
	c.Set(fiber.HeaderContentEncoding, coding)
	if tag := c.GetRespHeader(fiber.HeaderETag); tag != "" { // another representation has another strong tag (RFC 9110 §8.8.3.3)
		c.Set(fiber.HeaderETag, strings.TrimSuffix(tag, `"`)+"."+coding+`"`)
	}
	return nil
}

var encodedTag = regexp.MustCompile(`\.(gzip|br)"$`)

// plainTag is the tag of what was not compressed.
func plainTag(tag string) string { return encodedTag.ReplaceAllString(tag, `"`) }

func compressible(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	return strings.HasPrefix(kind, "text/") || strings.HasSuffix(kind, "json") || kind == "image/svg+xml"
}
