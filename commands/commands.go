package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sort"
	"strings"
	"time"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/seal"
	"github.com/factum-platform/factum/infra/auth"
)

// ObjectStore keeps file contents.
type ObjectStore interface {
	// Put streams body, of any length, into key and returns its size. When it fails, nothing is visible under key.
	Put(ctx context.Context, key string, body io.Reader) (int64, error)
	Delete(ctx context.Context, key string) error
}

// Config is what the commands need. Fields without a default are required.
type Config struct {
	Store     eventstore.Store
	Codec     *seal.Codec
	Objects   ObjectStore // nil in a process that takes no uploads: it refuses them
	Provision func(ctx context.Context, tenant, database string) error
	// MAC is HMAC under a key of the tenant: equal values meet, and a stranger who guesses one learns nothing.
	MAC        func(ctx context.Context, tenant, purpose, value string) ([]byte, error)
	Auth       *auth.Auth
	Passwords  auth.PasswordRules
	Outbox     Outbox // nil in a process that takes no requests for mails
	Mailer     Mailer // nil sends no mails and says so in the log
	AccountURL string // the page that mailed links lead to: https://factum.example/account
	// VerifiedOnly refuses a log-in until the account's address was verified.
	VerifiedOnly bool
	TSAProvider  string // short name of the time-stamping authority; "" leaves time-stamping off
	Now          func() time.Time
	NewID        func() string // a fresh UUID
	Logger       *slog.Logger  // nil means slog.Default()
}

// Commands carries out the use cases. It is safe for concurrent use.
type Commands struct {
	c Config
	x *Executor
}

// New checks the configuration.
func New(c Config) (*Commands, error) {
	if c.Store == nil || c.Codec == nil || c.Provision == nil || c.MAC == nil || c.Auth == nil || c.Now == nil || c.NewID == nil {
		return nil, errors.New("commands: every field of Config without a default is required")
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return &Commands{c, NewExecutor(c.Store, c.Codec)}, nil
}

// System is the actor of commands that no person gave.
const System = "system"

// Caller says who gives a command, and which. At is when; its fraction below a microsecond is dropped.
type Caller struct {
	UserID      string // opaque id; "" before there is one
	Command     string // the Idempotency-Key, or a fresh UUID
	Correlation string // the request's id
	Causation   string // the event or job that caused it, if any
	At          time.Time
	IfMatch     []eventstore.Version // of the stream that the command is about, see Decision.IfMatch; nil for any
}

func (c Caller) meta() eventstore.Meta {
	return eventstore.Meta{Command: c.Command, Correlation: c.Correlation, Causation: c.Causation, Actor: c.UserID, At: stamp(c.At)}
}

// stamp is the precision that PostgreSQL keeps.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// LogOf is the id of a tenant's log: its UUID without dashes.
func LogOf(tenantID string) eventstore.TenantID {
	return eventstore.TenantID(strings.ReplaceAll(tenantID, "-", ""))
}

// ValidationError says what is wrong with the input, for every field at once.
type ValidationError struct{ Fields map[string][]string }

// Error implements error. It names the fields and not their values.
func (e *ValidationError) Error() string {
	names := make([]string, 0, len(e.Fields))
	for name := range e.Fields {
		names = append(names, name)
	}
	sort.Strings(names)
	return fmt.Sprintf("commands: these fields are not valid: %s", strings.Join(names, ", "))
}

// problems collects what is wrong, field by field. Inputs have a Check that answers it: what can be said of them without looking anything up.
// The command checks too; who has more to say of the same input, as the routes have, says both at once.
type problems map[string][]string

func (p problems) add(field, message string) {
	if message != "" {
		p[field] = append(p[field], message)
	}
}

func (p problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return &ValidationError{p}
}
