package archive

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/copylog"
)

// pageEvents is how many events are read at a time.
const pageEvents = 200

// quietTries is how often the claims are read until nobody writes meanwhile, on engines that have no snapshots.
const quietTries = 50

// Source is what an archive is made of.
type Source struct {
	Store eventstore.Store
	// Keys yields the tenant's data keys. It is read last, so that it has the key of every event.
	Keys iter.Seq2[Key, error]
}

// snapshots is a store that shows a head and the claims that hold at it, also while others write.
type snapshots interface {
	Snapshot(ctx context.Context, t eventstore.TenantID, fn func(head eventstore.Position, claims iter.Seq2[eventstore.Held, error]) error) error
}

// Write writes the log of m.Tenant, as it is at one moment, while others may write to it. It holds the claims in memory, and one page of
// events. What m says of the tenant is kept, the rest is filled in and returned. When it fails, what was written is no archive.
func Write(ctx context.Context, out io.Writer, m Manifest, s Source, progress copylog.Progress) (Manifest, error) {
	if progress == nil {
		progress = func(uint64, eventstore.Position) {}
	}
	m.Format, m.NotIncluded = Format, NotIncluded
	m.Events, m.Claims, m.Keys = 0, 0, 0
	claims, err := snapshot(ctx, s.Store, &m)
	if err != nil {
		return m, err
	}
	w := &writer{zip: zip.NewWriter(out)}
	sum := copylog.NewSum()
	err = w.lines(eventsEntry, func(put func(any) error) error {
		for rec, err := range upTo(ctx, s.Store.Tenant(m.Tenant), m.Head) {
			if err != nil {
				return fmt.Errorf("archive: read the log of %s: %w", m.Tenant, err)
			}
			if err := put(lineOf(rec)); err != nil {
				return err
			}
			sum.Event(rec)
			m.Events++
			progress(m.Events, rec.Position)
		}
		return nil
	})
	if err != nil {
		return m, err
	}
	err = w.lines(claimsEntry, func(put func(any) error) error {
		for _, h := range claims {
			if err := put(claimLine{h.Scope, []byte(h.Key), h.Stream.Kind, h.Stream.ID}); err != nil {
				return err
			}
			sum.Claim(h)
			m.Claims++
		}
		return nil
	})
	if err != nil {
		return m, err
	}
	m.LogSHA256 = sum.String()
	err = w.lines(keysEntry, func(put func(any) error) error {
		for k, err := range s.Keys {
			if err != nil {
				return fmt.Errorf("archive: read the keys of %s: %w", m.Tenant, err)
			}
			if err := put(k); err != nil {
				return err
			}
			m.Keys++
		}
		return nil
	})
	if err != nil {
		return m, err
	}
	manifest, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return m, fmt.Errorf("archive: write the manifest: %w", err)
	}
	if err := w.entry(manifestEntry, append(manifest, '\n')); err != nil {
		return m, err
	}
	if err := w.entry(sumsEntry, w.sums.Bytes()); err != nil {
		return m, err
	}
	if err := w.zip.Close(); err != nil {
		return m, fmt.Errorf("archive: write: %w", err)
	}
	return m, nil
}

// snapshot reads the head, and the claims that hold at it.
func snapshot(ctx context.Context, store eventstore.Store, m *Manifest) (claims []eventstore.Held, err error) {
	collect := func(seq iter.Seq2[eventstore.Held, error]) error {
		claims = nil
		for h, err := range seq {
			if err != nil {
				return fmt.Errorf("archive: read the claims of %s: %w", m.Tenant, err)
			}
			claims = append(claims, h)
		}
		return nil
	}
	if s, ok := store.(snapshots); ok {
		err := s.Snapshot(ctx, m.Tenant, func(head eventstore.Position, seq iter.Seq2[eventstore.Held, error]) error {
			m.Head = head
			return collect(seq)
		})
		return claims, err
	}
	log := store.Tenant(m.Tenant)
	if m.Head, err = log.Head(ctx); err != nil {
		return nil, fmt.Errorf("archive: read the head of %s: %w", m.Tenant, err)
	}
	for range quietTries {
		if err := collect(log.Claims(ctx)); err != nil {
			return nil, err
		}
		before := m.Head
		if m.Head, err = log.Head(ctx); err != nil {
			return nil, fmt.Errorf("archive: read the head of %s: %w", m.Tenant, err)
		}
		if m.Head == before {
			return claims, nil
		}
	}
	return nil, fmt.Errorf("archive: the log of %s is written to all the time, and this engine does not show which claims hold at one position; try again later", m.Tenant)
}

// upTo reads a log up to and with the position.
func upTo(ctx context.Context, log eventstore.Log, head eventstore.Position) iter.Seq2[eventstore.Recorded, error] {
	return func(yield func(eventstore.Recorded, error) bool) {
		for after := eventstore.Position(0); after < head; {
			b, err := log.Page(ctx, after, pageEvents)
			if err == nil && len(b.Events) == 0 && b.Live {
				err = errors.New("it ends before its head")
			}
			if err != nil {
				yield(eventstore.Recorded{}, err)
				return
			}
			for _, rec := range b.Events {
				if rec.Position > head || !yield(rec, nil) {
					return
				}
			}
			after = b.Through
		}
	}
}

// writer writes entries and keeps their sums.
type writer struct {
	zip  *zip.Writer
	sums bytes.Buffer
}

// lines writes an entry of lines of JSON.
func (w *writer) lines(name string, fill func(put func(any) error) error) error {
	f, sum, err := w.create(name)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(f)
	enc.SetEscapeHTML(false)
	err = fill(func(line any) error {
		if err := enc.Encode(line); err != nil {
			return fmt.Errorf("archive: write %s: %w", name, err)
		}
		return nil
	})
	w.keep(name, sum)
	return err
}

func (w *writer) entry(name string, content []byte) error {
	f, sum, err := w.create(name)
	if err == nil {
		_, err = f.Write(content)
	}
	if err != nil {
		return fmt.Errorf("archive: write %s: %w", name, err)
	}
	w.keep(name, sum)
	return nil
}

func (w *writer) create(name string) (io.Writer, hash.Hash, error) {
	f, err := w.zip.Create(name)
	if err != nil {
		return nil, nil, fmt.Errorf("archive: write %s: %w", name, err)
	}
	sum := sha256.New()
	return io.MultiWriter(f, sum), sum, nil
}

// keep notes the sum in the form of sha256sum.
func (w *writer) keep(name string, sum hash.Hash) {
	fmt.Fprintf(&w.sums, "%s  %s\n", hex.EncodeToString(sum.Sum(nil)), name)
}
