package httpapi

import (
	"strings"
	"testing"
)

func TestAmbiguousJSONIsFound(t *testing.T) {
	for body, want := range map[string]string{
		`{"a":1,"b":{"a":2},"c":[{"a":3},{"a":4}]}`: "",
		`"text"`:                           "",
		``:                                 "",
		`{"a":1,`:                          "", // malformed is for others to say
		`{"a":1}{"a":1}`:                   "",
		`["a","a",{"a":"a"}]`:              "",
		`{"a":"a","b":"a"}`:                "",
		`{"a":{"x":1},"b":{"x":1}}`:        "",
		`{"a":1,"a":1}`:                    repeatedKey + `["a"]`,
		`{"a":1,"\u0061":2}`:               repeatedKey + `["a"]`,
		`{"a":{"b":[{"c":1,"c":2}]}}`:      repeatedKey + `["a.b.c"]`,
		`{"":1,"":2}`:                      repeatedKey + `[""]`,
		`{"a":[],"b":{},"a":null}`:         repeatedKey + `["a"]`,
		`[[{"a":1}],{"a":2,"b":1,"a":3}]`:  repeatedKey + `["a"]`,
		`{"a":1,"a":1,"b":{"a":1,"a":2}}`:  repeatedKey + `["a","b.a"]`,
		`{"a":[{"b":1e308},{"b":-1e309}]}`: misfitting + "a.b",
		`1e309`:                            misfitting,
		"\ufeff{}":                         "the body begins with a byte order mark",
		"{\"a\":\"\xff\"}":                 "the body is not valid UTF-8",

		`{"a":"\ud83d\ude00 \\ud83d \\\\u \n \uFFFD"}`: "",
		`{"a":"\ud83d"}`:        "the body has half of a surrogate pair",
		`{"a":"\ude00"}`:        "the body has half of a surrogate pair",
		`{"a":"\ud83d \ude00"}`: "the body has half of a surrogate pair",
		`{"a":"\ud83d\ud83d"}`:  "the body has half of a surrogate pair",
		`{"\uDFFF":1}`:          "the body has half of a surrogate pair",

		strings.Repeat("[", maxJSONDepth) + strings.Repeat("]", maxJSONDepth):                           "",
		strings.Repeat("[", maxJSONDepth+1):                                                             "the body is nested deeper than 64 levels",
		strings.Repeat(`{"a":`, maxJSONDepth+1) + "1" + strings.Repeat("}", maxJSONDepth+1):             "the body is nested deeper than 64 levels",
		strings.Repeat("[", 100_000):                                                                    "the body is nested deeper than 64 levels",
		`{"a":` + strings.Repeat("[", maxJSONDepth-1) + strings.Repeat("]", maxJSONDepth-1) + `,"a":1}`: repeatedKey + `["a"]`,
	} {
		got := ""
		if err := unambiguous([]byte(body)); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%.60s: %q; want %q", body, got, want)
		}
	}
}
