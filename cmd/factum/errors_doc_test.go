package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// codeForms find the literals that can become error.code of an answer.
var codeForms = []*regexp.Regexp{
	regexp.MustCompile(`NewProblem\([^,\n]+, "([A-Za-z_]+)"`),
	regexp.MustCompile(`code, detail = "([a-z_]+)"`),
	regexp.MustCompile(`http\.Status\w+:\s+"([a-z_]+)"`),
	regexp.MustCompile(`\{http\.Status\w+, "([a-z_]+)"\}`),
	regexp.MustCompile(`Fault\.Code = "([A-Za-z_]+)"`),
	regexp.MustCompile(`Anyone, "([a-z_]+)"|Refresh, "([a-z_]+)"|SignedIn, "([a-z_]+)"`),
}

func TestEveryErrorCodeIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/errors.md")
	must(t, err)
	found := map[string]string{}
	for _, folder := range []string{"../../infra/httpapi", "../../commands/rest", "../../readapi"} {
		files, err := filepath.Glob(folder + "/*.go")
		must(t, err)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			source, err := os.ReadFile(file)
			must(t, err)
			for _, form := range codeForms {
				for _, match := range form.FindAllSubmatch(source, -1) {
					for _, code := range match[1:] {
						if len(code) > 0 {
							found[string(code)] = file
						}
					}
				}
			}
		}
	}
	// The search is known to see what it is meant to see.
	for _, known := range []string{"email_exists", "invalid_credentials", "payload_too_large", "registration_failed", "token_revoked", "BAD_REQUEST"} {
		if found[known] == "" {
			t.Errorf("the search for codes no longer finds %s", known)
		}
	}
	for code, file := range found {
		if !strings.Contains(string(doc), "`"+code+"`") {
			t.Errorf("%s answers %s, which docs/errors.md does not explain", file, code)
		}
	}
}
