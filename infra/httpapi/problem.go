package httpapi

import (
	"cmp"
	"encoding/json"
	"errors"
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
	http.StatusNotAcceptable:               "not_acceptable",
	http.StatusRequestTimeout:              "request_timeout",
	http.StatusConflict:                    "conflict",
	http.StatusPreconditionFailed:          "precondition_failed",
	http.StatusPreconditionRequired:        "precondition_required",
	http.StatusRequestEntityTooLarge:       "payload_too_large",
	http.StatusUnsupportedMediaType:        "unsupported_media_type",
	http.StatusTooManyRequests:             "too_many_requests",
	http.StatusRequestHeaderFieldsTooLarge: "request_header_fields_too_large",
	http.StatusInternalServerError:         "internal_server_error",
	http.StatusNotImplemented:              "not_implemented",
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
	huma.NewErrorWithContext = func(_ huma.Context, status int, message string, errs ...error) huma.StatusError {
		return fromHuma(status, message, errs)
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
	case status == http.StatusBadRequest && repeats(errs):
		return Invalid(fieldMessages(errs))
	case status == http.StatusBadRequest:
		p := NewProblem(status, "", "The request body is missing or is not valid JSON.")
		p.Fault.Details = fieldMessages(errs)
		return p
	default:
		return NewProblem(status, "", http.StatusText(status)+".")
	}
}

// repeats tells whether a body has a key twice: it is JSON, but not valid here.
func repeats(errs []error) bool {
	return slices.ContainsFunc(errs, func(err error) bool {
		var d huma.ErrorDetailer
		return errors.As(err, &d) && strings.HasPrefix(d.ErrorDetail().Message, repeatedKey)
	})
}

var missingField = regexp.MustCompile(`^expected required property (\S+) to be present$`)

const (
	// maxFields is how many fields a refusal names; a body can have a hundred thousand that are unknown.
	maxFields     = 100
	maxFieldChars = 200 // of a name, which the client may have invented
)

func fieldMessages(errs []error) map[string][]string {
	out := map[string][]string{}
	for _, err := range errs {
		if len(out) == maxFields {
			out["_schema"] = append(out["_schema"], "There is more that is wrong.")
			break
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
		if key, ok := strings.CutPrefix(message, repeatedKey); ok {
			field, message = key, "Given more than once."
		}
		if key, ok := strings.CutPrefix(message, misfitting); ok {
			field, message = cmp.Or(key, "_schema"), "Larger or more exact than this can be."
		}
		if field = strings.ToValidUTF8(field, "�"); len(field) > maxFieldChars {
			field = strings.ToValidUTF8(field[:maxFieldChars], "") + "…"
		}
		out[field] = append(out[field], message)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
