package main

import (
	"context"
	cryptorand "crypto/rand"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/factum-platform/factum/eventstore"
)

const (
	kind      = "file"
	eventType = "file.linked"
	// perStream is how many appends a stream gets before its writer begins another.
	perStream = 10
	// correlation and actor have the form and the length that they have in production.
	correlation = "0b2f6a3c-5a55-8d0e-9f6b-3f0f4d1c7a21"
	actor       = "7d9a52f6-1f5e-8c07-a3de-60a7f6c3b1d4"
)

var payload = []byte(`{"file_id":"34c96c8e-fdb8-8752-88fd-b0f79d8f7569","document_id":"70cd2f7a-9895-8322-b707-8fb6b853927f",` +
	`"name":"1:AbCdEfGhIjKlMnOpQrStUvWx","at":"2026-01-02T03:04:05.678901Z"}`)

// writer appends to streams of its own, one after the other. It is not safe for concurrent use.
type writer struct {
	log     eventstore.Log
	random  *rand.PCG
	stream  eventstore.StreamID
	appends int // to the stream so far
	version eventstore.Version
}

func newWriter(log eventstore.Log) *writer {
	var seed [16]byte
	cryptorand.Read(seed[:]) // never fails (Go 1.24)
	return &writer{log: log, random: rand.NewPCG(binary.LittleEndian.Uint64(seed[:8]), binary.LittleEndian.Uint64(seed[8:]))}
}

// id draws a random UUID. Real ones come from a hash and are spread over an index in the same way.
func (w *writer) id() (id eventstore.EventID) {
	binary.LittleEndian.PutUint64(id[:8], w.random.Uint64())
	binary.LittleEndian.PutUint64(id[8:], w.random.Uint64())
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80 // version 8, as es.Key makes them
	return id
}

// append appends so many events in one append to the writer's stream.
func (w *writer) append(ctx context.Context, events int) error {
	if w.stream.ID == "" || w.appends == perStream {
		w.stream, w.appends, w.version = eventstore.StreamID{Kind: kind, ID: w.id().String()}, 0, 0
	}
	write := eventstore.Write{Stream: w.stream, Expected: eventstore.At(w.version), Events: make([]eventstore.Proposed, events)}
	for i := range write.Events {
		write.Events[i] = proposed(w.id())
	}
	out, err := w.log.Append(ctx, write)
	if err != nil {
		return err
	}
	w.appends, w.version = w.appends+1, out[0].Version
	return nil
}

func proposed(id eventstore.EventID) eventstore.Proposed {
	return eventstore.Proposed{ID: id, Type: eventType, Schema: 1, Data: payload, Meta: eventstore.Meta{
		Command: id.String(), Correlation: correlation, Actor: actor, At: time.Now().UTC(),
	}}
}

// sampleEvent is what both sides write, but for its id and time.
func sampleEvent() eventstore.Proposed {
	e := proposed(newWriter(nil).id())
	e.Meta.At = time.Date(2026, 1, 2, 3, 4, 5, 678_901_234, time.UTC) // as long as it gets
	return e
}

// metaOf is the metadata as the log stores them.
func metaOf(m eventstore.Meta) []byte {
	raw, err := json.Marshal(m)
	if err != nil {
		panic("bench/log: metadata that cannot be JSON: " + err.Error())
	}
	return raw
}

// newWriters spreads so many writers over the tenants. Each has appended once: connections are open and statements prepared.
func (l *logs) newWriters(ctx context.Context, n int) ([]*writer, error) {
	writers := make([]*writer, n)
	all, ctx := errgroup.WithContext(ctx)
	for i := range writers {
		writers[i] = newWriter(l.store.Tenant(l.names[i%len(l.names)]))
		all.Go(func() error { return writers[i].append(ctx, 1) })
	}
	return writers, all.Wait()
}

// appendsPerSecond lets all writers append single events at once and counts what is acknowledged in the window that follows the
// warm-up. beside runs during the window; nil is nothing.
func (s *server) appendsPerSecond(ctx context.Context, writers []*writer, beside func(ctx context.Context) error) (float64, error) {
	var acknowledged atomic.Int64
	var over atomic.Bool
	all, ctx := errgroup.WithContext(ctx)
	for _, w := range writers {
		all.Go(func() error {
			for !over.Load() && ctx.Err() == nil { // an append that is under way is waited for, not cut off
				if err := w.append(ctx, 1); err != nil {
					return err
				}
				acknowledged.Add(1)
			}
			return nil
		})
	}
	var rate float64
	all.Go(func() error {
		defer over.Store(true)
		if err := pass(ctx, s.warmUp); err != nil {
			return err
		}
		before, begun := acknowledged.Load(), time.Now()
		window, end := context.WithTimeout(ctx, s.window)
		defer end()
		if beside != nil {
			if err := beside(window); err != nil {
				return err
			}
		}
		<-window.Done()
		rate = float64(acknowledged.Load()-before) / time.Since(begun).Seconds()
		return ctx.Err()
	})
	err := all.Wait()
	return rate, err
}

// pass lets time go by.
func pass(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
