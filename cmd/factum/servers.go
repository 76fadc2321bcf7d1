package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/factum-platform/factum/infra/tenants"
)

// ServersCmd groups what operators do with the PostgreSQL servers that hold tenants' databases.
type ServersCmd struct {
	List   ServersListCmd   `cmd:"" help:"Show the database servers, how many tenants each has, and whether it can be reached."`
	Add    ServersAddCmd    `cmd:"" help:"Let a PostgreSQL server hold tenants' databases, or give one that does another URL."`
	Accept ServersAcceptCmd `cmd:"" help:"Let new tenants come to a server, or keep them away."`
}

// ServersListCmd lists the servers.
type ServersListCmd struct {
	operated
	JSON bool `name:"json" help:"As JSON."`
}

// serverStatus is a line of the list.
type serverStatus struct {
	Name      string    `json:"name"`
	Address   string    `json:"address"`
	Tenants   int       `json:"tenants"`
	Accepting bool      `json:"accepting"`
	AddedAt   time.Time `json:"added_at"`
	Version   string    `json:"postgresql,omitempty"`
	Error     string    `json:"error,omitempty"`
}

// Run implements the subcommand.
func (c ServersListCmd) Run(ctx context.Context) error {
	return c.with(ctx, func(ctx context.Context, o *operations) error {
		list, err := o.dbs.Servers(ctx)
		if err != nil {
			return err
		}
		shown := make([]serverStatus, len(list))
		for i, s := range list {
			shown[i] = serverStatus{s.Name, s.Address, s.Tenants, s.Accepting, s.AddedAt.UTC(), s.Version, ""}
			if s.Err != nil {
				shown[i].Error = oneLine(s.Err)
			}
		}
		if c.JSON {
			return printJSON(os.Stdout, shown)
		}
		printServers(os.Stdout, shown)
		return nil
	})
}

func printServers(out io.Writer, list []serverStatus) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SERVER\tADDRESS\tTENANTS\tNEW TENANTS\tPOSTGRESQL\tSTATE")
	for _, s := range list {
		accepting, state := "accepted", "reachable"
		if !s.Accepting {
			accepting = "kept away"
		}
		if s.Error != "" {
			state = s.Error
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\t%s\n", s.Name, s.Address, s.Tenants, accepting, s.Version, state)
	}
	_ = table.Flush() // as little as a line that cannot be printed
}

// oneLine is an error's text without line breaks: pgx writes a line for each attempt.
func oneLine(err error) string { return (&unreachableError{err}).Error() }

// ServersAddCmd adds a server. Its URL holds a password, so that it is no flag.
type ServersAddCmd struct {
	operated
	Name    string `arg:"" help:"A short name, such as east."`
	URLFile string `name:"url-file" env:"FACTUM_SERVER_URL_FILE" placeholder:"FILE" help:"File with the URL of a role on that server that may create databases and roles (${env}): postgres://user:password@host:5432/postgres. Else FACTUM_SERVER_URL holds it."`
}

// Run implements the subcommand.
func (c ServersAddCmd) Run(ctx context.Context) error {
	address, err := c.url()
	if err != nil {
		return err
	}
	return c.with(ctx, func(ctx context.Context, o *operations) error {
		if err := o.dbs.AddServer(ctx, c.Name, address); err != nil {
			var gone *tenants.ServerError
			if errors.As(err, &gone) {
				return fmt.Errorf("%s; nothing was changed; check the URL in FACTUM_SERVER_URL or --url-file, and that the server runs", oneLine(err))
			}
			return err
		}
		fmt.Printf("Server %s holds tenants from now on. New ones go to the server that accepts them and has the fewest.\n", c.Name)
		return nil
	})
}

func (c ServersAddCmd) url() (string, error) {
	address := os.Getenv("FACTUM_SERVER_URL")
	if c.URLFile != "" {
		raw, err := os.ReadFile(c.URLFile)
		if err != nil {
			return "", fmt.Errorf("--url-file (FACTUM_SERVER_URL_FILE) cannot be read: %w", err)
		}
		address = string(raw)
	}
	address = strings.TrimSpace(address)
	return address, given(setting{address, "--url-file", "FACTUM_SERVER_URL", "the URL of a role on the new server that may create databases and roles (postgres://user:password@host:5432/postgres)"})
}

// ServersAcceptCmd opens or closes a server to new tenants.
type ServersAcceptCmd struct {
	operated
	Name string `arg:"" help:"The server's name."`
	Yes  bool   `xor:"answer" required:"" help:"New tenants may come to it."`
	No   bool   `xor:"answer" required:"" help:"New tenants go elsewhere; those that it has stay."`
}

// Run implements the subcommand.
func (c ServersAcceptCmd) Run(ctx context.Context) error {
	return c.with(ctx, func(ctx context.Context, o *operations) error {
		if err := o.dbs.Accept(ctx, c.Name, c.Yes); err != nil {
			return err
		}
		if c.Yes {
			fmt.Printf("New tenants may come to server %s.\n", c.Name)
			return nil
		}
		fmt.Printf("New tenants are kept away from server %s; those that it has stay.\n", c.Name)
		list, err := o.dbs.Servers(ctx)
		if err != nil {
			return err
		}
		for _, s := range list {
			if s.Accepting {
				return nil
			}
		}
		fmt.Println("No server accepts new tenants now: creating one is answered 503 until you open a server.")
		return nil
	})
}
