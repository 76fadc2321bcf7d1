package pgstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
)

// lockRetries is how often an append is repeated after the server undid it for the sake of another.
const lockRetries = 5

// meaning says what an error of the append statement means; everything else is an ambiguous failure (promise A7).
type meaning uint8

const (
	ambiguous meaning = iota
	conflict          // a stream was not at the expected version
	claimed           // a claim is taken
	duplicate         // an event id is in the log already
	undone            // nothing was written and nothing is wrong with the append
	malformed         // the server cannot store it
)

// meanings maps SQLSTATE codes, and for unique violations constraint names, to what they mean. This is the one place.
var meanings = map[string]meaning{
	"ES001 events_stream_version": conflict,
	"ES002 claims_pkey":           claimed,
	"23505 events_id":             duplicate,
	"23505 events_stream_version": conflict,
	"40001":                       undone,    // serialization failure
	"40P01":                       undone,    // deadlock
	"55P03":                       undone,    // lock timeout
	"22P02":                       malformed, // JSON that Go accepts and PostgreSQL does not
	"22021":                       malformed, // text that is not UTF-8
	"54001":                       malformed, // JSON nested too deeply
}

func meaningOf(err error) meaning {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return ambiguous
	}
	if m, ok := meanings[pg.Code]; ok {
		return m
	}
	return meanings[pg.Code+" "+pg.ConstraintName]
}

// Append implements [eventstore.Log].
func (l *log) Append(ctx context.Context, writes ...eventstore.Write) ([]eventstore.Appended, error) {
	if err := eventstore.Validate(l.store.Caps(), writes); err != nil {
		return nil, err
	}
	pool, err := l.pool(ctx)
	if err != nil {
		return nil, err
	}
	args, err := arguments(writes)
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		out, err := l.append(ctx, pool, args, len(writes))
		if err == nil {
			l.store.ring(l.tenant)
			return out, nil
		}
		switch meaningOf(err) {
		case conflict, duplicate, claimed:
			return l.explain(ctx, pool, writes, err)
		case undone:
			if try < lockRetries && ctx.Err() == nil {
				continue
			}
		case malformed:
			return nil, &eventstore.InvalidError{Reason: "PostgreSQL cannot store an event of the append: its JSON is nested too deeply or malformed"}
		case ambiguous:
		}
		return nil, fmt.Errorf("pgstore: append to tenant %s: %w", l.tenant, err)
	}
}

func (l *log) append(ctx context.Context, pool *pgxpool.Pool, args []any, writes int) ([]eventstore.Appended, error) {
	rows, err := pool.Query(ctx, `select o_write, o_version, o_pos from es.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`, args...)
	if err != nil {
		return nil, err
	}
	out := make([]eventstore.Appended, writes)
	answered := 0
	var write int
	var at eventstore.Appended
	_, err = pgx.ForEachRow(rows, []any{&write, &at.Version, &at.Position}, func() error {
		out[write-1] = at
		answered++
		return nil
	})
	if err == nil && answered != writes {
		err = fmt.Errorf("the server answered %d of %d writes", answered, writes)
	}
	return out, err
}

// arguments lays the writes out as the arrays of es.append.
func arguments(writes []eventstore.Write) ([]any, error) {
	var (
		wKind, wID, eType, eData, eMeta, cScope []string
		wExpected                               []int64
		wCount, eWrite, eOrd, eSchema, cWrite   []int32
		eID                                     [][16]byte
		cKey                                    [][]byte
		cGive                                   []bool
	)
	for i, w := range writes {
		expected := int64(-1)
		if v, exact := w.Expected.Exact(); exact {
			expected = int64(v)
		} else if !w.Expected.Allows(1) {
			expected = -2 // the zero Expected allows nothing: no stream has this version
		}
		wKind, wID = append(wKind, w.Stream.Kind), append(wID, w.Stream.ID)
		wExpected, wCount = append(wExpected, expected), append(wCount, int32(len(w.Events)))
		for j, e := range w.Events {
			e.Meta.At = e.Meta.At.UTC().Round(0)
			meta, err := json.Marshal(e.Meta)
			if err != nil {
				return nil, fmt.Errorf("pgstore: write the metadata of %s: %w", e.Type, err)
			}
			eWrite, eOrd = append(eWrite, int32(i+1)), append(eOrd, int32(j+1))
			eID, eType, eSchema = append(eID, e.ID), append(eType, e.Type), append(eSchema, int32(e.Schema))
			eData, eMeta = append(eData, string(e.Data)), append(eMeta, string(meta))
		}
		for _, c := range w.Claims {
			cWrite, cScope = append(cWrite, int32(i+1)), append(cScope, c.Scope)
			cKey, cGive = append(cKey, []byte(c.Key)), append(cGive, c.Give)
		}
	}
	if cWrite == nil {
		cWrite, cScope, cKey, cGive = []int32{}, []string{}, [][]byte{}, []bool{} // null would be no array
	}
	return []any{wKind, wID, wExpected, wCount, eWrite, eOrd, eID, eType, eSchema, eData, eMeta, cWrite, cScope, cKey, cGive}, nil
}

// explain finds out why an append was refused: a repetition, a reused command id, a taken claim or a conflict.
func (l *log) explain(ctx context.Context, pool *pgxpool.Pool, writes []eventstore.Write, cause error) ([]eventstore.Appended, error) {
	if out, err := l.replayed(ctx, pool, writes); out != nil || err != nil {
		return out, err
	}
	refused, err := refusedPart(cause)
	if err != nil {
		return nil, err
	}
	if meaningOf(cause) == claimed {
		for _, w := range writes {
			if refused < len(w.Claims) {
				return nil, &eventstore.ClaimError{Claim: w.Claims[refused]}
			}
			refused -= len(w.Claims)
		}
	}
	if meaningOf(cause) != conflict || refused >= len(writes) {
		return nil, fmt.Errorf("pgstore: append to tenant %s: refused for no reason that can be found: %w", l.tenant, cause)
	}
	w := writes[refused]
	var version int64
	err = pool.QueryRow(ctx, `select s.version from es.streams s where s.kind = $1 and s.id = $2`, w.Stream.Kind, w.Stream.ID).Scan(&version)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("pgstore: read the version of %s: %w", w.Stream, err)
	}
	return nil, &eventstore.ConflictError{Stream: w.Stream, Expected: w.Expected, Actual: eventstore.Version(version)}
}

// refusedPart is the index of the write or claim that the server refused.
func refusedPart(cause error) (int, error) {
	var pg *pgconn.PgError
	if !errors.As(cause, &pg) {
		return 0, cause
	}
	n, err := strconv.Atoi(pg.Detail)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("pgstore: the server refused an append and did not say which part: %w", cause)
	}
	return n - 1, nil
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
