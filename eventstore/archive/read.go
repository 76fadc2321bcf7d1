package archive

import (
	"archive/zip"
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"os"
	"strings"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/copylog"
)

const (
	// maxLine bounds a line: an event's data, every byte of it escaped, and some more.
	maxLine = 6*eventstore.MaxEventBytes + 64<<10
	// maxSmall bounds the manifest and the sums.
	maxSmall = 1 << 20
)

// Archive is an archive that is read. It is for one goroutine.
type Archive struct {
	Manifest Manifest

	path    string
	zip     *zip.ReadCloser
	entries map[string]*zip.File
	sums    map[string]string
}

// Open reads the manifest, and checks that and the list of sums; [Archive.Verify] checks the rest. Error: *[DamagedError] for a file that is no
// archive of a known form.
func Open(path string) (*Archive, error) {
	z, err := zip.OpenReader(path)
	switch {
	case errors.Is(err, zip.ErrFormat):
		return nil, &DamagedError{path, "it is no archive of 'factum tenants export', or its end is missing"}
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("archive: there is no file %s", path)
	case err != nil:
		return nil, fmt.Errorf("archive: open: %w", err)
	}
	a := &Archive{path: path, zip: z, entries: map[string]*zip.File{}, sums: map[string]string{}}
	if err := a.readManifest(); err != nil {
		return nil, errors.Join(err, z.Close())
	}
	return a, nil
}

// Close closes the file.
func (a *Archive) Close() error { return a.zip.Close() }

func (a *Archive) damaged(format string, args ...any) error {
	return &DamagedError{a.path, fmt.Sprintf(format, args...)}
}

func (a *Archive) readManifest() error {
	for _, f := range a.zip.File {
		if a.entries[f.Name] != nil {
			return a.damaged("it holds %s twice", f.Name)
		}
		a.entries[f.Name] = f
	}
	known := []string{eventsEntry, claimsEntry, keysEntry, manifestEntry, sumsEntry}
	for _, name := range known {
		if a.entries[name] == nil {
			return a.damaged("it holds no %s, so it was not made by 'factum tenants export'", name)
		}
	}
	if len(a.entries) != len(known) {
		return a.damaged("it holds %d files besides those of an archive", len(a.entries)-len(known))
	}
	raw, err := a.small(sumsEntry)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(raw)) {
		sum, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if !ok || len(sum) != 2*sha256.Size {
			return a.damaged("its %s is not a list of SHA-256 sums", sumsEntry)
		}
		a.sums[name] = sum
	}
	if raw, err = a.small(manifestEntry); err != nil {
		return err
	}
	if got := sha256.Sum256(raw); hex.EncodeToString(got[:]) != a.sums[manifestEntry] {
		return a.damaged("%s was changed after it was written: its SHA-256 is another", manifestEntry)
	}
	var form struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(raw, &form); err != nil {
		return a.damaged("%s is not JSON: %v", manifestEntry, err)
	}
	if form.Format < 1 || form.Format > Format {
		return a.damaged("it has form %d, and this program reads up to %d; use a newer one", form.Format, Format)
	}
	if err := strict(raw, &a.Manifest); err != nil {
		return a.damaged("%s: %v", manifestEntry, err)
	}
	if err := a.Manifest.Tenant.Validate(); err != nil || a.Manifest.Tenant == eventstore.PlatformTenant {
		return a.damaged("%s names no tenant", manifestEntry)
	}
	return nil
}

func (a *Archive) small(name string) ([]byte, error) {
	r, err := a.entries[name].Open()
	if err != nil {
		return nil, a.damaged("%s cannot be read: %v", name, err)
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, maxSmall+1))
	if err != nil || len(raw) > maxSmall {
		return nil, a.damaged("%s cannot be read: %v", name, orTooLarge(err))
	}
	return raw, nil
}

func orTooLarge(err error) error {
	if err == nil {
		return errors.New("it is too large")
	}
	return err
}

