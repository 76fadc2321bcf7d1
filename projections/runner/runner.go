package runner

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/seal"
	"github.com/factum-platform/factum/infra/readmodel"
	"github.com/factum-platform/factum/infra/tenants"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations are the goose files of the schema "proj" (checkpoints, pointers to live generations, parked streams). Every database that
// holds read models or sagas needs them.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic("runner: the embedded migrations are missing: " + err.Error())
	}
	return sub
}

// Config is what a Runner needs.
type Config struct {
	Store eventstore.Store
	Codec *seal.Codec
	// Pool reaches a tenant's database, or the platform's for "platform".
	Pool func(ctx context.Context, tenant string) (*pgxpool.Pool, error)
	// Tenants lists the tenants that have a database, as ids of their logs and without "platform".
	Tenants     func(ctx context.Context) ([]string, error)
	Projections []Projection
	Moves       *readmodel.Moves      // told about each move of a live generation; optional
	Logger      *slog.Logger          // nil: slog.Default
	Registerer  prometheus.Registerer // for the metrics factum_projection_*; nil: none are exported
	Marks       Marks                 // which tenants may have news; nil looks after all of Tenants
	Share       Share                 // which tenants are this process's; nil: all
	// Ring tells the runners of all processes that somebody changed something about the tenant's consumers; each is to call its
	// [Runner.Look]. An Operator calls it; without it they find out at their next look.
	Ring func(ctx context.Context, tenant string) error
	// Server names the server on which a tenant's database is, "" when it is not known. It is called often and must not wait. With it a server
	// that hangs is told from single tenants whose work takes long. Optional.
	Server func(tenant string) string
	// SweepEvery is how often the tenants that may have news are looked after, because a ring can be lost; 0 means 5 s.
	SweepEvery time.Duration
	// LookEvery is how often a consumer that is halted or paused looks again by itself; 0 means 30 s.
	LookEvery time.Duration
}

// Marks remembers durably which tenants may have news. A writer marks a tenant before it appends (see eventstore.Mark), so that no news is
// lost with a doorbell, and nobody needs to ask the tenants at rest.
type Marks interface {
	// Mark marks the tenant.
	Mark(ctx context.Context, tenant string) error
	// MarkAll marks all tenants, the first time that it is called for the reason.
	MarkAll(ctx context.Context, reason string) error
	// Marked returns the marks.
	Marked(ctx context.Context) ([]tenants.Mark, error)
	// Unmark removes the mark, if it was not renewed since it was read.
	Unmark(ctx context.Context, m tenants.Mark) error
}

// Share spreads the tenants over the processes that run projections. It saves work and decides nothing: two processes that both take a tenant
// for theirs disturb each other and apply nothing twice.
type Share interface {
	// Mine tells whether the tenant is this process's at present. It must not wait.
	Mine(tenant string) bool
	// Changed returns a channel that is closed when the answers of Mine change.
	Changed() <-chan struct{}
}

// What the Config says when it is not set.
const (
	defaultSweepEvery = 5 * time.Second
	defaultLookEvery  = 30 * time.Second
)

var nameForm = regexp.MustCompile(`^[a-z]{1,40}$`)

func (c *Config) validate() error {
	if c.Store == nil || c.Codec == nil || c.Pool == nil || c.Tenants == nil {
		return errors.New("runner: Store, Codec, Pool and Tenants must be set")
	}
	seen := map[string]bool{}
	for i := range c.Projections {
		p := &c.Projections[i]
		if err := p.validate(); err != nil {
			return err
		}
		if seen[p.Name] {
			return fmt.Errorf("runner: two projections are named %s", p.Name)
		}
		seen[p.Name] = true
	}
	return nil
}

func (c *Config) complete() {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.SweepEvery == 0 {
		c.SweepEvery = defaultSweepEvery
	}
	if c.LookEvery == 0 {
		c.LookEvery = defaultLookEvery
	}
}

// Group names the set of projections and their versions. Processes of one group may share tenants; those of another write other generations.
func Group(projections []Projection) string {
	var names []string
	for i := range projections {
		names = append(names, fmt.Sprintf("%s:%d", projections[i].Name, projections[i].Version))
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// Runner drives the projections of all tenants. Several runners, in one process or many, may share the databases: a checkpoint moves
// for one of them only. It is safe for concurrent use.
type Runner struct {
	config  Config
	codec   *seal.Codec
	queue   *queue
	metrics *metrics

	mu        sync.Mutex
	consumers map[eventstore.TenantID]*consumed
	marks     map[eventstore.TenantID]marked // as of the last sweep
}

// New checks the configuration. It starts nothing and touches no database.
func New(c Config) (*Runner, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	c.complete()
	r := &Runner{
		config: c, codec: &seal.Codec{Registry: c.Codec.Registry, Keys: keys{c.Codec.Keys}}, queue: newQueue(c.Server),
		consumers: map[eventstore.TenantID]*consumed{},
	}
	var err error
	r.metrics, err = newMetrics(r, c.Registerer)
	return r, err
}
