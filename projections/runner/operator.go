package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/seal"
	"github.com/factum-platform/factum/infra/tenants"
)

// UnknownProjectionError says that no projection has the name. Nothing was changed.
type UnknownProjectionError struct {
	Name  string
	Known []string
}

// Error implements error.
func (e *UnknownProjectionError) Error() string {
	return fmt.Sprintf("there is no projection %q; there are %s", e.Name, strings.Join(e.Known, ", "))
}

// NotConsumedError says that the projection does not read the log. Nothing was changed.
type NotConsumedError struct {
	Projection string
	Tenant     eventstore.TenantID
}

// Error implements error.
func (e *NotConsumedError) Error() string {
	return fmt.Sprintf("%s does not consume the log of %s", e.Projection, e.Tenant)
}

// Operator inspects and steers consumers in the databases; it works in any process, beside running runners, which notice at their next move at
// the latest. It is safe for concurrent use. Errors of all its methods: *[UnknownProjectionError], [tenants.ErrUnknownTenant], and
// *[NotConsumedError] of those that change something.
type Operator struct {
	config Config
	codec  *seal.Codec
}

// NewOperator checks the configuration. It starts nothing and touches no database. It needs what a [Runner] needs, and Marks and Ring where
// the runners have them.
func NewOperator(c Config) (*Operator, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	c.complete()
	return &Operator{config: c, codec: &seal.Codec{Registry: c.Codec.Registry, Keys: keys{c.Codec.Keys}}}, nil
}

// Pause stops the consumer of the tenant's log, whichever process it runs in and whatever its generation, until [Operator.Resume]. When it
// returns, no further slice is committed. To pause one that is paused changes who did it, and when.
func (o *Operator) Pause(ctx context.Context, projection string, t eventstore.TenantID, by string) error {
	return o.change(ctx, "pause", projection, t, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `insert into proj.paused (projection, tenant, by_actor) values ($1, $2, $3)
			on conflict (projection, tenant) do update set by_actor = excluded.by_actor, at = now()`, projection, string(t), by)
		return err
	})
}

// Resume lets a consumer that was paused go on. One that is not paused is left as it is, and looks again at once if it stands still.
func (o *Operator) Resume(ctx context.Context, projection string, t eventstore.TenantID) error {
	return o.change(ctx, "resume", projection, t, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `delete from proj.paused where projection = $1 and tenant = $2`, projection, string(t))
		return err
	})
}

// change does something about a consumer, raises the revision of its checkpoints, so that writers forget what they remember, and rings.
func (o *Operator) change(ctx context.Context, what, projection string, t eventstore.TenantID, f func(pgx.Tx) error) error {
	_, pool, err := o.find(ctx, projection, t)
	if err == nil {
		err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if err := f(tx); err != nil {
				return err
			}
			return raise(ctx, tx, projection, t)
		})
	}
	if err != nil {
		return fmt.Errorf("runner: %s %s of %s: %w; nothing was changed", what, projection, t, err)
	}
	o.touch(ctx, t)
	return nil
}

// raise makes what writers remember of the consumer void.
func raise(ctx context.Context, tx pgx.Tx, projection string, t eventstore.TenantID) error {
	_, err := tx.Exec(ctx, `update proj.checkpoint set revision = revision + 1 where projection = $1 and tenant = $2`, projection, string(t))
	return err
}

// touch tells runners that something about the tenant's consumers was changed in the database. It is a hint: a runner that does not hear it finds
// out at its next move, or at its next look.
func (o *Operator) touch(ctx context.Context, t eventstore.TenantID) {
	var errs []error
	if o.config.Marks != nil && t != eventstore.PlatformTenant {
		errs = append(errs, o.config.Marks.Mark(ctx, string(t)))
	}
	if o.config.Ring != nil {
		errs = append(errs, o.config.Ring(ctx, string(t)))
	}
	if err := errors.Join(errs...); err != nil {
		o.config.Logger.WarnContext(ctx, "the change is made, but running projectors could not be told; they look by themselves", "tenant", t,
			"within", o.config.LookEvery, "error", describe(err))
	}
}

// find returns the projection and the pool of the database in which its rows for the tenant's log lie.
func (o *Operator) find(ctx context.Context, projection string, t eventstore.TenantID) (*Projection, *pgxpool.Pool, error) {
	p, err := o.projection(projection)
	if err != nil {
		return nil, nil, err
	}
	if !p.consumes(t) {
		return nil, nil, &NotConsumedError{projection, t}
	}
	if err := o.known(ctx, t); err != nil {
		return nil, nil, err
	}
	pool, err := o.config.Pool(ctx, string(p.root(t)))
	return p, pool, err
}

func (o *Operator) projection(name string) (*Projection, error) {
	e := &UnknownProjectionError{Name: name}
	for i := range o.config.Projections {
		if o.config.Projections[i].Name == name {
			return &o.config.Projections[i], nil
		}
		e.Known = append(e.Known, o.config.Projections[i].Name)
	}
	slices.Sort(e.Known)
	return nil, e
}

// known refuses a tenant that has no database.
func (o *Operator) known(ctx context.Context, t eventstore.TenantID) error {
	if t == eventstore.PlatformTenant {
		return nil
	}
	list, err := o.config.Tenants(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(list, string(t)) {
		return fmt.Errorf("%w: %s", tenants.ErrUnknownTenant, t)
	}
	return nil
}
