package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/term"

	"github.com/factum-platform/factum/eventstore/archive"
	"github.com/factum-platform/factum/infra/keyring"
	"github.com/factum-platform/factum/infra/tenants"
)

// TenantsExportCmd writes an archive of a tenant.
type TenantsExportCmd struct {
	operated
	Tenant string `arg:"" help:"The tenant's id."`
	Out    string `short:"o" placeholder:"FILE" help:"File to write, which must not exist yet; without it, standard output, unless that is a terminal."`
}

// Help says what the file holds and what it does not.
func (TenantsExportCmd) Help() string {
	text := "The file is a zip: events.jsonl with the very bytes of every event's data, claims.jsonl, keys.jsonl with the keys of personal fields, " +
		"wrapped under the key-encryption key (FACTUM_KEYRING), manifest.json, and SHA256SUMS for 'sha256sum -c'. It is as of one position of the log. " +
		"Keep it as safe as a backup of the database.\n\nNot in it:"
	for _, what := range archive.NotIncluded {
		text += "\n - " + what
	}
	return text
}

// Run implements the subcommand.
func (c TenantsExportCmd) Run(ctx context.Context) error {
	if c.Out == "" && term.IsTerminal(int(os.Stdout.Fd())) {
		return errors.New("the archive is a binary file: give --out FILE, or send the output into a file or a program")
	}
	if _, err := os.Stat(c.Out); c.Out != "" && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s exists already, or cannot be looked at: choose another name for --out", c.Out)
	}
	return c.live(ctx, c.export)
}

func (c TenantsExportCmd) export(ctx context.Context, l *live) (err error) {
	out, keep, discard, err := destination(c.Out)
	if err != nil {
		return err
	}
	m, err := l.export(ctx, c.Tenant, out)
	if err != nil {
		return errors.Join(err, discard())
	}
	if err := keep(); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%s: %d events to position %d, %d claims, %d keys, SHA-256 of the log %s\n", m.TenantID, m.Events, m.Head, m.Claims, m.Keys, m.LogSHA256)
	fmt.Fprintln(os.Stderr, "not in it: contents of files, users and memberships; see manifest.json")
	return nil
}

// destination is where an archive is written to. A file gets its name when it is whole and on the disk.
func destination(path string) (out io.Writer, keep, discard func() error, err error) {
	if path == "" {
		none := func() error { return nil }
		return os.Stdout, none, none, nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600: it holds what a backup holds
	if err != nil {
		return nil, nil, nil, fmt.Errorf("--out: %w", err)
	}
	discard = func() error { return errors.Join(f.Close(), os.Remove(f.Name())) }
	keep = func() error {
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return errors.Join(fmt.Errorf("--out: %w", err), os.Remove(f.Name()))
		}
		err := os.Link(f.Name(), path) // unlike a rename, it replaces nothing
		if err := errors.Join(err, os.Remove(f.Name())); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
		return nil
	}
	return f, keep, discard, nil
}

// export writes the tenant's archive.
func (l *live) export(ctx context.Context, tenant string, out io.Writer) (archive.Manifest, error) {
	id, log, err := tenantOf(tenant)
	if err != nil {
		return archive.Manifest{}, err
	}
	m := archive.Manifest{Tenant: log, TenantID: id, Engine: l.engine.name, MadeAt: time.Now().UTC().Truncate(time.Second), MadeBy: "factum " + version}
	state, err := l.executor.TenantState(ctx, id)
	if err != nil {
		return m, err
	}
	m.Name, m.Database = state.Name, state.DatabaseName
	if _, err := l.dbs.Placement(ctx, string(log)); errors.Is(err, tenants.ErrUnknownTenant) {
		return m, fmt.Errorf("there is no tenant %s in service; 'factum tenants list' shows them", id)
	} else if err != nil {
		return m, err
	}
	head, err := l.store.Tenant(log).Head(ctx)
	if err != nil {
		return m, err
	}
	done := l.meter.begin("export "+id, head)
	defer done()
	return archive.Write(ctx, out, m, archive.Source{Store: l.raw, Keys: archived(l.keys.Export(ctx, string(log)))}, l.meter.progress)
}

// archived are keys in the archive's form.
func archived(keys iter.Seq2[keyring.Wrapped, error]) iter.Seq2[archive.Key, error] {
	return func(yield func(archive.Key, error) bool) {
		for k, err := range keys {
			if !yield(archive.Key{Purpose: k.Purpose, Owner: k.Owner, Wrapped: k.Key, Erased: len(k.Key) == 0}, err) || err != nil {
				return
			}
		}
	}
}
