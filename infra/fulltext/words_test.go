package fulltext

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestWords(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "",
		" -_.,/ ":                 "",
		"Pump-Report_2024.pdf":    "pump report 2024 pdf",
		"Prüfbericht Ärmel":       "prüfbericht ärmel",
		"Pru\u0308fbericht":       "prüfbericht", // as macOS writes it
		"Straße STRASSE STRAẞE":   "strasse strasse strasse",
		"Σίσυφος ΣΊΣΥΦΟΣ":         "σίσυφοσ σίσυφοσ",
		"İstanbul ISTANBUL":       "istanbul istanbul",
		"Ⅳ ﬁlter":                 "iv filter",
		"ISO:9001 50µm O'Brien":   "iso 9001 50μm o brien",
		"部品 表.xlsx":               "部品 表 xlsx",
		strings.Repeat("x", 5000): strings.Repeat("x", 100),
	} {
		if got := strings.Join(Words(text), " "); got != want {
			t.Errorf("%.40q: %q, want %q", text, got, want)
		}
	}
}

func TestQuery(t *testing.T) {
	for text, want := range map[string]string{"": "", "-": "", "Pump re": "'pump':* & 're':*", `a'b\c | !d <-> e:*`: "'a':* & 'b':* & 'c':* & 'd':* & 'e':*"} {
		if got := Query(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// TestWordsCanBeStored: whatever the text, its words are what PostgreSQL takes as lexemes.
func TestWordsCanBeStored(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for _, w := range Words(rapid.String().Draw(t, "text")) {
			if w == "" || len(w) > 2046 || !utf8.ValidString(w) || strings.ContainsAny(w, "' \\\x00") {
				t.Fatalf("%q", w)
			}
		}
	})
}
