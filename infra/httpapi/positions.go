package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/infra/readmodel"
	"github.com/factum-platform/factum/infra/tenants"
)

const (
	// settleFor bounds how long an answer waits for a read model.
	settleFor = 2 * time.Second
	rebuiltIn = 50 * time.Millisecond // between two looks for a read model that is not built yet
	readAgain = 2                     // how often a read is begun anew when its generation or its connection is gone
)

// Model is a read model and the log whose positions count in it.
type Model struct {
	projection, log string
	platform        bool // lies in the platform's database
}

// Directory is the read model of users, tenants and memberships, by the platform's log.
func Directory() Model { return Model{"directory", tenants.Platform, true} }

// DirectoryOf is the directory by the log of one tenant, which says whether the tenant time-stamps.
func DirectoryOf(tenantID string) Model { return Model{"directory", logOf(tenantID), true} }

// Documents is a tenant's read model of documents and files.
func Documents(tenantID string) Model { return Model{"documents", logOf(tenantID), false} }

// Audit is a tenant's audit trail.
func Audit(tenantID string) Model { return Model{"audit", logOf(tenantID), false} }

// logOf is the name of a tenant's log: its UUID without dashes.
func logOf(tenantID string) string {
	return strings.ReplaceAll(strings.ToLower(tenantID), "-", "")
}

func (s *Server) pool(ctx context.Context, m Model) (*pgxpool.Pool, error) {
	if m.platform {
		return s.c.Platform, nil
	}
	return s.c.TenantPool(ctx, m.log)
}

// Read calls fn in one read-only transaction over the live generation of the model, whose tables lie in schema, and says how
// far the model is. With minPosition it waits at most 2 s for the model to be that far, then answers 503. fn may be called
// again: when the generation that it read was dropped meanwhile, and when the connection was lost.
func (s *Server) Read(ctx context.Context, m Model, minPosition uint64, fn func(tx readmodel.Tx, schema string) error) (Settled, error) {
	return s.read(ctx, m, minPosition, func(pool *pgxpool.Pool) (uint64, error) {
		return readmodel.Read(ctx, pool, m.projection, m.log, minPosition, fn)
	})
}

// Ask is [Server.Read] for what is one statement; it costs one round trip. query may be called again, as fn there.
func (s *Server) Ask(ctx context.Context, m Model, minPosition uint64, query func(schema string) readmodel.Query) (Settled, error) {
	return s.ask(ctx, m, minPosition, query, nil)
}

// ask is Ask together with statements on other tables of the same database.
func (s *Server) ask(ctx context.Context, m Model, minPosition uint64, query func(schema string) readmodel.Query, along func(*pgx.Batch)) (Settled, error) {
	return s.read(ctx, m, minPosition, func(pool *pgxpool.Pool) (uint64, error) {
		return s.guesses.Ask(ctx, pool, m.projection, m.log, minPosition, query, along)
	})
}

func (s *Server) read(ctx context.Context, m Model, minPosition uint64, once func(*pgxpool.Pool) (uint64, error)) (Settled, error) {
	pool, err := s.pool(ctx, m)
	if err != nil {
		return Settled{}, err
	}
	patience, cancel := context.WithTimeout(ctx, settleFor)
	defer cancel()
	waited := false
	for failed := 0; ; {
		at, err := once(pool)
		behind := errors.Is(err, readmodel.ErrBehind)
		if behind && !waited {
			if err = s.c.Waiter.Wait(patience, pool, m.projection, m.log, minPosition); err == nil {
				waited = true
				continue
			}
			behind = false
		}
		if patience.Err() != nil && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil || failed == readAgain && behind {
			return Settled{}, Unavailable("The read model has not reached Factum-Min-Position yet.", err)
		}
		switch {
		case err == nil:
			return Settled{Position: strconv.FormatUint(at, 10)}, nil
		case (readmodel.Passing(err) || behind) && failed < readAgain && ctx.Err() == nil:
			// At once: the pool opens another connection, the pointer shows another generation, or the tenant lives elsewhere now. A model that is
			// behind what was announced is the one that the tenant has left.
			failed, waited = failed+1, false
			if pool, err = s.renewed(ctx, m); err != nil {
				return Settled{}, err
			}
			continue
		case !errors.Is(err, readmodel.ErrNotBuilt):
			return Settled{}, older(m, err)
		}
		if s.c.Unbuilt != nil {
			s.c.Unbuilt(m.log)
		}
		again := time.NewTimer(rebuiltIn)
		select {
		case <-again.C:
		case <-patience.Done():
			again.Stop()
			return Settled{}, err
		}
	}
}

