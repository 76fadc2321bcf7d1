package domain_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/factum-platform/factum/domain"
	"github.com/factum-platform/factum/domain/es"
)

var record = flag.Bool("record", false, "write golden files for event versions that have none; existing ones are never changed")

// TestEveryTextFieldIsDeclared: personal data can reach the log only through fields that are sealed.
func TestEveryTextFieldIsDeclared(t *testing.T) {
	for _, event := range domain.Catalog() {
		seen := map[string]bool{}
		for i := range event.Go.NumField() {
			field := event.Go.Field(i)
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			seen[name] = true
			_, personal := event.Personal[name]
			switch {
			case name == "":
				t.Errorf("%s.%s has no JSON name", event.Name, field.Name)
			case (field.Type == reflect.TypeFor[es.Personal]()) != personal:
				t.Errorf("%s.%s: the Go type and About disagree on whether it is personal", event.Name, name)
			case !personal && holdsText(field.Type) && !slices.Contains(event.Safe, name):
				t.Errorf("%s.%s is text, and neither personal nor listed as safe", event.Name, name)
			}
		}
		for field, subject := range event.Personal {
			if !seen[field] || !seen[subject] {
				t.Errorf("%s: About names %s or %s, which it does not have", event.Name, field, subject)
			}
		}
		for _, field := range event.Safe {
			if !seen[field] {
				t.Errorf("%s: WithSafe names %s, which it does not have", event.Name, field)
			}
		}
	}
}

func holdsText(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String:
		return true
	case reflect.Slice, reflect.Array, reflect.Pointer:
		return holdsText(t.Elem())
	case reflect.Map:
		return holdsText(t.Key()) || holdsText(t.Elem())
	case reflect.Struct:
		if t == reflect.TypeFor[time.Time]() {
			return false
		}
		for i := range t.NumField() {
			if holdsText(t.Field(i).Type) {
				return true
			}
		}
	case reflect.Interface:
		return true
	default:
		return false
	}
	return false
}

// TestGoldenEvents: every version of every event that was ever written can be read, and an event that changes its shape needs
// a new version. Golden files are only ever added (go test ./domain -record).
func TestGoldenEvents(t *testing.T) {
	for _, event := range domain.Catalog() {
		for schema := uint16(1); schema <= event.Schema(); schema++ {
			path := filepath.Join("testdata", "events", fmt.Sprintf("%s.v%d.json", event.Name, schema))
			golden, err := os.ReadFile(path)
			if os.IsNotExist(err) && *record && schema == event.Schema() {
				golden = example(t, event)
				err = os.WriteFile(path, golden, 0o600)
			}
			if err != nil {
				t.Errorf("%s schema %d has no golden file: %v", event.Name, schema, err)
				continue
			}
			raw := json.RawMessage(golden)
			for _, up := range event.Upcasts[schema-1:] {
				if raw, err = up(raw); err != nil {
					t.Errorf("%s: %v", path, err)
				}
			}
			fact, err := event.Decode(raw)
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			if reflect.ValueOf(fact).IsZero() {
				t.Errorf("%s decodes as nothing", path)
			}
			// Written again it must be the same: a field that was renamed, removed or added shows here.
			again, err := json.MarshalIndent(fact, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			if schema == event.Schema() && !bytes.Equal(bytes.TrimSpace(again), bytes.TrimSpace(golden)) {
				t.Errorf("%s has changed without a new schema:\n%s\nwas\n%s", event.Name, again, golden)
			}
		}
	}
}

// example fills every field with something.
func example(t *testing.T, event es.EventType) []byte {
	t.Helper()
	v := reflect.New(event.Go).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Interface().(type) {
		case string:
			f.SetString("text " + event.Go.Field(i).Name)
		case es.Personal:
			f.Set(reflect.ValueOf(es.Person("personal " + event.Go.Field(i).Name)))
		case int, int64:
			f.SetInt(int64(i + 1))
		case bool:
			f.SetBool(true)
		case []byte:
			f.SetBytes([]byte{1, 2, 3})
		case time.Time:
			f.Set(reflect.ValueOf(time.Date(2026, 11, 24, 9, 0, 0, 123456000, time.UTC)))
		default:
			t.Fatalf("%s.%s: no example for %s", event.Name, event.Go.Field(i).Name, f.Type())
		}
	}
	raw, err := json.MarshalIndent(v.Interface(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(raw, '\n')
}
