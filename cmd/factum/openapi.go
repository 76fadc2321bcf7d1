package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/factum-platform/factum/commands/rest"
	"github.com/factum-platform/factum/infra/httpapi"
	"github.com/factum-platform/factum/readapi"
)

// OpenAPICmd writes what the API serves at /api/docs, without a running server.
type OpenAPICmd struct {
	Dir string `default:"docs" help:"Folder for openapi.json (3.1) and openapi.yaml (3.0.3)."`
}

// Run implements the subcommand.
func (c OpenAPICmd) Run() error {
	// Registering the routes needs none of what serving them needs.
	server := httpapi.New(httpapi.Config{Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Version: version})
	rest.Register(server.API(), rest.Deps{Server: server})
	readapi.Register(server.API(), readapi.Deps{Server: server})
	json, yaml, err := httpapi.OpenAPI(server.API())
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"openapi.json": json, "openapi.yaml": yaml} {
		if err := os.WriteFile(filepath.Join(c.Dir, name), content, 0o644); err != nil {
			return fmt.Errorf("write the OpenAPI document: %w", err)
		}
	}
	return nil
}
