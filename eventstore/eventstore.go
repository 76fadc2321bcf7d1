// Package eventstore is the contract of the log: one append-only log per tenant, made of streams. Engines are
// memstore (the model), pgstore (the embedded default) and later esdbstore; storetest is the one suite that they all pass.
//
// Append promises. A1: all or nothing. A2: Expected is checked against the committed version. A3: the same event ids
// again answer Replayed and write nothing. A4: the same ids in another stream or with another type answer
// [ReusedKeyError]; payload bytes are not compared, because sealing draws fresh nonces. A5: writing nothing is a conflict, never
// a success. A6: the events of one append are adjacent in position. A7: after an ambiguous failure (deadline, lost
// connection) a retry with the same ids is safe.
//
// Follow promises. F1: position order. F2: at least once. F3: nothing is skipped, ever. F4: back-pressure: the next batch
// is fetched when the loop body returns. F5: it reconnects by itself, with jitter from 0.1 s to 5 s. F6: Live flips only after the
// head seen at subscription is reached. F7: it ends only with the context or a terminal error. F8: it never waits for another tenant.
package eventstore

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/factum-platform/factum/domain/es"
)

// MaxEventBytes is the largest Data of one event that an engine accepts: 1 MiB.
const MaxEventBytes = 1 << 20

// MaxAppendEvents is the largest number of events in one append.
const MaxAppendEvents = 1000

// MaxAppendBytes is the largest sum of Data in one append: 16 MiB.
const MaxAppendBytes = 16 << 20

// MaxPageEvents is the largest limit of a page.
const MaxPageEvents = 10_000

// maxClaimBytes and maxMetaBytes bound the texts that go into an index or beside every event.
const (
	maxClaimBytes = 256
	maxMetaBytes  = 1024
)

// PlatformTenant owns the log of control-plane facts: users, tenants, memberships.
const PlatformTenant TenantID = "platform"

type (
	// TenantID names a tenant's log: [a-z0-9]{1,32}. It holds no '-', so it is exactly one EventStoreDB category.
	TenantID string
	// Version counts the events of one stream from 1, without gaps in every engine. 0 is a stream that does not exist.
	Version uint64
	// Position orders one tenant's events in commit order. It is comparable and resumable in every engine and gap-free only
	// where [Caps] says so. 0 lies before the first event. Positions of different tenants have no order.
	Position uint64
	// EventID identifies an event for ever; see [NewEventID].
	EventID [16]byte
)

var (
	tenantForm = regexp.MustCompile(`^[a-z0-9]{1,32}$`)
	kindForm   = regexp.MustCompile(`^[a-z]{1,64}$`)
)

// Validate reports whether the id has the form that every engine can store.
func (t TenantID) Validate() error {
	if !tenantForm.MatchString(string(t)) {
		return fmt.Errorf("eventstore: tenant id %q: want 1 to 32 of [a-z0-9]", string(t))
	}
	return nil
}

// NewEventID derives the id of the ordinal-th event (from 0, over the whole append) of a command: the same command
// retried gives the same ids.
func NewEventID(tenant TenantID, actor, command string, ordinal int) EventID {
	id, err := ParseEventID(es.Key(string(tenant), actor, command, fmt.Sprint(ordinal)))
	if err != nil {
		panic("eventstore: es.Key is not a UUID: " + err.Error())
	}
	return id
}

// ParseEventID reads the UUID text form.
func ParseEventID(s string) (EventID, error) {
	var id EventID
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("eventstore: event id %q is not a UUID", s)
	}
	copy(id[:], b)
	return id, nil
}

