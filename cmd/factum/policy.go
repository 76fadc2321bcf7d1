package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/factum-platform/factum/infra/httpapi"
)

// PolicyCmd prints who may call which route: the very table that the API decides by.
type PolicyCmd struct{}

// Run implements the subcommand.
func (PolicyCmd) Run() error { return printPolicy(os.Stdout) }

func printPolicy(to io.Writer) error {
	out := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "METHOD\tROUTE\tanyone\tsigned in\t%s\tplatform\n", strings.Join(httpapi.Roles, "\t"))
	for _, rule := range httpapi.Policy {
		cells := []string{rule.Method, rule.Path, httpapi.Nothing.String(), httpapi.Nothing.String()}
		switch rule.Access {
		case httpapi.Anyone:
			cells[2], cells[3] = httpapi.Everything.String(), httpapi.Everything.String()
		case httpapi.SignedIn, httpapi.Refresh:
			cells[3] = httpapi.Everything.String()
		default: // needs a role
		}
		for _, role := range httpapi.Roles {
			reach := rule.For(role)
			if cells[3] != httpapi.Nothing.String() { // whoever may without a role may with one
				reach = httpapi.Everything
			}
			cells = append(cells, reach.String())
		}
		platform := cells[3] // a role in a tenant counts beside it
		if rule.Access == httpapi.PlatformAdmin {
			platform = httpapi.Everything.String()
		}
		fmt.Fprintln(out, strings.Join(append(cells, platform), "\t"))
	}
	fmt.Fprint(out, "\nyes: may; own: for what the member uploaded; -: may not (who is no member of the tenant is answered 404, a member 403)\nplatform: an administrator of the platform without a role in the tenant\n"+
		"An API key may what its role may in its tenant, but makes no keys; what is for everybody who is signed in is not for keys.\n")
	return out.Flush()
}
