package rest

import (
	"encoding/json"

	"github.com/danielgtaylor/huma/v2"
)

const notNull = "Must be a text, not null; leave the field out to keep what it is."

// text is a JSON text that may be left out but must not be null. With a pointer both would look alike.
type text struct {
	value *string // nil when it was left out
	null  bool
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *text) UnmarshalJSON(raw []byte) error {
	t.null = string(raw) == "null"
	return json.Unmarshal(raw, &t.value)
}

// Schema implements huma.SchemaProvider.
func (text) Schema(huma.Registry) *huma.Schema { return &huma.Schema{Type: huma.TypeString} }
