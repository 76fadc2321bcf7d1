package apitest

import (
	"net/http"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"github.com/factum-platform/factum/commands/rest"
	"github.com/factum-platform/factum/infra/httpapi"
	"github.com/factum-platform/factum/readapi"
)

// described loads the served OpenAPI 3.0.3 document with an independent library.
func described(t *testing.T) (*openapi3.T, routers.Router) {
	t.Helper()
	server := httpapi.New(httpapi.Config{})
	rest.Register(server.API(), rest.Deps{Server: server})
	readapi.Register(server.API(), readapi.Deps{Server: server})
	_, yaml, err := httpapi.OpenAPI(server.API())
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(yaml)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal("the document is not valid OpenAPI 3.0.3:", err)
	}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return doc, router
}

// conforms compares an answer with the document: its status must be documented and its JSON must have the documented form.
func (w *world) conforms(a answer) {
	w.t.Helper()
	req := a.Request.Clone(w.t.Context())
	req.URL.Scheme, req.URL.Host, req.Host = "", "", ""
	route, params, err := w.router.FindRoute(req)
	if err != nil {
		return // a path or a method that nobody serves
	}
	input := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route},
		Status:                 a.StatusCode, Header: a.Header,
		Options: &openapi3filter.Options{IncludeResponseStatus: true, ExcludeResponseBody: a.json == nil, MultiError: true},
	}
	input.SetBodyBytes(a.body)
	if err := openapi3filter.ValidateResponse(w.t.Context(), input); err != nil {
		w.t.Errorf("%s %s answers %d, which is not as documented: %v", req.Method, req.URL.Path, a.StatusCode, err)
	}
}

// operations lists "METHOD /path" of everything documented.
func operations(doc *openapi3.T) []string {
	var out []string
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			out = append(out, method+" "+path)
		}
	}
	sort.Strings(out)
	return out
}

func TestEveryRouteHasARowInThePolicyAndEveryRowARoute(t *testing.T) {
	doc, _ := described(t)
	documented := operations(doc)
	var rows []string
	for _, rule := range httpapi.Policy {
		if rule.Path == "/metrics" || strings.HasPrefix(rule.Path, "/api/docs") || strings.HasPrefix(rule.Path, "/account") {
			continue // of the router, not of the document; infra/httpapi tests those
		}
		rows = append(rows, rule.Method+" "+rule.Path)
	}
	sort.Strings(rows)
	if !slices.Equal(documented, rows) {
		t.Errorf("routes:\n  %s\nrows of the policy:\n  %s", strings.Join(documented, "\n  "), strings.Join(rows, "\n  "))
	}
}

func TestEveryOperationDocumentsItsFailures(t *testing.T) {
	doc, _ := described(t)
	for _, rule := range httpapi.Policy {
		item := doc.Paths.Find(rule.Path)
		if item == nil {
			continue
		}
		op := item.GetOperation(rule.Method)
		want := map[httpapi.Access]string{httpapi.Anyone: "500", httpapi.SignedIn: "401", httpapi.PlatformAdmin: "403", httpapi.ViewerUp: "404", httpapi.UserUp: "403", httpapi.AdminOnly: "403", httpapi.AdminPerson: "403"}
		if status, ok := want[rule.Access]; ok && op.Responses.Value(status) == nil {
			t.Errorf("%s %s does not document %s", rule.Method, rule.Path, status)
		}
		for status, response := range op.Responses.Map() {
			if status >= "400" && response.Value.Content["application/problem+json"] == nil {
				t.Errorf("%s %s: %s is not a problem", rule.Method, rule.Path, status)
			}
		}
		if op.Responses.Value("422") != nil {
			t.Errorf("%s %s documents 422, which is never answered", rule.Method, rule.Path)
		}
		if signed := op.Security != nil && len(*op.Security) > 0; signed != (rule.Access != httpapi.Anyone) {
			t.Errorf("%s %s: documented as secured: %v", rule.Method, rule.Path, signed)
		}
	}
}

func TestTheUploadIsDocumentedAsAForm(t *testing.T) {
	doc, _ := described(t)
	body := doc.Paths.Find("/api/tenants/{tenant_id}/documents").GetOperation(http.MethodPost).RequestBody
	if body == nil || body.Value.Content["multipart/form-data"] == nil || body.Value.Content["multipart/form-data"].Schema.Value.Properties["file"] == nil {
		t.Error("the upload's form is not documented")
	}
}
