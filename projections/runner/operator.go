package runner

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/factum-platform/factum/eventstore/seal"
)

// Operator inspects and steers consumers in the databases; it works in any process, beside running Runners.
type Operator struct {
	config Config
	codec  *seal.Codec
}

// NewOperator checks the configuration and touches no database.
func NewOperator(c Config) (*Operator, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return &Operator{c, &seal.Codec{Registry: c.Codec.Registry, Keys: keys{c.Codec.Keys}}}, nil
}

func (o *Operator) projection(name string) (*Projection, error) {
	var known []string
	for i := range o.config.Projections {
		if o.config.Projections[i].Name == name {
			return &o.config.Projections[i], nil
		}
		known = append(known, o.config.Projections[i].Name)
	}
	return nil, fmt.Errorf("there is no projection %s; there are %s", name, strings.Join(known, ", "))
}
