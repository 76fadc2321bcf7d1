package eventstore

import (
	"context"
	"fmt"
)

// Guard returns the store with its appends checked against the registry: an event of a type or schema that r does not know is refused
// before anything is sent, because no reader could go past it. Errors of Append: also *[UnknownTypeError] and *[FutureSchemaError].
func Guard(s Store, r *Registry) Store { return guarded{s, r} }

type guarded struct {
	Store
	registry *Registry
}

// Tenant implements [Store].
func (g guarded) Tenant(t TenantID) Log { return guardedLog{g.Store.Tenant(t), g.registry} }

type guardedLog struct {
	Log
	registry *Registry
}

// Append implements [Log].
func (l guardedLog) Append(ctx context.Context, writes ...Write) ([]Appended, error) {
	for _, w := range writes {
		for _, e := range w.Events {
			if err := l.registry.Check(e.Type, e.Schema); err != nil {
				return nil, fmt.Errorf("append to %s: %w", w.Stream, err)
			}
		}
	}
	return l.Log.Append(ctx, writes...)
}
