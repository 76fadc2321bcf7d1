// Package readapi answers queries from the read models. Its contract with projections is their tables, in SQL; it knows neither
// the domain nor the log.
package readapi

import (
	"context"
	"crypto/x509"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/factum-platform/factum/infra/httpapi"
)

// Objects is where file contents lie. Get answers the size in bytes; the caller closes the reader. Error: objectstore.ErrNotFound.
type Objects interface {
	Get(ctx context.Context, key string) (io.ReadCloser, int64, error)
	// Presign returns a URL by which everybody may read the object for a while, answered with this media type and disposition.
	Presign(ctx context.Context, key string, life time.Duration, mimeType, disposition string) (string, error)
}

// Deps is what the routes need. For the OpenAPI document alone nothing is.
type Deps struct {
	Server   *httpapi.Server
	Accounts Accounts
	Objects  Objects
	Roots    *x509.CertPool   // that time-stamping certificates must chain to
	Now      func() time.Time // nil means time.Now
}

type routes struct{ Deps }

// Register registers all routes that only read.
func Register(api huma.API, d Deps) {
	if d.Now == nil {
		d.Now = time.Now
	}
	r := routes{d}
	r.health(api)
	r.identity(api)
	r.users(api)
	r.tenants(api)
	r.members(api)
	r.platform(api)
	r.invitations(api)
	r.documents(api)
	r.files(api)
	r.timestamps(api)
	r.audit(api)
}

// get describes a query.
func get(id, path, tag, summary string, errors ...int) httpapi.Op {
	return httpapi.Op{ID: id, Method: http.MethodGet, Path: path, Tag: tag, Summary: summary, Errors: errors}
}

// versioned describes a query with an entity tag, of which one part is the version of the stream that the letter stands for.
func versioned(letter string, op httpapi.Op) httpapi.Op {
	op.Versioned = letter
	return op
}

// secret describes a query whose answer lets whoever has it do something.
func secret(op httpapi.Op) httpapi.Op {
	op.Secret = true
	return op
}

// binary documents an answer that is no JSON.
func binary(op httpapi.Op, kind string) httpapi.Op {
	text := &huma.Schema{Type: huma.TypeString}
	op.Responses = map[string]*huma.Response{"200": {
		Description: "OK",
		Headers: map[string]*huma.Header{
			"Content-Disposition": {Description: "Always attachment, with the name to keep it under (RFC 6266).", Required: true, Schema: text},
			"Pragma":              {Description: "no-cache, for caches that know no Cache-Control.", Schema: text},
		},
		Content: map[string]*huma.MediaType{kind: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}},
	}}
	return op
}

// streamed is the answer of a route that writes bytes.
type streamed struct {
	Position string `header:"Factum-Position"`
	Body     func(huma.Context)
}
