package copylog

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"time"

	"github.com/factum-platform/factum/eventstore"
)

// Report is what a comparison found.
type Report struct {
	Events [2]uint64 // of the source and of the target
	Claims [2]uint64
	// Sums are the SHA-256, in hexadecimal, over events and claims in order; [Sum] says of what.
	Sums [2]string
	// Difference is the first one, nil when both logs hold the same.
	Difference *DifferenceError
}

// Same tells whether both logs hold the same events, bytes, order and claims.
func (r Report) Same() bool { return r.Difference == nil && r.Sums[0] == r.Sums[1] }

// Compare reads both logs from beginning to end. pair, if it is not nil, is called for each event that both hold, in order, until the first
// difference. Error: *[MovedError] when the source moved meanwhile, or what an engine answered; a difference is no error.
func Compare(ctx context.Context, tenant eventstore.TenantID, from, to eventstore.Log, pair func(here, there eventstore.Recorded), progress Progress) (Report, error) {
	if progress == nil {
		progress = func(uint64, eventstore.Position) {}
	}
	head, err := from.Head(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("copylog: the source of %s: %w", tenant, err)
	}
	var r Report
	sums := [2]*Sum{NewSum(), NewSum()}
	readers := [2]*reader{newReader(from, 0), newReader(to, 0)}
	var index uint64
	for {
		var recs [2]eventstore.Recorded
		var there [2]bool
		for i := range readers {
			if recs[i], there[i], err = readers[i].peek(ctx); err != nil {
				return r, fmt.Errorf("copylog: the %s of %s: %w", side(i), tenant, err)
			}
			if there[i] {
				r.Events[i]++
				sums[i].Event(recs[i])
				readers[i].advance()
			}
		}
		if !there[0] && !there[1] {
			break
		}
		index++
		if r.Difference == nil {
			if reason := difference(index, recs, there); reason != "" {
				r.Difference = &DifferenceError{tenant, index, reason}
			} else if pair != nil {
				pair(recs[0], recs[1])
			}
		}
		if there[0] {
			progress(index, recs[0].Position)
		}
	}
	if err := r.compareClaims(ctx, tenant, from, to, sums); err != nil {
		return r, err
	}
	r.Sums = [2]string{sums[0].String(), sums[1].String()}
	return r, still(ctx, tenant, from, head)
}

// CompareClaims compares the claims alone: nil when both logs hold the same. It is for a source whose writers are at rest.
func CompareClaims(ctx context.Context, tenant eventstore.TenantID, from, to eventstore.Log) error {
	r := Report{}
	if err := r.compareClaims(ctx, tenant, from, to, [2]*Sum{NewSum(), NewSum()}); err != nil {
		return err
	}
	if r.Difference != nil {
		return r.Difference
	}
	return nil
}

// CompareEvents compares the events behind one position and up to another, positions included, of logs that number them alike; the source may
// go on to be written to. Nil when they are the same; else the error is a *[DifferenceError] or what an engine answered.
func CompareEvents(ctx context.Context, tenant eventstore.TenantID, from, to eventstore.Log, after, until eventstore.Position, progress Progress) error {
	if after == until {
		return nil
	}
	readers := [2]*reader{newReader(from, until), newReader(to, until)}
	readers[0].after, readers[1].after = after, after
	for index := uint64(after) + 1; ; index++ {
		var recs [2]eventstore.Recorded
		var there [2]bool
		for i := range readers {
			var err error
			if recs[i], there[i], err = readers[i].peek(ctx); err != nil {
				return fmt.Errorf("copylog: the %s of %s: %w", side(i), tenant, err)
			}
			if there[i] {
				readers[i].advance()
			}
		}
		if !there[0] && !there[1] {
			return nil
		}
		reason := difference(index, recs, there)
		if reason == "" && recs[0].Position != recs[1].Position {
			reason = fmt.Sprintf("event %d lies at position %d in the source and at %d in the target", index, recs[0].Position, recs[1].Position)
		}
		if reason != "" {
			return &DifferenceError{tenant, index, reason}
		}
		if progress != nil {
			progress(index-uint64(after), recs[0].Position)
		}
	}
}

