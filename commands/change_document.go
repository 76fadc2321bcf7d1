package commands

import (
	"context"
	"strings"
	"time"

	"github.com/factum-platform/factum/domain/document"
	"github.com/factum-platform/factum/domain/es"
)

// DocumentID names a document. Only, unless it is "", is the one person whose documents the caller may change.
type DocumentID struct{ TenantID, ID, Only string }

// ChangeDocument asks for another name, media type or metadata of a document; nil leaves them.
type ChangeDocument struct {
	Filename, MimeType *string
	Metadata           map[string]*string // by key the new value, nil for none; keys that are not named stay
}

// Check says what is wrong with the request, by field; nothing when nothing is.
func (in ChangeDocument) Check() map[string][]string {
	p := problems{}
	if in.Filename != nil {
		p.add("filename", document.CheckFilename(strings.TrimSpace(*in.Filename)))
	}
	if in.MimeType != nil {
		p.add("mime_type", document.CheckMimeType(strings.TrimSpace(*in.MimeType)))
	}
	p.add("metadata", document.CheckMetadata(in.Metadata))
	return p
}

// Document is a document as it is after a command.
type Document struct {
	ID, Filename, MimeType, FileID, UserID string
	Metadata                               map[string]string
	CreatedAt, UpdatedAt                   time.Time
}

// ChangeDocument changes what is asked for, all of it or nothing. Errors: *[ValidationError]; *[es.Refusal] document.unknown,
// document.not_owner, and document.metadata when the document's metadata would become too many or too large.
func (c *Commands) ChangeDocument(ctx context.Context, by Caller, d DocumentID, in ChangeDocument) (Document, Receipt, error) {
	change := document.Change{Metadata: in.Metadata, By: by.UserID, Only: d.Only, At: stamp(by.At)}
	if err := problems(in.Check()).err(); err != nil {
		return Document{}, Receipt{}, err
	}
	if in.Filename != nil {
		personal := es.Person(strings.TrimSpace(*in.Filename))
		change.Filename = &personal
	}
	if in.MimeType != nil {
		mime := strings.TrimSpace(*in.MimeType)
		change.MimeType = &mime
	}
	step := documentStep(d.ID, change).onlyIf(by)
	receipt, err := c.x.Execute(ctx, LogOf(d.TenantID), by.meta(), step)
	if err == nil && step.State.Deleted { // a repetition, and the document was deleted since
		err = es.Refuse("document.unknown", "There is no such document any more.")
	}
	if err != nil {
		return Document{}, Receipt{}, err
	}
	s := step.State
	return Document{
		ID: s.ID, Filename: s.Filename.Reveal(), MimeType: s.MimeType, FileID: s.FileID, UserID: s.UploadedBy,
		Metadata: document.Metadata(s.Metadata), CreatedAt: s.UploadedAt, UpdatedAt: s.ChangedAt,
	}, receipt, nil
}
