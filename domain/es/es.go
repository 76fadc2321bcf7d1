// Package es is the kernel of the event-sourced domain: a decider, its one error type, stable keys,
// personal values and the description of an event type. It imports the standard library only and does no I/O.
package es

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// Decider is a pure aggregate: no context, clock, id source or I/O. S is the state, C the sealed command
// interface, E the sealed event interface. A Decider is a value; it is safe for concurrent use when its
// functions do not share mutable state, which the functions of this project never do.
type Decider[S, C, E any] struct {
	// Initial is the state before the first event.
	Initial func() S
	// Decide answers a command with the facts it makes true, with none when it is already true, or with a
	// [Refusal]. It never does I/O and never reads a clock.
	Decide func(S, C) ([]E, error)
	// Evolve is total: events are facts, so it cannot fail.
	Evolve func(S, E) S
}

// Fold applies facts to s in order and returns the state after the last one.
func (d Decider[S, C, E]) Fold(s S, facts ...E) S {
	for _, f := range facts {
		s = d.Evolve(s, f)
	}
	return s
}

// Refusal is the one error type that a Decide may return. Code is stable and dotted ("document.unknown");
// Detail is a sentence for people and never carries personal data.
type Refusal struct{ Code, Detail string }

// Error implements error.
func (r *Refusal) Error() string { return r.Code + ": " + r.Detail }

// Refuse returns a [Refusal] whose detail is formatted as by fmt.Sprintf.
func Refuse(code, format string, args ...any) error {
	return &Refusal{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// Key derives a stable id from parts: same parts, same id, so that retries are replays. It is the first
// 16 bytes of SHA-256 over the length-prefixed parts, in the text form of a version 8 UUID (RFC 9562 §5.8).
func Key(parts ...string) string {
	h := sha256.New()
	var n [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	var id [16]byte
	copy(id[:], h.Sum(nil))
	return FormatID(id)
}

// FormatID gives 16 bytes the version 8 and variant bits of RFC 9562 and returns their text form.
func FormatID(id [16]byte) string {
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	var b [36]byte
	hex.Encode(b[0:8], id[0:4])
	hex.Encode(b[9:13], id[4:6])
	hex.Encode(b[14:18], id[6:8])
	hex.Encode(b[19:23], id[8:10])
	hex.Encode(b[24:36], id[10:16])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}
