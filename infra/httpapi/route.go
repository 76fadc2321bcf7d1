package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// Op describes a route to its readers. Who may call it stands in [Policy].
type Op struct {
	ID, Method, Path, Summary, Tag string
	Status                         int                       // of a success; 0 means 200
	Responses                      map[string]*huma.Response // documented besides what the types say; optional
	Errors                         []int                     // besides those that the policy and the input bring along
	Body                           *huma.RequestBody         // documented body of a route that reads its body itself; optional
	Accepts                        bool                      // the input has a JSON body
	Reads                          bool                      // it changes nothing, whatever its method
	Versioned                      string                    // the letter in entity tags of the stream that it shows or changes; "" takes no conditions
	Makes                          bool                      // what a success makes has an entity tag; nothing was there before, so the route takes no conditions
	ShowsMembership                bool                      // it shows the caller's membership, which must be looked up for that
	Secret                         bool                      // a success holds something that must be kept nowhere, not even for a repetition, nor be compressed (BREACH)
	// Overloaded is asked before anything else is done for a request, its body not yet read; what it answers is answered. Optional.
	Overloaded func() error
	// Digest reads the body of a route that reads its body itself, to its end, so that a repetition can be compared. It answers the same as the
	// route gives to [Digested].
	Digest func(huma.Context) ([]byte, error)
}

// opKey is where an operation's Metadata hold its [Op].
const opKey = "op"

// Route registers a route under its row of [Policy]; a route without one panics, at the program's start. Errors of handler that
// are not a [Problem] are answered without their text.
func Route[I, O any](api huma.API, op Op, handler func(context.Context, *I) (*O, error)) {
	rule := ruleOf(op.Method, op.Path)
	o := huma.Operation{
		OperationID: op.ID, Method: op.Method, Path: op.Path, Summary: op.Summary, Tags: []string{op.Tag}, DefaultStatus: op.Status,
		MaxBodyBytes: maxJSONBytes + 1, BodyReadTimeout: bodyTimeout, Responses: map[string]*huma.Response{}, Metadata: map[string]any{opKey: op},
	}
	for status, response := range op.Responses {
		o.Responses[status] = response
	}
	if op.Versioned != "" && op.Method == http.MethodGet {
		o.Responses["304"] = &huma.Response{Description: http.StatusText(http.StatusNotModified)}
	}
	for _, status := range documented(rule, op) {
		o.Responses[strconv.Itoa(status)] = problemResponse(api, status)
	}
	if rule.Access != Anyone {
		o.Security = []map[string][]string{{"bearer": {}}}
	}
	huma.Register(api, o, func(ctx context.Context, in *I) (*O, error) {
		if wrong := noted(ctx); wrong != nil {
			return nil, Invalid(wrong)
		}
		out, err := handler(ctx, in)
		if err != nil {
			return nil, problemOf(ctx, err)
		}
		return out, nil
	})
	describeHeaders(rule, op, o.Responses)
	registered := operationOf(api, op)
	for _, p := range registered.Parameters {
		onlyUUIDs(api, p.Schema)
	}
	if body := registered.RequestBody; body != nil && body.Content["application/json"] != nil {
		onlyUUIDs(api, body.Content["application/json"].Schema)
	}
	if op.Body != nil { // after Register: an object schema before it would make huma buffer the body
		registered.RequestBody = op.Body
	}
	describeKey(op, registered)
	describeTags(op, registered)
}

func operationOf(api huma.API, op Op) *huma.Operation {
	item := api.OpenAPI().Paths[op.Path]
	return map[string]*huma.Operation{
		http.MethodGet: item.Get, http.MethodPost: item.Post, http.MethodPut: item.Put, http.MethodDelete: item.Delete, http.MethodPatch: item.Patch,
	}[op.Method]
}

// onlyUUIDs makes the ids of a request have the one form that ours have: huma also takes them in braces, as a URN and without dashes.
func onlyUUIDs(api huma.API, s *huma.Schema) {
	if s.Ref != "" {
		s = api.OpenAPI().Components.Schemas.SchemaFromRef(s.Ref)
	}
	if s.Format == "uuid" {
		s.Pattern = idText.String()
		s.PrecomputeMessages()
	}
	if s.Items != nil {
		onlyUUIDs(api, s.Items)
	}
	for _, property := range s.Properties {
		onlyUUIDs(api, property)
	}
}

// describeKey tells that a command may be repeated, also where its handler does not ask for the key.
func describeKey(op Op, operation *huma.Operation) {
	if !op.repeatable() || slices.ContainsFunc(operation.Parameters, func(p *huma.Param) bool { return p.Name == idempotencyKey }) {
		return
	}
	one, most := 1, 200
	operation.Parameters = append(operation.Parameters, &huma.Param{
		Name: idempotencyKey, In: "header", Description: keyDoc,
		Schema: &huma.Schema{Type: huma.TypeString, MinLength: &one, MaxLength: &most, Pattern: "^[!-~]+$"},
	})
}

const keyDoc = "Of one caller, in one tenant: a request with the same key is carried out once and answered alike for 24 hours."

// documented lists the statuses of failures that the route can answer.
func documented(rule Rule, op Op) []int {
	// What is no HTTP, or has too large a header, is refused before anybody knows which route it is for.
	out := []int{http.StatusBadRequest, http.StatusRequestURITooLong, http.StatusRequestHeaderFieldsTooLarge, http.StatusInternalServerError}
	if !rule.unlimited() {
		out = append(out, http.StatusTooManyRequests, http.StatusServiceUnavailable)
	}
	if rule.Access != Anyone {
		out = append(out, http.StatusUnauthorized)
	}
	if op.Versioned != "" && op.Method != http.MethodGet {
		out = append(out, http.StatusPreconditionFailed, http.StatusBadRequest)
		if rule.tenant() && op.Method != http.MethodPost {
			out = append(out, http.StatusPreconditionRequired)
		}
	}
	if op.repeatable() {
		out = append(out, http.StatusConflict, http.StatusUnprocessableEntity)
	}
	if rule.tenant() {
		out = append(out, http.StatusNotFound)
	}
	if rule.Access > Refresh && rule.Access != ViewerUp { // SignedIn is for people and not for API keys
		out = append(out, http.StatusForbidden)
	}
	if op.Accepts || op.Body != nil {
		out = append(out, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	return append(out, op.Errors...)
}

func problemResponse(api huma.API, status int) *huma.Response {
	schema := api.OpenAPI().Components.Schemas.Schema(problemGoType, true, "Problem")
	return &huma.Response{Description: http.StatusText(status), Content: map[string]*huma.MediaType{problemType: {Schema: schema}}}
}
