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
	p := problems{}
	if in.Filename != nil {
		name := strings.TrimSpace(*in.Filename)
		p.add("filename", document.CheckFilename(name))
		personal := es.Person(name)
		change.Filename = &personal
	}
	if in.MimeType != nil {
		mime := strings.TrimSpace(*in.MimeType)
		p.add("mime_type", document.CheckMimeType(mime))
		change.MimeType = &mime
	}
	p.add("metadata", document.CheckMetadata(in.Metadata))
	if err := p.err(); err != nil {
		return Document{}, Receipt{}, err
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
