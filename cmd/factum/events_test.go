package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/factum-platform/factum/domain"
)

func TestEventsList(t *testing.T) {
	var out bytes.Buffer
	if err := (EventsListCmd{}).list(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"document.uploaded\n  writes    version 1\n  reads     versions 1 to 1\n  personal  filename, sealed under the key of the person in uploaded_by\n  schema 1  {\"$schema\":",
		"\n\nfile.linked\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}

	out.Reset()
	if err := (EventsListCmd{JSON: true}).list(&out); err != nil {
		t.Fatal(err)
	}
	var events []listedEvent
	if err := json.Unmarshal(out.Bytes(), &events); err != nil {
		t.Fatal(err)
	}
	if len(events) != len(domain.Catalog()) {
		t.Errorf("%d events; want %d", len(events), len(domain.Catalog()))
	}
	for i, e := range events {
		var schema struct{ Title string }
		if err := json.Unmarshal(e.Schemas[e.Version], &schema); err != nil || !strings.HasPrefix(schema.Title, e.Name) || len(e.Schemas) != int(e.Version) {
			t.Errorf("%s: %d schemas, the last with title %q, %v", e.Name, len(e.Schemas), schema.Title, err)
		}
		if i > 0 && events[i-1].Name >= e.Name {
			t.Errorf("%s follows %s", e.Name, events[i-1].Name)
		}
	}

	out.Reset()
	if err := (EventsListCmd{JSON: true, Names: []string{"user.registered"}}).list(&out); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), &events); err != nil || len(events) != 1 || events[0].Personal["email"] != "user_id" {
		t.Errorf("of one event: %+v, %v", events, err)
	}
	if err := (EventsListCmd{Names: []string{"user.exploded"}}).list(&out); err == nil || !strings.Contains(err.Error(), "user.exploded") {
		t.Errorf("of an unknown event: %v", err)
	}
}
