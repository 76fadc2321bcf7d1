// Package fulltext splits texts into the words by which they are found. Projections and queries do it alike, in Go, so that what is found
// does not depend on the locale of a database server.
package fulltext

import (
	"strings"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// maxWordRunes is how much of a word counts. PostgreSQL takes words of at most 2046 bytes.
const maxWordRunes = 100

// Words returns the words of the text in order: runs of letters, digits and marks, in the form NFKC (UAX #15) and without differences of case
// (Unicode §3.13: Straße and STRASSE are one word), each cut after 100 characters. "Pump-Report_2024.pdf" has the words pump, report, 2024 and pdf.
func Words(text string) []string {
	// Lower case comes first because folding makes two characters of the Turkish İ, the second of which nobody types.
	words := strings.FieldsFunc(cases.Fold().String(strings.ToLower(norm.NFKC.String(text))), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r)
	})
	for i, w := range words {
		if runes := []rune(w); len(runes) > maxWordRunes {
			words[i] = string(runes[:maxWordRunes])
		}
	}
	return words
}

// Query returns the tsquery of PostgreSQL that finds texts with words that begin with each of the text's words; "" when it has none.
func Query(text string) string {
	words := Words(text)
	for i, w := range words {
		words[i] = "'" + w + "':*" // words hold neither quotes nor backslashes
	}
	return strings.Join(words, " & ")
}
