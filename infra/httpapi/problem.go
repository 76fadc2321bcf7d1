package httpapi

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
)

// Problem is the one body of every answer that is not a success: the members of RFC 9457 and, for clients of the original
// system, success and error. It is also the error that handlers return. It is immutable once returned.
type Problem struct {
	Type     string `json:"type" doc:"Always about:blank: title and status say what kind of problem it is." example:"about:blank"`
	Title    string `json:"title" doc:"The status in words." example:"Bad Request"`
	Status   int    `json:"status" doc:"The HTTP status." example:"400"`
	Detail   string `json:"detail" doc:"What went wrong, for people." example:"The request did not pass validation."`
	Instance string `json:"instance" doc:"The path of the request." example:"/api/tenants"`
	Success  bool   `json:"success" doc:"Always false." example:"false"`
	Fault    Fault  `json:"error"`

	cause   error
	headers http.Header
	shed    bool // see Overloaded
}

// Fault is the part of a [Problem] that programs look at.
type Fault struct {
	Code    string              `json:"code" doc:"A stable code; programs look at this and the status." example:"BAD_REQUEST"`
	Message string              `json:"message" doc:"As detail."`
	Details map[string][]string `json:"details,omitempty" doc:"On validation: the messages per field; _schema for the whole body."`
}

// NewProblem returns a problem. With code "" the route's usual code for the status is answered. detail is for people and holds
// neither personal data nor the text of another error.
func NewProblem(status int, code, detail string) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, Fault: Fault{Code: code, Message: detail}}
}

// Invalid returns the problem of a request that did not pass validation, with the messages per field.
func Invalid(details map[string][]string) *Problem {
	p := NewProblem(http.StatusBadRequest, validation, "The request did not pass validation.")
	p.Fault.Details = details
	return p
}

// wrongFields is what an input's own check finds; see [Wrong].
type wrongFields map[string][]string

// Error implements error.
func (w wrongFields) Error() string { return fmt.Sprintf("httpapi: %d fields are not valid", len(w)) }

// Wrong is for an input's Resolve (huma.Resolver): what is wrong besides what the schema says, with the messages per field. One answer tells
// both; of a field that the schema refuses already, or of a body that is no such object at all, it tells the schema's messages alone.
func Wrong(details map[string][]string) []error {
	if len(details) == 0 {
		return nil
	}
	return []error{wrongFields(details)}
}

// NotFound returns the uniform 404 that does not tell what exists from what is not the caller's business.
func NotFound() *Problem {
	return NewProblem(http.StatusNotFound, "", "There is no such thing, or it is not yours to see.")
}

// Internal returns a 500 that tells the client nothing; cause goes to the log.
func Internal(cause error) *Problem {
	p := NewProblem(http.StatusInternalServerError, "", "Something went wrong on our side. Try again, and name the X-Request-Id when you report it.")
	p.cause = cause
	return p
}

// Unavailable returns a 503 that asks to try again in a second; cause goes to the log.
func Unavailable(detail string, cause error) *Problem {
	p := NewProblem(http.StatusServiceUnavailable, "", detail).With("Retry-After", "1")
	p.cause = cause
	return p
}

// Overloaded is [Unavailable] for what is refused to do the rest well. There may be thousands a second: they are counted, and logged together.
func Overloaded(detail string) *Problem {
	p := Unavailable(detail, nil)
	p.shed = true
	return p
}

// TooMany returns a 429 that asks to try again in so many seconds.
func TooMany(detail string, seconds int) *Problem {
	return NewProblem(http.StatusTooManyRequests, "", detail).With("Retry-After", strconv.Itoa(seconds))
}

// OfItem is the part for programs, where the problem concerns one of several things in the answer of a route with an envelope.
func (p *Problem) OfItem() Fault { return p.completed("", Rule{Path: "/api/tenants"}).Fault }

// With returns the problem with one more header of its answer.
func (p *Problem) With(header, value string) *Problem {
	out := *p
	out.headers = p.headers.Clone()
	if out.headers == nil {
		out.headers = http.Header{}
	}
	out.headers.Set(header, value)
	return &out
}

