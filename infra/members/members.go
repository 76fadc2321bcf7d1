// Package members knows which processes of a group are alive, and spreads tenants over them without a leader: each holds a session's advisory
// lock on the platform's database, which the server gives up when the process is gone, and each computes by rendezvous hashing over those that hold
// one which tenants are its own. Two processes may see the others differently for a moment, so nothing may depend on it but work.
package members

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	channel = "members"
	// lookEvery is how often the members are read; a notification says sooner that one has come or has left in order.
	lookEvery = 500 * time.Millisecond
	// lookTimeout bounds one reading: after it the connection counts as broken.
	lookTimeout = 2 * time.Second
	// leaveTimeout bounds the leaving.
	leaveTimeout = 2 * time.Second
	firstPause   = 50 * time.Millisecond
	longestPause = 2 * time.Second
)

// keepalive lets the server notice within seconds that the machine of a process is gone; a process that ends is noticed at once.
const keepalive = `set tcp_keepalives_idle = 1; set tcp_keepalives_interval = 1; set tcp_keepalives_count = 3; set tcp_user_timeout = 3000; set statement_timeout = 0`

// Member is this process among those of its group. It is safe for concurrent use.
type Member struct {
	pool   *pgxpool.Pool
	class  int32 // of the group's locks
	logger *slog.Logger
	stop   context.CancelFunc
	done   chan struct{}

	mu      sync.RWMutex
	id      int32   // ours; the key of the lock
	ids     []int32 // of all that are alive, ordered
	changed chan struct{}
}

// Join makes this process a member of the group, which is any text that those have in common who may take over each other's work. It holds one
// connection of its own besides the pool's, which is opened again whenever it breaks; until then the members are those that were last seen.
// logger may be nil.
func Join(ctx context.Context, pool *pgxpool.Pool, group string, logger *slog.Logger) (*Member, error) {
	if logger == nil {
		logger = slog.Default()
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte("factum.members " + group)) // never fails
	m := &Member{pool: pool, class: int32(h.Sum32()), logger: logger, done: make(chan struct{}), changed: make(chan struct{})}
	conn, err := m.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("members: join: %w", err)
	}
	running, stop := context.WithCancel(context.Background())
	m.stop = stop
	go m.run(running, conn)
	return m, nil
}

// Leave gives this process's tenants to the others at once.
func (m *Member) Leave() {
	m.stop()
	<-m.done
}

// Mine tells whether the tenant is this process's.
func (m *Member) Mine(tenant string) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var best uint64
	var owner int32
	for _, id := range m.ids { // ordered, so that all break a tie alike
		if s := score(id, tenant); owner == 0 || s > best {
			best, owner = s, id
		}
	}
	return owner == m.id
}

// Changed returns a channel that is closed when the members change.
func (m *Member) Changed() <-chan struct{} {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.changed
}

// Count is how many members are alive, this one included.
func (m *Member) Count() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.ids)
}

// score is the weight of a member for a tenant: FNV-1a, whose bits are then spread by the finalizer of MurmurHash3.
func score(id int32, tenant string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(strconv.Itoa(int(id)) + " " + tenant)) // never fails
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// connect takes a lock that nobody has and reads who else is alive.
func (m *Member) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	acquired, err := m.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	conn := acquired.Hijack() // it holds the lock as long as it lives, so it leaves the pool
	id, err := m.lock(ctx, conn)
	if err == nil {
		err = m.look(ctx, conn, id)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
	}
	return conn, nil
}

func (m *Member) lock(ctx context.Context, conn *pgx.Conn) (id int32, err error) {
	if _, err := conn.Exec(ctx, keepalive+`; listen `+channel); err != nil {
		return 0, err
	}
	for locked := false; !locked; {
		id = 1 + rand.Int32N(1<<31-2) //nolint:gosec // a name, no secret
		if err := conn.QueryRow(ctx, `select pg_try_advisory_lock($1, $2)`, m.class, id).Scan(&locked); err != nil {
			return 0, err
		}
	}
	_, err = conn.Exec(ctx, `select pg_notify('`+channel+`', '')`)
	return id, err
}

// look reads who is alive.
func (m *Member) look(ctx context.Context, conn *pgx.Conn, id int32) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	rows, err := conn.Query(ctx, `select objid::int8 from pg_locks where locktype = 'advisory' and granted and objsubid = 2
		and database = (select d.oid from pg_database d where d.datname = current_database()) and classid::int8 = $1`, int64(uint32(m.class)))
	if err != nil {
		return err
	}
	ids, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (int32, error) {
		var objid int64
		err := row.Scan(&objid)
		return int32(objid), err
	})
	if err != nil {
		return err
	}
	slices.Sort(ids)
	m.mu.Lock()
	defer m.mu.Unlock()
	if id == m.id && slices.Equal(ids, m.ids) {
		return nil
	}
	m.id, m.ids = id, ids
	close(m.changed)
	m.changed = make(chan struct{})
	return nil
}

// run keeps the membership until ctx ends.
func (m *Member) run(ctx context.Context, conn *pgx.Conn) {
	defer close(m.done)
	for delay := firstPause; ; {
		if conn != nil {
			err := m.hold(ctx, conn)
			m.part(ctx, conn)
			delay = firstPause
			if ctx.Err() != nil {
				return
			}
			m.logger.WarnContext(ctx, "the connection that makes this process a member broke; others take over its tenants until it is opened again", "error", err)
		}
		timer := time.NewTimer(delay/2 + rand.N(delay/2)) //nolint:gosec // jitter is no secret
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		delay = min(2*delay, longestPause)
		var err error
		if conn, err = m.connect(ctx); err != nil && ctx.Err() == nil {
			m.logger.WarnContext(ctx, "this process cannot become a member again yet; this is tried again", "after", delay, "error", err)
		}
	}
}

// hold looks again and again, until the connection breaks or ctx ends.
func (m *Member) hold(ctx context.Context, conn *pgx.Conn) error {
	for {
		hearing, cancel := context.WithTimeout(ctx, lookEvery)
		_, err := conn.WaitForNotification(hearing)
		quiet := hearing.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && (!quiet || conn.IsClosed()) {
			return err
		}
		m.mu.RLock()
		id := m.id
		m.mu.RUnlock()
		if err := m.look(ctx, conn, id); err != nil {
			return err
		}
	}
}

// part gives the lock back and tells the others, as far as the connection still works; else the server notices.
func (m *Member) part(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	if !conn.IsClosed() {
		if _, err := conn.Exec(ctx, `select pg_advisory_unlock_all(); select pg_notify('`+channel+`', '')`); err != nil {
			m.logger.WarnContext(ctx, "the other processes were not told that this one leaves; they notice", "error", err)
		}
	}
	_ = conn.Close(ctx) // what it held is the server's to give up
}
