package httpapi

import (
	"compress/gzip"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"sync"

	"github.com/gofiber/fiber/v3"
	"github.com/swaggest/swgui/v5/static"
)

// The pages are ours, Swagger UI's files come with the module swgui: they need no outside host.
//
//go:embed docs/index.html docs/start.js docs/account.html docs/account.js
var page embed.FS

// docsPolicy lets the page run its own scripts and call this server, and nothing else.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// documents are the descriptions as they were at the first request; routes are registered before that.
type documents struct {
	once       sync.Once
	json, yaml []byte
	err        error
}

func (s *Server) described() (*documents, error) {
	s.docs.once.Do(func() { s.docs.json, s.docs.yaml, s.docs.err = OpenAPI(s.api) })
	return &s.docs, s.docs.err
}

func (s *Server) docsJSON(c fiber.Ctx) error {
	s.found(c, "/api/docs/openapi.json")
	d, err := s.described()
	if err != nil {
		return err
	}
	c.Set(fiber.HeaderContentType, "application/json")
	return c.Send(d.json)
}

func (s *Server) docsYAML(c fiber.Ctx) error {
	s.found(c, "/api/docs/swagger.yaml")
	d, err := s.described()
	if err != nil {
		return err
	}
	c.Set(fiber.HeaderContentType, "text/yaml; charset=utf-8")
	return c.Send(d.yaml)
}

func (s *Server) docsPage(c fiber.Ctx) error {
	s.found(c, "/api/docs/")
	return sendFile(c, page, "docs/index.html", "text/html; charset=utf-8")
}

// accountPage lets people follow the links that are mailed to them.
func (s *Server) accountPage(c fiber.Ctx) error {
	s.found(c, "/account")
	return sendFile(c, page, "docs/account.html", "text/html; charset=utf-8")
}

func (s *Server) accountScript(c fiber.Ctx) error {
	s.found(c, "/account.js")
	return sendFile(c, page, "docs/account.js", "text/javascript; charset=utf-8")
}

// assets are the files that the page loads.
var assets = map[string]string{
	"swagger-ui-bundle.js": "text/javascript; charset=utf-8",
	"swagger-ui.css":       "text/css; charset=utf-8",
	"start.js":             "text/javascript; charset=utf-8",
	"favicon-32x32.png":    "image/png",
}

func (s *Server) docsAsset(c fiber.Ctx) error {
	s.found(c, "/api/docs/{asset}")
	name := c.Params("asset")
	kind, ok := assets[name]
	if !ok {
		return fiber.ErrNotFound
	}
	switch name {
	case "start.js":
		return sendFile(c, page, "docs/start.js", kind)
	case "favicon-32x32.png":
		return sendFile(c, static.FS, name, kind)
	}
	if weight(c.Get(fiber.HeaderAcceptEncoding), "gzip") > 0 {
		c.Set(fiber.HeaderContentEncoding, "gzip")
		return sendFile(c, static.FS, name+".gz", kind)
	}
	f, err := static.FS.Open(name + ".gz")
	if err != nil {
		return fmt.Errorf("httpapi: documentation: %w", err)
	}
	unpacked, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("httpapi: documentation: %w", errors.Join(err, f.Close()))
	}
	plain, err := io.ReadAll(unpacked)
	if err := errors.Join(err, unpacked.Close(), f.Close()); err != nil {
		return fmt.Errorf("httpapi: documentation: %w", err)
	}
	return send(c, plain, kind)
}

func sendFile(c fiber.Ctx, from fs.FS, name, kind string) error {
	raw, err := fs.ReadFile(from, name)
	if err != nil {
		return fmt.Errorf("httpapi: documentation: %w", err)
	}
	return send(c, raw, kind)
}

func send(c fiber.Ctx, raw []byte, kind string) error {
	c.Set("Content-Security-Policy", docsPolicy)
	c.Set(fiber.HeaderCacheControl, "public, max-age=3600")
	c.Vary(fiber.HeaderAcceptEncoding)
	c.Set(fiber.HeaderContentType, kind)
	return c.Status(http.StatusOK).Send(raw)
}