// Error implements error.
func (p *Problem) Error() string { return "httpapi: " + p.Title + ": " + p.Detail }

// Unwrap returns what caused the problem; it is never shown to clients.
func (p *Problem) Unwrap() error { return p.cause }

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders implements huma.HeadersError.
func (p *Problem) GetHeaders() http.Header { return p.headers }

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return problemType }

const (
	problemType = "application/problem+json"
	// validation stands for the route's code of a failed validation: validation_error in auth, BAD_REQUEST elsewhere.
	validation = "\x00validation"
	// cased begins a code that is written in upper case outside the flat routes.
	cased = "\x00"
)

// codes are those of statuses without a code of their own, in the flat routes; envelope routes have them in upper case.
var codes = map[int]string{
	http.StatusBadRequest:                  "bad_request",
	http.StatusUnauthorized:                "unauthorized",
	http.StatusForbidden:                   "forbidden",
	http.StatusNotFound:                    "not_found",
	http.StatusMethodNotAllowed:            "method_not_allowed",
	http.StatusRequestTimeout:              "request_timeout",
	http.StatusConflict:                    "conflict",
	http.StatusPreconditionFailed:          "precondition_failed",
	http.StatusPreconditionRequired:        "precondition_required",
	http.StatusRequestEntityTooLarge:       "payload_too_large",
	http.StatusRequestURITooLong:           "uri_too_long",
	http.StatusUnsupportedMediaType:        "unsupported_media_type",
	http.StatusTooManyRequests:             "too_many_requests",
	http.StatusRequestHeaderFieldsTooLarge: "request_header_fields_too_large",
	http.StatusInternalServerError:         "internal_server_error",
	http.StatusServiceUnavailable:          "service_unavailable",
}

// completed returns the problem as the route at path answers it.
func (p *Problem) completed(path string, rule Rule) *Problem {
	out := *p
	out.Instance = path
	flat := rule.flat()
	switch {
	case out.Fault.Code == validation && flat:
		out.Fault.Code = "validation_error"
	case out.Fault.Code == validation:
		out.Fault.Code = "BAD_REQUEST"
	case strings.HasPrefix(out.Fault.Code, cased):
		if out.Fault.Code = strings.TrimPrefix(out.Fault.Code, cased); !flat {
			out.Fault.Code = strings.ToUpper(out.Fault.Code)
		}
	case out.Fault.Code != "":
	case out.Status == http.StatusInternalServerError && rule.failure != "":
		out.Fault.Code = rule.failure
	case out.Status == http.StatusInternalServerError && !flat:
		out.Fault.Code = "INTERNAL_ERROR"
	default:
		code, ok := codes[out.Status]
		if !ok {
			code = "bad_request"
		}
		if !flat {
			code = strings.ToUpper(code)
		}
		out.Fault.Code = code
	}
	return &out
}

func (p *Problem) encode() []byte {
	raw, err := json.Marshal(p)
	if err != nil { // only strings and numbers: it cannot fail
		return []byte(`{"success":false}`)
	}
	return raw
}

// takeOver makes huma's own errors problems too, and field names exact, as encoding/json would not. huma keeps these hooks in
// package variables.
var takeOver = sync.OnceFunc(func() {
	huma.ValidateStrictCasing = true
	huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
		return fromHuma(status, message, errs)
	}
	huma.NewErrorWithContext = func(hc huma.Context, status int, message string, errs ...error) huma.StatusError {
		p := fromHuma(status, message, errs)
		if wrong := noted(hc.Context()); wrong != nil && p.Status == http.StatusBadRequest {
			details := maps.Clone(wrong) // in our words, where the schema has said it too
			for field, messages := range p.Fault.Details {
				if details[field] == nil {
					details[field] = messages
				}
			}
			p.Fault.Details = details
		}
		return p
	}
})

