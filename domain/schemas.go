package domain

import (
	"embed"
	"encoding/json"
	"fmt"
)

// schemas holds a JSON Schema (draft 2020-12) for each version of each event's data, as it lies in the log. go test ./domain -record
// writes those that are missing.
//
//go:embed schemas/*.json
var schemas embed.FS

// Schema returns the JSON Schema of a version of an event's data as it lies in the log: personal fields are sealed envelopes. It is
// an error when there is none, which a test excludes for every version of the [Catalog].
func Schema(name string, version uint16) (json.RawMessage, error) {
	raw, err := schemas.ReadFile(schemaFile(name, version))
	if err != nil {
		return nil, fmt.Errorf("domain: %s has no schema of version %d", name, version)
	}
	return raw, nil
}

func schemaFile(name string, version uint16) string {
	return fmt.Sprintf("schemas/%s.v%d.json", name, version)
}
