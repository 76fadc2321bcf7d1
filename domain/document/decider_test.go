package document_test

import (
	"strings"
	"testing"
	"time"

	. "github.com/factum-platform/factum/domain/document"
	"github.com/factum-platform/factum/domain/es"
)

var at = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

func TestUploadAndDelete(t *testing.T) {
	up := Upload{DocumentID: "d", FileID: "f", Filename: es.Person("pump.pdf"), MimeType: "Application/PDF", By: "u", At: at}
	uploaded := Uploaded{DocumentID: "d", FileID: "f", Filename: es.Person("pump.pdf"), MimeType: "application/pdf", UploadedBy: "u", At: at}
	deleted := Deleted{DocumentID: "d", FileID: "f", DeletedBy: "v", At: at}
	given(t).When(up).Then(uploaded)
	given(t, uploaded).When(up).Refused("document.exists")
	bad := up
	bad.MimeType = "text/plain; charset=utf-8"
	given(t).When(bad).Refused("document.mime_type")
	given(t, uploaded).When(Delete{By: "v", At: at}).Then(deleted)
	given(t, uploaded, deleted).When(Delete{By: "v", At: at}).Refused("document.unknown")
	given(t).When(Delete{By: "v", At: at}).Refused("document.unknown")
}

func TestFilenames(t *testing.T) {
	for _, good := range []string{"a", "Prüfbericht 4.pdf", "...", strings.Repeat("ü", 255), "דוח.pdf", "👩\u200d🔧.txt"} {
		if wrong := CheckFilename(good); wrong != "" {
			t.Errorf("%q: %s", good, wrong)
		}
	}
	for _, bad := range []string{"", " ", ".", "..", "a/b", `a\b`, "a\x00", "a\r\nb", "\xff", "\u202etxt.exe", "a\u2028b", "\u200b", strings.Repeat("x", 256)} {
		if CheckFilename(bad) == "" {
			t.Errorf("%q was accepted", bad)
		}
	}
}

var uploaded = Uploaded{DocumentID: "d", FileID: "f", Filename: es.Person("pump.pdf"), MimeType: "application/pdf", UploadedBy: "u", At: at}

func ptr[T any](v T) *T { return &v }

func TestChange(t *testing.T) {
	later := at.Add(time.Hour)
	name := Change{Filename: ptr(es.Person("valve.pdf")), By: "v", At: later}
	mime := Change{MimeType: ptr("Text/Plain"), By: "v", At: later}
	meta := Change{Metadata: map[string]*string{"plant": ptr("north"), "line": ptr("4")}, By: "v", At: later}
	renamed := Renamed{DocumentID: "d", Filename: es.Person("valve.pdf"), RenamedBy: "v", At: later}
	retyped := MimeTypeChanged{DocumentID: "d", MimeType: "text/plain", ChangedBy: "v", At: later}
	described := MetadataSet{DocumentID: "d", Metadata: es.Person(`{"line":"4","plant":"north"}`), SetBy: "v", At: later}
	deleted := Deleted{DocumentID: "d"}
	for _, c := range []Change{name, mime, meta, {}} {
		given(t).When(c).Refused("document.unknown")
		given(t, uploaded, deleted).When(c).Refused("document.unknown")
	}
	given(t, uploaded).When(name).Then(renamed)
	given(t, uploaded, renamed).When(name).Then()
	given(t, uploaded).When(mime).Then(retyped)
	given(t, uploaded, retyped).When(mime).Then()
	given(t, uploaded).When(Change{MimeType: ptr("text"), By: "v", At: later}).Refused("document.mime_type")
	given(t, uploaded).When(meta).Then(described)
	given(t, uploaded, described).When(meta).Then()
	all := meta
	all.Filename, all.MimeType = name.Filename, mime.MimeType
	given(t, uploaded).When(all).Then(renamed, retyped, described)

	one := Change{Metadata: map[string]*string{"line": nil, "shift": ptr("")}, By: "v", At: later}
	given(t, uploaded, described).When(one).Then(MetadataSet{DocumentID: "d", Metadata: es.Person(`{"plant":"north","shift":""}`), SetBy: "v", At: later})
	given(t, uploaded).When(Change{Metadata: map[string]*string{"line": nil}, By: "v", At: later}).Then()
	erased := MetadataSet{DocumentID: "d", Metadata: es.ErasedPersonal(), SetBy: "v", At: later}
	given(t, uploaded, erased).When(meta).Then(described)
}

func TestOnlyTheOwner(t *testing.T) {
	for only, code := range map[string]string{"": "", "u": "", "v": "document.not_owner"} {
		for _, c := range []Command{Change{MimeType: ptr("text/plain"), By: "v", Only: only, At: at}, Delete{By: "v", Only: only, At: at}} {
			facts, err := Decider.Decide(Decider.Fold(Decider.Initial(), uploaded), c)
			if code == "" && (err != nil || len(facts) != 1) {
				t.Errorf("%#v: %v %v", c, facts, err)
			}
			if code != "" {
				given(t, uploaded).When(c).Refused(code)
			}
		}
	}
	given(t).When(Delete{By: "v", Only: "v", At: at}).Refused("document.unknown") // tells no more than it must
}

func TestMetadataAreBounded(t *testing.T) {
	long := strings.Repeat("ü", 1000)
	for _, good := range []map[string]*string{{"a": ptr(long)}, {"ISO:9001.rev-2_x": ptr("Prüfung 4 <b>")}, {strings.Repeat("k", 64): nil}} {
		if wrong := CheckMetadata(good); wrong != "" {
			t.Error(wrong)
		}
	}
	for _, bad := range []map[string]*string{
		{"": ptr("x")},
		{" a": ptr("x")},
		{"ä": ptr("x")},
		{"_a": ptr("x")},
		{strings.Repeat("k", 65): ptr("x")},
		{"a\n": nil},
		{"a": ptr(long + "x")},
		{"a": ptr("x\x00")},
		{"a": ptr("\xff")},
		{"a": ptr("b\r\nc")},
	} {
		if CheckMetadata(bad) == "" {
			t.Errorf("%v was accepted", bad)
		}
		given(t, uploaded).When(Change{Metadata: bad, By: "v", At: at}).Refused("document.metadata")
	}
	many := map[string]*string{}
	for i := range 51 {
		many[strings.Repeat("k", i+1)] = ptr("x")
	}
	given(t, uploaded).When(Change{Metadata: many, By: "v", At: at}).Refused("document.metadata")
	given(t, uploaded).When(Change{Metadata: map[string]*string{"a": &long, "b": &long, "c": &long, "d": &long, "e": &long}, By: "v", At: at}).Refused("document.metadata")
}

func given(t *testing.T, facts ...Event) es.Story[State, Command, Event] {
	t.Helper()
	return es.Given(t, Decider, facts...)
}
