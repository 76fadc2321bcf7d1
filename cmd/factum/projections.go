package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/jobs"
	"github.com/factum-platform/factum/infra/readmodel"
	"github.com/factum-platform/factum/infra/telemetry"
	"github.com/factum-platform/factum/infra/tenants"
	"github.com/factum-platform/factum/projections/process"
	"github.com/factum-platform/factum/projections/runner"
)

// operatorActor is who operators' commands are recorded to come from: whoever may use the database's URL.
const operatorActor = "operator"

// ProjectionsCmd groups what operators do with projections. All of it works while the platform serves.
type ProjectionsCmd struct {
	List     ProjectionsListCmd     `cmd:"" help:"Show every consumer: generation, position, lag, state, parked streams, last error."`
	Rebuild  ProjectionsRebuildCmd  `cmd:"" help:"Build a read model anew beside the live one, compare the two, and let queries read the new one. May be killed and repeated."`
	Rollback ProjectionsRollbackCmd `cmd:"" help:"Let queries read the previous generation again, which is kept for a day after a rebuild."`
	Retry    ProjectionsRetryCmd    `cmd:"" help:"Apply parked streams again, after what was wrong is mended."`
	Skip     ProjectionsSkipCmd     `cmd:"" help:"Pass over an event that cannot be applied; recorded in the tenant's log with a reason."`
	Pause    ProjectionsPauseCmd    `cmd:"" help:"Stop consumers until they are resumed. Queries go on with what is there."`
	Resume   ProjectionsResumeCmd   `cmd:"" help:"Let paused consumers go on."`
}

// operated are the settings of commands that work beside a running platform.
type operated struct {
	logServers
	Data string `placeholder:"FOLDER" help:"Data folder of a running 'factum dev', in place of --database-url and --keyring."`
}

// operations is a platform as operators' commands see it.
type operations struct {
	*platform
	*runner.Operator
	queue *jobs.Client // inserts only
}

// with calls fn with the open platform, and stops everything afterwards.
func (c operated) with(ctx context.Context, fn func(ctx context.Context, o *operations) error) (err error) {
	if err := c.fromData(); err != nil {
		return err
	}
	if err := c.validate(); err != nil {
		return err
	}
	st := newStack()
	defer func() { err = errors.Join(err, st.stop()) }()
	o, err := c.open(ctx, st)
	if err != nil {
		return err
	}
	working, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // such as a log that has moved to another engine
		select {
		case err := <-st.failed:
			cancel(err)
		case <-working.Done():
		}
	}()
	err = fn(working, o)
	if cause := context.Cause(working); err != nil && cause != nil && ctx.Err() == nil {
		return cause
	}
	return err
}

// fromData takes the settings from the folder of factum dev.
func (c *operated) fromData() error {
	if c.Data == "" {
		return nil
	}
	info, err := readDevInfo(c.Data)
	if err != nil {
		return err
	}
	if info.DatabaseURL == "" {
		return fmt.Errorf("%s holds no dev.json: no 'factum dev' has run on this folder", c.Data)
	}
	c.DatabaseURL, c.Keyring = info.DatabaseURL, filepath.Join(c.Data, "keyring.json")
	return nil
}

func (c operated) open(ctx context.Context, st *stack) (*operations, error) {
	level := c.LogLevel
	if level == "info" { // what is done is printed
		level = "warn"
	}
	log, err := telemetry.Logger(os.Stderr, c.LogFormat, level)
	if err != nil {
		return nil, err
	}
	s := settings{log: log}
	if s.databases, err = c.prepare(ctx, false); err != nil {
		return nil, err
	}
	admin, err := connect(ctx, s.adminDSN)
	if err != nil {
		return nil, err
	}
	found, err := tenants.RememberedEngine(ctx, admin)
	if err = errors.Join(err, admin.Close(context.WithoutCancel(ctx))); err != nil {
		return nil, err
	}
	if found.Name == "" {
		return nil, errors.New("the platform has no log yet: nothing has been served with these settings")
	}
	if err := c.validate(found.Name); err != nil {
		return nil, err
	}
	s.engine = engine{found.Name, c.ESDB}
	o := &operations{platform: &platform{settings: s, moves: &readmodel.Moves{}, metrics: telemetry.Metrics(version)}}
	if err := o.openLog(ctx, st); err != nil {
		return nil, err
	}
	if o.queue, err = jobs.New(jobs.Config{Pool: o.pool, Logger: log}); err != nil {
		return nil, err
	}
	o.Operator, err = runner.NewOperator(o.consumers(append(readModels(), process.Sagas(o.queue)...)))
	return o, err
}

// retiring schedules the removal of a generation.
func (p *platform) retiring(queue process.Queue) func(context.Context, string, eventstore.TenantID, int) error {
	return func(ctx context.Context, projection string, t eventstore.TenantID, generation int) error {
		return process.DropLater(ctx, p.pool, queue, projection, t, generation)
	}
}

// choice says which tenants' consumers are meant.
type choice struct {
	Tenant []string `placeholder:"ID" help:"A tenant's id, or 'platform' for the log of users and tenants; may be repeated."`
	All    bool     `help:"All tenants."`
}

// consumers are the logs whose consumers of the projection are meant.
func (c choice) consumers(ctx context.Context, o *operations, projection string) ([]eventstore.TenantID, error) {
	p, err := findProjection(projection)
	if err != nil {
		return nil, err
	}
	known, err := o.logs(ctx)
	if err != nil {
		return nil, err
	}
	if p.Home == runner.TenantHome {
		known = slices.DeleteFunc(known, func(t string) bool { return t == tenants.Platform })
	}
	switch {
	case c.All && len(c.Tenant) > 0:
		return nil, errors.New("give either --all or --tenant, not both")
	case c.All:
		return ids(known), nil
	case len(c.Tenant) == 0:
		return nil, fmt.Errorf("say whose %s is meant: --tenant ID, which may be repeated, or --all", projection)
	}
	return chooseTenants(c.Tenant, known)
}

// logs are the names of all logs, the platform's last.
func (o *operations) logs(ctx context.Context) ([]string, error) {
	known, err := o.dbs.Tenants(ctx)
	if err != nil {
		return nil, err
	}
	return append(known, tenants.Platform), nil
}

// findProjection looks a projection up by its name.
func findProjection(name string) (runner.Projection, error) {
	e := &runner.UnknownProjectionError{Name: name}
	for _, p := range append(readModels(), process.Sagas(nil)...) {
		if p.Name == name {
			return p, nil
		}
		e.Known = append(e.Known, p.Name)
	}
	slices.Sort(e.Known)
	return runner.Projection{}, e
}

// manyTenants is how many tenants an error lists.
const manyTenants = 20

// chooseTenants checks ids that people gave, as the API shows them or without dashes, against those that there are.
func chooseTenants(wanted, known []string) ([]eventstore.TenantID, error) {
	var chosen []string
	for _, id := range wanted {
		short := shortID(id)
		if !slices.Contains(known, short) {
			list := known
			more := ""
			if len(list) > manyTenants {
				list, more = list[:manyTenants], fmt.Sprintf(" and %d more", len(list)-manyTenants)
			}
			return nil, fmt.Errorf("there is no tenant %s here; there are %s%s", id, strings.Join(list, ", "), more)
		}
		if !slices.Contains(chosen, short) {
			chosen = append(chosen, short)
		}
	}
	return ids(chosen), nil
}

// shortID is a tenant's id as its log has it.
func shortID(id string) string { return strings.ReplaceAll(strings.ToLower(id), "-", "") }
