package commands

import (
	"context"
	"crypto/md5" //nolint:gosec // information for clients of the original; identity is SHA-256
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/factum-platform/factum/domain/document"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/file"
	"github.com/factum-platform/factum/domain/timestamping"
	"github.com/factum-platform/factum/eventstore"
)

// MaxFileBytes is the largest content of a document: 100 MiB.
const MaxFileBytes = 100 << 20

// discardTimeout bounds the removal of an object that is not needed.
const discardTimeout = 10 * time.Second

// ErrTooLarge says that a content exceeds [MaxFileBytes].
var ErrTooLarge = errors.New("commands: a file has at most 100 MiB")

// UploadDocument asks to keep a content under a name. Body is read once, to its end. Describe is called after that and gives the
// name, the media type and the metadata, which a multipart client may send behind the content.
type UploadDocument struct {
	TenantID, DatabaseName string
	Body                   io.Reader
	Describe               func() (Description, error)
}

// Description is what a document is called, what it is and what is noted about it.
type Description struct {
	Filename, MimeType string
	Metadata           map[string]*string // by key; nil values are none
	// Unread says of fields that could not be read what is wrong with them, as [Description.Check] does of the others.
	Unread map[string][]string
}

// Check says what is wrong with the description, by field; nothing when nothing is.
func (d Description) Check() map[string][]string {
	p := problems(ChangeDocument{&d.Filename, &d.MimeType, d.Metadata}.Check())
	maps.Copy(p, d.Unread)
	return p
}

// Uploaded is a document and its file as they are after the upload.
type Uploaded struct {
	DocumentID, Filename, MimeType, FileID, UserID string
	Metadata                                       map[string]string
	CreatedAt                                      time.Time
	MD5, SHA256, ObjectKey                         string
	Size                                           int64
	FileCreatedAt                                  time.Time
}

// UploadDocument streams the content into the object store and records file and document. Equal contents of a
// tenant share one file. A time-stamp is requested when the tenant has time-stamping on. Errors: *[ValidationError],
// also for an empty content; [ErrTooLarge], whatever reading Body answers. What is not acknowledged leaves at most an object that nothing
// refers to.
func (c *Commands) UploadDocument(ctx context.Context, by Caller, in UploadDocument) (Uploaded, Receipt, error) {
	if c.c.Objects == nil {
		return Uploaded{}, Receipt{}, errors.New("commands: this process has no object store and takes no uploads")
	}
	object := c.c.NewID()
	key := fmt.Sprintf("tenants/%s/files/%s/%s/%s", in.DatabaseName, object[0:2], object[2:4], object)
	sums := newDigests()
	// What is known once the content has passed by is loaded while the object store makes that durable.
	u := &uploading{tenant: LogOf(in.TenantID), forget: func() {}}
	defer func() { u.forget() }()
	u.loaded = sync.OnceValue(func() error { return u.load(ctx, c, by, sums) })
	var early sync.WaitGroup
	defer early.Wait()
	body := &ending{r: io.TeeReader(&limited{r: in.Body, left: MaxFileBytes}, sums), ended: func() {
		early.Go(func() { _ = u.loaded() }) // recordUpload is told the same
	}}
	size, err := c.c.Objects.Put(ctx, key, body)
	if err != nil {
		return Uploaded{}, Receipt{}, err
	}
	out, receipt, err := c.recordUpload(ctx, by, in, key, size, u)
	// The object is removed when nothing refers to it for certain: after a definite failure, or when the content was known.
	if (err != nil && !MayHaveHappened(err)) || (err == nil && out.ObjectKey != key) {
		c.discard(ctx, key)
	}
	return out, receipt, err
}

// discard removes an object, also when the client has gone. Its failure does not change the answer: the object only takes room.
func (c *Commands) discard(ctx context.Context, key string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTimeout)
	defer cancel()
	if err := c.c.Objects.Delete(ctx, key); err != nil {
		c.c.Logger.WarnContext(ctx, "an object that nothing refers to could not be removed", "object", key, "error", err)
	}
}

// uploading is an upload whose content is known: its two streams as they were then, and the tenant's policy. All but the tenant may be looked at
// once loaded has answered nil; it loads at its first call. forget must be called at the end.
type uploading struct {
	loaded                      func() error
	tenant                      eventstore.TenantID
	sha, md, fileID, documentID string
	policy                      timestamping.State
	keep                        *Decision[file.State, file.Command, file.Event]
	upload                      *Decision[document.State, document.Command, document.Event]
	forget                      func()
}

