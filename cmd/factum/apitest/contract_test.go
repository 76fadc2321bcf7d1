package apitest

import (
	"net/http"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/factum-platform/factum/infra/httpapi"
)

// operations lists "METHOD /path" of everything documented.
func operations(doc *description) []string {
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
	doc := described(t)
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
	doc := described(t)
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
		// A failed validation is 400; 422 is for an Idempotency-Key of another request, which every command takes.
		command := rule.Method != http.MethodGet && !strings.HasSuffix(rule.Path, "/verify")
		if key := op.Parameters.GetByInAndName("header", "Idempotency-Key") != nil; key != command || (op.Responses.Value("422") != nil) != command {
			t.Errorf("%s %s: Idempotency-Key documented: %v; 422 documented: %v", rule.Method, rule.Path, key, op.Responses.Value("422") != nil)
		}
		if signed := op.Security != nil && len(*op.Security) > 0; signed != (rule.Access != httpapi.Anyone) {
			t.Errorf("%s %s: documented as secured: %v", rule.Method, rule.Path, signed)
		}
	}
}

func TestTheUploadIsDocumentedAsAForm(t *testing.T) {
	doc := described(t)
	body := doc.Paths.Find("/api/tenants/{tenant_id}/documents").GetOperation(http.MethodPost).RequestBody
	if body == nil || body.Value.Content["multipart/form-data"] == nil || body.Value.Content["multipart/form-data"].Schema.Value.Properties["file"] == nil {
		t.Error("the upload's form is not documented")
	}
}

// TestWhatIsNotDescribedIsFound is the test of the check that all other tests of this package rely on.
func TestWhatIsNotDescribedIsFound(t *testing.T) {
	const healthy, problem = `{"status":"healthy","service":"factum","version":"1"}`, `{"type":"about:blank","title":"Not Found","status":404,"detail":"a","instance":"/x","success":false,"error":{"code":"not_found","message":"a"}}`
	json, refusal := header{"Content-Type": "application/json"}, header{"Content-Type": "application/problem+json"}
	for _, c := range []struct {
		name, method, path string
		status             int
		headers            header
		body               string
		want               string // part of the error; "" for none
	}{
		{"as described", "GET", "/health", 200, json, healthy, ""},
		{"HEAD", "HEAD", "/health", 200, json, "", ""},
		{"a path that nobody serves", "GET", "/nothing/here", 404, refusal, problem, ""},
		{"a page", "GET", "/api/docs/start.js", 200, header{"Content-Type": "text/javascript"}, "x", ""},
		{"methods", "OPTIONS", "/health", 204, header{"Allow": "GET"}, "", ""},
		{"a tricky id", "GET", "/api/tenants/%2e%2e%2fhealth", 401, header{"Content-Type": "application/problem+json", "WWW-Authenticate": "Bearer"}, strings.ReplaceAll(problem, "404", "401"), ""},

		{"another status", "GET", "/health", 202, json, healthy, "status is not described"},
		{"another type", "GET", "/health", 200, header{"Content-Type": "text/html"}, "<p>", "content type"},
		{"another field", "GET", "/health", 200, json, strings.Replace(healthy, "{", `{"more":1,`, 1), "more"},
		{"a missing field", "GET", "/health", 200, json, `{"status":"healthy","service":"factum"}`, "version"},
		{"another value", "GET", "/health", 200, json, strings.Replace(healthy, "healthy", "ill", 1), "status"},
		{"no JSON", "GET", "/health", 200, json, "healthy", "decode"},
		{"another header", "GET", "/health", 200, header{"Content-Type": "application/json", "X-Powered-By": "gears"}, healthy, "X-Powered-By"},
		{"an early retry", "GET", "/.well-known/jwks.json", 503, header{"Content-Type": "application/problem+json", "Retry-After": "soon"}, strings.ReplaceAll(problem, "404", "503"), "Retry-After"},
		{"a text to a path that nobody serves", "GET", "/nothing/here", 404, header{"Content-Type": "text/plain"}, "Not Found", "content type"},
		{"a problem without its code", "GET", "/nothing/here", 404, refusal, strings.Replace(problem, `"code":"not_found",`, "", 1), "code"},
		{"a success of nothing", "GET", "/nothing/here", 200, json, "{}", "nothing is described"},
		{"another method without Allow", "PATCH", "/health", 405, refusal, strings.ReplaceAll(problem, "404", "405"), "Allow"},
	} {
		headers := http.Header{}
		for name, value := range c.headers {
			headers.Set(name, value)
		}
		err := conforms(c.method, c.path, c.status, headers, []byte(c.body))
		if c.want == "" && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.want != "" && (err == nil || strings.Count(err.Error(), c.want) < 2 && c.want != "Allow") { // both documents say so
			t.Errorf("%s: %v; want both documents to miss %q", c.name, err, c.want)
		}
	}
}