// fromHuma never repeats the values that huma adds to its errors: one of them may be a password.
func fromHuma(status int, message string, errs []error) *Problem {
	switch {
	case status == http.StatusUnprocessableEntity:
		return Invalid(fieldMessages(errs))
	case status == http.StatusInternalServerError && message == "cannot read request body":
		return NewProblem(http.StatusBadRequest, "", "The request body could not be read to its end.")
	case status == http.StatusInternalServerError:
		return Internal(errors.Join(errs...))
	case status == http.StatusRequestEntityTooLarge:
		return NewProblem(status, "", "The request body is too large.")
	case status == http.StatusRequestTimeout:
		return NewProblem(status, "", "The request body did not arrive in time.")
	case status == http.StatusBadRequest && ambiguous(errs):
		return Invalid(fieldMessages(unchecked(errs)))
	case status == http.StatusBadRequest:
		p := NewProblem(status, "", "The request body is missing or is not valid JSON.")
		p.Fault.Details = fieldMessages(errs)
		return p
	default:
		return NewProblem(status, "", http.StatusText(status)+".")
	}
}

// ambiguous tells whether a body has a key twice, or a number that nobody can hold: it is JSON, but not valid here.
func ambiguous(errs []error) bool {
	return slices.ContainsFunc(errs, func(err error) bool {
		var d huma.ErrorDetailer
		if !errors.As(err, &d) {
			return false
		}
		message := d.ErrorDetail().Message
		return strings.HasPrefix(message, repeatedKey) || strings.HasPrefix(message, misfitting)
	})
}

// unchecked leaves out what an input's own check found in a body that means nothing for certain.
func unchecked(errs []error) []error {
	return slices.DeleteFunc(slices.Clone(errs), func(err error) bool {
		var w wrongFields
		return errors.As(err, &w)
	})
}

var missingField = regexp.MustCompile(`^expected required property (\S+) to be present$`)

const (
	// maxFields is how many fields a refusal names; a body can have a hundred thousand that are unknown.
	maxFields     = 100
	maxFieldChars = 200 // of a name
)

func fieldMessages(errs []error) map[string][]string {
	out := map[string][]string{}
	var own []wrongFields
	for _, err := range errs {
		if len(out) == maxFields {
			out["_schema"] = append(out["_schema"], "There is more that is wrong.")
			break
		}
		var w wrongFields
		if errors.As(err, &w) {
			own = append(own, w)
			continue
		}
		var d huma.ErrorDetailer
		if !errors.As(err, &d) {
			continue
		}
		detail := d.ErrorDetail()
		_, field, _ := strings.Cut(detail.Location, ".")
		if field == "" {
			field = "_schema"
		}
		message := detail.Message
		if m := missingField.FindStringSubmatch(message); m != nil {
			message = "Missing data for required field."
			if field == "_schema" {
				field = m[1]
			} else {
				field += "." + m[1]
			}
		}
		if keys, ok := strings.CutPrefix(message, repeatedKey); ok {
			for _, key := range keysOf(keys) {
				out[shortened(key)] = []string{"Given more than once."}
			}
			continue
		}
		if key, ok := strings.CutPrefix(message, misfitting); ok {
			field, message = cmp.Or(key, "_schema"), "Larger or more exact than this can be."
		}
		field = shortened(field)
		if message = plainly(message); !slices.Contains(out[field], message) {
			out[field] = append(out[field], message)
		}
	}
	if out["_schema"] == nil { // else it is not the object that the check takes it for
		for _, w := range own {
			for field, messages := range w {
				if out[field] == nil {
					out[field] = messages
				}
			}
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// plainly says what huma says in words of its own or of Go.
func plainly(message string) string {
	switch {
	case message == "expected string to match pattern "+idText.String(), strings.HasPrefix(message, "expected string to be RFC 4122 uuid"):
		return notUUID
	case strings.HasPrefix(message, "invalid date/time for format"):
		return "Not a time such as 2025-03-04T09:15:30Z (RFC 3339)."
	}
	return message
}

// shortened is the name of a field, which the client may have invented.
func shortened(field string) string {
	if field = strings.ToValidUTF8(field, "�"); len(field) > maxFieldChars {
		field = strings.ToValidUTF8(field[:maxFieldChars], "") + "…"
	}
	return field
}
