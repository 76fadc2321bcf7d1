// Package document decides about documents: a name, a media type and metadata that users gave to a file. Its log is the tenant's own.
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

// Renamed says that a document has another name.
type Renamed struct {
	DocumentID string      `json:"document_id"`
	Filename   es.Personal `json:"filename"`
	RenamedBy  string      `json:"renamed_by"`
	At         time.Time   `json:"at"`
}

// MimeTypeChanged says that a document has another media type; its content is the same.
type MimeTypeChanged struct {
	DocumentID string    `json:"document_id"`
	MimeType   string    `json:"mime_type"`
	ChangedBy  string    `json:"changed_by"`
	At         time.Time `json:"at"`
}

// MetadataSet says what a document's metadata are from now on: all of them, a JSON object of strings. They may tell of people.
type MetadataSet struct {
	DocumentID string      `json:"document_id"`
	Metadata   es.Personal `json:"metadata"`
	SetBy      string      `json:"set_by"`
	At         time.Time   `json:"at"`
}

// Deleted says that the document is gone; its file stays.
type Deleted struct {
	DocumentID string    `json:"document_id"`
	FileID     string    `json:"file_id"`
	DeletedBy  string    `json:"deleted_by"`
	At         time.Time `json:"at"`
}

func (Uploaded) isDocumentEvent()        {}
func (Renamed) isDocumentEvent()         {}
func (MimeTypeChanged) isDocumentEvent() {}
func (MetadataSet) isDocumentEvent()     {}
func (Deleted) isDocumentEvent()         {}
