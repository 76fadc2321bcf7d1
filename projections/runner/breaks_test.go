package runner_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/projections/runner"
)

// TestABatchThatTwoApplyCountsOnce: the second waits for the first one's transaction, finds the checkpoint moved, and rolls its batch back.
func TestABatchThatTwoApplyCountsOnce(t *testing.T) {
	w := newWorld(t)
	enter, leave := make(chan struct{}, 2), make(chan struct{})
	slow := sums()
	slow.InTx = func(context.Context, pgx.Tx, eventstore.TenantID, []runner.Fact) error {
		enter <- struct{}{}
		<-leave
		return nil
	}
	metrics := prometheus.NewRegistry()
	for range 5 {
		w.add("a", 1)
	}
	w.run(nil, slow)
	<-enter // its rows are written, its transaction is open
	w.run(func(c *runner.Config) { c.Registerer = metrics }, sums())
	awaitText(t, w, `select coalesce(string_agg(wait_event_type, ' '), '') from pg_stat_activity
		where datname = current_database() and query like 'update proj.checkpoint%'`, "Lock") // the second one has come to the same batch
	close(leave)
	w.await("sums", 5)
	deadline := time.After(20 * time.Second)
	for tick := time.Tick(10 * time.Millisecond); metric(t, metrics, "factum_projection_lost_races_total") < 1; {
		select {
		case <-tick:
		case <-deadline:
			t.Fatal("the second one never lost its race")
		}
	}
	w.await("sums", w.add("a", 1))
	if got := w.rows(); got != "a=6/6" {
		t.Fatal(got)
	}
}

// TestConnectionsThatBreakAtRandom: two and four runners over one log lose nothing and repeat nothing, whenever their connections break, also
// between a commit and its answer.
func TestConnectionsThatBreakAtRandom(t *testing.T) {
	for _, runners := range []int{2, 4} {
		t.Run(fmt.Sprint(runners, " runners"), func(t *testing.T) {
			w := newWorld(t)
			for range runners {
				w.run(nil, sums())
			}
			ctx, stop := context.WithCancel(t.Context())
			var breaking sync.WaitGroup
			var cuts atomic.Int64
			breaking.Go(func() {
				admin, err := pgx.Connect(ctx, w.pool.Config().ConnString())
				if err != nil {
					t.Error(err)
					return
				}
				defer admin.Close(context.Background())
				for ctx.Err() == nil {
					var n int
					err := admin.QueryRow(ctx, `select count(pg_terminate_backend(pid)) from (select pid from pg_stat_activity
						where datname = current_database() and pid <> pg_backend_pid() order by random() limit 1) one`).Scan(&n)
					if err != nil && ctx.Err() == nil {
						t.Error(err)
					}
					cuts.Add(int64(n))
					pause := time.NewTimer(rand.N(40 * time.Millisecond))
					select {
					case <-pause.C:
					case <-ctx.Done():
					}
				}
			})
			want := map[string]int{}
			var last eventstore.Position
			pace := time.NewTicker(5 * time.Millisecond) // so that they apply many small batches meanwhile
			defer pace.Stop()
			for i := 0; i < 600 || cuts.Load() < 20; i++ {
				<-pace.C
				stream := fmt.Sprint("s", i%7)
				want[stream] += i
				last = w.add(stream, i)
			}
			stop()
			breaking.Wait()
			for w.pool.Ping(t.Context()) != nil { // until the pool has met those of its connections that are dead
			}
			w.await("sums", last)
			for stream, total := range want {
				if !strings.Contains(" "+w.rows()+" ", fmt.Sprintf(" %s=%d/", stream, total)) {
					t.Errorf("%s should add up to %d: %s", stream, total, w.rows())
				}
			}
			t.Log("connections cut:", cuts.Load(), "events:", last)
		})
	}
}
