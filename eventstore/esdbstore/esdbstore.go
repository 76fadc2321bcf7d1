// Package esdbstore is the log on EventStoreDB, through EventStore-Client-Go v4.
package esdbstore

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/factum-platform/factum/eventstore"
)

// Config says how to reach the server. Only ConnectionString is required.
type Config struct {
	// ConnectionString has the form esdb://user:password@host:2113?tls=true (ESDB_CONNECTION_STRING).
	ConnectionString string
	// Logger gets what operators must know; nil is [slog.Default].
	Logger *slog.Logger
	// Timeout bounds one call, its retries included; 0 is 10 s.
	Timeout time.Duration
	// ProbeTimeout bounds how long Open waits for $by_category to link its probe; 0 is 15 s.
	ProbeTimeout time.Duration
}

// Store implements [eventstore.Store].
type Store struct {
	bell eventstore.Bell
}

// Open connects, and checks that the server runs the projection $by_category.
func Open(_ context.Context, c Config) (*Store, error) {
	if c.ConnectionString == "" {
		return nil, errors.New("esdbstore: Config.ConnectionString is required; set ESDB_CONNECTION_STRING")
	}
	return nil, errors.New("esdbstore: this engine is being built; use pgstore")
}

// Tenant implements [eventstore.Store].
func (s *Store) Tenant(eventstore.TenantID) eventstore.Log { panic("esdbstore: not open") }

// Caps implements [eventstore.Store].
func (s *Store) Caps() eventstore.Caps { return eventstore.Caps{} }

// Bell implements [eventstore.Store].
func (s *Store) Bell() *eventstore.Bell { return &s.bell }

// Healthy says why the log is not to be trusted for now, nil when it is.
func (s *Store) Healthy(context.Context) error { return nil }

// Sweep settles the tenant's reservations of claims that are older than 10 minutes.
func (s *Store) Sweep(context.Context, eventstore.TenantID) error { return nil }

// Close implements [eventstore.Store].
func (s *Store) Close() error { return nil }
