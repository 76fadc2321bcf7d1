package apitest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/factum-platform/factum/commands/rest"
	"github.com/factum-platform/factum/infra/httpapi"
	"github.com/factum-platform/factum/readapi"
)

// description is a served OpenAPI document, as an independent library reads it.
type description struct {
	*openapi3.T
	paths []describedPath // those without parameters first, as the specification demands
}

// describedPath finds a path by its escaped form, so that no trick in a parameter leads to another one.
type describedPath struct {
	template string
	form     *regexp.Regexp
	item     *openapi3.PathItem
}

var pathParameter = regexp.MustCompile(`\\\{([a-z_]+)\\\}`)

// descriptions are the documents of OpenAPI 3.1 and 3.0.3, generated from the routes; both say the same, in different words.
var descriptions = sync.OnceValues(func() ([2]*description, error) {
	openapi3.DefineStringFormatValidator("uuid", openapi3.NewRegexpFormatValidator(openapi3.FormatOfStringForUUIDOfRFC9562))
	server := httpapi.New(httpapi.Config{})
	rest.Register(server.API(), rest.Deps{Server: server})
	readapi.Register(server.API(), readapi.Deps{Server: server})
	json31, yaml30, err := httpapi.OpenAPI(server.API())
	if err != nil {
		return [2]*description{}, err
	}
	newer, err := describe(json31)
	if err != nil {
		return [2]*description{}, fmt.Errorf("OpenAPI 3.1: %w", err)
	}
	older, err := describe(yaml30)
	if err != nil {
		return [2]*description{}, fmt.Errorf("OpenAPI 3.0.3: %w", err)
	}
	return [2]*description{newer, older}, nil
})

func describe(raw []byte) (*description, error) {
	doc, err := openapi3.NewLoader().LoadFromData(raw)
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(context.Background()); err != nil {
		return nil, err
	}
	d := &description{T: doc}
	for template, item := range doc.Paths.Map() {
		form := "^" + pathParameter.ReplaceAllString(regexp.QuoteMeta(template), `(?P<$1>[^/]+)`) + "$"
		d.paths = append(d.paths, describedPath{template, regexp.MustCompile(form), item})
	}
	slices.SortFunc(d.paths, func(a, b describedPath) int {
		return cmp.Or(strings.Count(a.template, "{")-strings.Count(b.template, "{"), strings.Compare(a.template, b.template))
	})
	return d, nil
}

// described is the document of OpenAPI 3.0.3.
func described(t testing.TB) *description {
	t.Helper()
	both, err := descriptions()
	if err != nil {
		t.Fatal("the documents are not valid:", err)
	}
	return both[1]
}

// operation finds what is described for a path as it stands in the request line; nil for what nobody serves.
func (d *description) operation(method, escapedPath string) (path describedPath, op *openapi3.Operation) {
	if method == http.MethodHead {
		method = http.MethodGet // RFC 9110 §9.3.2
	}
	for _, p := range d.paths {
		if p.form.MatchString(escapedPath) {
			return p, p.item.GetOperation(method)
		}
	}
	return describedPath{}, nil
}

// undocumented are the paths of pages, scripts and metrics, which are for browsers and machines that read no OpenAPI.
var undocumented = regexp.MustCompile(`^/(metrics|account|account\.js|api/docs|api/docs/[^/]*)$`)

// onEveryAnswer are headers of HTTP itself and those that tell browsers what not to do; no client has to know them.
var onEveryAnswer = []string{
	"Date", "Content-Type", "Content-Length", "Connection", "Transfer-Encoding", "Cache-Control", "Content-Security-Policy", "Referrer-Policy",
	"X-Content-Type-Options", "X-Frame-Options", "Vary", "Content-Encoding", "Strict-Transport-Security",
}

// conforms compares an answer with both documents: its status must be described for the route, and so must every header, the content type
// and every field. What no route answers must be a described problem.
func conforms(method, escapedPath string, status int, header http.Header, body []byte) error {
	both, err := descriptions()
	if err != nil {
		return err
	}
	for _, d := range both {
		err = errors.Join(err, d.conforms(method, escapedPath, status, header, body))
	}
	if err != nil {
		return fmt.Errorf("%s %s answers %d, which is not as described: %w", method, escapedPath, status, err)
	}
	return nil
}

func (d *description) conforms(method, escapedPath string, status int, header http.Header, body []byte) error {
	path, op := d.operation(method, escapedPath)
	switch {
	case op == nil && undocumented.MatchString(escapedPath):
		return nil
	case op == nil:
		return d.nobodyServes(method, path, status, header, body)
	}
	response := op.Responses.Status(status)
	if response == nil {
		return fmt.Errorf("OpenAPI %s: the status is not described; described are %s", d.OpenAPI, strings.Join(keys(op.Responses.Map()), ", "))
	}
	for name := range header {
		if !slices.Contains(onEveryAnswer, name) && !slices.ContainsFunc(keys(response.Value.Headers), func(known string) bool { return strings.EqualFold(known, name) }) {
			return fmt.Errorf("OpenAPI %s: the header %s is not described", d.OpenAPI, name)
		}
	}
	if len(body) > 0 && response.Value.Content.Get(header.Get("Content-Type")) == nil {
		return fmt.Errorf("OpenAPI %s: the content type %q is not described", d.OpenAPI, header.Get("Content-Type"))
	}
	input := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{
			Request: &http.Request{Method: method}, Route: &routers.Route{Spec: d.T, Path: path.template, PathItem: path.item, Method: method, Operation: op},
		},
		Status: status, Header: header,
		Options: &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true, ExcludeResponseBody: !strings.Contains(header.Get("Content-Type"), "json")},
	}
	if err := openapi3filter.ValidateResponse(context.Background(), input.SetBodyBytes(body)); err != nil {
		return fmt.Errorf("OpenAPI %s: %w", d.OpenAPI, err)
	}
	return nil
}

// nobodyServes checks what is answered to a path or a method that is not described.
func (d *description) nobodyServes(method string, path describedPath, status int, header http.Header, body []byte) error {
	switch {
	case method == http.MethodOptions && status == http.StatusNoContent && len(body) == 0:
		return nil
	case status < 400:
		return fmt.Errorf("OpenAPI %s: nothing is described here", d.OpenAPI)
	case path.item != nil && status == http.StatusMethodNotAllowed && header.Get("Allow") == "":
		return errors.New("405 without the header Allow (RFC 9110 §15.5.6)")
	case header.Get("Content-Type") != "application/problem+json":
		return fmt.Errorf("content type %q", header.Get("Content-Type"))
	case method == http.MethodHead:
		return nil
	}
	return d.isProblem(body)
}

// isProblem checks the one error form.
func (d *description) isProblem(body []byte) error {
	value, err := decoded(body)
	if err != nil {
		return err
	}
	return d.Components.Schemas["Problem"].Value.VisitJSON(value, openapi3.MultiErrors(), openapi3.VisitAsResponse())
}

func keys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func decoded(body []byte) (value any, err error) {
	if err := json.Unmarshal(body, &value); err != nil {
		return nil, fmt.Errorf("not JSON: %w: %.300q", err, body)
	}
	return value, nil
}