// CommonBeginning counts the events of two logs of which one must be a beginning of the other: as many as the shorter one has. The error is a
// *[DifferenceError] if it is not, or what an engine answered. Claims and positions are not compared.
func CommonBeginning(ctx context.Context, tenant eventstore.TenantID, from, to eventstore.Log) (uint64, error) {
	readers := [2]*reader{newReader(from, 0), newReader(to, 0)}
	for n := uint64(0); ; n++ {
		var recs [2]eventstore.Recorded
		for i, r := range readers {
			rec, ok, err := r.peek(ctx)
			if err != nil {
				return n, fmt.Errorf("copylog: the %s of %s: %w", side(i), tenant, err)
			}
			if !ok {
				return n, nil
			}
			recs[i] = rec
		}
		if d := differ(recs[0], recs[1]); d != "" {
			return n, &DifferenceError{tenant, n + 1, fmt.Sprintf("event %d %s", n+1, d)}
		}
		readers[0].advance()
		readers[1].advance()
	}
}

func difference(index uint64, recs [2]eventstore.Recorded, there [2]bool) string {
	switch {
	case !there[1]:
		return fmt.Sprintf("event %d of the source, %s, is not in the target", index, name(recs[0]))
	case !there[0]:
		return fmt.Sprintf("event %d of the target, %s, is not in the source", index, name(recs[1]))
	}
	if d := differ(recs[0], recs[1]); d != "" {
		return fmt.Sprintf("event %d %s", index, d)
	}
	return ""
}

func (r *Report) compareClaims(ctx context.Context, tenant eventstore.TenantID, from, to eventstore.Log, sums [2]*Sum) error {
	var index uint64
	return pairs(ctx, tenant, from, to, func(here, there *eventstore.Held) {
		index++
		for i, h := range []*eventstore.Held{here, there} {
			if h != nil {
				r.Claims[i]++
				sums[i].Claim(*h)
			}
		}
		if r.Difference != nil || (here != nil && there != nil && *here == *there) {
			return
		}
		r.Difference = &DifferenceError{tenant, index, fmt.Sprintf("claim %d is held by %s in the source and by %s in the target", index, holder(here), holder(there))}
	})
}

// holder names who holds a claim. The key is not printed.
func holder(h *eventstore.Held) string {
	if h == nil {
		return "nobody"
	}
	return fmt.Sprintf("stream %s (%s)", h.Stream, h.Scope)
}

func side(i int) string { return []string{"source", "target"}[i] }

// Sum is the SHA-256 over a log's events and then its claims, in order. Each is written as one byte, 'e' or 'c', and its fields, each
// preceded by its length in 8 bytes (big endian). An event's fields: tenant, stream kind, stream id, version, id (16 bytes), type, schema,
// data, and of the metadata command, correlation, causation, actor and the time in RFC 3339 with nanoseconds in UTC; numbers are
// written in decimal. A claim's: scope, key, stream kind, stream id. Positions and the engine's clock are not part of it.
type Sum struct{ hash hash.Hash }

// NewSum returns the sum of an empty log.
func NewSum() *Sum { return &Sum{sha256.New()} }

// Event adds the next event.
func (s *Sum) Event(rec eventstore.Recorded) {
	s.add('e', []byte(rec.Tenant), []byte(rec.Stream.Kind), []byte(rec.Stream.ID), fmt.Append(nil, rec.Version), rec.ID[:], []byte(rec.Type),
		fmt.Append(nil, rec.Schema), rec.Data, []byte(rec.Meta.Command), []byte(rec.Meta.Correlation), []byte(rec.Meta.Causation),
		[]byte(rec.Meta.Actor), rec.Meta.At.UTC().AppendFormat(nil, time.RFC3339Nano))
}

// Claim adds the next claim.
func (s *Sum) Claim(h eventstore.Held) {
	s.add('c', []byte(h.Scope), []byte(h.Key), []byte(h.Stream.Kind), []byte(h.Stream.ID))
}

func (s *Sum) add(kind byte, fields ...[]byte) {
	s.hash.Write([]byte{kind}) // a hash never fails to write
	for _, f := range fields {
		s.hash.Write(binary.BigEndian.AppendUint64(nil, uint64(len(f))))
		s.hash.Write(f)
	}
}

// String returns the sum in hexadecimal.
func (s *Sum) String() string { return hex.EncodeToString(s.hash.Sum(nil)) }
