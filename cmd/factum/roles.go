package main

import (
	"fmt"
	"slices"
	"strings"
)

// The roles that a process can take on, as --roles names them.
const (
	roleAPI       = "api"       // answers commands and queries
	roleProjector = "projector" // moves read models and sagas along the logs
	roleWorker    = "worker"    // carries out the jobs of sagas, and settles claims where the engine needs it
)

// allRoles are those of a process that is told nothing else.
var allRoles = roles{roleAPI, roleProjector, roleWorker}

// roles are what one process does.
type roles []string

func (r roles) has(role string) bool { return slices.Contains(r, role) }

// String lists the roles as --roles takes them.
func (r roles) String() string { return strings.Join(r, ",") }

// parseRoles checks the names and drops repetitions.
func parseRoles(names []string) (roles, error) {
	var out roles
	for _, name := range names {
		name = strings.TrimSpace(name)
		if !allRoles.has(name) {
			return nil, fmt.Errorf("--roles (FACTUM_ROLES): %q is not a role; name one or more of %s", name, allRoles)
		}
		if !out.has(name) {
			out = append(out, name)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("--roles (FACTUM_ROLES) names no role; name one or more of %s", allRoles)
	}
	return out, nil
}
