package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/factum-platform/factum/bench/ratio"
	"github.com/factum-platform/factum/bench/site"
	"github.com/factum-platform/factum/infra/readmodel"
)

const (
	// allowedWait is how long a reader may wait for the exchange of generations.
	allowedWait = 50 * time.Millisecond
	// nearPromotion is how far from the promotion a wait counts as being around it.
	nearPromotion = time.Second
	probeEvery    = 5 * time.Millisecond
	catchUpLimit  = 30 * time.Minute
	knownSample   = 2000 // documents that are asked for by id
)

// rebuild serves requests while factum projections rebuild builds a tenant's documents anew.
func (s *soak) rebuild(ctx context.Context) (err error) {
	t, err := s.platform.NewTenant(ctx, "North Mill")
	if err != nil {
		return err
	}
	s.say("fill", "filling the tenant's log with %d events", s.events)
	if _, err := s.platform.Fill(ctx, t, s.events, nil, s.everyTenSeconds("fill")); err != nil {
		return err
	}
	if err := s.site.Vacuum(ctx, t.Database); err != nil {
		return err
	}
	serving, err := s.site.Serve(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, serving.Stop()) }()
	s.say("catch up", "factum serve applies the log for the first time")
	tenants := []site.Tenant{t}
	if err := s.await(ctx, "catch up", catchUpLimit, func(ctx context.Context) (string, error) { return s.behind(ctx, tenants) }); err != nil {
		return err
	}
	if err := errors.Join(s.site.Vacuum(ctx, t.Database), s.site.Checkpoint(ctx)); err != nil {
		return err
	}

	r := &readers{client: s.platform.NewClient(serving), tenant: t}
	defer r.client.Close()
	if err := r.learn(ctx, s); err != nil {
		return err
	}
	begun, rebuilt := time.Now(), time.Duration(0)
	window, end := context.WithCancel(ctx)
	defer end()
	all, running := errgroup.WithContext(ctx)
	all.Go(func() error {
		defer end()
		if err := site.Pass(running, s.around); err != nil {
			return err
		}
		from := time.Now()
		if err := s.site.Run(running, func(line string) { s.say("rebuild", "%s", line) }, "projections", "rebuild", "documents", "--tenant", t.ID); err != nil {
			return err
		}
		rebuilt = time.Since(from)
		return site.Pass(running, s.around)
	})
	all.Go(func() error { return site.Load(running, window, s.rate, r.request) })
	all.Go(func() error { return r.probe(running, window, s.site.DSN(t.Database)) })
	if err := all.Wait(); err != nil {
		return err
	}
	return s.judge(r, time.Since(begun), rebuilt)
}

// everyTenSeconds says how many events there are.
func (s *soak) everyTenSeconds(figure string) func(done int) {
	var mu sync.Mutex
	told := time.Now()
	return func(done int) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			s.say(figure, "%d events", done)
		}
	}
}