func (u *uploading) load(ctx context.Context, c *Commands, by Caller, sums *digests) error {
	u.sha, u.md = sums.hex()
	mac, err := c.c.MAC(ctx, string(u.tenant), "file", u.sha)
	if err != nil {
		return err
	}
	u.fileID, u.documentID = es.FormatID([16]byte(mac[:16])), es.Key("document", string(u.tenant), by.UserID, by.Command)
	u.keep, u.upload = fileStep(u.fileID, nil), documentStep(u.documentID, nil)
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() (err error) {
		u.forget, err = c.x.Ahead(ctx, u.tenant, by.meta(), u.keep, u.upload)
		return err
	})
	all.Go(func() (err error) {
		policy := eventstore.StreamID{Kind: timestamping.Kind, ID: timestamping.StreamID}
		u.policy, _, err = fold(ctx, c.c.Store.Tenant(u.tenant), c.c.Codec, timestamping.Decider, policy, nil)
		return err
	})
	return all.Wait()
}

func (c *Commands) recordUpload(ctx context.Context, by Caller, in UploadDocument, key string, size int64, u *uploading) (Uploaded, Receipt, error) {
	described, err := in.Describe()
	if err != nil {
		return Uploaded{}, Receipt{}, definite{err}
	}
	filename, mime := strings.TrimSpace(described.Filename), strings.ToLower(strings.TrimSpace(described.MimeType))
	p := problems(described.Check())
	if size == 0 {
		p.add("file", "Must not be empty.")
	}
	if err := p.err(); err != nil {
		return Uploaded{}, Receipt{}, definite{err}
	}
	if err := u.loaded(); err != nil {
		return Uploaded{}, Receipt{}, err
	}
	at := stamp(by.At)
	u.keep.Command = file.Keep{
		FileID: u.fileID, SHA256: u.sha, MD5: u.md, ObjectKey: key, Size: size,
		DocumentID: u.documentID, By: by.UserID, Stamp: u.policy.Enabled, At: at,
	}
	u.upload.Command = document.Upload{
		DocumentID: u.documentID, FileID: u.fileID, Filename: es.Person(filename), MimeType: mime, Metadata: described.Metadata, By: by.UserID, At: at,
	}
	// The file goes first: a document is never seen before its file.
	receipt, err := c.x.Execute(ctx, u.tenant, by.meta(), u.keep, u.upload)
	if err != nil {
		return Uploaded{}, Receipt{}, err
	}
	f, d := u.keep.State, u.upload.State
	return Uploaded{
		DocumentID: d.ID, Filename: d.Filename.Reveal(), MimeType: d.MimeType, FileID: d.FileID, UserID: d.UploadedBy, CreatedAt: d.UploadedAt,
		Metadata: document.Metadata(d.Metadata),
		MD5:      f.MD5, SHA256: f.SHA256, ObjectKey: f.ObjectKey, Size: f.Size, FileCreatedAt: f.StoredAt,
	}, receipt, nil
}

func fileStep(id string, command file.Command) *Decision[file.State, file.Command, file.Event] {
	return &Decision[file.State, file.Command, file.Event]{
		Decider: file.Decider, Stream: eventstore.StreamID{Kind: file.Kind, ID: id}, Command: command,
	}
}

func documentStep(id string, command document.Command) *Decision[document.State, document.Command, document.Event] {
	return &Decision[document.State, document.Command, document.Event]{
		Decider: document.Decider, Stream: eventstore.StreamID{Kind: document.Kind, ID: id}, Command: command,
	}
}

// limited fails with [ErrTooLarge] as soon as more than left bytes arrive.
type limited struct {
	r    io.Reader
	left int64
}

// Read implements io.Reader.
func (l *limited) Read(p []byte) (int, error) {
	if int64(len(p)) > l.left+1 {
		p = p[:l.left+1]
	}
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, ErrTooLarge
	}
	return n, err
}

// ending says once when r has come to its end.
type ending struct {
	r     io.Reader
	ended func()
}

// Read implements io.Reader.
func (e *ending) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if errors.Is(err, io.EOF) && e.ended != nil {
		e.ended()
		e.ended = nil
	}
	return n, err
}

// digests computes both hashes while the content passes by.
type digests struct {
	io.Writer
	hex func() (sha, md string)
}

func newDigests() *digests {
	s, m := sha256.New(), md5.New() //nolint:gosec // see the import
	return &digests{io.MultiWriter(s, m), func() (string, string) {
		return hex.EncodeToString(s.Sum(nil)), hex.EncodeToString(m.Sum(nil))
	}}
}
