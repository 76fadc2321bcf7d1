package tsa

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"mime"
	"net/http"
	"net/url"
	"time"
)

const (
	defaultTimeout  = 30 * time.Second
	defaultMaxReply = 256 << 10
	// clockSkew is how far genTime may be from our clock when the reply arrives: more means a replayed token or a wrong clock.
	clockSkew = 5 * time.Minute
	queryType = "application/timestamp-query"
	replyType = "application/timestamp-reply"
)

// Config describes an authority. URL and Roots are required.
type Config struct {
	URL      string
	Provider string         // short name, for people
	Roots    *x509.CertPool // what its certificate must chain to
	Timeout  time.Duration  // of one conversation; 0 means 30 s
	MaxReply int64          // bytes; 0 means 256 KiB
}

// Error says why there is no time-stamp. Reason is a sentence without personal data or secrets. Permanent says that the request
// itself is refused, so that asking again cannot help.
type Error struct {
	Reason    string
	Permanent bool
	Err       error
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err == nil {
		return "tsa: " + e.Reason
	}
	return "tsa: " + e.Reason + " " + e.Err.Error()
}

// Unwrap returns the cause, if there is one.
func (e *Error) Unwrap() error { return e.Err }

// Client asks one authority. It is safe for concurrent use.
type Client struct {
	c    Config
	http *http.Client
	now  func() time.Time
}

// New checks the configuration; it does not ask the authority anything.
func New(c Config) (*Client, error) {
	u, err := url.Parse(c.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("tsa: the authority's address %q is not an http or https URL", c.URL)
	}
	if c.Roots == nil {
		return nil, errors.New("tsa: no trusted roots are configured; without them no reply can be believed")
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.MaxReply == 0 {
		c.MaxReply = defaultMaxReply
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 4
	transport.IdleConnTimeout = 10 * time.Second
	return &Client{c: c, http: &http.Client{Timeout: c.Timeout, Transport: transport}, now: time.Now}, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Stamp obtains a time-stamp of the content with this SHA-256 digest. The reply is believed only when status, imprint, nonce,
// signature, ESSCertIDv2, key usage and the chain to a root at genTime are right and genTime is within five minutes of our
// clock. Every error is an *[Error].
func (c *Client) Stamp(ctx context.Context, sha256Digest []byte) (Stamp, error) {
	if len(sha256Digest) != sha256.Size {
		return Stamp{}, &Error{Reason: "The digest is not a SHA-256.", Permanent: true}
	}
	var random [16]byte
	rand.Read(random[:]) // never fails (Go 1.24)
	nonce := new(big.Int).SetBytes(random[:])
	query, err := request(sha256Digest, nonce)
	if err != nil {
		return Stamp{}, &Error{Reason: "The request could not be built.", Permanent: true, Err: err}
	}
	response, err := c.ask(ctx, query)
	if err != nil {
		return Stamp{}, err
	}
	token, err := parseResponse(response)
	if err != nil {
		return Stamp{}, err
	}
	stamp, report, answered, err := verifyToken(response, token, sha256Digest, c.c.Roots)
	switch {
	case err != nil:
		return Stamp{}, err
	case !report.Valid():
		return Stamp{}, &Error{Reason: "The authority's reply is not to be believed: " + report.Errors[0] + "."}
	case answered == nil || answered.Cmp(nonce) != 0:
		return Stamp{}, &Error{Reason: "The authority's reply does not carry our nonce."}
	}
	if skew := c.now().Sub(stamp.GenTime); skew > clockSkew || skew < -clockSkew {
		return Stamp{}, &Error{Reason: "The token's genTime is more than five minutes away from our clock."}
	}
	return stamp, nil
}

// ask posts the request (RFC 3161 §3.4) and reads a bounded reply.
func (c *Client) ask(ctx context.Context, query []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.c.URL, bytes.NewReader(query))
	if err != nil {
		return nil, &Error{Reason: "The request could not be built.", Permanent: true, Err: err}
	}
	req.Header.Set("Content-Type", queryType)
	req.Header.Set("Accept", replyType)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, &Error{Reason: "The time-stamping authority cannot be reached.", Err: err}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, c.c.MaxReply+1))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, &Error{Reason: "The authority's reply broke off.", Err: err}
	}
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode != http.StatusOK:
		return nil, &Error{Reason: fmt.Sprintf("The time-stamping authority answered with HTTP status %d.", resp.StatusCode)}
	case err != nil || media != replyType:
		return nil, &Error{Reason: "The authority's reply is not of the type " + replyType + "."}
	case int64(len(body)) > c.c.MaxReply:
		return nil, &Error{Reason: fmt.Sprintf("The authority's reply is longer than %d bytes.", c.c.MaxReply)}
	}
	return body, nil
}
