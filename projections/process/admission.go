package process

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
)

// A job passes through these states of saga.job: it is scheduled until it is due, waits in its tenant's turn, is admitted to River, and is
// done when its outcome was reported. A transaction that makes a job wait, or ends an admitted one, admits as many as there is room for,
// under the tenant's lock: no tenant has jobs that wait and free places at once.
const (
	// perTenant is how many jobs of one tenant are in River at once: a tenant that asks for thousands fills its own places only.
	perTenant = 4
	// maturing bounds how many jobs of a tenant one transaction makes wait; the next one goes on.
	maturing = 1000
	// lookEvery is the longest time between two looks for jobs that have come due, and shortestLook the shortest.
	lookEvery    = 2 * time.Second
	shortestLook = 100 * time.Millisecond
	// repairEvery is how often jobs are looked for that River has lost.
	repairEvery = time.Minute
)

// Queue is River, as far as admission needs it.
type Queue interface {
	// InsertTx inserts jobs that exist if, and only if, the transaction commits.
	InsertTx(ctx context.Context, tx pgx.Tx, list []river.JobArgs) error
	// LiveTx lists the values of an argument of all jobs that have not ended.
	LiveTx(ctx context.Context, tx pgx.Tx, argument string) ([]string, error)
}

// order is a job as River keeps it. Its key is the id of the command that will report the outcome.
type order struct {
	kind   string
	Key    string          `json:"key"`
	Tenant string          `json:"tenant"`
	Args   json.RawMessage `json:"args"`
}

// Kind implements river.JobArgs.
func (o order) Kind() string { return o.kind }

// lockTenant lets the transactions that move a tenant's jobs take turns. It is the last lock that each of them takes but for rows of
// saga.job.
func lockTenant(b *pgx.Batch, tenant string) {
	b.Queue(`select pg_advisory_xact_lock(hashtextextended('factum.saga.' || $1, 0))`, tenant)
}

// admit moves the tenant's jobs on: what is due waits, and what waits is admitted in turn while there is room. before are statements that
// go first, in the same round trip; they lock the tenant.
func admit(ctx context.Context, tx pgx.Tx, queue Queue, before *pgx.Batch, tenant string, now time.Time) error {
	before.Queue(`update saga.job set state = 'waiting' where state = 'scheduled' and key in (
		select key from saga.job where tenant = $1 and state = 'scheduled' and due <= $2 order by due, turn limit $3)`, tenant, now, maturing)
	before.Queue(`with next as (
			select key from saga.job where tenant = $1 and state = 'waiting' order by due, turn
			limit greatest(0, $2 - (select count(*) from saga.job where tenant = $1 and state = 'admitted')))
		update saga.job j set state = 'admitted' from next where j.key = next.key returning j.turn, j.due, j.kind, j.key::text, j.args`, tenant, perTenant)
	results := tx.SendBatch(ctx, before)
	for range before.Len() - 1 {
		if _, err := results.Exec(); err != nil {
			return fmt.Errorf("process: admit jobs of tenant %s: %w", tenant, closing(results, err))
		}
	}
	rows, err := results.Query()
	if err != nil {
		return fmt.Errorf("process: admit jobs of tenant %s: %w", tenant, closing(results, err))
	}
	type place struct {
		turn  int64
		due   time.Time
		order order
	}
	places, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (place, error) {
		p := place{order: order{Tenant: tenant}}
		return p, row.Scan(&p.turn, &p.due, &p.order.kind, &p.order.Key, &p.order.Args)
	})
	if err = closing(results, err); err != nil {
		return fmt.Errorf("process: admit jobs of tenant %s: %w", tenant, err)
	}
	slices.SortFunc(places, func(a, b place) int { return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.turn, b.turn)) })
	list := make([]river.JobArgs, len(places))
	for i, p := range places {
		list[i] = p.order
	}
	return queue.InsertTx(ctx, tx, list)
}

// closing closes the results and answers the first failure.
func closing(results pgx.BatchResults, err error) error {
	if closed := results.Close(); err == nil {
		return closed
	}
	return err
}

