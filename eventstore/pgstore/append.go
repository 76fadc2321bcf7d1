package pgstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
)

// What es.append refuses an append for.
const (
	conflict = "conflict" // a stream was not at the expected version
	claimed  = "claimed"  // a claim is taken
)

// sendRetries is how often a statement is repeated that the server undid or never answered; with the pauses of [tail.Pause] that is
// some seconds.
const sendRetries = 4

// failure says what follows from an error of the append statement.
type failure struct {
	again  bool   // another attempt may succeed
	maybe  bool   // it may have been carried out nevertheless (promise A7)
	member bool   // one of the appends is at fault, not the server
	closed bool   // the log is closed to appends: another attempt may succeed, soon or elsewhere
	what   string // what is wrong with the server and what to do, with %s for the setting that says where it is
}

// failures maps SQLSTATE codes, or their classes, to what follows. This is the one place.
var failures = map[string]failure{
	"ES001": {closed: true, what: "it is closed to appends, because the tenant moves or leaves; see 'factum tenants show'"},
	"40":    {again: true, what: "it undid the append for the sake of another"},                           // serialization failure, deadlock
	"55P03": {again: true, what: "another process holds the log's counter; look for a stuck transaction"}, // lock timeout
	"57P01": {again: true, maybe: true, what: "it is being shut down"},
	"57P02": {again: true, maybe: true, what: "it has crashed"},
	"57P03": {again: true, what: "it is starting or stopping"},
	"57014": {maybe: true, what: "the statement took longer than statement_timeout"},
	"53300": {again: true, what: "it has no connection free; raise max_connections"},
	"53":    {what: "it has no room; free some where data_directory is, or memory"}, // disk full, out of memory
	"25006": {what: "it is read-only: a standby (see %s), or default_transaction_read_only is on"},
	"28":    {what: "it does not accept the role or password (see %s)"},
	"3D":    {what: "there is no such database (see %s)"},
	"42":    {what: "its schema es or its grants are not those of this binary; migrate it"},
	"58":    {what: "it cannot read or write its files; see its log"},
	"XX":    {what: "it is damaged; see its log"},
}

const (
	// unreachable is what follows when no server answered.
	unreachable = "it cannot be reached; start it or correct %s"
	// gaveUp is said to a caller whose context ended.
	gaveUp = "the caller stopped waiting for the append"
)

func failureOf(err error) failure {
	var pg *pgconn.PgError
	var connect *pgconn.ConnectError
	var unplaced *unplacedError
	switch {
	case errors.As(err, &unplaced):
		return failure{what: "nobody has made it"}
	case errors.As(err, &pg) && len(pg.Code) == 5:
		if f, known := failures[pg.Code]; known {
			return f
		}
		if f, known := failures[pg.Code[:2]]; known {
			return f
		}
		return failure{member: true}
	case errors.As(err, &connect) || pgconn.SafeToRetry(err):
		return failure{again: true, what: unreachable}
	default:
		return failure{again: true, maybe: true, what: unreachable}
	}
}

func (f failure) reason(setting string) string {
	return strings.ReplaceAll(f.what, "%s", setting)
}

