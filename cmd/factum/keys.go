package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/keyring"
	"github.com/factum-platform/factum/infra/postgres"
)

// KeysCmd groups what works on the keys that sign tokens.
type KeysCmd struct {
	List   KeysListCmd   `cmd:"" help:"Show the keys that sign and verify tokens."`
	Rotate KeysRotateCmd `cmd:"" help:"Sign tokens with a new key from now on. Nobody has to log in again, unless --compromised says so."`
}

// KeysListCmd shows the signing keys.
type KeysListCmd struct{ logServers }

// Run implements the subcommand.
func (c KeysListCmd) Run(ctx context.Context) error {
	return c.withKeys(ctx, func(pool *pgxpool.Pool, _ auth.Secrets) error {
		return printKeys(ctx, pool, os.Stdout)
	})
}

// KeysRotateCmd replaces the key that signs tokens.
type KeysRotateCmd struct {
	logServers
	Lead        time.Duration `default:"10m" help:"How long the new key is published at /.well-known/jwks.json before it signs; at least 10s."`
	Compromised bool          `help:"Refuse everything that older keys have signed, at once: everybody has to log in again."`
}

// Run implements the subcommand.
func (c KeysRotateCmd) Run(ctx context.Context) error {
	return c.withKeys(ctx, func(pool *pgxpool.Pool, secrets auth.Secrets) error {
		kid, err := auth.RotateKeys(ctx, pool, secrets, time.Now(), auth.Rotation{Lead: c.Lead, Compromised: c.Compromised})
		if err != nil {
			return err
		}
		fmt.Println("new key", kid)
		return printKeys(ctx, pool, os.Stdout)
	})
}

// withKeys opens the platform's database as its administrator: the application may not change keys.
func (c logServers) withKeys(ctx context.Context, fn func(*pgxpool.Pool, auth.Secrets) error) error {
	if err := c.validate(); err != nil {
		return err
	}
	d, err := c.prepare(ctx, false)
	if err != nil {
		return err
	}
	pool, err := postgres.Open(ctx, d.adminDSN, 2)
	if err != nil {
		return err
	}
	defer pool.Close()
	return fn(pool, keyring.Open(pool, d.kek))
}

func printKeys(ctx context.Context, pool *pgxpool.Pool, out io.Writer) error {
	list, err := auth.Keys(ctx, pool)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tSIGNS FROM\tVERIFIES UNTIL")
	for _, k := range list {
		until := "it is replaced"
		if k.VerifiesUntil != nil {
			until = k.VerifiesUntil.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", k.Kid, k.SignsFrom.UTC().Format(time.RFC3339), until)
	}
	return w.Flush()
}
