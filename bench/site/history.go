package site

import (
	"context"
	"crypto/md5" //nolint:gosec // what production records beside SHA-256
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/factum-platform/factum/domain/document"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/file"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/tsa"
)

const (
	// appendEvents and appendBytes bound an append of a history, below what the log takes.
	appendEvents = 800
	appendBytes  = 8 << 20
	// fillers is how many histories fill a log at once: one would wait for the server, and the server for it.
	fillers = 3
	// keptFiles is how many files a history goes on with: another document of the same content, a deletion, a time-stamp.
	keptFiles = 64
	// persons is how many people upload.
	persons = 100
)

// Fill appends about so many events to the tenant's log, as its use over months makes them: out of 20 uploads, 18 bring a new file and two
// the content of an earlier one; two documents are deleted. With a stamp, every file is time-stamped, one in 18 at the second attempt. The
// deciders of production decide, and the codec of production seals the names; only the appends are larger. It returns how many events
// there are. progress is told of that from time to time.
func (p *Platform) Fill(ctx context.Context, t Tenant, events int, stamp *tsa.Stamp, progress func(done int)) (int, error) {
	return p.fill(ctx, p.Store.Tenant(t.Log), t, events, stamp, progress)
}

func (p *Platform) fill(ctx context.Context, log eventstore.Log, t Tenant, events int, stamp *tsa.Stamp, progress func(done int)) (int, error) {
	people := make([]string, persons)
	for i := range people {
		people[i] = uuid.NewString()
	}
	var done atomic.Int64
	all, ctx := errgroup.WithContext(ctx)
	for i := range fillers {
		h := &history{p: p, tenant: t, people: people, stamp: stamp, seed: uuid.NewString(), at: time.Now().UTC().Truncate(time.Microsecond).AddDate(0, -3, 0)}
		share := events / fillers
		if i == 0 {
			share += events % fillers
		}
		all.Go(func() error {
			for made := 0; made < share; {
				if err := h.batch(ctx, min(appendEvents, share-made)); err != nil {
					return err
				}
				if _, err := log.Append(ctx, h.writes...); err != nil {
					return err
				}
				made += h.events
				now := done.Add(int64(h.events))
				if progress != nil {
					progress(int(now))
				}
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		return 0, fmt.Errorf("fill the log of tenant %s: %w", t.ID, err)
	}
	return int(done.Load()), nil
}

// history makes events of one tenant.
type history struct {
	p      *Platform
	tenant Tenant
	people []string
	stamp  *tsa.Stamp
	seed   string
	at     time.Time
	n      int // uploads so far
	files  []*kept

	writes []eventstore.Write // of the batch
	write  map[eventstore.StreamID]int
	events int
	bytes  int
}

// kept is a file and the documents that refer to it.
type kept struct {
	upload   int // the number of its first
	stream   eventstore.StreamID
	state    file.State
	version  eventstore.Version
	document document.State // the newest
	docs     eventstore.Version
}

// batch makes uploads until there are so many events.
func (h *history) batch(ctx context.Context, events int) error {
	h.writes, h.write, h.events, h.bytes = nil, map[eventstore.StreamID]int{}, 0, 0
	for h.events < events && h.bytes < appendBytes {
		if err := h.next(ctx); err != nil {
			return err
		}
	}
	return nil
}

// next is the next upload, and what is due with it.
func (h *history) next(ctx context.Context) error {
	n := h.n
	h.n++
	h.at = h.at.Add(7 * time.Second)
	var f *kept
	if n%10 == 9 { // the content of a file that was uploaded before
		f = h.files[len(h.files)/2]
	} else {
		f = &kept{upload: n}
		h.files = append(h.files, f)
	}
	if err := h.upload(ctx, f, n); err != nil {
		return err
	}
	if n%10 == 4 && len(h.files) > 3 {
		if err := h.delete(ctx, h.files[len(h.files)-3]); err != nil {
			return err
		}
	}
	if h.stamp != nil && len(h.files) > 5 { // its authority answers a little later
		if err := h.stampFile(ctx, h.files[len(h.files)-5]); err != nil {
			return err
		}
	}
	if len(h.files) > 2*keptFiles {
		h.files = slices.Clone(h.files[keptFiles:])
	}
	return nil
}

// command is one command that makes events of several streams.
type command struct {
	meta    eventstore.Meta
	ordinal int
}

func (h *history) command(actor string) *command {
	id := es.Key(h.seed, fmt.Sprint(h.n), fmt.Sprint(h.events))
	return &command{meta: eventstore.Meta{Command: id, Correlation: es.Key(id), Actor: actor, At: h.at}}
}

func (h *history) upload(ctx context.Context, f *kept, n int) error {
	by := h.people[n%len(h.people)]
	c := h.command(by)
	content := fmt.Sprintf("%s %d", h.seed, f.upload)
	sum, md := sha256.Sum256([]byte(content)), md5.Sum([]byte(content)) //nolint:gosec // see the import
	id, object, documentID := es.Key("file", content), es.Key("object", content), es.Key("document", string(h.tenant.Log), by, c.meta.Command)
	f.stream = eventstore.StreamID{Kind: file.Kind, ID: id}
	keep := file.Keep{
		FileID: id, SHA256: hex.EncodeToString(sum[:]), MD5: hex.EncodeToString(md[:]), Size: int64(1000 + n%1_000_000),
		ObjectKey:  fmt.Sprintf("tenants/%s/files/%s/%s/%s", h.tenant.Database, object[0:2], object[2:4], object),
		DocumentID: documentID, By: by, Stamp: h.stamp != nil, At: h.at,
	}
	if err := decide(ctx, h, c, file.Decider, f.stream, &f.state, &f.version, file.Command(keep)); err != nil {
		return err
	}
	f.document, f.docs = document.State{}, 0
	return decide(ctx, h, c, document.Decider, eventstore.StreamID{Kind: document.Kind, ID: documentID}, &f.document, &f.docs, document.Command(document.Upload{
		DocumentID: documentID, FileID: id, Filename: es.Person(fmt.Sprintf("Prüfbericht %06d Los %d.pdf", n, n%97)), MimeType: "application/pdf", By: by, At: h.at,
	}))
}

func (h *history) delete(ctx context.Context, f *kept) error {
	by := f.document.UploadedBy
	c := h.command(by)
	err := decide(ctx, h, c, document.Decider, eventstore.StreamID{Kind: document.Kind, ID: f.document.ID}, &f.document, &f.docs, document.Command(document.Delete{By: by, At: h.at}))
	if err != nil {
		return err
	}
	return decide(ctx, h, c, file.Decider, f.stream, &f.state, &f.version, file.Command(file.Unlink{DocumentID: f.document.ID, At: h.at}))
}

// stampFile records the stamp, or first a failure.
func (h *history) stampFile(ctx context.Context, f *kept) error {
	if f.state.Stamp != file.Pending {
		return nil
	}
	c := h.command("system")
	attempt := f.state.Attempts + 1
	if f.upload%20 == 3 && attempt == 1 {
		err := decide(ctx, h, c, file.Decider, f.stream, &f.state, &f.version, file.Command(file.RecordFailure{
			Attempt: attempt, Reason: "The time-stamping authority could not be asked.", At: h.at,
		}))
		if err != nil {
			return err
		}
		attempt++
	}
	s := h.stamp
	return decide(ctx, h, c, file.Decider, f.stream, &f.state, &f.version, file.Command(file.RecordTimestamp{Stamp: file.Timestamped{
		Response: s.Response, GenTime: s.GenTime, Serial: s.Serial, Policy: s.Policy, Algorithm: s.Algorithm, Authority: s.Authority, Attempt: attempt, At: h.at,
	}}))
}

// decide adds to the batch what the command leads to.
func decide[S, C, E any](ctx context.Context, h *history, by *command, d es.Decider[S, C, E], stream eventstore.StreamID, state *S, version *eventstore.Version, c C) error {
	facts, err := d.Decide(*state, c)
	if err != nil {
		return err
	}
	for _, fact := range facts {
		id := eventstore.NewEventID(h.tenant.Log, by.meta.Actor, by.meta.Command, by.ordinal)
		by.ordinal++
		p, err := h.p.Codec.Encode(ctx, h.tenant.Log, stream, id, fact)
		if err != nil {
			return err
		}
		p.Meta = by.meta
		i, ok := h.write[stream]
		if !ok {
			i = len(h.writes)
			h.write[stream] = i
			h.writes = append(h.writes, eventstore.Write{Stream: stream, Expected: eventstore.At(*version)})
		}
		h.writes[i].Events = append(h.writes[i].Events, p)
		*version++
		h.events++
		h.bytes += len(p.Data)
	}
	*state = d.Fold(*state, facts...)
	return nil
}

// Uploaded is one upload that [Platform.Upload] has recorded.
type Uploaded struct {
	Document string              // its id
	Position eventstore.Position // of the last event
	Events   int
}

// Upload appends what the upload of a new file leads to in a tenant that does not time-stamp, as one append of its own.
func (p *Platform) Upload(ctx context.Context, t Tenant) (Uploaded, error) {
	return p.upload(ctx, p.Store.Tenant(t.Log), t)
}

func (p *Platform) upload(ctx context.Context, log eventstore.Log, t Tenant) (Uploaded, error) {
	h := &history{p: p, tenant: t, people: []string{p.Person}, seed: uuid.NewString(), at: time.Now().UTC().Truncate(time.Microsecond), write: map[eventstore.StreamID]int{}}
	f := &kept{}
	if err := h.upload(ctx, f, 0); err != nil {
		return Uploaded{}, err
	}
	out, err := log.Append(ctx, h.writes...)
	if err != nil {
		return Uploaded{}, err
	}
	return Uploaded{f.document.ID, out[len(out)-1].Position, h.events}, nil
}
