package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/factum-platform/factum"

// room is a row of the table "Rooms" of the architecture. .golangci.yml holds the same arrows for those who run the linter.
type room struct {
	path     string   // of the folder; the longest that fits a package is its room
	may      []string // folders of the module that it may import, besides its own
	onlyStd  bool     // nothing outside module and standard library
	anywhere bool     // may import every room
}

var rooms = []room{
	{path: "domain", onlyStd: true},
	{path: "eventstore", may: []string{"domain/es"}},
	{path: "commands", may: []string{"domain", "eventstore", "infra"}},
	{path: "projections", may: []string{"domain", "eventstore", "infra"}},
	{path: "projections/process", may: []string{"projections", "domain", "eventstore", "infra", "commands"}}, // a saga's jobs
	{path: "readapi", may: []string{"infra"}},
	{path: "infra"},
	{path: "cmd", anywhere: true},
	{path: "bench", anywhere: true},
}

// listedPackage is what `go list -json` says of a package.
type listedPackage struct {
	ImportPath string
	Standard   bool
	Imports    []string
}

// wrongArrows says, a sentence each, which imports of the module's packages point where they must not.
func wrongArrows(packages []listedPackage) []string {
	standard := map[string]bool{}
	for _, p := range packages {
		standard[p.ImportPath] = p.Standard
	}
	var wrong []string
	for _, p := range packages {
		from, ours := strings.CutPrefix(p.ImportPath, module+"/")
		if !ours {
			continue
		}
		r, ok := roomOf(from)
		if !ok {
			wrong = append(wrong, fmt.Sprintf("%s lies in no room of the architecture; move it into one", from))
			continue
		}
		for _, imported := range p.Imports {
			to, ours := strings.CutPrefix(imported, module+"/")
			switch {
			case !ours && r.onlyStd && !standard[imported]:
				wrong = append(wrong, fmt.Sprintf("%s imports %s; %s may import the standard library only", from, imported, r.path))
			case ours && !r.allows(to):
				wrong = append(wrong, fmt.Sprintf("%s imports %s; %s may import %s", from, to, r.path, r.allowed()))
			}
		}
	}
	return wrong
}

func roomOf(pkg string) (room, bool) {
	var best room
	for _, r := range rooms {
		if within(pkg, r.path) && len(r.path) > len(best.path) {
			best = r
		}
	}
	return best, best.path != ""
}

func (r room) allows(pkg string) bool {
	return r.anywhere || within(pkg, r.path) || slices.ContainsFunc(r.may, func(folder string) bool { return within(pkg, folder) })
}

func (r room) allowed() string {
	if len(r.may) == 0 {
		return "no other room"
	}
	return strings.Join(r.may, ", ") + " only"
}

func within(pkg, folder string) bool { return pkg == folder || strings.HasPrefix(pkg, folder+"/") }

func TestArrowsPointOnlyWhereTheArchitectureAllows(t *testing.T) {
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Standard,Imports", module+"/...")
	var complaint bytes.Buffer
	list.Stderr = &complaint
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, complaint.String())
	}
	var packages []listedPackage
	seen := map[string]bool{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listedPackage
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		packages = append(packages, p)
		if rest, ours := strings.CutPrefix(p.ImportPath, module+"/"); ours {
			if r, ok := roomOf(rest); ok {
				seen[r.path] = true
			}
		}
	}
	for _, r := range rooms {
		if !seen[r.path] && r.path != "bench" {
			t.Errorf("no package in room %s: does the table still fit the repository?", r.path)
		}
	}
	for _, sentence := range wrongArrows(packages) {
		t.Error(sentence)
	}
}

func TestArrowsThatPointTheWrongWayAreNamed(t *testing.T) {
	const other = "example.com/other"
	cases := []struct {
		from, to string
		want     string // "" for allowed
	}{
		{"domain/file", "domain/es", ""},
		{"domain/file", "time", ""},
		{"domain/file", other, "domain/file imports example.com/other; domain may import the standard library only"},
		{"domain/es", "eventstore", "domain/es imports eventstore; domain may import no other room"},
		{"eventstore", "domain/es", ""},
		{"eventstore/pgstore", other, ""},
		{"eventstore/seal", "domain/file", "eventstore/seal imports domain/file; eventstore may import domain/es only"},
		{"commands/rest", "infra/httpapi", ""},
		{"commands", "readapi", "commands imports readapi; commands may import domain, eventstore, infra only"},
		{"projections/process", "commands", ""},
		{"projections/process", "projections/runner", ""},
		{"projections/audit", "commands", "projections/audit imports commands; projections may import domain, eventstore, infra only"},
		{"readapi", "infra/tsa", ""},
		{"readapi", "eventstore", "readapi imports eventstore; readapi may import infra only"},
		{"infra/auth", "infra/postgres", ""},
		{"infra/auth", "domain/es", "infra/auth imports domain/es; infra may import no other room"},
		{"infrastructure", "time", "infrastructure lies in no room of the architecture; move it into one"},
		{"cmd/factum", "readapi", ""},
	}
	for _, c := range cases {
		t.Run(c.from+" to "+c.to, func(t *testing.T) {
			to := c.to
			if _, ours := roomOf(to); ours {
				to = module + "/" + to
			}
			got := strings.Join(wrongArrows([]listedPackage{
				{ImportPath: module + "/" + c.from, Imports: []string{to}},
				{ImportPath: "time", Standard: true},
			}), "\n")
			if got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}