// lane is where the jobs of a process meet their rows in saga.job.
type lane struct {
	pool  *pgxpool.Pool
	queue Queue
	log   *slog.Logger
	now   func() time.Time
}

// carryOut runs do for the job, unless the job is done, and says that it is done once do has reported. A job that is repeated after that,
// because the process died before River knew, ends at once.
func (l *lane) carryOut(ctx context.Context, key, tenant string, do func(context.Context) error) error {
	var done bool
	if err := l.pool.QueryRow(ctx, `select coalesce((select state = 'done' from saga.job where key = $1), false)`, key).Scan(&done); err != nil {
		return fmt.Errorf("process: look for job %s: %w", key, err)
	}
	if done {
		return nil
	}
	if err := do(ctx); err != nil {
		return err
	}
	return l.move(ctx, tenant, func(b *pgx.Batch) {
		b.Queue(`update saga.job set state = 'done', kind = null, args = null, due = null where key = $1 and state <> 'done'`, key)
	})
}

// move admits in a transaction of its own, after the statements that first queues.
func (l *lane) move(ctx context.Context, tenant string, first func(*pgx.Batch)) error {
	return pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		var b pgx.Batch
		lockTenant(&b, tenant)
		first(&b)
		return admit(ctx, tx, l.queue, &b, tenant, l.now())
	})
}

