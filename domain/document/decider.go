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
	Metadata           map[string]*string // as in [Change]; optional
	At                 time.Time
}

// Change asks for another name, media type or metadata; nil leaves them. Only, unless it is "", is the one person whose documents may be
// changed.
type Change struct {
	Filename *es.Personal
	MimeType *string
	Metadata map[string]*string // by key the new value, nil for none; keys that are not named stay
	By, Only string
	At       time.Time
}

// Delete asks to remove the document. Only is as in [Change].
type Delete struct {
	By, Only string
	At       time.Time
}

func (Upload) isDocumentCommand() {}
func (Change) isDocumentCommand() {}
func (Delete) isDocumentCommand() {}

// State is what is known of a document.
type State struct {
	Exists, Deleted bool
	ID, FileID      string
	Filename        es.Personal
	MimeType        string
	UploadedBy      string
	UploadedAt      time.Time
	Metadata        es.Personal // a JSON object of strings; "" for none
	ChangedAt       time.Time   // of the last event
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
	case strings.ContainsFunc(name, ControlCharacter):
		return "A file name must not contain control characters, nor those that turn the direction of writing."
	case !strings.ContainsFunc(name, visible):
		return "A file name must not be blank."
	case name == "." || name == "..":
		return "A file name must not be . or ..."
	default:
		return ""
	}
}

// ControlCharacter tells whether r may not stand in a file name, because it changes how what is around it looks: control characters, separators of
// lines, and what turns the direction of writing, with which a name that ends in exe seems to end in txt (CVE-2021-42574).
func ControlCharacter(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control)
}

func visible(r rune) bool { return unicode.IsGraphic(r) && !unicode.IsSpace(r) }

// CheckMimeType says what is wrong with a media type, "" when nothing is. Parameters are not allowed.
func CheckMimeType(mime string) string {
	if len(mime) > MaxMimeTypeChars || !mimeForm.MatchString(mime) {
		return "A media type looks like application/pdf, without parameters, and has at most 100 characters."
	}
	return ""
}

// Decider decides about one document. Refusals: document.exists, document.unknown, document.not_owner, document.mime_type,
// document.metadata.
var Decider = es.Decider[State, Command, Event]{
	Initial: func() State { return State{} },
	Decide:  decide,
	Evolve:  evolve,
}

func decide(s State, c Command) ([]Event, error) {
	switch c := c.(type) {
	case Upload:
		if s.Exists {
			return nil, es.Refuse("document.exists", "This document exists already.")
		}
		if wrong := CheckMimeType(c.MimeType); wrong != "" {
			return nil, es.Refuse("document.mime_type", "%s", wrong)
		}
		metadata, some, err := merge(es.Personal{}, c.Metadata)
		if err != nil {
			return nil, err
		}
		out := []Event{Uploaded{DocumentID: c.DocumentID, FileID: c.FileID, Filename: c.Filename, MimeType: strings.ToLower(c.MimeType), UploadedBy: c.By, At: c.At}}
		if some {
			out = append(out, MetadataSet{DocumentID: c.DocumentID, Metadata: metadata, SetBy: c.By, At: c.At})
		}
		return out, nil
	case Change:
		if err := s.open(c.Only); err != nil {
			return nil, err
		}
		return decideChange(s, c)
	case Delete:
		if err := s.open(c.Only); err != nil {
			return nil, err
		}
		return []Event{Deleted{DocumentID: s.ID, FileID: s.FileID, DeletedBy: c.By, At: c.At}}, nil
	default:
		return nil, es.Refuse("document.command", "Unknown command %T.", c)
	}
}

// open refuses when the document is not there, or is not of the one person whose documents may be changed.
func (s State) open(only string) error {
	switch {
	case !s.Exists || s.Deleted:
		return es.Refuse("document.unknown", "There is no such document.")
	case only != "" && only != s.UploadedBy:
		return es.Refuse("document.not_owner", "Your role in this tenant allows this for documents that you uploaded only.")
	}
	return nil
}

func decideChange(s State, c Change) ([]Event, error) {
	var out []Event
	if c.Filename != nil && c.Filename.Reveal() != s.Filename.Reveal() {
		out = append(out, Renamed{DocumentID: s.ID, Filename: *c.Filename, RenamedBy: c.By, At: c.At})
	}
	if c.MimeType != nil {
		if wrong := CheckMimeType(*c.MimeType); wrong != "" {
			return nil, es.Refuse("document.mime_type", "%s", wrong)
		}
		if mime := strings.ToLower(*c.MimeType); mime != s.MimeType {
			out = append(out, MimeTypeChanged{DocumentID: s.ID, MimeType: mime, ChangedBy: c.By, At: c.At})
		}
	}
	metadata, changed, err := merge(s.Metadata, c.Metadata)
	if err != nil {
		return nil, err
	}
	if changed {
		out = append(out, MetadataSet{DocumentID: s.ID, Metadata: metadata, SetBy: c.By, At: c.At})
	}
	return out, nil
}

func evolve(s State, e Event) State {
	switch e := e.(type) {
	case Uploaded:
		return State{
			Exists: true, ID: e.DocumentID, FileID: e.FileID, Filename: e.Filename, MimeType: e.MimeType, UploadedBy: e.UploadedBy,
			UploadedAt: e.At, ChangedAt: e.At,
		}
	case Renamed:
		s.Filename, s.ChangedAt = e.Filename, e.At
	case MimeTypeChanged:
		s.MimeType, s.ChangedAt = e.MimeType, e.At
	case MetadataSet:
		s.Metadata, s.ChangedAt = e.Metadata, e.At
	case Deleted:
		s.Deleted, s.ChangedAt = true, e.At
	}
	return s
}
