package tenant

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/factum-platform/factum/domain/es"
)

// MaxNameChars is the longest name of a tenant.
const MaxNameChars = 255

// Command is something that is asked of a tenant.
type Command interface{ isTenantCommand() }

// Create asks for a tenant. The name is trimmed.
type Create struct {
	TenantID, Name, DatabaseName, By string
	At                               time.Time
}

// Adopt asks for a tenant whose database, with its log, is there already. By is who becomes its creator here.
type Adopt struct {
	TenantID, Name, DatabaseName, By string
	At                               time.Time
}

// Provision says that the database is ready.
type Provision struct{ At time.Time }

// Change asks for another name, which is trimmed, and whether changes must name the version that they change; nil leaves it as it is.
type Change struct {
	Name                  *string
	PreconditionsRequired *bool
	By                    string
	At                    time.Time
}

// Delete asks that the tenant is served no longer.
type Delete struct {
	By string
	At time.Time
}

// Restore asks that a deleted tenant is served again. Its database must be there.
type Restore struct {
	By string
	At time.Time
}

func (Create) isTenantCommand()    {}
func (Adopt) isTenantCommand()     {}
func (Provision) isTenantCommand() {}
func (Change) isTenantCommand()    {}
func (Delete) isTenantCommand()    {}
func (Restore) isTenantCommand()   {}

// State is what is known of a tenant.
type State struct {
	Exists       bool
	Provisioned  bool
	Deleted      bool
	ID           string
	Name         string
	DatabaseName string
	CreatedBy    string
	CreatedAt    time.Time
	UpdatedAt    time.Time // when it was created, changed, deleted or restored last

	PreconditionsRequired bool
}

// Decider decides about one tenant. Refusals: tenant.name, tenant.exists, tenant.unknown, tenant.deleted.
var Decider = es.Decider[State, Command, Event]{
	Initial: func() State { return State{} },
	Decide: func(s State, c Command) ([]Event, error) {
		switch c := c.(type) {
		case Create:
			return create(s, c)
		case Adopt:
			events, err := create(s, Create{TenantID: c.TenantID, Name: c.Name, DatabaseName: c.DatabaseName, By: c.By, At: c.At})
			if err != nil {
				return nil, err
			}
			return append(events, Provisioned{TenantID: c.TenantID, At: c.At}), nil
		case Provision:
			if !s.Exists {
				return nil, es.Refuse("tenant.unknown", "There is no such tenant.")
			}
			if s.Deleted {
				return nil, es.Refuse("tenant.deleted", "This tenant was deleted.")
			}
			if s.Provisioned {
				return nil, nil
			}
			return []Event{Provisioned{TenantID: s.ID, At: c.At}}, nil
		case Change:
			return change(s, c)
		case Delete:
			if !s.Exists {
				return nil, es.Refuse("tenant.unknown", "There is no such tenant.")
			}
			if s.Deleted {
				return nil, nil
			}
			return []Event{Deleted{TenantID: s.ID, DeletedBy: c.By, At: c.At}}, nil
		case Restore:
			if !s.Exists {
				return nil, es.Refuse("tenant.unknown", "There is no such tenant.")
			}
			if !s.Deleted {
				return nil, nil
			}
			return []Event{Restored{TenantID: s.ID, RestoredBy: c.By, At: c.At}}, nil
		default:
			return nil, es.Refuse("tenant.command", "Unknown command %T.", c)
		}
	},
	Evolve: func(s State, e Event) State {
		switch e := e.(type) {
		case Created:
			return State{Exists: true, ID: e.TenantID, Name: e.Name, DatabaseName: e.DatabaseName, CreatedBy: e.CreatedBy, CreatedAt: e.At, UpdatedAt: e.At}
		case Provisioned:
			s.Provisioned = true
		case Renamed:
			s.Name, s.UpdatedAt = e.Name, e.At
		case PreconditionsSet:
			s.PreconditionsRequired, s.UpdatedAt = e.Required, e.At
		case Deleted:
			s.Deleted, s.UpdatedAt = true, e.At
		case Restored:
			s.Deleted, s.UpdatedAt = false, e.At
		}
		return s
	},
}

func create(s State, c Create) ([]Event, error) {
	name, err := checkName(c.Name)
	if err != nil {
		return nil, err
	}
	if s.Exists {
		return nil, es.Refuse("tenant.exists", "This tenant exists already.")
	}
	return []Event{Created{TenantID: c.TenantID, Name: name, DatabaseName: c.DatabaseName, CreatedBy: c.By, At: c.At}}, nil
}

func change(s State, c Change) (events []Event, err error) {
	var name string
	if c.Name != nil {
		if name, err = checkName(*c.Name); err != nil {
			return nil, err
		}
	}
	switch {
	case !s.Exists:
		return nil, es.Refuse("tenant.unknown", "There is no such tenant.")
	case s.Deleted:
		return nil, es.Refuse("tenant.deleted", "This tenant was deleted.")
	}
	if c.Name != nil && name != s.Name {
		events = append(events, Renamed{TenantID: s.ID, Name: name, RenamedBy: c.By, At: c.At})
	}
	if c.PreconditionsRequired != nil && *c.PreconditionsRequired != s.PreconditionsRequired {
		events = append(events, PreconditionsSet{TenantID: s.ID, Required: *c.PreconditionsRequired, SetBy: c.By, At: c.At})
	}
	return events, nil
}

func checkName(name string) (trimmed string, err error) {
	trimmed = strings.TrimSpace(name)
	if trimmed == "" || utf8.RuneCountInString(trimmed) > MaxNameChars {
		return "", es.Refuse("tenant.name", "A tenant's name has 1 to %d characters and is not blank.", MaxNameChars)
	}
	return trimmed, nil
}
