package httpapi

import (
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humafiber"
)

// Inflow returns the request's body as it arrives, never more than a buffer of it in memory. Reading more than limit bytes, a
// client that sends nothing for 30 s or is not done when the route's time is up, or a body that breaks off answers a *[Problem]: 413,
// 408 or 400. A body that is declared to be larger is refused at once.
func Inflow(ctx huma.Context, limit int64) (io.Reader, error) {
	c := humafiber.Unwrap(ctx)
	if int64(c.Request().Header.ContentLength()) > limit {
		return nil, tooLarge()
	}
	body := c.Request().BodyStream()
	if body == nil {
		return nil, NewProblem(http.StatusBadRequest, "", "The request body is missing.")
	}
	until, ok := ctx.Context().Deadline()
	if !ok {
		until = time.Now().Add(longLimit)
	}
	return &inflow{body, c.RequestCtx().Conn(), limit, until}, nil
}

func tooLarge() *Problem {
	return NewProblem(http.StatusRequestEntityTooLarge, "", "The request body is too large.")
}

type inflow struct {
	body io.Reader
	conn net.Conn
	left int64
	// until is the last moment, so that a trickle does not hold a connection for ever.
	until time.Time
}

// Read implements io.Reader. The deadline moves on with every piece.
func (f *inflow) Read(p []byte) (int, error) {
	next := time.Now().Add(bodyTimeout)
	if next.After(f.until) {
		next = f.until
	}
	if err := f.conn.SetReadDeadline(next); err != nil {
		return 0, err
	}
	if int64(len(p)) > f.left+1 {
		p = p[:f.left+1]
	}
	n, err := f.body.Read(p)
	if f.left -= int64(n); f.left < 0 {
		return 0, tooLarge()
	}
	var timeout net.Error
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return n, err
	case errors.As(err, &timeout) && timeout.Timeout():
		return n, NewProblem(http.StatusRequestTimeout, "", "The request body did not arrive in time.")
	default:
		return n, NewProblem(http.StatusBadRequest, "", "The request body broke off.")
	}
}