// Append implements [eventstore.Log]. When ctx ends, an append that is not on its way yet is taken back and certainly not written.
func (l *log) Append(ctx context.Context, writes ...eventstore.Write) ([]eventstore.Appended, error) {
	if err := eventstore.Validate(l.store.Caps(), writes); err != nil {
		return nil, err
	}
	if err := l.tenant.Validate(); err != nil {
		return nil, invalid(err)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("pgstore: append to tenant %s: %w", l.tenant, err)
	}
	// Copied, because the caller may go on, and change what it gave, before its append is sent.
	p := &pending{writes: slices.Clone(writes), answer: make(chan answer, 1)}
	for i, w := range writes {
		p.writes[i].Events, p.writes[i].Claims = slices.Clone(w.Events), slices.Clone(w.Claims)
		for _, e := range w.Events {
			e.Meta.At = e.Meta.At.UTC().Round(0)
			meta, err := json.Marshal(e.Meta)
			if err != nil {
				return nil, fmt.Errorf("pgstore: write the metadata of %s: %w", e.Type, err)
			}
			p.datas, p.metas, p.size = append(p.datas, string(e.Data)), append(p.metas, string(meta)), p.size+len(e.Data)
		}
	}
	made, err := l.enqueue(p)
	if err != nil {
		return nil, err
	}
	if made != nil {
		made.lead(ctx, p)
	}
	var a answer
	select {
	case a = <-p.answer:
	case <-ctx.Done():
		select {
		case a = <-p.answer: // both at once: what is known counts
		default:
			return nil, &eventstore.UnavailableError{Tenant: l.tenant, Reason: gaveUp, Maybe: !l.withdraw(p), Err: ctx.Err()}
		}
	}
	var closed *ClosedError
	switch {
	case a.err == nil && a.refused == "":
		return a.done, nil
	case a.err == nil:
		return l.explain(ctx, writes, a)
	case errors.As(a.err, &closed): // to readers it is open: what was written before is known
		if out, err := l.replayedAll(ctx, writes); out != nil || err != nil {
			return out, err
		}
		return nil, a.err
	}
	var pg *pgconn.PgError
	if !errors.As(a.err, &pg) || !failureOf(a.err).member {
		return nil, a.err
	}
	if pg.ConstraintName == "events_id" {
		return l.explain(ctx, writes, a)
	}
	if strings.HasPrefix(pg.Code, "22") || strings.HasPrefix(pg.Code, "54") { // JSON that Go accepts: nested too deeply
		return nil, &eventstore.InvalidError{Reason: "PostgreSQL cannot store an event of the append: its JSON is nested too deeply or malformed"}
	}
	return nil, fmt.Errorf("pgstore: append to tenant %s: %w", l.tenant, a.err)
}

// explain finds out why an append was refused: a repetition, a reused command id, a taken claim or a conflict.
func (l *log) explain(ctx context.Context, writes []eventstore.Write, a answer) ([]eventstore.Appended, error) {
	pool, err := l.pool(ctx)
	if err != nil {
		return nil, err
	}
	if out, err := l.replayed(ctx, pool, writes); out != nil || err != nil {
		return out, err
	}
	switch a.refused {
	case claimed:
		for _, w := range writes {
			if a.part < len(w.Claims) {
				return nil, &eventstore.ClaimError{Claim: w.Claims[a.part]}
			}
			a.part -= len(w.Claims)
		}
	case conflict:
		w := writes[a.part]
		return nil, &eventstore.ConflictError{Stream: w.Stream, Expected: w.Expected, Actual: a.found}
	}
	return nil, fmt.Errorf("pgstore: append to tenant %s: refused for no reason that can be found: %w", l.tenant, a.err)
}

// replayedAll is replayed for a log that is closed.
func (l *log) replayedAll(ctx context.Context, writes []eventstore.Write) ([]eventstore.Appended, error) {
	pool, err := l.pool(ctx)
	if err != nil {
		return nil, err
	}
	return l.replayed(ctx, pool, writes)
}

// replayed answers an append whose event ids are in the log already: nil when none is.
func (l *log) replayed(ctx context.Context, pool *pgxpool.Pool, writes []eventstore.Write) ([]eventstore.Appended, error) {
	var ids [][16]byte
	for _, w := range writes {
		for _, e := range w.Events {
			ids = append(ids, e.ID)
		}
	}
	old, _, err := l.query(ctx, pool, `select `+columns+`, 0::bigint from es.events e where e.event_id = any($1)`, ids)
	if err != nil || len(old) == 0 {
		return nil, err
	}
	byID := make(map[eventstore.EventID]eventstore.Recorded, len(old))
	for _, rec := range old {
		byID[rec.ID] = rec
	}
	out := make([]eventstore.Appended, len(writes))
	for i, w := range writes {
		for _, e := range w.Events {
			rec, ok := byID[e.ID]
			if !ok || rec.Stream != w.Stream || rec.Type != e.Type {
				return nil, &eventstore.ReusedKeyError{Stream: w.Stream}
			}
			out[i] = eventstore.Appended{Version: rec.Version, Position: rec.Position, Replayed: true}
		}
	}
	return out, nil
}
