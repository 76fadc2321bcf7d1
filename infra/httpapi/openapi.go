package httpapi

import (
	"fmt"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gofiber/fiber/v3"
)

var problemGoType = reflect.TypeFor[Problem]()

// OpenAPI returns the API's description: as OpenAPI 3.1 in JSON and as OpenAPI 3.0.3 in YAML, for tools that know no newer
// one. Call it after all routes are registered.
func OpenAPI(api huma.API) (json31, yaml30 []byte, err error) {
	if json31, err = api.OpenAPI().MarshalJSON(); err != nil {
		return nil, nil, fmt.Errorf("httpapi: OpenAPI 3.1: %w", err)
	}
	if yaml30, err = api.OpenAPI().DowngradeYAML(); err != nil {
		return nil, nil, fmt.Errorf("httpapi: OpenAPI 3.0.3: %w", err)
	}
	return json31, yaml30, nil
}

type health struct {
	Body struct {
		Status  string `json:"status" enum:"healthy"`
		Service string `json:"service"`
		Version string `json:"version"`
	}
}

type root struct {
	Body struct {
		Service       string            `json:"service"`
		Version       string            `json:"version"`
		Status        string            `json:"status" enum:"running"`
		Documentation string            `json:"documentation"`
		Endpoints     map[string]string `json:"endpoints"`
	}
}

// registerHealth registers the route that says that the process answers; it checks nothing.
func (s *Server) registerHealth() {
	Route(s.api, Op{ID: "health", Method: http.MethodGet, Path: "/health", Summary: "Whether the process answers", Tag: "health"}, s.health)
}

func (s *Server) registerRoot() {
	Route(s.api, Op{ID: "root", Method: http.MethodGet, Path: "/", Summary: "What is served here", Tag: "health"}, s.root)
}

func (s *Server) registerDocs() {
	s.app.Get("/api/docs", func(c fiber.Ctx) error {
		s.found(c, "/api/docs")
		return c.Redirect().Status(http.StatusPermanentRedirect).To("/api/docs/")
	})
	s.app.Get("/api/docs/", s.docsPage)
	s.app.Get("/api/docs/swagger.yaml", s.docsYAML)
	s.app.Get("/api/docs/openapi.json", s.docsJSON)
	s.app.Get("/api/docs/:asset", s.docsAsset)
	s.app.Get("/account", s.accountPage)
	s.app.Get("/account.js", s.accountScript)
}

// found names the route in log and metrics, as guard does for the others.
func (s *Server) found(c fiber.Ctx, route string) {
	if r := requestOf(c.Context()); r != nil {
		r.route = route
	}
}
