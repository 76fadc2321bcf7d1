package site

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strconv"
	"time"
)

const (
	callTimeout = 30 * time.Second
	maxAnswer   = 4 << 20 // bytes
)

// Client speaks the REST API of one process for the owner of all tenants. It is safe for concurrent use.
type Client struct {
	base  string
	token func(context.Context) (string, error)
	http  *http.Client
}

// NewClient returns a client of the process.
func (p *Platform) NewClient(of *Process) *Client { return newClient(of.URL, p.Token) }

// ClientOf returns a client of the API at base, a URL without a slash at the end, with a token that does not change.
func ClientOf(base, token string) *Client {
	return newClient(base, func(context.Context) (string, error) { return token, nil })
}

func newClient(base string, token func(context.Context) (string, error)) *Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 512
	transport.MaxIdleConns = 512
	return &Client{base, token, &http.Client{Transport: transport, Timeout: callTimeout}}
}

// Close closes its idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Answer is what a request was answered with.
type Answer struct {
	Status   int
	Position uint64 // Factum-Position; 0 when there is none
	Pending  string // Factum-Pending
	Body     []byte
}

// StatusError says that a request was not answered with a success.
type StatusError struct {
	Method, Path string
	Status       int
	Body         string
}

// Error implements error.
func (e *StatusError) Error() string {
	return fmt.Sprintf("%s %s: %d %s: %.300s", e.Method, e.Path, e.Status, http.StatusText(e.Status), e.Body)
}

// Get asks; minPosition above 0 demands that the answer knows the log at least up to there. Error: *[StatusError].
func (c *Client) Get(ctx context.Context, path string, minPosition uint64) (Answer, error) {
	header := http.Header{}
	if minPosition > 0 {
		header.Set("Factum-Min-Position", strconv.FormatUint(minPosition, 10))
	}
	return c.do(ctx, http.MethodGet, path, header, nil)
}

// Document is an uploaded document.
type Document struct {
	Tenant Tenant
	ID     string
	FileID string
}

// Path is where the document can be read and deleted.
func (d Document) Path() string { return DocumentsPath(d.Tenant) + "/" + d.ID }

// DocumentsPath is where the tenant's documents are listed and uploaded.
func DocumentsPath(t Tenant) string { return "/api/tenants/" + t.ID + "/documents" }

// WriteUpload writes the form of an upload of a small text of this content, and returns its Content-Type.
func WriteUpload(to io.Writer, content string) (contentType string, err error) {
	form := multipart.NewWriter(to)
	if err := form.WriteField("mime_type", "text/plain"); err != nil {
		return "", err
	}
	part, err := form.CreateFormFile("file", "measurement.txt")
	if err == nil {
		_, err = io.WriteString(part, content)
	}
	if err == nil {
		err = form.Close()
	}
	return form.FormDataContentType(), err
}

// Upload uploads a small text of this content. Error: *[StatusError].
func (c *Client) Upload(ctx context.Context, t Tenant, content string) (Document, Answer, error) {
	var body bytes.Buffer
	contentType, err := WriteUpload(&body, content)
	if err != nil {
		return Document{}, Answer{}, err
	}
	a, err := c.do(ctx, http.MethodPost, DocumentsPath(t), http.Header{"Content-Type": {contentType}}, &body)
	if err != nil {
		return Document{}, a, err
	}
	var out struct {
		Data struct {
			ID     string `json:"id"`
			FileID string `json:"file_id"`
		} `json:"data"`
	}
	if err := json.Unmarshal(a.Body, &out); err != nil || out.Data.ID == "" {
		return Document{}, a, fmt.Errorf("upload: the answer names no document: %.200s", a.Body)
	}
	return Document{t, out.Data.ID, out.Data.FileID}, a, nil
}

// Delete deletes a document. Error: *[StatusError].
func (c *Client) Delete(ctx context.Context, d Document) (Answer, error) {
	return c.do(ctx, http.MethodDelete, d.Path(), http.Header{}, nil)
}

func (c *Client) do(ctx context.Context, method, path string, header http.Header, body io.Reader) (a Answer, err error) {
	token, err := c.token(ctx)
	if err != nil {
		return a, err
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return a, err
	}
	req.Header = header
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := c.http.Do(req)
	if err != nil {
		return a, err
	}
	defer res.Body.Close()
	if a.Body, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer)); err != nil {
		return a, fmt.Errorf("%s %s: read the answer: %w", method, path, err)
	}
	a.Status, a.Pending = res.StatusCode, res.Header.Get("Factum-Pending")
	if position := res.Header.Get("Factum-Position"); position != "" {
		if a.Position, err = strconv.ParseUint(position, 10, 64); err != nil {
			return a, fmt.Errorf("%s %s: Factum-Position is no number: %w", method, path, err)
		}
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return a, &StatusError{method, path, res.StatusCode, string(a.Body)}
	}
	return a, nil
}
