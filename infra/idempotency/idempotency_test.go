package idempotency

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// reversed seals by turning bytes round, which is enough to see that what is stored is not what was given.
type reversed struct{}

func (reversed) Seal(_ context.Context, _ string, plain []byte) ([]byte, error) {
	out := slices.Clone(plain)
	slices.Reverse(out)
	return out, nil
}

func (r reversed) Open(ctx context.Context, purpose string, sealed []byte) ([]byte, error) {
	return r.Seal(ctx, purpose, sealed)
}

func store(t *testing.T) (*Store, *pgxpool.Pool) {
	t.Helper()
	pool, err := postgres.Open(t.Context(), pgtest.Database(t, postgres.Migrations{Name: "idempotency", FS: Migrations()}), 8)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return New(Config{Pool: pool, Secrets: reversed{}, MAC: func(_ context.Context, value string) ([]byte, error) {
		h := hmac.New(sha256.New, []byte("key"))
		h.Write([]byte(value))
		return h.Sum(nil), nil
	}}), pool
}

var order = Request{"user 1 in 2", "k", "POST /x body"}

func begin(t *testing.T, s *Store, r Request) *Claim {
	t.Helper()
	c, _, err := s.Begin(t.Context(), r)
	if err != nil || c == nil {
		t.Fatalf("no claim: %v", err)
	}
	return c
}

func done(t *testing.T, c *Claim, a Answer) {
	t.Helper()
	if err := c.Done(t.Context(), a); err != nil {
		t.Fatal(err)
	}
}

func refused(t *testing.T, s *Store, r Request, want error) {
	t.Helper()
	if c, a, err := s.Begin(t.Context(), r); c != nil || a != nil || !errors.Is(err, want) {
		t.Errorf("%v, %v, %v; want %v", c, a, err, want)
	}
}

func TestARequestIsClaimedOnceAndAnsweredAgain(t *testing.T) {
	s, _ := store(t)
	other := order
	other.What = "POST /x another"
	c := begin(t, s, order)
	refused(t, s, order, ErrRunning)
	refused(t, s, other, ErrOther)
	for _, r := range []Request{{"user 3 in 2", "k", order.What}, {order.Owner, "k2", order.What}, {"user 1 in 2k", "", order.What}} {
		done(t, begin(t, s, r), Answer{Status: 200})
	}
	done(t, c, Answer{Status: 201, Header: map[string]string{"Etag": `"d1"`}, Body: []byte("made"), Kept: true})
	_, a, err := s.Begin(t.Context(), order)
	if err != nil || a == nil || a.Status != 201 || string(a.Body) != "made" || !a.Kept || a.Header["Etag"] != `"d1"` {
		t.Errorf("%+v, %v", a, err)
	}
	if found, err := s.Find(t.Context(), order); err != nil || found == nil || found.Status != 201 {
		t.Errorf("%+v, %v", found, err)
	}
	refused(t, s, other, ErrOther)
	if found, err := s.Find(t.Context(), other); err != nil || found != nil {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestOfManyAtOnceOneIsCarriedOut(t *testing.T) {
	s, _ := store(t)
	claims := make(chan *Claim, 16)
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			c, _, err := s.Begin(t.Context(), order)
			if err != nil && !errors.Is(err, ErrRunning) {
				t.Error(err)
			}
			if c != nil {
				claims <- c
			}
		})
	}
	group.Wait()
	if len(claims) != 1 {
		t.Fatalf("%d claims", len(claims))
	}
	done(t, <-claims, Answer{Status: 200})
}

func TestAReleasedKeyIsFree(t *testing.T) {
	s, _ := store(t)
	if err := begin(t, s, order).Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := order
	other.What = "POST /x another"
	done(t, begin(t, s, other), Answer{Status: 200})
}

func TestAnAttemptWhoseProcessEndedIsTakenOver(t *testing.T) {
	s, pool := store(t)
	lost := begin(t, s, order)
	if _, err := pool.Exec(t.Context(), `update idempotency.requests set running_until = now() - interval '1 s'`); err != nil {
		t.Fatal(err)
	}
	other := order
	other.What = "POST /x another"
	refused(t, s, other, ErrOther)
	second := begin(t, s, order)
	done(t, lost, Answer{Status: 500}) // it comes too late to say anything
	refused(t, s, order, ErrRunning)
	done(t, second, Answer{Status: 200})
	if a, err := s.Find(t.Context(), order); err != nil || a.Status != 200 {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestAnswersAreKeptForADay(t *testing.T) {
	s, pool := store(t)
	done(t, begin(t, s, order), Answer{Status: 200, Kept: true, Body: []byte("x")})
	var hours float64
	if err := pool.QueryRow(t.Context(), `select extract(epoch from expires_at - now()) / 3600 from idempotency.requests`).Scan(&hours); err != nil || hours < 23.9 || hours > 24 {
		t.Errorf("%v hours, %v", hours, err)
	}
	if _, err := pool.Exec(t.Context(), `update idempotency.requests set expires_at = now() - interval '1 s'`); err != nil {
		t.Fatal(err)
	}
	if a, err := s.Find(t.Context(), order); err != nil || a != nil {
		t.Errorf("%+v, %v", a, err)
	}
	other := order
	other.What = "POST /x another"
	done(t, begin(t, s, other), Answer{Status: 200})
	if _, err := pool.Exec(t.Context(), `update idempotency.requests set expires_at = now() - interval '1 s'`); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := pool.QueryRow(t.Context(), `select count(*) from idempotency.requests`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d left, %v", left, err)
	}
}

func TestTheBodyThatArrivedIsCompared(t *testing.T) {
	s, _ := store(t)
	c := begin(t, s, order)
	if err := c.Read(t.Context(), []byte("digest")); err != nil {
		t.Fatal(err)
	}
	done(t, c, Answer{Status: 200})
	_, a, err := s.Begin(t.Context(), order)
	if err != nil {
		t.Fatal(err)
	}
	for digest, want := range map[string]bool{"digest": true, "another": false} {
		if same, err := s.Same(t.Context(), a, []byte(digest)); err != nil || same != want {
			t.Errorf("%s: %v, %v", digest, same, err)
		}
	}
}
