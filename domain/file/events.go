// Package file decides about stored contents: one file per tenant and content, the documents that refer to it, and
// its RFC 3161 time-stamp. Its log is the tenant's own.
package file

import "time"

// Kind is the stream kind; the stream id is the file's id, which derives from the tenant and the content's SHA-256
// under a key of the tenant, so that equal contents meet in one stream and the id tells a stranger nothing.
const Kind = "file"

// Event is a fact about a file.
type Event interface{ isFileEvent() }

// Stored says that the content lies in the object store.
type Stored struct {
	FileID    string    `json:"file_id"`
	SHA256    string    `json:"sha256"` // 64 lower-case hex digits
	MD5       string    `json:"md5"`    // 32 lower-case hex digits; information for clients of the original, never an identity
	Size      int64     `json:"size"`   // bytes, > 0
	ObjectKey string    `json:"object_key"`
	StoredBy  string    `json:"stored_by"`
	At        time.Time `json:"at"`
}

// Linked says that a document refers to the file.
type Linked struct {
	FileID     string    `json:"file_id"`
	DocumentID string    `json:"document_id"`
	At         time.Time `json:"at"`
}

// Unlinked says that a document no longer refers to the file. A file without documents is an orphan; it stays until it is deleted.
type Unlinked struct {
	FileID     string    `json:"file_id"`
	DocumentID string    `json:"document_id"`
	At         time.Time `json:"at"`
}

// TimestampRequested says that a time-stamp is wanted from now on; the first attempt is due at once.
type TimestampRequested struct {
	FileID string    `json:"file_id"`
	SHA256 string    `json:"sha256"`
	By     string    `json:"by"`
	At     time.Time `json:"at"`
}

// Timestamped says that a time-stamping authority proved, verified completely, that the content existed at GenTime.
type Timestamped struct {
	FileID    string    `json:"file_id"`
	Response  []byte    `json:"response"`  // the whole TimeStampResp in DER (RFC 3161 §2.4.2), base64 in JSON
	GenTime   time.Time `json:"gen_time"`  // of the token's TSTInfo
	Serial    string    `json:"serial"`    // "0x" and upper-case hex
	Policy    string    `json:"policy"`    // policy OID, dotted
	Algorithm string    `json:"algorithm"` // of the message imprint: "sha256"
	Authority string    `json:"authority"` // subject of the signing certificate (RFC 4514)
	Attempt   int       `json:"attempt"`   // from 1
	At        time.Time `json:"at"`
}

// TimestampFailed says that an attempt failed and when the next one is due.
type TimestampFailed struct {
	FileID      string    `json:"file_id"`
	Attempt     int       `json:"attempt"` // the attempt that failed, from 1
	Reason      string    `json:"reason"`  // a sentence without personal data
	NextAttempt time.Time `json:"next_attempt"`
	At          time.Time `json:"at"`
}

// TimestampAbandoned says that no further attempt will be made unless somebody asks again.
type TimestampAbandoned struct {
	FileID  string    `json:"file_id"`
	Attempt int       `json:"attempt"` // the last attempt, from 1
	Reason  string    `json:"reason"`
	At      time.Time `json:"at"`
}

// Deleted says that the content is kept no longer. Its time-stamps stay in the log. The same content may come again, as another object.
type Deleted struct {
	FileID    string    `json:"file_id"`
	ObjectKey string    `json:"object_key"` // what may be removed from the object store from now on
	Size      int64     `json:"size"`       // bytes
	DeletedBy string    `json:"deleted_by"`
	At        time.Time `json:"at"`
}

func (Deleted) isFileEvent()            {}
func (Stored) isFileEvent()             {}
func (Linked) isFileEvent()             {}
func (Unlinked) isFileEvent()           {}
func (TimestampRequested) isFileEvent() {}
func (Timestamped) isFileEvent()        {}
func (TimestampFailed) isFileEvent()    {}
func (TimestampAbandoned) isFileEvent() {}
