package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/seal"
)

// ErrLostRace says that another runner moved the checkpoint first, that an operator changed something, or that the generation was retired.
// Nothing was written; the checkpoint must be loaded again.
var ErrLostRace = errors.New("runner: the checkpoint was moved by another runner")

// haltError lets a consumer stand still until what is wrong is healed: going on would skip or garble facts.
type haltError struct{ reason string }

func (e *haltError) Error() string { return "runner: halted: " + e.reason }

// factError is what Apply, InTx or the decoding of an event answered.
type factError struct {
	doing string
	err   error
}

func (e *factError) Error() string { return e.doing + ": " + e.err.Error() }
func (e *factError) Unwrap() error { return e.err }

// keyError says that a person's key could not be had, which is never the event's fault.
type keyError struct{ err error }

func (e *keyError) Error() string { return e.err.Error() }
func (e *keyError) Unwrap() error { return e.err }

// keys marks the failures of a keyring, so that a keyring that is away never parks a stream.
type keys struct{ seal.Keys }

func (k keys) For(ctx context.Context, tenant, subject string) ([]byte, error) {
	key, err := k.Keys.For(ctx, tenant, subject)
	if err != nil && !errors.Is(err, seal.ErrErased) {
		return nil, &keyError{err}
	}
	return key, err
}

type verdict uint8

const (
	transient verdict = iota + 1 // worth another attempt, for ever
	lostRace                     // load the checkpoint again
	vanished                     // a relation is missing or of another shape: load again at once, then halt
	poison                       // the event cannot be applied
	halt                         // a person must look
)

// judge classifies what stopped a slice. PostgreSQL's classes: Appendix A of its manual.
func judge(err error) verdict {
	var (
		stop    *haltError
		unknown *eventstore.UnknownTypeError
		future  *eventstore.FutureSchemaError
		key     *keyError
		fact    *factError
		pg      *pgconn.PgError
	)
	switch {
	case errors.Is(err, ErrLostRace):
		return lostRace
	case errors.As(err, &stop), errors.As(err, &unknown), errors.As(err, &future):
		return halt
	case errors.As(err, &key), connectionLost(err):
		return transient
	case errors.As(err, &pg):
		return judgeSQL(pg.Code)
	case errors.As(err, &fact):
		return poison
	default: // such as a tenant whose pool cannot be had yet
		return transient
	}
}

func judgeSQL(code string) verdict {
	switch class := code[:min(2, len(code))]; {
	case class == "22" || class == "23":
		return poison
	case code == "42501": // insufficient_privilege: no event causes it and no retry heals it
		return halt
	case class == "42" || class == "3F":
		return vanished
	case class == "08", class == "25", class == "28", class == "3D", class == "40", class == "53", class == "55", class == "57", class == "58":
		return transient
	default:
		return halt
	}
}

func connectionLost(err error) bool {
	var network net.Error
	var connect *pgconn.ConnectError
	for _, known := range []error{
		context.Canceled, context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
		syscall.ECONNRESET, syscall.ECONNREFUSED, syscall.EPIPE, eventstore.ErrClosed,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return errors.As(err, &network) || errors.As(err, &connect) || pgconn.SafeToRetry(err)
}

var argument = regexp.MustCompile(`args?\[\d+\]`)

// describe says why an event could not be applied, in words that may be stored and logged: PostgreSQL's and pgx's messages may quote
// values, so only codes, names and numbers of arguments are taken from them.
func describe(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		text := "SQLSTATE " + pg.Code
		for _, part := range []struct{ what, name string }{
			{"table", pg.TableName}, {"column", pg.ColumnName}, {"constraint", pg.ConstraintName},
		} {
			if part.name != "" {
				text += ", " + part.what + " " + part.name
			}
		}
		return text
	}
	var sent *sendError
	if errors.As(err, &sent) {
		if at := argument.FindString(err.Error()); at != "" {
			return fmt.Sprintf("%s of a queued statement has the wrong type or form", at)
		}
		return "a queued statement could not be sent"
	}
	return err.Error()
}

// sendError is a failure of queued SQL that did not come from the server, such as an argument that pgx cannot encode.
type sendError struct{ err error }

func (e *sendError) Error() string { return e.err.Error() }
func (e *sendError) Unwrap() error { return e.err }
