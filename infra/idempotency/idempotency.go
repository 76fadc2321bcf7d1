// Package idempotency remembers for a day what requests with an Idempotency-Key were answered, in the platform's database, which all API
// processes share. It is no fact: without it, what a repeated command does is still recognised by the log.
package idempotency

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the goose files of the schema idempotency.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic("idempotency: embedded migrations: " + err.Error())
	}
	return sub
}

const (
	// Keep is how long an answer is remembered, counted from the request.
	Keep = 24 * time.Hour
	// heldFor is how long an attempt counts as running after it last said so: what a killed process leaves is free again after that.
	heldFor    = 15 * time.Second
	renewEvery = heldFor / 3
	// purpose separates these answers from what else is sealed.
	purpose = "idempotency"
)

var (
	// ErrRunning says that the same request is being carried out, here or in another process.
	ErrRunning = errors.New("idempotency: the request is being carried out")
	// ErrOther says that the key stands for another request.
	ErrOther = errors.New("idempotency: the key was used for another request")
)

// Secrets seals answers at rest.
type Secrets interface {
	Seal(ctx context.Context, purpose string, plain []byte) ([]byte, error)
	Open(ctx context.Context, purpose string, sealed []byte) ([]byte, error)
}

// Config is what a store needs; all of it but Logger.
type Config struct {
	Pool    *pgxpool.Pool
	Secrets Secrets
	// MAC is HMAC under a key of the platform: bodies may hold passwords, and the table shall not help to guess them.
	MAC    func(ctx context.Context, value string) ([]byte, error)
	Logger *slog.Logger // nil means slog.Default()
}

// Store is safe for concurrent use, also by several processes.
type Store struct{ c Config }

// New returns the store.
func New(c Config) *Store {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return &Store{c}
}

// Request is who asks for what. Owner separates people, and tenants: the same key of two owners is two keys.
type Request struct {
	Owner, Key string
	What       string // method, path and body, or a digest of it
}

// Answer is what a request was answered with.
type Answer struct {
	Status  int
	Header  map[string]string
	Body    []byte
	Kept    bool   // false where the body was not kept, because it held a secret
	Content []byte // the HMAC of a body that was read as it arrived
}

// Claim is the right to carry out a request. One of Done and Release must be called.
type Claim struct {
	s       *Store
	id      []byte
	attempt string
	content []byte
	stop    chan struct{}
	stopped chan struct{}
}

