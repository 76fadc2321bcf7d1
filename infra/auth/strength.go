package auth

import (
	_ "embed"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/ccojocar/zxcvbn-go"
	"github.com/ccojocar/zxcvbn-go/matching"
	"golang.org/x/text/unicode/norm"
)

// MaxPasswordBytes is the longest password that is looked at: it bounds the work of hashing.
const MaxPasswordBytes = 1024

const (
	minPasswordChars = 12
	minShortChars    = 8
	minScore         = 3 // of zxcvbn, 0 to 4: "safely unguessable, moderate protection from offline attacks"
	minShortScore    = 1 // "protection from throttled online attacks", which the lock-out throttles
	scoredChars      = 64
)

// commonPasswords are the passwords of 8 characters and more of the list of the most common ones that Django 4.2 ships; its licence is
// beside it.
//
//go:embed common_passwords.txt
var commonPasswords string

var blocklist = sync.OnceValue(func() map[string]bool {
	out := map[string]bool{}
	for line := range strings.Lines(commonPasswords) {
		out[strings.TrimSpace(line)] = true
	}
	return out
})

// PasswordRules says which new passwords are accepted: those of 12 characters and more that are neither common nor easy to guess. No
// kind of character is demanded (NIST SP 800-63B §3.1.1).
type PasswordRules struct {
	// Short accepts what clients of the original system may send: 8 characters with a letter and a digit, unless it is one of the
	// passwords that are guessed first.
	Short bool
}

// Check says what is wrong with a new password, or "". Personal are words that others know of the person: names, address.
func (r PasswordRules) Check(password string, personal ...string) string {
	chars, score := minPasswordChars, minScore
	if r.Short {
		chars, score = minShortChars, minShortScore
	}
	password = norm.NFC.String(password)
	switch {
	case r.Short && utf8.RuneCountInString(password) < chars:
		return "Has at least 8 characters."
	case utf8.RuneCountInString(password) < chars:
		return "Has at least 12 characters."
	case len(password) > MaxPasswordBytes:
		return "Has at most 1024 bytes."
	case r.Short && !strings.ContainsFunc(password, isLetter) || r.Short && !strings.ContainsFunc(password, isDigit):
		return "Has at least one letter and one digit."
	case blocklist()[strings.ToLower(strings.TrimSpace(password))]:
		return "Is one of the most common passwords."
	case guessScore(password, personal) < score:
		return "Is too easy to guess: use more words, and none that have to do with you."
	}
	return ""
}

func isLetter(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }
func isDigit(r rune) bool  { return r >= '0' && r <= '9' }

// plainSpelling undoes the usual substitutions. zxcvbn's own matcher for them takes seconds for a hostile password of 100 characters.
var plainSpelling = strings.NewReplacer("@", "a", "4", "a", "8", "b", "(", "c", "3", "e", "6", "g", "1", "i", "!", "i", "|", "i", "0", "o",
	"$", "s", "5", "s", "7", "t", "+", "t", "2", "z")

// guessScore is zxcvbn's score of the password, 0 to 4; of a long one only the beginning counts.
func guessScore(password string, personal []string) int {
	var known []string
	for _, p := range personal {
		p = strings.ToLower(p)
		known = append(known, p)
		known = append(known, strings.FieldsFunc(p, func(r rune) bool { return strings.ContainsRune(" @.-_+", r) })...)
	}
	known = append(known, "factum")
	for _, word := range known {
		known = append(known, reversed(word))
	}
	if utf8.RuneCountInString(password) > scoredChars {
		password = string([]rune(password)[:scoredChars])
	}
	password = inASCII(password)
	least := 4
	for _, s := range []string{password, plainSpelling.Replace(password), repeatedPart(password)} {
		least = min(least, zxcvbn.PasswordStrength(s, known, matching.FilterL33tMatcher).Score)
	}
	return least
}

// inASCII gives every other character a letter of its own, so that zxcvbn, which counts bytes, sees repetitions and sequences. What is
// another form of an ASCII character becomes that (Unicode NFKC).
func inASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf {
			return r
		}
		return 'a' + r%26
	}, norm.NFKC.String(s))
}

// repeatedPart is what an ASCII text repeats from its beginning to its end, or all of it. zxcvbn finds repetitions of one character only.
func repeatedPart(s string) string {
	for n := 1; n <= len(s)/2; n++ {
		if s[n:] == s[:len(s)-n] {
			return s[:n]
		}
	}
	return s
}

func reversed(s string) string {
	runes := []rune(s)
	slices.Reverse(runes)
	return string(runes)
}
