// Package document decides about documents: a name and a media type that a user gave to a file. Its log is the tenant's own.
package document

import (
	"time"

	"github.com/factum-platform/factum/domain/es"
)

// Kind is the stream kind; the stream id is the document's id.
const Kind = "document"

// Event is a fact about a document.
type Event interface{ isDocumentEvent() }

// Uploaded says that a user keeps a file under a name. File names are personal until shown otherwise.
type Uploaded struct {
	DocumentID string      `json:"document_id"`
	FileID     string      `json:"file_id"`
	Filename   es.Personal `json:"filename"`
	MimeType   string      `json:"mime_type"`
	UploadedBy string      `json:"uploaded_by"`
	At         time.Time   `json:"at"`
}

// Deleted says that the document is gone; its file stays.
type Deleted struct {
	DocumentID string    `json:"document_id"`
	FileID     string    `json:"file_id"`
	DeletedBy  string    `json:"deleted_by"`
	At         time.Time `json:"at"`
}

func (Uploaded) isDocumentEvent() {}
func (Deleted) isDocumentEvent()  {}