func strict(raw []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

// lines yields the lines of an entry. At its end the sum is compared; a difference is the last error.
func lines[T any](a *Archive, name string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		r, err := a.entries[name].Open()
		if err != nil {
			yield(none, a.damaged("%s cannot be read: %v", name, err))
			return
		}
		defer r.Close()
		sum := sha256.New()
		scan := bufio.NewScanner(io.TeeReader(r, sum))
		scan.Buffer(make([]byte, 64<<10), maxLine)
		n := 0
		for scan.Scan() {
			n++
			var line T
			if err := strict(scan.Bytes(), &line); err != nil {
				yield(none, a.damaged("line %d of %s cannot be read: %v", n, name, err))
				return
			}
			if !yield(line, nil) {
				return
			}
		}
		if err := scan.Err(); err != nil {
			yield(none, a.damaged("%s cannot be read behind line %d: %v", name, n, err))
			return
		}
		if got := text(sum); got != a.sums[name] {
			yield(none, a.damaged("%s was changed after it was written: its SHA-256 is %s, and not %s", name, got, a.sums[name]))
		}
	}
}

func text(sum hash.Hash) string { return hex.EncodeToString(sum.Sum(nil)) }

// Verify reads everything: the sums, that events are valid, in order and every stream without a gap, and that there are as many as the
// manifest says. It keeps the streams' versions in memory, and no event. Error: *[DamagedError], or ctx's.
func (a *Archive) Verify(ctx context.Context, progress copylog.Progress) error {
	sum := copylog.NewSum()
	versions := map[eventstore.StreamID]eventstore.Version{}
	var events, claims, keys uint64
	var last eventstore.Position
	for rec, err := range a.events() {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		events++
		if rec.Position <= last {
			return a.damaged("event %d lies at position %d, behind one at %d", events, rec.Position, last)
		}
		last = rec.Position
		if versions[rec.Stream]++; versions[rec.Stream] != rec.Version {
			return a.damaged("event %d is version %d of stream %s, whose next one is %d", events, rec.Version, rec.Stream, versions[rec.Stream])
		}
		err := eventstore.Validate(eventstore.Caps{}, []eventstore.Write{{Stream: rec.Stream, Events: []eventstore.Proposed{rec.Proposed}}})
		if err != nil {
			return a.damaged("event %d: %s", events, strings.TrimPrefix(err.Error(), "eventstore: "))
		}
		sum.Event(rec)
		if progress != nil {
			progress(events, rec.Position)
		}
	}
	var before eventstore.Held
	for h, err := range a.claims() {
		if err != nil {
			return err
		}
		if claims > 0 && cmp.Or(cmp.Compare(before.Scope, h.Scope), cmp.Compare(before.Key, h.Key)) >= 0 {
			return a.damaged("claim %d is out of order", claims+1)
		}
		before = h
		if versions[h.Stream] == 0 {
			return a.damaged("a claim is held by stream %s, which has no event", h.Stream)
		}
		sum.Claim(h)
		claims++
	}
	for k, err := range a.Keys() {
		if err != nil {
			return err
		}
		if keys++; k.Purpose == "" || k.Erased == (len(k.Wrapped) > 0) {
			return a.damaged("key %d is neither a key nor an erased one", keys)
		}
	}
	m := a.Manifest
	switch {
	case events != m.Events || claims != m.Claims || keys != m.Keys:
		return a.damaged("it holds %d events, %d claims and %d keys, and its manifest says %d, %d and %d", events, claims, keys, m.Events, m.Claims, m.Keys)
	case last != m.Head:
		return a.damaged("its last event lies at position %d, and its manifest says %d", last, m.Head)
	case sum.String() != m.LogSHA256:
		return a.damaged("the SHA-256 of its log is %s, and its manifest says %s", sum, m.LogSHA256)
	}
	return nil
}

