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
	for _, good := range []string{"a", "Prüfbericht 4.pdf", "...", strings.Repeat("ü", 255)} {
		if wrong := CheckFilename(good); wrong != "" {
			t.Errorf("%q: %s", good, wrong)
		}
	}
	for _, bad := range []string{"", " ", ".", "..", "a/b", `a\b`, "a\x00", "a\r\nb", "\xff", strings.Repeat("x", 256)} {
		if CheckFilename(bad) == "" {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func given(t *testing.T, facts ...Event) es.Story[State, Command, Event] {
	t.Helper()
	return es.Given(t, Decider, facts...)
}
