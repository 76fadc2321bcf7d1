package main

import (
	"os"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestEverySettingIsExplained holds docs/serve.md to the flags and environment of factum serve and factum log copy.
func TestEverySettingIsExplained(t *testing.T) {
	raw, err := os.ReadFile("../../docs/serve.md")
	must(t, err)
	parser, err := kong.New(&cli{})
	must(t, err)
	settings := 0
	for _, command := range parser.Model.Leaves(true) {
		if name := command.Path(); name != "serve" && name != "log copy" {
			continue
		}
		for _, flag := range command.Flags {
			for _, name := range append([]string{"--" + flag.Name}, flag.Envs...) {
				settings++
				if !strings.Contains(string(raw), "`"+name) {
					t.Errorf("docs/serve.md does not explain %s of factum %s", name, command.Path())
				}
			}
		}
	}
	if settings < 30 {
		t.Errorf("%d settings were looked for; does the test still find the commands?", settings)
	}
}