func (a *Archive) events() iter.Seq2[eventstore.Recorded, error] {
	return func(yield func(eventstore.Recorded, error) bool) {
		for line, err := range lines[eventLine](a, eventsEntry) {
			rec := eventstore.Recorded{}
			if err == nil {
				if rec, err = line.recorded(a.Manifest.Tenant); err != nil {
					err = a.damaged("%v", err)
				}
			}
			if !yield(rec, err) || err != nil {
				return
			}
		}
	}
}

func (a *Archive) claims() iter.Seq2[eventstore.Held, error] {
	return func(yield func(eventstore.Held, error) bool) {
		for l, err := range lines[claimLine](a, claimsEntry) {
			if !yield(eventstore.Held{Scope: l.Scope, Key: string(l.Key), Stream: eventstore.StreamID{Kind: l.Kind, ID: l.Stream}}, err) || err != nil {
				return
			}
		}
	}
}

// Keys yields the tenant's data keys.
func (a *Archive) Keys() iter.Seq2[Key, error] { return lines[Key](a, keysEntry) }

// Log is the archive as a log that package copylog reads from beginning to end, for one goroutine. It cannot be written, nor read by stream.
// stop lets go of the file.
func (a *Archive) Log() (log eventstore.Log, stop func()) {
	l := &pages{a: a}
	return l, l.rewind
}

// pages is the archive as a log. It goes forward: a page that does not follow the last one begins anew.
type pages struct {
	a     *Archive
	next  func() (eventstore.Recorded, error, bool)
	stop  func()
	given eventstore.Position  // the end of the last page
	held  *eventstore.Recorded // that was taken and not given out
}

func (l *pages) rewind() {
	if l.stop != nil {
		l.stop()
	}
	l.next, l.stop, l.held = nil, nil, nil
}

// Page implements [eventstore.Log].
func (l *pages) Page(ctx context.Context, after eventstore.Position, limit int) (eventstore.Batch, error) {
	if l.next == nil || after != l.given {
		l.rewind()
		l.next, l.stop = iter.Pull2(l.a.events())
	}
	out := eventstore.Batch{Through: after}
	for len(out.Events) <= limit {
		rec := l.held
		l.held = nil
		if rec == nil {
			taken, err, ok := l.next()
			if !ok {
				out.Live = true
				break
			}
			if err != nil {
				l.rewind()
				return eventstore.Batch{}, err
			}
			rec = &taken
		}
		switch {
		case rec.Position <= after:
		case len(out.Events) == limit:
			l.held, l.given = rec, out.Through
			return out, ctx.Err()
		default:
			out.Events, out.Through = append(out.Events, *rec), rec.Position
		}
	}
	l.given = out.Through
	return out, ctx.Err()
}

// Head implements [eventstore.Log].
func (l *pages) Head(context.Context) (eventstore.Position, error) { return l.a.Manifest.Head, nil }

// Claims implements [eventstore.Log].
func (l *pages) Claims(context.Context) iter.Seq2[eventstore.Held, error] { return l.a.claims() }

var errPages = errors.New("archive: an archive is read from beginning to end, and not written")

// Append implements [eventstore.Log]; it fails.
func (l *pages) Append(context.Context, ...eventstore.Write) ([]eventstore.Appended, error) {
	return nil, errPages
}

// ReadStream implements [eventstore.Log]; it fails.
func (l *pages) ReadStream(context.Context, eventstore.StreamID, eventstore.Version) iter.Seq2[eventstore.Recorded, error] {
	return func(yield func(eventstore.Recorded, error) bool) { yield(eventstore.Recorded{}, errPages) }
}

// Follow implements [eventstore.Log]; it fails.
func (l *pages) Follow(context.Context, eventstore.Position) iter.Seq2[eventstore.Batch, error] {
	return func(yield func(eventstore.Batch, error) bool) { yield(eventstore.Batch{}, errPages) }
}
