package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/storetest"
)

// trouble is what is done to the tenants' databases while a torture runs.
type trouble struct {
	d      *databases
	event  string  // of the trigger: what is done to which table once positions are drawn
	delays float64 // share of transactions, or rows, that wait up to 10 ms before their commit
	undone float64 // share of them that are rolled back
	kills  atomic.Int64
}

// start makes trouble until the test ends. Production SQL is unchanged: a deferred constraint trigger runs between the statement and
// its commit. It counts in sequences, which no rollback takes back.
func (x *trouble) start(t *testing.T, tenants ...eventstore.TenantID) {
	t.Helper()
	for _, tenant := range tenants {
		admin := x.d.adminOf(tenant)
		must(t, admin, `create sequence public.delays; create sequence public.undone`)
		must(t, admin, fmt.Sprintf(`create function public.disturb() returns trigger language plpgsql security definer as $$
			begin
				if random() < %f then perform nextval('public.delays'), pg_sleep(random() * 0.01); end if;
				if random() < %f then perform nextval('public.undone'); raise exception 'undone by the test'; end if;
				return null;
			end $$`, x.delays, x.undone))
		must(t, admin, `create constraint trigger disturb `+x.event+` deferrable initially deferred for each row execute function public.disturb()`)
	}
	if x.d.proxy != nil {
		x.d.proxy.losing.Store(true)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	t.Cleanup(func() {
		cancel()
		<-done
	})
	go func() {
		defer close(done)
		x.kill(ctx, t, tenants)
	}()
}

// kill cuts a connection every 50 ms, rather one that waits before its commit.
func (x *trouble) kill(ctx context.Context, t *testing.T, tenants []eventstore.TenantID) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		admin := x.d.adminOf(tenants[rand.N(len(tenants))])
		var killed bool
		err := admin.QueryRow(ctx, `select pg_terminate_backend(pid) from (select pid from pg_stat_activity
			where datname = current_database() and application_name = 'factum' order by wait_event = 'PgSleep' desc, random() limit 1) victim`).Scan(&killed)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) && ctx.Err() == nil {
			t.Error(err)
		}
		if killed {
			x.kills.Add(1)
		}
	}
}

// made says how often there was trouble.
func (x *trouble) made(t *testing.T, tenants ...eventstore.TenantID) (delays, undone int) {
	t.Helper()
	for _, tenant := range tenants {
		var d, u int
		err := x.d.adminOf(tenant).QueryRow(t.Context(), `select (select last_value * is_called::int from public.delays), (select last_value * is_called::int from public.undone)`).Scan(&d, &u)
		if err != nil {
			t.Fatal(err)
		}
		delays, undone = delays+d, undone+u
	}
	return delays, undone
}

// proxy stands between the application and the server and loses some of the server's answers, with the connection: what they answer
// was done. Only short ones, since long ones are pages of events.
type proxy struct {
	every  int         // one of so many short answers is lost
	losing atomic.Bool // it does so
	lost   atomic.Int64

	listener net.Listener
	server   string
	wg       sync.WaitGroup
	once     sync.Once
}

// to starts the proxy, which runs until the test ends, and returns the DSN that leads through it.
func (p *proxy) to(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal("the DSN is no URL")
	}
	p.once.Do(func() {
		p.server = u.Host
		if p.listener, err = new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		p.wg.Go(p.serve)
		t.Cleanup(func() {
			if err := p.listener.Close(); err != nil {
				t.Error(err)
			}
			p.wg.Wait() // the pools were closed before, and their connections with them
		})
	})
	u.Host = p.listener.Addr().String()
	return u.String()
}

func (p *proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // it was closed
		}
		p.wg.Go(func() {
			defer client.Close()
			server, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.server)
			if err != nil {
				return // so the client's connection ends, too
			}
			defer server.Close()
			p.wg.Go(func() {
				defer server.Close() // the server learns that the client has gone
				_, _ = io.Copy(server, client)
			})
			p.answers(client, server)
		})
	}
}

// answers forwards what the server says until one side ends or an answer is lost.
func (p *proxy) answers(client io.Writer, server io.Reader) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := server.Read(buffer)
		if err == nil && n < 1024 && p.losing.Load() && rand.N(p.every) == 0 {
			p.lost.Add(1)
			return
		}
		if err == nil {
			_, err = client.Write(buffer[:n])
		}
		if err != nil {
			return
		}
	}
}