// renewed is the model's pool, looked up anew: its tenant may live in another database than we believe.
func (s *Server) renewed(ctx context.Context, m Model) (*pgxpool.Pool, error) {
	if !m.platform && s.c.Refresh != nil {
		if err := s.c.Refresh(ctx, m.log); err != nil {
			return nil, err
		}
	}
	return s.pool(ctx, m)
}

// older tells a query of this version on the tables of the version before, which are live until the read model was built anew.
func older(m Model, err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && (pg.Code == "42P01" || pg.Code == "42703") { // no such table, no such column
		return Unavailable(fmt.Sprintf("The read model %s is of an older version still and is built anew. Try again in a moment.", m.projection), err)
	}
	return err
}

// Settle waits at most 2 s in all until every model has applied the log up to position, and says which have not. A command that
// found nothing to write has position 0 and is answered with the position of the first model. A failure to look is no
// failure of the write: it is logged and the model counts as pending.
func (s *Server) Settle(ctx context.Context, position uint64, models ...Model) Settled {
	patience, cancel := context.WithTimeout(ctx, settleFor)
	defer cancel()
	out := Settled{Position: strconv.FormatUint(position, 10)}
	var pending []string
	for i, m := range models {
		pool, err := s.pool(patience, m)
		if err == nil && position == 0 && i == 0 {
			var at uint64
			at, err = readmodel.Position(patience, pool, m.projection, m.log)
			out.Position = strconv.FormatUint(at, 10)
		}
		if err == nil && position > 0 {
			err = s.c.Waiter.Wait(patience, pool, m.projection, m.log, position)
		}
		if err == nil {
			continue
		}
		pending = append(pending, m.projection)
		if !errors.Is(err, context.DeadlineExceeded) {
			s.c.Logger.WarnContext(ctx, "could not wait for a read model", "projection", m.projection, "error", err.Error(), "request_id", RequestID(ctx))
		}
	}
	out.Pending = strings.Join(pending, ", ")
	return out
}

// problemOf turns an error into what the client sees of it, and keeps the cause for the log.
func problemOf(ctx context.Context, err error) *Problem {
	var p *Problem
	var schema *tenants.SchemaError
	var server *tenants.ServerError
	switch {
	case errors.As(err, &schema): // also inside of what others made of it
		p = Unavailable(schema.Detail(), err)
	case errors.As(err, &server):
		p = Unavailable("The database server that holds this tenant's data does not answer. Other tenants are served. Try again in a moment, "+
			"with the same Idempotency-Key: nothing is done twice.", err)
	case errors.As(err, &p):
	case errors.Is(err, tenants.ErrNoServer):
		p = Unavailable("No database server accepts new tenants. An operator must open one with 'factum servers accept'. Then try again with the "+
			"same Idempotency-Key: nothing is done twice.", err)
	case lostServer(err):
		p = Unavailable("A database server does not answer. Try again in a moment, with the same Idempotency-Key: nothing is done twice.", err)
	case errors.Is(err, readmodel.ErrNotBuilt):
		p = Unavailable("A read model is not built yet. Try again in a moment.", err)
	case errors.Is(err, tenants.ErrUnknownTenant):
		p = NotFound()
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled):
		p = Unavailable("This took too long. Try again in a moment.", err)
	default:
		p = Internal(err)
	}
	if r := requestOf(ctx); r != nil {
		r.shed = p.shed
		if p.cause != nil {
			r.cause = p.cause
		}
	}
	return p
}

// lostServer tells whether a connection could not be made or broke, or the server is about to end it. PostgreSQL's codes: Appendix A of its
// manual.
func lostServer(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return strings.HasPrefix(pg.Code, "08") || strings.HasPrefix(pg.Code, "57P") || pg.Code == "53300"
	}
	var connect *pgconn.ConnectError
	var network *net.OpError
	return errors.As(err, &connect) || errors.As(err, &network)
}