// String returns the UUID text form.
func (id EventID) String() string {
	s := hex.EncodeToString(id[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// StreamID names a stream of a tenant: an aggregate's kind ([a-z]+) and an opaque id, never an e-mail address, a name or a file name.
type StreamID struct{ Kind, ID string }

// String returns "kind-id".
func (s StreamID) String() string { return s.Kind + "-" + s.ID }

// ParseStreamID reads kind-id; the id may hold further dashes. Error: one that is not valid.
func ParseStreamID(text string) (StreamID, error) {
	kind, id, _ := strings.Cut(text, "-")
	s := StreamID{kind, id}
	return s, s.Validate()
}

// Validate reports whether every engine can store the name: a kind of 1 to 64 of [a-z], an id of 1 to 256 bytes of valid
// UTF-8 without NUL.
func (s StreamID) Validate() error {
	if !kindForm.MatchString(s.Kind) {
		return fmt.Errorf("eventstore: stream kind %q: want 1 to 64 of [a-z]", s.Kind)
	}
	if !plainText(s.ID, 256) {
		return fmt.Errorf("eventstore: stream id of kind %s: want 1 to 256 bytes of UTF-8 without NUL", s.Kind)
	}
	return nil
}

// plainText tells whether every engine can store s: 1 to limit bytes of valid UTF-8 without NUL.
func plainText(s string, limit int) bool {
	return s != "" && len(s) <= limit && utf8.ValidString(s) && !strings.ContainsRune(s, 0)
}

// Meta is what is known about an event besides its data.
type Meta struct {
	Command     string    `json:"command"`     // the command's id; on REST the Idempotency-Key
	Correlation string    `json:"correlation"` // the request that started it all
	Causation   string    `json:"causation"`   // the event or job that caused the command, if any
	Actor       string    `json:"actor"`       // opaque id of who did it
	At          time.Time `json:"at"`          // when the command was given, UTC
}

// Proposed is an event that is offered to the log.
type Proposed struct {
	ID     EventID
	Type   string // wire name
	Schema uint16 // from 1
	Data   []byte // JSON, kept byte for byte; personal fields already sealed; at most MaxEventBytes
	Meta   Meta
}

// Recorded is an event of the log.
type Recorded struct {
	Tenant   TenantID
	Stream   StreamID
	Version  Version
	Position Position
	Recorded time.Time // the engine's clock; information only, never an order
	Proposed
}

// Expected is the optimistic check of an append. The zero value allows nothing, and "any version" has no constructor.
type Expected struct {
	kind    uint8
	version Version
}

const (
	expectNoStream uint8 = iota + 1
	expectAt
	expectExists
)

// NoStream expects that the stream has no event yet.
func NoStream() Expected { return Expected{kind: expectNoStream} }

// At expects exactly this version; At(0) is [NoStream].
func At(v Version) Expected {
	if v == 0 {
		return NoStream()
	}
	return Expected{kind: expectAt, version: v}
}

// StreamExists expects at least one event, at whatever version.
func StreamExists() Expected { return Expected{kind: expectExists} }

// Allows tells whether a stream at version v fulfils the expectation.
func (e Expected) Allows(v Version) bool {
	switch e.kind {
	case expectNoStream:
		return v == 0
	case expectAt:
		return v == e.version
	case expectExists:
		return v > 0
	default:
		return false
	}
}

// Exact returns the one version that is allowed, if there is just one.
func (e Expected) Exact() (v Version, ok bool) {
	return e.version, e.kind == expectNoStream || e.kind == expectAt
}

// String says the expectation in words.
func (e Expected) String() string {
	switch e.kind {
	case expectNoStream:
		return "no stream"
	case expectAt:
		return fmt.Sprintf("version %d", e.version)
	case expectExists:
		return "an existing stream"
	default:
		return "nothing (zero Expected)"
	}
}

// Claim takes (Give false) or releases (Give true) a value that must be unique in the tenant, in the same append as the events
// of the stream that owns it. Key is an HMAC under the tenant's key, never the value itself.
type Claim struct {
	Scope, Key string
	Give       bool
}

// Held is a claimed value and the stream that holds it.
type Held struct {
	Scope, Key string
	Stream     StreamID
}

// Write is one stream's part of an append. Events must not be empty.
type Write struct {
	Stream   StreamID
	Expected Expected
	Events   []Proposed
	Claims   []Claim
}

// Appended answers one Write: the stream's version and the position after its last event. Replayed says that the events
// were there already and nothing was written; Version and Position are then those of the first time.
type Appended struct {
	Version  Version
	Position Position
	Replayed bool
}

// Caps says what an engine can do beyond the contract's minimum.
type Caps struct {
	Gapless     bool // positions are 1, 2, 3 … without gaps
	MultiStream bool // an append may hold several writes
	AtomicClaim bool // claims are taken in the very append
}

// Covers tells whether c has everything that need has.
func (c Caps) Covers(need Caps) bool {
	return (c.Gapless || !need.Gapless) && (c.MultiStream || !need.MultiStream) && (c.AtomicClaim || !need.AtomicClaim)
}

// Store hands out logs. No call takes events without a tenant. A Store is safe for concurrent use.
type Store interface {
	Tenant(t TenantID) Log
	Caps() Caps
	// Bell is rung with a tenant's id after each commit to its log, by this process or another.
	Bell() *Bell
	Close() error
}

// Log is one tenant's log. It is safe for concurrent use.
type Log interface {
	// Append writes all events of all writes, or none. Errors: *[ConflictError], *[ClaimError], *[ReusedKeyError],
	// *[InvalidError] (nothing was sent), *[UnavailableError] (it says whether the append may have been written), or another
	// ambiguous failure (promise A7). It answers one Appended per write, in order.
	Append(ctx context.Context, writes ...Write) ([]Appended, error)
	// ReadStream yields the stream's events with Version >= from, in order. A stream that does not exist yields none.
	ReadStream(ctx context.Context, s StreamID, from Version) iter.Seq2[Recorded, error]
	// Page returns at most limit events with Position > after, in order; it never skips an event that commits late.
	// limit must be 1 to MaxPageEvents; a page of large events may end earlier, so only Live says that nothing follows.
	Page(ctx context.Context, after Position, limit int) (Batch, error)
	// Follow yields batches from after on, for ever; see the package's F promises. Empty batches are yielded only to say Live.
	// The last item carries the error that ended it: the context's, [ErrClosed] or a terminal one.
	Follow(ctx context.Context, after Position) iter.Seq2[Batch, error]
	// Head is the position of the last committed event, 0 for an empty log.
	Head(ctx context.Context) (Position, error)
	// Claims yields the values that are held, ordered by the bytes of scope and key. What is taken or given meanwhile may be
	// missed: it is for moving a log whose writers are at rest.
	Claims(ctx context.Context) iter.Seq2[Held, error]
}

// Batch is a run of events in position order.
type Batch struct {
	Events  []Recorded
	Through Position // a safe checkpoint; may exceed the last event's position where positions have gaps
	Live    bool     // nothing more was committed when the batch was read
}

// ConflictError says that a stream was not at the expected version. Nothing was written.
type ConflictError struct {
	Stream   StreamID
	Expected Expected
	Actual   Version
}

// Error implements error.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("eventstore: stream %s is at version %d, expected %s", e.Stream, e.Actual, e.Expected)
}

// ClaimError says that a claimed value belongs to another stream already. Nothing was written.
type ClaimError struct{ Claim Claim }

// Error implements error. It does not print the key.
func (e *ClaimError) Error() string {
	return fmt.Sprintf("eventstore: the claimed %s is taken", e.Claim.Scope)
}

// ReusedKeyError says that the event ids were used before, for something else: the same command id with another intent.
type ReusedKeyError struct{ Stream StreamID }

// Error implements error.
func (e *ReusedKeyError) Error() string {
	return fmt.Sprintf("eventstore: the command id was used before for something other than this append to %s", e.Stream)
}

// UnavailableError says that an engine could not be reached, or could not write. Waiting or an operator helps, not another request.
type UnavailableError struct {
	Tenant TenantID
	Reason string // what is wrong with the tenant's database or the server, and what to set or do
	Maybe  bool   // the append may have been written all the same: repeating it with the same ids is safe and tells (promise A7)
	Err    error
}

// Error implements error.
func (e *UnavailableError) Error() string {
	written := "nothing was written"
	if e.Maybe {
		written = "the append may have been written, repeat it to know"
	}
	return fmt.Sprintf("eventstore: the log of tenant %s: %s (%s): %v", e.Tenant, e.Reason, written, e.Err)
}

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

// InvalidError says that an append was malformed and was not sent.
type InvalidError struct{ Reason string }

// Error implements error.
func (e *InvalidError) Error() string { return "eventstore: " + e.Reason }

// ErrClosed is returned by calls on a store that was closed.
var ErrClosed = errors.New("eventstore: the store is closed")

// Validate checks the form of an append: what every engine refuses before it sends anything.
func Validate(caps Caps, writes []Write) error {
	if len(writes) == 0 {
		return &InvalidError{"an append needs at least one write"}
	}
	if len(writes) > 1 && !caps.MultiStream {
		return &InvalidError{"this engine appends to one stream at a time"}
	}
	total, size := 0, 0
	streams := make(map[StreamID]bool, len(writes))
	ids := make(map[EventID]bool)
	for _, w := range writes {
		if err := w.Stream.Validate(); err != nil {
			return &InvalidError{strings.TrimPrefix(err.Error(), "eventstore: ")}
		}
		if streams[w.Stream] {
			return &InvalidError{fmt.Sprintf("stream %s occurs twice in one append", w.Stream)}
		}
		streams[w.Stream] = true
		if len(w.Events) == 0 {
			return &InvalidError{fmt.Sprintf("no events for stream %s", w.Stream)}
		}
		total += len(w.Events)
		for _, e := range w.Events {
			if ids[e.ID] {
				return &InvalidError{fmt.Sprintf("event id %s occurs twice in one append", e.ID)}
			}
			if err := e.validate(); err != nil {
				return err
			}
			size += len(e.Data)
			ids[e.ID] = true
		}
		for _, c := range w.Claims {
			if !plainText(c.Scope, maxClaimBytes) || c.Key == "" || len(c.Key) > maxClaimBytes {
				return &InvalidError{fmt.Sprintf("a claim of stream %s needs a scope and a key of 1 to %d bytes", w.Stream, maxClaimBytes)}
			}
		}
	}
	if total > MaxAppendEvents {
		return &InvalidError{fmt.Sprintf("%d events in one append, the limit is %d", total, MaxAppendEvents)}
	}
	if size > MaxAppendBytes {
		return &InvalidError{fmt.Sprintf("%d bytes in one append, the limit is %d", size, MaxAppendBytes)}
	}
	return nil
}

func (e Proposed) validate() error {
	switch {
	case e.ID == EventID{}:
		return &InvalidError{"an event needs an id"}
	case !plainText(e.Type, 256) || e.Schema == 0:
		return &InvalidError{"an event needs a type and a schema from 1"}
	case len(e.Data) > MaxEventBytes:
		return &InvalidError{fmt.Sprintf("%s holds %d bytes, the limit is %d", e.Type, len(e.Data), MaxEventBytes)}
	case !utf8.Valid(e.Data) || !json.Valid(e.Data):
		return &InvalidError{fmt.Sprintf("the data of %s is not JSON in UTF-8", e.Type)}
	}
	for _, text := range []string{e.Meta.Command, e.Meta.Correlation, e.Meta.Causation, e.Meta.Actor} {
		if text != "" && !plainText(text, maxMetaBytes) {
			return &InvalidError{fmt.Sprintf("a text in the meta of %s is not UTF-8 without NUL of at most %d bytes", e.Type, maxMetaBytes)}
		}
	}
	if y := e.Meta.At.UTC().Year(); y < 1 || y > 9999 {
		return &InvalidError{fmt.Sprintf("the time in the meta of %s is outside the years 1 to 9999", e.Type)}
	}
	return nil
}
