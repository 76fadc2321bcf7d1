package runner

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"regexp"
	"sync"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/seal"
	"github.com/factum-platform/factum/infra/readmodel"
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
}

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

// Runner drives the projections of all tenants. Several runners, in one process or many, may share the databases: a checkpoint moves
// for one of them only. It is safe for concurrent use.
type Runner struct {
	config  Config
	codec   *seal.Codec
	queue   *queue
	metrics *metrics

	mu        sync.Mutex
	consumers map[eventstore.TenantID][]*consumer
}

// New checks the configuration. It starts nothing and touches no database.
func New(c Config) (*Runner, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	r := &Runner{
		config: c, codec: &seal.Codec{Registry: c.Codec.Registry, Keys: keys{c.Codec.Keys}}, queue: newQueue(),
		consumers: map[eventstore.TenantID][]*consumer{},
	}
	var err error
	r.metrics, err = newMetrics(r, c.Registerer)
	return r, err
}