// Begin claims the request, or answers what it was answered before; one of the two is not nil. Errors: [ErrRunning], [ErrOther], or that the
// database does not answer.
func (s *Store) Begin(ctx context.Context, r Request) (*Claim, *Answer, error) {
	id, what, err := s.names(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	for {
		attempt := uuid.NewString()
		// What a process that ended left running is taken over by the same request only.
		tag, err := s.c.Pool.Exec(ctx, `
			insert into idempotency.requests as r (id, request, attempt, running_until, expires_at) values ($1, $2, $3, now() + $4, now() + $5)
			on conflict (id) do update set request = $2, content = null, attempt = $3, running_until = now() + $4, expires_at = now() + $5,
				status = null, header = null, answer = null
			where r.expires_at < now() or r.status is null and r.running_until < now() and r.request = $2`, id, what, attempt, heldFor, Keep)
		if err != nil {
			return nil, nil, fmt.Errorf("idempotency: claim a request: %w", err)
		}
		if tag.RowsAffected() == 1 {
			c := &Claim{s: s, id: id, attempt: attempt, stop: make(chan struct{}), stopped: make(chan struct{})}
			go c.renew()
			return c, nil, nil
		}
		answer, err := s.find(ctx, id, what)
		if !errors.Is(err, pgx.ErrNoRows) { // else it was released at this very moment
			return nil, answer, err
		}
	}
}

// Find answers what the request was answered before, or nil.
func (s *Store) Find(ctx context.Context, r Request) (*Answer, error) {
	id, what, err := s.names(ctx, r)
	if err != nil {
		return nil, err
	}
	answer, err := s.find(ctx, id, what)
	if errors.Is(err, pgx.ErrNoRows) || errors.Is(err, ErrRunning) || errors.Is(err, ErrOther) {
		return nil, nil //nolint:nilnil // there is none
	}
	return answer, err
}

func (s *Store) names(ctx context.Context, r Request) (id, what []byte, err error) {
	if id, err = s.mac(ctx, "id", r.Owner, r.Key); err != nil {
		return nil, nil, err
	}
	what, err = s.mac(ctx, "request", r.What)
	return id, what, err
}

// mac is unambiguous: the parts' lengths go in.
func (s *Store) mac(ctx context.Context, parts ...string) ([]byte, error) {
	var b bytes.Buffer
	for _, p := range parts {
		fmt.Fprintf(&b, "%d:%s", len(p), p)
	}
	sum, err := s.c.MAC(ctx, b.String())
	if err != nil {
		return nil, fmt.Errorf("idempotency: %w", err)
	}
	return sum, nil
}

func (s *Store) find(ctx context.Context, id, what []byte) (*Answer, error) {
	var request, header, sealed []byte
	var status *int
	out := &Answer{}
	err := s.c.Pool.QueryRow(ctx, `select request, status, header, answer, content from idempotency.requests where id = $1 and expires_at >= now()`, id).
		Scan(&request, &status, &header, &sealed, &out.Content)
	switch {
	case err != nil:
		return nil, fmt.Errorf("idempotency: look up a request: %w", err)
	case !bytes.Equal(request, what):
		return nil, ErrOther
	case status == nil:
		return nil, ErrRunning
	}
	out.Status = *status
	if err := json.Unmarshal(header, &out.Header); err != nil {
		return nil, fmt.Errorf("idempotency: header of an answer: %w", err)
	}
	if sealed == nil {
		return out, nil
	}
	out.Kept = true
	if out.Body, err = s.c.Secrets.Open(ctx, purpose, sealed); err != nil {
		return nil, fmt.Errorf("idempotency: open an answer: %w", err)
	}
	return out, nil
}

// renew says that the attempt goes on. A failure is logged and the attempt goes on: when it lasts, another process may begin the same request, and the log
// recognises its command.
func (c *Claim) renew() {
	defer close(c.stopped)
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(context.Background(), renewEvery)
		_, err := c.s.c.Pool.Exec(ctx, `update idempotency.requests set running_until = now() + $3 where id = $1 and attempt = $2`, c.id, c.attempt, heldFor)
		cancel()
		if err != nil {
			c.s.c.Logger.Warn("it could not be noted that a request is still being carried out", "error", err.Error())
		}
	}
}

func (c *Claim) end() {
	close(c.stop)
	<-c.stopped
}

// Read notes the digest of a body that was read as it arrived, before [Claim.Done].
func (c *Claim) Read(ctx context.Context, digest []byte) (err error) {
	c.content, err = c.s.mac(ctx, "content", string(digest))
	return err
}

// Same tells whether the digest is that of the body that was answered.
func (s *Store) Same(ctx context.Context, a *Answer, digest []byte) (bool, error) {
	sum, err := s.mac(ctx, "content", string(digest))
	return bytes.Equal(sum, a.Content), err
}

// Done remembers the answer, without its body unless a.Kept. The request is done all the same when that fails.
func (c *Claim) Done(ctx context.Context, a Answer) error {
	c.end()
	var sealed []byte
	header, err := json.Marshal(a.Header)
	if err == nil && a.Kept {
		sealed, err = c.s.c.Secrets.Seal(ctx, purpose, a.Body)
	}
	if err != nil {
		return fmt.Errorf("idempotency: seal an answer: %w", err)
	}
	_, err = c.s.c.Pool.Exec(ctx, `update idempotency.requests set status = $3, header = $4, answer = $5, content = $6 where id = $1 and attempt = $2`,
		c.id, c.attempt, a.Status, string(header), sealed, c.content)
	if err != nil {
		return fmt.Errorf("idempotency: remember an answer: %w", err)
	}
	return nil
}

// Release gives the claim up: the request came to nothing, or to an unknown end, and may be made again, also another one.
func (c *Claim) Release(ctx context.Context) error {
	c.end()
	if _, err := c.s.c.Pool.Exec(ctx, `delete from idempotency.requests where id = $1 and attempt = $2`, c.id, c.attempt); err != nil {
		return fmt.Errorf("idempotency: release a request: %w", err)
	}
	return nil
}

// Sweep deletes what was kept long enough.
func Sweep(ctx context.Context, pool *pgxpool.Pool) error {
	if _, err := pool.Exec(ctx, `delete from idempotency.requests where expires_at < now()`); err != nil {
		return fmt.Errorf("idempotency: delete old answers: %w", err)
	}
	return nil
}
