package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"path/filepath"
	"time"
)

const (
	demoCallTimeout = 30 * time.Second
	demoMaxJSON     = 4 << 20   // bytes of one JSON answer
	demoMaxFile     = 101 << 20 // bytes of one download; Factum takes files of at most 100 MiB
)

// demoClient speaks the REST API. It is for one goroutine.
type demoClient struct {
	base  string // without a slash at the end
	token string // access token, empty before the log-in
	http  http.Client
}

// call sends in as JSON, if it is not nil, and decodes the answer into out, if that is not nil.
func (c *demoClient) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	contentType := ""
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body, contentType = bytes.NewReader(raw), "application/json"
	}
	raw, err := c.do(ctx, method, path, contentType, body, demoMaxJSON)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("%s %s: the answer is not the JSON that was expected: %w", method, path, err)
	}
	return nil
}

// upload sends content as the multipart part "file".
func (c *demoClient) upload(ctx context.Context, path, name string, content []byte, out any) error {
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	// The API takes a bare type; the table's may carry parameters such as a charset.
	kind, _, err := mime.ParseMediaType(mime.TypeByExtension(filepath.Ext(name)))
	if err != nil {
		kind = "application/octet-stream"
	}
	// The type goes into a field of its own: CreateFormFile declares every part application/octet-stream.
	if err := form.WriteField("mime_type", kind); err != nil {
		return err
	}
	part, err := form.CreateFormFile("file", name)
	if err != nil {
		return err
	}
	if _, err := part.Write(content); err != nil {
		return err
	}
	if err := form.Close(); err != nil {
		return err
	}
	raw, err := c.do(ctx, http.MethodPost, path, form.FormDataContentType(), &body, demoMaxJSON)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, out)
}

// fetch downloads bytes.
func (c *demoClient) fetch(ctx context.Context, path string) ([]byte, error) {
	return c.do(ctx, http.MethodGet, path, "", nil, demoMaxFile)
}

// do sends one request and returns the body of a 2xx answer; everything else is an error that says what the server said.
func (c *demoClient) do(ctx context.Context, method, path, contentType string, body io.Reader, limit int64) (raw []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, demoCallTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	raw, err = io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s %s: read the answer: %w", method, path, err)
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("%s %s: the answer is larger than %d bytes", method, path, limit)
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return nil, fmt.Errorf("%s %s: %s%s", method, path, res.Status, problem(raw))
	}
	return raw, nil
}

// problem reads the code and the sentence of an application/problem+json body; anything else gives "".
func problem(raw []byte) string {
	var p struct {
		Detail string `json:"detail"`
		Error  struct {
			Code string `json:"code"`
		} `json:"error"`
	}
	if json.Unmarshal(raw, &p) != nil || p.Error.Code == "" {
		return ""
	}
	return fmt.Sprintf(" (%s: %s)", p.Error.Code, p.Detail)
}
