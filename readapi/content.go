package readapi

import (
	"context"
	"errors"
	"io"
	"time"
)

// transferLimit bounds how long one content may take to be read.
const transferLimit = time.Hour

// open opens a content that is read after the handler has returned: the request's context has ended by then.
func (r routes) open(ctx context.Context, key string) (io.ReadCloser, int64, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), transferLimit)
	body, size, err := r.Objects.Get(ctx, key)
	if err != nil {
		cancel()
		return nil, 0, err
	}
	return &content{body, cancel}, size, nil
}

type content struct {
	io.ReadCloser
	cancel context.CancelFunc
}

// Close implements io.Closer.
func (c *content) Close() error {
	defer c.cancel()
	if err := c.ReadCloser.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
