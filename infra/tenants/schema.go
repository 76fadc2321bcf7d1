package tenants

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/infra/postgres"
)

// Schema is the version of each set of migrations that a database has.
type Schema map[string]int64

// String lists the versions, such as "es 1, proj 2".
func (s Schema) String() string {
	if len(s) == 0 {
		return "unknown"
	}
	parts := make([]string, 0, len(s))
	for _, set := range slices.Sorted(maps.Keys(s)) {
		parts = append(parts, fmt.Sprintf("%s %d", set, s[set]))
	}
	return strings.Join(parts, ", ")
}

// SchemaError says that a tenant's database has a schema that this binary does not work with. Other tenants are served.
type SchemaError struct {
	Tenant string
	Set    string // of migrations
	Have   int64  // version in the database
	Min    int64  // the oldest version that this binary works with
	Latest int64  // the newest one that it knows
}

// Error implements error.
func (e *SchemaError) Error() string {
	return fmt.Sprintf("tenants: the database of %s has %s; %s", e.Tenant, e.versions(), e.Remedy())
}

func (e *SchemaError) versions() string {
	return fmt.Sprintf("version %d of the schema %s, and this binary works with versions %d to %d", e.Have, e.Set, e.Min, e.Latest)
}

// Older tells whether the database is older than the binary, rather than newer.
func (e *SchemaError) Older() bool { return e.Have < e.Min }

// Remedy says what an operator does about it.
func (e *SchemaError) Remedy() string {
	if e.Older() {
		return "run 'factum tenants migrate'"
	}
	return "deploy the newer binary here too"
}

// Detail says it for people who call the API.
func (e *SchemaError) Detail() string {
	return "The database of this tenant has " + e.versions() + ". An operator must " + e.Remedy() + ". Nothing was changed."
}

// Temporary says that waiting may cure it: others migrate databases and deploy binaries.
func (e *SchemaError) Temporary() bool { return true }

// known is a set of migrations with the newest version of it.
type known struct {
	postgres.Migrations
	latest int64
}

func knownSets(sets []postgres.Migrations) ([]known, error) {
	var out []known
	for _, set := range sets {
		latest, err := set.Latest()
		if err != nil {
			return nil, err
		}
		out = append(out, known{set, latest})
	}
	return out, nil
}

// judge answers nil for a schema that this binary works with.
func (d *Databases) judge(tenant string, have Schema) *SchemaError {
	for _, set := range d.sets {
		if v := have[set.Name]; v < set.Min || v > set.latest {
			return &SchemaError{Tenant: tenant, Set: set.Name, Have: v, Min: set.Min, Latest: set.latest}
		}
	}
	return nil
}

// Refusal answers why this binary does not serve the tenant, and nil if it does or if that is not known yet.
func (d *Databases) Refusal(p Placement) *SchemaError {
	if !d.complete(p.Schema) {
		return nil
	}
	return d.judge(p.Tenant, p.Schema)
}

// complete tells whether every set's version is known.
func (d *Databases) complete(have Schema) bool {
	for _, set := range d.sets {
		if _, ok := have[set.Name]; !ok {
			return false
		}
	}
	return true
}

// learn looks into a database whose versions nobody has noted yet, and notes them.
func (d *Databases) learn(ctx context.Context, p *Placement) (err error) {
	s, err := d.server(ctx, p.Server)
	if err != nil {
		return err
	}
	found, err := d.inspect(ctx, s, p.Database)
	if err != nil {
		return fmt.Errorf("tenants: the schema of %s: %w", p.Tenant, err)
	}
	p.Schema = found
	return d.note(ctx, *p)
}

// inspect reads the versions that a database has.
func (d *Databases) inspect(ctx context.Context, s *server, database string) (_ Schema, err error) {
	conn, err := s.connect(ctx, database)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	return d.versions(ctx, conn)
}

func (d *Databases) versions(ctx context.Context, conn *pgx.Conn) (Schema, error) {
	found, err := postgres.Versions(ctx, conn, d.c.TenantMigrations...)
	return Schema(found), err
}

// note keeps the versions that the tenant's database has, if it is still there.
func (d *Databases) note(ctx context.Context, p Placement) error {
	pool, err := d.mainAdmin(ctx)
	if err != nil {
		return err
	}
	_, err = pool.Exec(ctx, `update placement.databases set schema = schema || $4 where tenant = $1 and server = $2 and database = $3`,
		p.Tenant, p.Server, p.Database, p.Schema)
	if err != nil {
		return fmt.Errorf("tenants: note the schema of %s: %w", p.Tenant, err)
	}
	return nil
}
