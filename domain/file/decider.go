package file

import (
	"maps"
	"time"

	"github.com/factum-platform/factum/domain/es"
)

const (
	// firstRetry is the delay after the first failed attempt; it doubles with each further one.
	firstRetry = 2 * time.Second
	// longestRetry bounds the delay, so that a stamp comes through soon after an authority is back.
	longestRetry = 15 * time.Minute
	// giveUpAfter is how long after its request a time-stamp is abandoned.
	giveUpAfter = 7 * 24 * time.Hour
)

// Command is something that is asked of a file.
type Command interface{ isFileCommand() }

// Keep asks that a document refers to the content, which lies under ObjectKey. A content that is known already keeps the object
// of its first time. Stamp asks for a time-stamp, unless there is one or one is under way.
type Keep struct {
	FileID, SHA256, MD5, ObjectKey string
	Size                           int64
	DocumentID, By                 string
	Stamp                          bool
	At                             time.Time
}

// Unlink says that the document no longer refers to the file.
type Unlink struct {
	DocumentID string
	At         time.Time
}

// Delete asks that the content is kept no longer. Only an orphan can go.
type Delete struct {
	By string
	At time.Time
}

// RequestTimestamp asks for a time-stamp, also again after it was abandoned.
type RequestTimestamp struct {
	By string
	At time.Time
}

// RecordTimestamp reports a verified time-stamp.
type RecordTimestamp struct{ Stamp Timestamped }

// RecordFailure reports a failed attempt. Permanent says that no further attempt can succeed.
type RecordFailure struct {
	Attempt   int
	Reason    string
	Permanent bool
	At        time.Time
}

func (Keep) isFileCommand()             {}
func (Unlink) isFileCommand()           {}
func (Delete) isFileCommand()           {}
func (RequestTimestamp) isFileCommand() {}
func (RecordTimestamp) isFileCommand()  {}
func (RecordFailure) isFileCommand()    {}

// Stamp is how far a file's time-stamp is.
type Stamp uint8

// A file's time-stamp is not wanted, wanted, there, or given up.
const (
	Unwanted Stamp = iota
	Pending
	Stamped
	Abandoned
)

// State is what is known of a file.
type State struct {
	Exists      bool
	Deleted     bool // it existed, and its content was not stored again since
	ID          string
	SHA256, MD5 string
	ObjectKey   string
	Size        int64
	StoredBy    string
	StoredAt    time.Time
	Documents   map[string]bool // ids of the documents that refer to it
	Stamp       Stamp
	RequestedAt time.Time
	Attempts    int // failed since the request
}

// Decider decides about one file. Refusals: file.unknown, file.mismatch, file.referenced.
var Decider = es.Decider[State, Command, Event]{
	Initial: func() State { return State{} },
	Decide:  decide,
	Evolve:  evolve,
}

func decide(s State, c Command) ([]Event, error) {
	if keep, ok := c.(Keep); ok {
		return decideKeep(s, keep)
	}
	if !s.Exists {
		switch c.(type) {
		case RecordTimestamp, RecordFailure:
			if s.Deleted {
				return nil, nil // nobody waits for it any more
			}
		}
		return nil, es.Refuse("file.unknown", "There is no such file.")
	}
	switch c := c.(type) {
	case Delete:
		if len(s.Documents) > 0 {
			return nil, es.Refuse("file.referenced", "Documents refer to this file. Delete them first.")
		}
		return []Event{Deleted{FileID: s.ID, ObjectKey: s.ObjectKey, Size: s.Size, DeletedBy: c.By, At: c.At}}, nil
	case Unlink:
		if !s.Documents[c.DocumentID] {
			return nil, nil
		}
		return []Event{Unlinked{FileID: s.ID, DocumentID: c.DocumentID, At: c.At}}, nil
	case RequestTimestamp:
		if s.Stamp == Pending || s.Stamp == Stamped {
			return nil, nil
		}
		return []Event{TimestampRequested{FileID: s.ID, SHA256: s.SHA256, By: c.By, At: c.At}}, nil
	case RecordTimestamp:
		if s.Stamp == Stamped {
			return nil, nil
		}
		stamp := c.Stamp
		stamp.FileID = s.ID
		return []Event{stamp}, nil
	case RecordFailure:
		if s.Stamp != Pending || c.Attempt != s.Attempts+1 {
			return nil, nil // an attempt that was counted already, or that nobody waits for
		}
		if c.Permanent || !c.At.Before(s.RequestedAt.Add(giveUpAfter)) {
			return []Event{TimestampAbandoned{FileID: s.ID, Attempt: c.Attempt, Reason: c.Reason, At: c.At}}, nil
		}
		return []Event{TimestampFailed{FileID: s.ID, Attempt: c.Attempt, Reason: c.Reason, NextAttempt: c.At.Add(Delay(c.Attempt)), At: c.At}}, nil
	default:
		return nil, es.Refuse("file.command", "Unknown command %T.", c)
	}
}

func decideKeep(s State, c Keep) ([]Event, error) {
	var out []Event
	if s.SHA256 != "" && s.SHA256 != c.SHA256 {
		return nil, es.Refuse("file.mismatch", "This file has another content.")
	}
	if !s.Exists {
		out = append(out, Stored{FileID: c.FileID, SHA256: c.SHA256, MD5: c.MD5, Size: c.Size, ObjectKey: c.ObjectKey, StoredBy: c.By, At: c.At})
	}
	if !s.Documents[c.DocumentID] {
		out = append(out, Linked{FileID: c.FileID, DocumentID: c.DocumentID, At: c.At})
	}
	if c.Stamp && s.Stamp != Pending && s.Stamp != Stamped {
		out = append(out, TimestampRequested{FileID: c.FileID, SHA256: c.SHA256, By: c.By, At: c.At})
	}
	return out, nil
}

// Delay is how long after the attempt (from 1) failed the next one is due: 2 s, 4 s, 8 s … up to 15 minutes.
func Delay(attempt int) time.Duration {
	d := firstRetry
	for range attempt - 1 {
		if d *= 2; d >= longestRetry {
			return longestRetry
		}
	}
	return d
}

func evolve(s State, e Event) State {
	switch e := e.(type) {
	case Stored:
		return State{
			Exists: true, ID: e.FileID, SHA256: e.SHA256, MD5: e.MD5, ObjectKey: e.ObjectKey, Size: e.Size,
			StoredBy: e.StoredBy, StoredAt: e.At, Documents: map[string]bool{},
		}
	case Linked:
		documents := map[string]bool{e.DocumentID: true} // a state that was handed out does not change
		maps.Copy(documents, s.Documents)
		s.Documents = documents
	case Unlinked:
		s.Documents = maps.Clone(s.Documents)
		delete(s.Documents, e.DocumentID)
	case Deleted:
		s.Exists, s.Deleted, s.Stamp, s.Attempts = false, true, Unwanted, 0
	case TimestampRequested:
		s.Stamp, s.RequestedAt, s.Attempts = Pending, e.At, 0
	case Timestamped:
		s.Stamp = Stamped
	case TimestampFailed:
		s.Attempts = e.Attempt
	case TimestampAbandoned:
		s.Stamp, s.Attempts = Abandoned, e.Attempt
	}
	return s
}
