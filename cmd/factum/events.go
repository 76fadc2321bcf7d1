package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/factum-platform/factum/domain"
)

// EventsCmd holds the subcommands about event types.
type EventsCmd struct {
	List EventsListCmd `cmd:"" help:"Print every event type that this binary can write and read, with its versions and their JSON Schemas."`
}

// EventsListCmd prints the catalogue of event types.
type EventsListCmd struct {
	Names []string `arg:"" optional:"" help:"Only these types, such as document.uploaded."`
	JSON  bool     `name:"json" help:"Print one JSON array."`
}

// listedEvent is an event type as 'factum events list --json' prints it.
type listedEvent struct {
	Name     string                     `json:"name"`
	Version  uint16                     `json:"version"`  // that is written; all from 1 are read
	Personal map[string]string          `json:"personal"` // sealed fields, and the field with the person's id
	Schemas  map[uint16]json.RawMessage `json:"schemas"`  // JSON Schema of the data, by version
}

// Run implements the subcommand.
func (c EventsListCmd) Run() error { return c.list(os.Stdout) }

func (c EventsListCmd) list(w io.Writer) error {
	events := []listedEvent{}
	unknown := slices.Clone(c.Names)
	for _, t := range domain.Catalog() {
		if len(c.Names) > 0 && !slices.Contains(c.Names, t.Name) {
			continue
		}
		unknown = slices.DeleteFunc(unknown, func(name string) bool { return name == t.Name })
		e := listedEvent{Name: t.Name, Version: t.Schema(), Personal: t.Personal, Schemas: map[uint16]json.RawMessage{}}
		for version := uint16(1); version <= t.Schema(); version++ {
			schema, err := domain.Schema(t.Name, version)
			if err != nil {
				return err
			}
			e.Schemas[version] = schema
		}
		events = append(events, e)
	}
	if len(unknown) > 0 {
		return fmt.Errorf("there is no event type %s; 'factum events list' prints all", strings.Join(unknown, ", "))
	}
	slices.SortFunc(events, func(a, b listedEvent) int { return strings.Compare(a.Name, b.Name) })
	if c.JSON {
		out := json.NewEncoder(w)
		out.SetIndent("", "  ")
		return out.Encode(events)
	}
	var text bytes.Buffer
	for _, e := range events {
		fmt.Fprintf(&text, "%s\n  writes    version %d\n  reads     versions 1 to %d\n", e.Name, e.Version, e.Version)
		for _, field := range slices.Sorted(maps.Keys(e.Personal)) {
			fmt.Fprintf(&text, "  personal  %s, sealed under the key of the person in %s\n", field, e.Personal[field])
		}
		for version := uint16(1); version <= e.Version; version++ {
			fmt.Fprintf(&text, "  schema %d  ", version)
			if err := json.Compact(&text, e.Schemas[version]); err != nil {
				return fmt.Errorf("the schema of %s version %d: %w", e.Name, version, err)
			}
			text.WriteByte('\n')
		}
		text.WriteByte('\n')
	}
	_, err := w.Write(bytes.TrimSuffix(text.Bytes(), []byte("\n")))
	return err
}
