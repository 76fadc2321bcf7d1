package document

import (
	"encoding/json"
	"maps"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/factum-platform/factum/domain/es"
)

const (
	// MaxMetadataKeys is how many metadata a document has at most.
	MaxMetadataKeys = 50
	// MaxMetadataChars is the longest value.
	MaxMetadataChars = 1000
	// MaxMetadataBytes bounds all of a document's metadata together, written as JSON: 8 KiB. Lists of documents carry them.
	MaxMetadataBytes = 8 << 10
)

var keyForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.:\-]{0,63}$`)

// CheckMetadata says all that is wrong with a change of metadata, "" when nothing is. It cannot know whether the document's metadata become
// too many or too large; the decider does.
func CheckMetadata(changes map[string]*string) string {
	var key, long, control bool
	for name, value := range changes {
		key = key || !keyForm.MatchString(name)
		if value != nil {
			long = long || utf8.RuneCountInString(*value) > MaxMetadataChars
			control = control || !utf8.ValidString(*value) || strings.ContainsFunc(*value, unicode.IsControl)
		}
	}
	var wrong []string
	if key {
		wrong = append(wrong, "A key has 1 to 64 letters, digits or _ . : - and begins with a letter or a digit.")
	}
	if long {
		wrong = append(wrong, "A value has at most 1000 characters.")
	}
	if control {
		wrong = append(wrong, "A value must be valid text without control characters.")
	}
	return strings.Join(wrong, " ")
}

// Metadata reads what [MetadataSet] holds. Erased metadata are none.
func Metadata(p es.Personal) map[string]string {
	out := map[string]string{}
	if err := json.Unmarshal([]byte(p.Reveal()), &out); err != nil {
		return map[string]string{} // erased, or none yet
	}
	return out
}

// merge applies changes to a document's metadata, of which erased ones count as none.
func merge(was es.Personal, changes map[string]*string) (now es.Personal, changed bool, err error) {
	if wrong := CheckMetadata(changes); wrong != "" {
		return was, false, es.Refuse("document.metadata", "%s", wrong)
	}
	before := Metadata(was)
	after := maps.Clone(before)
	for key, value := range changes {
		if value == nil {
			delete(after, key)
		} else {
			after[key] = *value
		}
	}
	if maps.Equal(before, after) {
		return was, false, nil
	}
	raw, err := json.Marshal(after)
	switch {
	case err != nil: // strings only: it cannot fail
		return was, false, es.Refuse("document.metadata", "The metadata cannot be written.")
	case len(after) > MaxMetadataKeys:
		return was, false, es.Refuse("document.metadata", "A document has at most %d metadata.", MaxMetadataKeys)
	case len(raw) > MaxMetadataBytes:
		return was, false, es.Refuse("document.metadata", "A document's metadata take at most %d bytes in all.", MaxMetadataBytes)
	}
	return es.Person(string(raw)), true, nil
}
