package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
)

// strictJSON is huma's JSON but for what encoding/json would let pass in silence: invalid UTF-8 and half a surrogate pair, which it replaces,
// and a key that an object has twice, of which it takes the last.
var strictJSON = huma.Format{
	Marshal: huma.DefaultJSONFormat.Marshal,
	Unmarshal: func(data []byte, v any) error {
		if _, first := v.(*any); first { // huma reads a body twice: to validate it, and then into its type
			if err := unambiguous(data); err != nil {
				return err
			}
		}
		err := json.Unmarshal(data, v)
		var misfit *json.UnmarshalTypeError
		if errors.As(err, &misfit) { // its text has the value, which may be long or a secret, and names of our types
			return errors.New(misfitting + misfit.Field)
		}
		return err
	},
}

// ReadJSON reads JSON that is a part of a request as strictly as a request's body is read.
func ReadJSON(data []byte, v any) error {
	if err := unambiguous(data); err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// maxJSONDepth is how deep a body may be nested; none of ours has more than three levels.
const maxJSONDepth = 64

// These begin messages that go on with what is in question: huma keeps nothing of an error but its text.
const (
	repeatedKey = "keys are given more than once: " // and then their names, a JSON array
	misfitting  = "the value does not fit: "        // and then the field's name
)

func repeatedKeys(names []string) error {
	if len(names) == 0 {
		return nil
	}
	raw, err := json.Marshal(names)
	if err != nil {
		return fmt.Errorf("httpapi: name repeated keys: %w", err)
	}
	return errors.New(repeatedKey + string(raw))
}

// keysOf reads what follows repeatedKey.
func keysOf(array string) (keys []string) {
	if err := json.Unmarshal([]byte(array), &keys); err != nil { // we wrote it
		return []string{"_schema"}
	}
	return keys
}

// unambiguous refuses what readers of JSON understand differently (RFC 8259 §4, §6, §8.1, §8.2). Malformed JSON is left to those who read it.
func unambiguous(data []byte) error {
	if !utf8.Valid(data) {
		return errors.New("the body is not valid UTF-8")
	}
	if bytes.HasPrefix(data, []byte("\ufeff")) {
		return errors.New("the body begins with a byte order mark")
	}
	if halfPair(data) {
		return errors.New("the body has half of a surrogate pair")
	}
	type level struct {
		seen   map[string]bool // keys of an object; nil in an array
		key    string          // the last one
		valued bool            // its value comes next
	}
	var levels []level
	path := func() string {
		var keys []string
		for _, l := range levels {
			if l.seen != nil {
				keys = append(keys, l.key)
			}
		}
		return strings.Join(keys, ".")
	}
	var repeated []string
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	for {
		token, err := d.Token()
		if err != nil && !errors.Is(err, io.EOF) {
			return nil // malformed
		}
		if err != nil || len(repeated) == maxFields {
			return repeatedKeys(repeated)
		}
		top := &level{}
		if len(levels) > 0 {
			top = &levels[len(levels)-1]
		}
		delimiter, _ := token.(json.Delim)
		switch {
		case delimiter == '}' || delimiter == ']':
			levels = levels[:len(levels)-1]
			continue
		case top.seen != nil && !top.valued: // a key; the decoder takes nothing else here
			top.key, top.valued = token.(string), true
			if top.seen[top.key] {
				repeated = append(repeated, path())
			}
			top.seen[top.key] = true
			continue
		}
		if number, ok := token.(json.Number); ok {
			if _, err := number.Float64(); err != nil {
				return errors.New(misfitting + path())
			}
		}
		top.valued = false // the value begins; what follows its end is a key
		if delimiter == '{' || delimiter == '[' {
			if len(levels) == maxJSONDepth {
				return fmt.Errorf("the body is nested deeper than %d levels", maxJSONDepth)
			}
			next := level{}
			if delimiter == '{' {
				next.seen = map[string]bool{}
			}
			levels = append(levels, next)
		}
	}
}

var escape = regexp.MustCompile(`\\(?:u([0-9a-fA-F]{4})|.)`)

// halfPair tells whether a string has a \u escape for half a character.
func halfPair(data []byte) bool {
	if !bytes.Contains(data, []byte(`\u`)) {
		return false
	}
	openEnd := -1 // where the second half must follow
	for _, at := range escape.FindAllSubmatchIndex(data, -1) {
		low, high := false, false
		if at[2] >= 0 {
			unit := strings.ToLower(string(data[at[2]:at[3]]))
			high, low = unit >= "d800" && unit <= "dbff", unit >= "dc00" && unit <= "dfff"
		}
		if (openEnd >= 0) != low || low && openEnd != at[0] {
			return true
		}
		openEnd = -1
		if high {
			openEnd = at[1]
		}
	}
	return openEnd >= 0
}