// keep admits what has come due and repairs what was lost, until ctx ends.
func (l *lane) keep(ctx context.Context) {
	look, repair := time.NewTimer(0), time.NewTicker(repairEvery)
	defer look.Stop()
	defer repair.Stop()
	for {
		select {
		case <-look.C:
			wait, err := l.mature(ctx)
			if err != nil && ctx.Err() == nil {
				l.log.WarnContext(ctx, "jobs that have come due cannot be admitted; this is tried again", "after", lookEvery, "error", err)
			}
			look.Reset(wait)
		case <-repair.C:
			if err := l.repair(ctx); err != nil && ctx.Err() == nil {
				l.log.WarnContext(ctx, "jobs that River may have lost cannot be looked for; this is tried again", "after", repairEvery, "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// mature admits what has come due, and answers when to look again. While nothing has, it costs one look into an index.
func (l *lane) mature(ctx context.Context) (wait time.Duration, err error) {
	var next *time.Time
	if err := l.pool.QueryRow(ctx, `select min(due) from saga.job where state = 'scheduled'`).Scan(&next); err != nil {
		return lookEvery, fmt.Errorf("process: look for jobs that are due: %w", err)
	}
	now := l.now()
	if next == nil {
		return lookEvery, nil
	}
	if next.After(now) {
		return min(lookEvery, max(shortestLook, next.Sub(now))), nil
	}
	rows, err := l.pool.Query(ctx, `select tenant from saga.job where state = 'scheduled' and due <= $1 group by tenant order by min(due)`, now)
	if err != nil {
		return lookEvery, fmt.Errorf("process: look for jobs that are due: %w", err)
	}
	tenants, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return lookEvery, fmt.Errorf("process: look for jobs that are due: %w", err)
	}
	for _, t := range tenants {
		if err := l.move(ctx, t, func(*pgx.Batch) {}); err != nil {
			return lookEvery, err
		}
	}
	return shortestLook, nil
}

// repair admits again what is admitted and not in River, because somebody removed or cancelled it there: otherwise its place would never
// be free again. A job of which the table knows nothing but the key was inserted by the version before, and has ended with River.
func (l *lane) repair(ctx context.Context) error {
	var suspects []string
	err := pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		lost, err := l.lost(ctx, tx, "")
		if err != nil {
			return err
		}
		for _, j := range lost {
			suspects = append(suspects, j.tenant)
		}
		rows, err := tx.Query(ctx, `select tenant from saga.job where state <> 'done' group by tenant
			having count(*) filter (where state = 'waiting') > 0 and count(*) filter (where state = 'admitted') < $1`, perTenant)
		if err != nil {
			return fmt.Errorf("process: look for tenants with free places: %w", err)
		}
		idle, err := pgx.CollectRows(rows, pgx.RowTo[string])
		suspects = append(suspects, idle...)
		return err
	})
	if err != nil {
		return err
	}
	slices.Sort(suspects)
	for _, t := range slices.Compact(suspects) {
		if err := l.repairTenant(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// repairTenant looks again under the tenant's lock, where nothing is admitted and nothing ends meanwhile.
func (l *lane) repairTenant(ctx context.Context, tenant string) error {
	return pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		var b pgx.Batch
		lockTenant(&b, tenant)
		if err := tx.SendBatch(ctx, &b).Close(); err != nil {
			return fmt.Errorf("process: lock the jobs of tenant %s: %w", tenant, err)
		}
		lost, err := l.lost(ctx, tx, tenant)
		if err != nil {
			return err
		}
		keys := make([]string, len(lost))
		for i, j := range lost {
			keys[i] = j.key
			l.log.WarnContext(ctx, "River does not hold a job that is not done; it is given to River again", "job", j.key, "tenant", tenant)
		}
		b = pgx.Batch{}
		b.Queue(`update saga.job set state = case when kind is null then 'done' else 'waiting' end where key = any($1::uuid[]) and state = 'admitted'`, keys)
		return admit(ctx, tx, l.queue, &b, tenant, l.now())
	})
}

// placed is an admitted job.
type placed struct{ key, tenant string }

// lost lists the admitted jobs, of one tenant or of all (""), that River does not hold. River is asked last: a job that it held is done
// before it ends there.
func (l *lane) lost(ctx context.Context, tx pgx.Tx, tenant string) ([]placed, error) {
	rows, err := tx.Query(ctx, `select key::text, tenant from saga.job where state = 'admitted' and ($1 = '' or tenant = $1)`, tenant)
	if err != nil {
		return nil, fmt.Errorf("process: list the admitted jobs: %w", err)
	}
	admitted, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p placed, err error) { return p, row.Scan(&p.key, &p.tenant) })
	if err != nil {
		return nil, fmt.Errorf("process: list the admitted jobs: %w", err)
	}
	held, err := l.queue.LiveTx(ctx, tx, "key")
	if err != nil {
		return nil, err
	}
	live := make(map[string]bool, len(held))
	for _, key := range held {
		live[key] = true
	}
	return slices.DeleteFunc(admitted, func(p placed) bool { return live[p.key] }), nil
}

// wanted is a job that a saga asks for.
type wanted struct {
	key string
	job Job
}

// ask keeps the jobs whose keys are new, and admits. Keys are kept for ever, so that a log that is read again leads to no job twice.
func ask(ctx context.Context, tx pgx.Tx, queue Queue, saga, tenant string, list []wanted, now time.Time) error {
	if len(list) == 0 {
		return nil
	}
	keys, kinds, args, dues := make([]string, len(list)), make([]string, len(list)), make([]string, len(list)), make([]time.Time, len(list))
	for i, w := range list {
		raw, err := json.Marshal(w.job.Args)
		if err != nil {
			return fmt.Errorf("process: encode a %s job of %s: %w", w.job.Kind, saga, err)
		}
		keys[i], kinds[i], args[i], dues[i] = w.key, w.job.Kind, string(raw), w.job.Due
		if w.job.Due.IsZero() {
			dues[i] = now
		}
	}
	var b pgx.Batch
	lockTenant(&b, tenant)
	b.Queue(`insert into saga.job (key, saga, tenant, kind, args, due, state)
		select key::uuid, $1, $2, kind, args::json, due, case when due <= $3 then 'waiting' else 'scheduled' end
		from unnest($4::text[], $5::text[], $6::text[], $7::timestamptz[]) with ordinality as j (key, kind, args, due, ord) order by ord
		on conflict do nothing`, saga, tenant, now, keys, kinds, args, dues)
	return admit(ctx, tx, queue, &b, tenant, now)
}
