package httpapi

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

const (
	lingerBytes = 8 << 20
	lingerFor   = time.Second
)

// lingering is a listener whose connections end gently: closing a socket with unread bytes resets it, and then the client
// may lose the very answer that told it to stop sending (RFC 9112 §9.6).
type lingering struct{ net.Listener }

// Accept implements net.Listener.
func (l lingering) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lingeringConn{Conn: conn}, nil
}

type lingeringConn struct {
	net.Conn
	unread atomic.Bool // a body was not read to its end
	line   int         // bytes that were read behind the last line feed
}

// Read implements net.Conn.
func (c *lingeringConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if at := bytes.LastIndexByte(p[:n], '\n'); at >= 0 {
		c.line = n - at - 1
	} else {
		c.line += n
	}
	return n, err
}

// longRequestLine tells, of a connection whose next request has filled the buffer for its header, whether the request line alone did: a line
// feed that is not among the buffer's bytes ended no request line.
func longRequestLine(conn net.Conn) bool {
	c, ok := conn.(*lingeringConn)
	return ok && c.line >= maxHeaderBytes
}

// Close implements net.Conn. After an unread body it says that nothing more will come, and listens for a moment.
func (c *lingeringConn) Close() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || !c.unread.Load() || half.CloseWrite() != nil {
		return c.Conn.Close()
	}
	if err := c.SetReadDeadline(time.Now().Add(lingerFor)); err == nil {
		_, err = io.CopyN(io.Discard, c.Conn, lingerBytes)
		var timeout net.Error
		if err != nil && !errors.Is(err, io.EOF) && !errors.As(err, &timeout) {
			return errors.Join(err, c.Conn.Close())
		}
	}
	return c.Conn.Close()
}
