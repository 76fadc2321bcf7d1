package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/cmd/factum/steering"
	"github.com/factum-platform/factum/commands/rest"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/readmodel"
	"github.com/factum-platform/factum/infra/tenants"
	"github.com/factum-platform/factum/projections/runner"
)

// TenantsListCmd lists the tenants.
type TenantsListCmd struct {
	operated
	JSON bool `name:"json" help:"As JSON."`
}

// tenantStatus is a line of the list.
type tenantStatus struct {
	ID        string         `json:"id"`
	Name      string         `json:"name,omitempty"` // if the directory knows it
	Server    string         `json:"server"`
	Database  string         `json:"database"`
	Schema    tenants.Schema `json:"schema"`
	Refused   string         `json:"refused,omitempty"` // why this binary does not serve it
	Bytes     *int64         `json:"size_bytes"`        // null when its server cannot be asked
	CreatedAt time.Time      `json:"created_at"`
}

// Run implements the subcommand.
func (c TenantsListCmd) Run(ctx context.Context) error {
	return c.with(ctx, func(ctx context.Context, o *operations) error {
		placed, err := o.dbs.Placements(ctx)
		if err != nil {
			return err
		}
		list, failed, err := o.tenantStatuses(ctx, placed)
		if err != nil {
			return err
		}
		for _, server := range slices.Sorted(maps.Keys(failed)) {
			fmt.Fprintln(os.Stderr, "factum: sizes are missing:", oneLine(failed[server]))
		}
		if c.JSON {
			return printJSON(os.Stdout, list)
		}
		printTenants(os.Stdout, list)
		return nil
	})
}

func (o *operations) tenantStatuses(ctx context.Context, placed []tenants.Placement) ([]tenantStatus, map[string]error, error) {
	names, err := o.tenantNames(ctx)
	if err != nil {
		return nil, nil, err
	}
	usage, failed := o.dbs.Usage(ctx, placed)
	list := make([]tenantStatus, len(placed))
	for i, p := range placed {
		id := longID(p.Tenant)
		list[i] = tenantStatus{ID: id, Name: names[id], Server: p.Server, Database: p.Database, Schema: p.Schema, CreatedAt: p.CreatedAt.UTC()}
		if u, ok := usage[p.Tenant]; ok {
			list[i].Bytes = &u.Bytes
		}
		if refused := o.dbs.Refusal(p); refused != nil {
			list[i].Refused = refused.Error()
		}
	}
	return list, failed, nil
}

// tenantNames are those that the directory shows, by id; none when it is not built.
func (o *operations) tenantNames(ctx context.Context) (map[string]string, error) {
	names := map[string]string{}
	_, err := readmodel.Read(ctx, o.pool, "directory", string(eventstore.PlatformTenant), 0, func(tx readmodel.Tx, schema string) error {
		rows, err := tx.Query(ctx, `select id::text, name from `+schema+`.tenants`)
		if err != nil {
			return err
		}
		var id, name string
		_, err = pgx.ForEachRow(rows, []any{&id, &name}, func() error { names[id] = name; return nil })
		return err
	})
	if errors.Is(err, readmodel.ErrNotBuilt) {
		return names, nil
	}
	return names, err
}

// longID is a tenant's id as the API shows it.
func longID(log string) string {
	id, err := uuid.Parse(log)
	if err != nil {
		return log // not one of the API's
	}
	return id.String()
}

func printTenants(out io.Writer, list []tenantStatus) {
	if len(list) == 0 {
		fmt.Fprintln(out, "There are no tenants.")
		return
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "TENANT\tNAME\tSERVER\tDATABASE\tSCHEMA\tSIZE\tCREATED")
	for _, t := range list {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", t.ID, t.Name, t.Server, t.Database, t.Schema, size(t.Bytes), t.CreatedAt.Format(time.DateTime))
	}
	_ = table.Flush() // as little as a line that cannot be printed
	for _, t := range list {
		if t.Refused != "" {
			fmt.Fprintf(out, "refused: %s\n", t.Refused)
		}
	}
}