// soakEvents is how many events a torture writes: as many as the environment says (make soak-log), else by default.
func soakEvents(t *testing.T, byDefault int) int {
	t.Helper()
	const variable = "FACTUM_SOAK_EVENTS"
	raw := os.Getenv(variable)
	if raw == "" {
		return byDefault
	}
	n, err := strconv.Atoi(raw)
	if err != nil || n < byDefault {
		t.Fatalf("%s=%q: want a number of events of at least %d", variable, raw, byDefault)
	}
	return n
}

// processes opens stores over the same databases, each as if in a process of its own: what one of them serialises by itself does not
// hide what the log must serialise.
func processes(d *databases, n int) []eventstore.Store {
	out := make([]eventstore.Store, n)
	for i := range out {
		out[i] = d.open(nil)
	}
	return out
}

func TestTorture(t *testing.T) {
	const writers = 64
	for _, count := range []int{16, 1} {
		t.Run(fmt.Sprintf("%d tenants", count), func(t *testing.T) {
			tenants := make([]eventstore.TenantID, count)
			for i := range tenants {
				tenants[i] = eventstore.TenantID(fmt.Sprintf("t%d", i))
			}
			d := newDatabases(t, tenants...)
			d.proxy = &proxy{every: 60}
			d.conns = int32(4 + writers/4/count)
			x := &trouble{d: d, event: "after update on es.head", delays: 0.3, undone: 0.03}
			x.start(t, tenants...)
			began := time.Now()
			done, err := storetest.Torture{
				Stores: processes(d, 4), Tenants: tenants, Writers: writers, Readers: 4, Events: soakEvents(t, 100_000), Batch: 30,
				Progress: func(n storetest.Tortured) { t.Logf("%s: %+v", time.Since(began).Round(time.Second), n) },
			}.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			delays, undone := x.made(t, tenants...)
			t.Logf("%+v, %d delays, %d rollbacks, %d kills, %d lost answers in %s", done, delays, undone, x.kills.Load(), d.proxy.lost.Load(), time.Since(began).Round(time.Second))
			// The engine repeats most of what fails by itself, so failures are few.
			if done.Replays < 5 || delays < 50 || undone < 20 || x.kills.Load() < 30 || d.proxy.lost.Load() < 20 {
				t.Error("hardly a torture")
			}
		})
	}
}

// TestTortureCatchesASequence proves that the torture test can fail: it must, once positions are drawn from a sequence. To every
// statement es.head looks as before. Whether a short run skips events is a matter of luck, which a slow machine lacks at times, so
// logs are tortured until one is caught.
func TestTortureCatchesASequence(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for number := 1; ; number++ {
		tenant := eventstore.TenantID(fmt.Sprintf("drawn%d", number))
		d := newDatabases(t, tenant)
		drawFromASequence(t, d.adminOf(tenant))
		x := &trouble{d: d, event: "after insert on es.events", delays: 0.5, undone: 0.01}
		x.start(t, tenant)
		done, err := storetest.Torture{
			Stores: processes(d, 4), Tenants: []eventstore.TenantID{tenant}, Writers: 16, Readers: 4, Events: 500, Batch: 3,
		}.Run(ctx)
		t.Logf("log %d: %+v", number, done)
		var skipped *storetest.SkippedError
		if errors.As(err, &skipped) {
			t.Log(skipped)
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("with positions from a sequence the torture test found %v in the last of %d logs; want skipped events", err, number)
		}
	}
}

// drawFromASequence replaces es.head's counter, which is locked until the commit, by a sequence, which is not.
func drawFromASequence(t *testing.T, admin *pgxpool.Pool) {
	t.Helper()
	for _, sql := range []string{
		`create sequence es.torture increment by 10000 start with 10000`, // room for the events of a statement between two numbers
		`alter table es.head rename to counter`,
		// Through a function, because an update locks the rows that a view reads, and a sequence's cannot be locked.
		`create function es.drawn() returns bigint language sql as 'select last_value from es.torture'`,
		`create view es.head as select true as one, es.drawn() as pos, null::uuid as closed`,
		`create function es.draw() returns trigger language plpgsql as $$ begin new.pos := nextval('es.torture'); return new; end $$`,
		`create trigger draw instead of update on es.head for each row execute function es.draw()`,
		`grant usage, select on es.torture to factum_tenant`,
		`grant select, update on es.head to factum_tenant`,
	} {
		must(t, admin, sql)
	}
}