// judge prints what was found.
func (s *soak) judge(r *readers, took, rebuilt time.Duration) error {
	if r.promoted.IsZero() {
		return errors.New("no other generation became live: the rebuild promoted nothing")
	}
	times := make([]time.Duration, len(r.answers))
	for i, a := range r.answers {
		times[i] = a.took
	}
	slices.Sort(times)
	read, otherwise := r.longest(r.reads)
	request, _ := r.longest(r.answers)
	s.found("requests", "%d in %.1f s (%.0f per second), of them %d uploads", len(times), took.Seconds(), float64(len(times))/took.Seconds(), len(r.uploaded))
	s.found("failures", "%s", &r.failures)
	s.found("answers that went backwards", "%s", &r.backwards)
	s.found("rebuild", "%d events in %.1f s (%.0f events per second), command and comparison included", s.events, rebuilt.Seconds(), float64(s.events)/rebuilt.Seconds())
	s.found("longest read at the promotion", "%.1f ms of %d ms allowed; at other times %.1f ms (one row of the read model in SQL)",
		milliseconds(read), allowedWait.Milliseconds(), milliseconds(otherwise))
	s.found("longest request at the promotion", "%.1f ms", milliseconds(request))
	s.found("times of all requests", "median %.1f ms, p99 %.1f ms, longest %.1f ms", milliseconds(ratio.Median(times)),
		milliseconds(times[int(math.Ceil(0.99*float64(len(times))))-1]), milliseconds(times[len(times)-1]))
	if r.failures.count > 0 || r.backwards.count > 0 {
		return errors.New("not every request was answered as if nothing happened")
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// readers ask for what they know to be there, and remember the most that any answer has shown: no later answer may show less.
type readers struct {
	client *site.Client
	tenant site.Tenant
	known  []string // documents that were there before and are not deleted

	mu        sync.Mutex
	position  uint64 // the highest that an answer had
	total     int    // of documents, likewise; nothing is deleted
	uploaded  []site.Document
	answers   []answer
	failures  trouble
	backwards trouble

	reads    []answer  // of one row of the read model
	promoted time.Time // when the first of them met the new generation
}

type answer struct {
	sent time.Time
	took time.Duration
}

// learn picks documents and their number.
func (r *readers) learn(ctx context.Context, s *soak) error {
	pool, err := s.platform.Databases.Pool(ctx, string(r.tenant.Log))
	if err != nil {
		return err
	}
	_, err = readmodel.Read(ctx, pool, "documents", string(r.tenant.Log), 0, func(tx readmodel.Tx, schema string) error {
		if err := tx.QueryRow(ctx, `select count(*) from `+schema+`.documents`).Scan(&r.total); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `select id::text from `+schema+`.documents order by id limit $1`, knownSample)
		if err != nil {
			return err
		}
		r.known, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	return err
}

// request sends the n-th request: of 20, one is an upload, and one asks for a document that was uploaded meanwhile; one in 200 lists and
// counts all; the others ask for documents that have always been there. Half of them demand the position that is known.
func (r *readers) request(ctx context.Context, n int) error {
	r.mu.Lock()
	position, total := r.position, r.total
	var mine *site.Document
	if len(r.uploaded) > 0 {
		mine = &r.uploaded[rand.IntN(len(r.uploaded))]
	}
	r.mu.Unlock()
	demanded := position
	if n%2 == 0 {
		demanded = 0
	}
	sent := time.Now()
	var a site.Answer
	var err error
	listed, fresh := -1, site.Document{}
	switch {
	case n%20 == 3:
		fresh, a, err = r.client.Upload(ctx, r.tenant, "uploaded while it is rebuilt "+strconv.Itoa(n))
	case n%200 == 11:
		if a, err = r.client.Get(ctx, site.DocumentsPath(r.tenant)+"?per_page=1", demanded); err == nil {
			listed, err = totalOf(a)
		}
	case n%20 == 13 && mine != nil:
		a, err = r.client.Get(ctx, mine.Path(), demanded)
	default:
		a, err = r.client.Get(ctx, site.DocumentsPath(r.tenant)+"/"+r.known[n%len(r.known)], demanded)
	}
	took := time.Since(sent)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers = append(r.answers, answer{sent, took})
	var status *site.StatusError
	switch {
	case errors.As(err, &status) && status.Status == http.StatusNotFound:
		r.backwards.add("a document that was there is not: " + err.Error())
		return nil
	case err != nil:
		r.failures.add(err.Error())
		return nil
	case fresh.ID != "" && a.Pending != "":
		return nil // it is written, and not to be read yet
	case a.Position < position:
		r.backwards.add(fmt.Sprintf("an answer knew position %d after one that knew %d", a.Position, position))
	case listed >= 0 && listed < total:
		r.backwards.add(fmt.Sprintf("a list counted %d documents after one that counted %d", listed, total))
	}
	r.position, r.total = max(r.position, a.Position), max(r.total, listed)
	if fresh.ID != "" {
		r.uploaded = append(r.uploaded, fresh)
	}
	return nil
}

func totalOf(a site.Answer) (int, error) {
	var list struct {
		Data struct {
			Pagination struct {
				Total *int `json:"total"`
			} `json:"pagination"`
		} `json:"data"`
	}
	if err := json.Unmarshal(a.Body, &list); err != nil || list.Data.Pagination.Total == nil {
		return 0, fmt.Errorf("a list without a total: %.200s", a.Body)
	}
	return *list.Data.Pagination.Total, nil
}

// probe reads one row as queries do, again and again, to see how long the exchange of generations makes a reader wait.
func (r *readers) probe(ctx, window context.Context, dsn string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	live := ""
	for window.Err() == nil {
		sent := time.Now()
		schema, err := readOne(ctx, conn, r.known[0])
		if err != nil {
			return err
		}
		r.reads = append(r.reads, answer{sent, time.Since(sent)})
		if live != "" && schema != live {
			r.promoted = time.Now()
		}
		live = schema
		if err := site.Pass(ctx, probeEvery); err != nil {
			return err
		}
	}
	return nil
}

// longest is the longest that took place within a second of the promotion, and the longest of the others.
func (r *readers) longest(of []answer) (near, otherwise time.Duration) {
	for _, a := range of {
		if a.sent.Add(a.took).After(r.promoted.Add(-nearPromotion)) && a.sent.Before(r.promoted.Add(nearPromotion)) {
			near = max(near, a.took)
		} else {
			otherwise = max(otherwise, a.took)
		}
	}
	return near, otherwise
}

// readOne reads a document of the live generation in one transaction and answers in which schema that lies.
func readOne(ctx context.Context, conn *pgx.Conn, document string) (schema string, err error) {
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		var generation int
		if err := tx.QueryRow(ctx, `select generation from proj.live where projection = 'documents'`).Scan(&generation); err != nil {
			return err
		}
		schema = readmodel.Schema("documents", generation)
		var name string
		return tx.QueryRow(ctx, `select filename from `+schema+`.documents where id = $1`, document).Scan(&name)
	})
	if err != nil {
		return "", fmt.Errorf("read the model: %w", err)
	}
	return schema, nil
}
