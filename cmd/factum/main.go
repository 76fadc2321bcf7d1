// Command factum is the one binary of the platform: one file per subcommand, the wiring by plain constructors.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/factum-platform/factum/infra/devstack"
)

// version is set by the linker; see the Makefile.
var version = "dev"

// cli lists the subcommands; each lives in a file of its own name.
type cli struct {
	Dev         DevCmd         `cmd:"" help:"Run the whole platform in one process: PostgreSQL, S3, time-stamping authority and OpenID provider included."`
	Serve       ServeCmd       `cmd:"" help:"Run the platform against servers that exist elsewhere. Several processes may serve one platform."`
	Keys        KeysCmd        `cmd:"" help:"Work on the keys that sign tokens."`
	Tenants     TenantsCmd     `cmd:"" help:"Look after tenants and their databases."`
	Servers     ServersCmd     `cmd:"" help:"Look after the PostgreSQL servers that hold tenants' databases."`
	Log         LogCmd         `cmd:"" help:"Work on the logs themselves."`
	Projections ProjectionsCmd `cmd:"" help:"See, rebuild and steer read models and sagas while the platform serves."`
	Admins      AdminsCmd      `cmd:"" help:"Say who administers the platform: who may see and steer what concerns all tenants."`
	Events      EventsCmd      `cmd:"" help:"Show the event types that logs hold."`
	Demo        DemoCmd        `cmd:"" help:"Show the main job step by step against a running 'factum dev', which is started if there is none."`
	Policy      PolicyCmd      `cmd:"" help:"Print who may call which route of the API."`
	OpenAPI     OpenAPICmd     `cmd:"" name:"openapi" help:"Write the OpenAPI documents that the API serves at /api/docs."`
	Version     VersionCmd     `cmd:"" help:"Print the version."`
}

// VersionCmd prints the version.
type VersionCmd struct{}

// Run implements the subcommand.
func (VersionCmd) Run() error {
	fmt.Println(version)
	return nil
}

func main() {
	if devstack.RunChild() {
		return
	}
	os.Exit(run(os.Args[1:]))
}

// run parses the arguments and runs the subcommand; it returns the exit code: 0, 1 for a failure, 2 for wrong usage.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var c cli
	parser, err := kong.New(&c,
		kong.Name("factum"),
		kong.Description("Event-sourced, multi-tenant backend whose documents are proven by RFC 3161 time-stamps."),
		kong.UsageOnError(),
		kong.BindTo(ctx, (*context.Context)(nil)))
	if err != nil {
		fmt.Fprintln(os.Stderr, "factum:", err)
		return 1
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "factum:", err)
		return 2
	}
	if err := parsed.Run(); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "factum:", err)
		return 1
	}
	return 0
}
