package document

import (
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/factum-platform/factum/domain/es"
)

const (
	// MaxFilenameChars is the longest name of a document.
	MaxFilenameChars = 255
	// MaxMimeTypeChars is the longest media type.
	MaxMimeTypeChars = 100
)

var mimeForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9\-+.]*/[A-Za-z0-9][A-Za-z0-9\-+.]*$`)

// Command is something that is asked of a document.
type Command interface{ isDocumentCommand() }

// Upload asks to keep a file under a name.
type Upload struct {
	DocumentID, FileID string
	Filename           es.Personal
	MimeType, By       string
	At                 time.Time
}

// Delete asks to remove the document.
type Delete struct {
	By string
	At time.Time
}

func (Upload) isDocumentCommand() {}
func (Delete) isDocumentCommand() {}

// State is what is known of a document.
type State struct {
	Exists, Deleted bool
	ID, FileID      string
	Filename        es.Personal
	MimeType        string
	UploadedBy      string
	UploadedAt      time.Time
}

// CheckFilename says what is wrong with a trimmed file name, "" when nothing is.
func CheckFilename(name string) string {
	switch {
	case strings.TrimSpace(name) == "":
		return "A file name must not be blank."
	case !utf8.ValidString(name):
		return "A file name must be valid UTF-8."
	case utf8.RuneCountInString(name) > MaxFilenameChars:
		return "A file name has at most 255 characters."
	case strings.ContainsAny(name, `/\`):
		return "A file name must not contain / or \\."
	case strings.ContainsFunc(name, unicode.IsControl):
		return "A file name must not contain control characters."
	case name == "." || name == "..":
		return "A file name must not be . or ..."
	default:
		return ""
	}
}

// CheckMimeType says what is wrong with a media type, "" when nothing is. Parameters are not allowed.
func CheckMimeType(mime string) string {
	if len(mime) > MaxMimeTypeChars || !mimeForm.MatchString(mime) {
		return "A media type looks like application/pdf, without parameters, and has at most 100 characters."
	}
	return ""
}

// Decider decides about one document. Refusals: document.exists, document.unknown, document.filename, document.mime_type.
var Decider = es.Decider[State, Command, Event]{
	Initial: func() State { return State{} },
	Decide: func(s State, c Command) ([]Event, error) {
		switch c := c.(type) {
		case Upload:
			if s.Exists {
				return nil, es.Refuse("document.exists", "This document exists already.")
			}
			if wrong := CheckMimeType(c.MimeType); wrong != "" {
				return nil, es.Refuse("document.mime_type", "%s", wrong)
			}
			return []Event{Uploaded{DocumentID: c.DocumentID, FileID: c.FileID, Filename: c.Filename, MimeType: strings.ToLower(c.MimeType), UploadedBy: c.By, At: c.At}}, nil
		case Delete:
			if !s.Exists || s.Deleted {
				return nil, es.Refuse("document.unknown", "There is no such document.")
			}
			return []Event{Deleted{DocumentID: s.ID, FileID: s.FileID, DeletedBy: c.By, At: c.At}}, nil
		default:
			return nil, es.Refuse("document.command", "Unknown command %T.", c)
		}
	},
	Evolve: func(s State, e Event) State {
		switch e := e.(type) {
		case Uploaded:
			return State{Exists: true, ID: e.DocumentID, FileID: e.FileID, Filename: e.Filename, MimeType: e.MimeType, UploadedBy: e.UploadedBy, UploadedAt: e.At}
		case Deleted:
			s.Deleted = true
		}
		return s
	},
}