// size is a number of bytes for people.
func size(bytes *int64) string {
	if bytes == nil {
		return "?"
	}
	if *bytes < 10<<30 {
		return fmt.Sprintf("%.1f MiB", float64(*bytes)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(*bytes)/(1<<30))
}

// TenantsShowCmd shows one tenant.
type TenantsShowCmd struct {
	operated
	ID   string `arg:"" name:"tenant" help:"The tenant's id, as the API or as its log has it."`
	JSON bool   `name:"json" help:"As JSON."`
}

// tenantDetails is all about one tenant. What its server must be asked for is missing when that cannot be reached.
type tenantDetails struct {
	tenantStatus
	Log         string               `json:"log"`
	Head        *eventstore.Position `json:"head"`
	Claims      *int                 `json:"claims"`
	Connections *int                 `json:"connections"` // of all processes
	ReadModels  []rest.Consumer      `json:"read_models"`
	Trouble     []string             `json:"trouble"` // what could not be found out
}

// Run implements the subcommand.
func (c TenantsShowCmd) Run(ctx context.Context) error {
	return c.with(ctx, func(ctx context.Context, o *operations) error {
		p, err := o.dbs.Placement(ctx, shortID(c.ID))
		if errors.Is(err, tenants.ErrUnknownTenant) {
			return fmt.Errorf("there is no tenant %s; 'factum tenants list' shows those that there are", c.ID)
		}
		if err != nil {
			return err
		}
		d, err := o.details(ctx, p)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(os.Stdout, d)
		}
		printDetails(os.Stdout, d)
		return nil
	})
}

func (o *operations) details(ctx context.Context, p tenants.Placement) (tenantDetails, error) {
	list, failed, err := o.tenantStatuses(ctx, []tenants.Placement{p})
	if err != nil {
		return tenantDetails{}, err
	}
	d := tenantDetails{tenantStatus: list[0], Log: p.Tenant, ReadModels: []rest.Consumer{}, Trouble: []string{}}
	trouble := func(what string, err error) {
		d.Trouble = append(d.Trouble, what+": "+oneLine(err))
	}
	for _, err := range failed {
		trouble("size", err)
		return d, nil // the rest lies there too
	}
	usage, _ := o.dbs.Usage(ctx, []tenants.Placement{p})
	if u, ok := usage[p.Tenant]; ok {
		d.Connections = &u.Connections
	}
	log := o.store.Tenant(eventstore.TenantID(p.Tenant))
	if head, err := log.Head(ctx); err != nil {
		trouble("log", err)
	} else {
		d.Head = &head
	}
	claims := 0
	for _, err := range log.Claims(ctx) {
		if err != nil {
			trouble("claims", err)
			claims = -1
			break
		}
		claims++
	}
	if claims >= 0 {
		d.Claims = &claims
	}
	status, err := o.Status(ctx, runner.Filter{Tenant: eventstore.TenantID(p.Tenant)})
	if err != nil {
		trouble("read models", err)
	}
	for _, s := range status {
		d.ReadModels = append(d.ReadModels, steering.Consumer(s))
	}
	return d, nil
}

func printDetails(out io.Writer, d tenantDetails) {
	number := func(known bool, v any) string {
		if !known {
			return "?"
		}
		return fmt.Sprint(v)
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"tenant", d.ID},
		{"name", d.Name},
		{"log", d.Log},
		{"server", d.Server},
		{"database", d.Database},
		{"schema", d.Schema.String()},
		{"size", size(d.Bytes)},
		{"created", d.CreatedAt.Format(time.DateTime)},
		{"log head", number(d.Head != nil, deref(d.Head))},
		{"claims", number(d.Claims != nil, deref(d.Claims))},
		{"connections", number(d.Connections != nil, deref(d.Connections))},
	} {
		fmt.Fprintf(table, "%s\t%s\n", line[0], line[1])
	}
	_ = table.Flush() // as little as a line that cannot be printed
	if len(d.ReadModels) > 0 {
		printConsumers(out, d.ReadModels, false)
	}
	if d.Refused != "" {
		fmt.Fprintf(out, "refused: %s\n", d.Refused)
	}
	for _, t := range d.Trouble {
		fmt.Fprintf(out, "not found out: %s\n", t)
	}
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
