package process

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/mail"
	"github.com/factum-platform/factum/projections/runner"
)

// mailer is a server that answers as it is told, and then takes everything.
type mailer struct {
	mu    sync.Mutex
	plan  []error
	tried int
	took  []mail.Message
}

func (m *mailer) Send(_ context.Context, message mail.Message) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tried++
	if len(m.plan) > 0 {
		err := m.plan[0]
		m.plan = m.plan[1:]
		if err != nil {
			return err
		}
	}
	m.took = append(m.took, message)
	return nil
}

// runMails runs the saga on the platform's log, and the jobs, until the test ends.
func (w *world) runMails() *Outbox {
	w.t.Helper()
	log := slog.New(slog.DiscardHandler)
	worker, err := NewWorker(Deps{Pool: w.pool, Commands: w.commands, TSA: &authority{}, Retired: noneRetired{}, Logger: log, Exclusive: true})
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := runner.New(runner.Config{
		Store: w.store, Codec: w.codec, Projections: []runner.Projection{Projection(welcoming(), worker.lane.queue), Projection(inviting(), worker.lane.queue)}, Logger: log,
		Pool:    func(context.Context, string) (*pgxpool.Pool, error) { return w.pool, nil },
		Tenants: func(context.Context) ([]string, error) { return nil, nil },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := worker.Start(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, worker.Stop(context.Background())); !errors.Is(err, context.Canceled) {
			w.t.Error(err)
		}
	})
	return &Outbox{Pool: w.pool, Queue: worker.lane.queue}
}

func (w *world) register(email string) {
	w.t.Helper()
	_, _, err := w.commands.RegisterUser(w.t.Context(), commands.Caller{Command: uuid.NewString(), At: time.Now()},
		commands.RegisterUser{FirstName: "Mina", LastName: "Okoro", Email: email, Password: "stator coil 7"})
	if err != nil {
		w.t.Fatal(err)
	}
}

// awaitMails waits until the server has been tried so often, and nothing is left to do.
func (w *world) awaitMails(tries int) []mail.Message {
	w.t.Helper()
	deadline := time.After(40 * time.Second)
	for tick := time.Tick(20 * time.Millisecond); ; {
		w.mailer.mu.Lock()
		tried, took := w.mailer.tried, w.mailer.took
		w.mailer.mu.Unlock()
		if tried >= tries {
			awaitIdle(w.t, w)
			return took
		}
		select {
		case <-tick:
		case <-deadline:
			w.t.Fatalf("%d tries, want %d", tried, tries)
		}
	}
}

// TestANewAccountIsMailedOnce: the server is away at first, and the saga's log is read again.
func TestANewAccountIsMailedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mailer.plan = []error{errors.New("connection refused")}
	w.register("mina@plant.example")
	w.runMails()
	took := w.awaitMails(2)
	if len(took) != 1 || took[0].To != "mina@plant.example" || !strings.HasPrefix(took[0].Link, "http://factum.example/account#verify=") {
		t.Fatal(len(took))
	}
	if _, err := w.admin.Exec(t.Context(), `truncate proj.checkpoint, proj.live`); err != nil {
		t.Fatal(err)
	}
	w.register("second@plant.example")
	if took = w.awaitMails(3); len(took) != 2 || took[1].To != "second@plant.example" {
		t.Fatalf("%d mails", len(took))
	}
	var args string
	if err := w.pool.QueryRow(t.Context(), `select coalesce(string_agg(args::text, ' '), '') from river.river_job`).Scan(&args); err != nil {
		t.Fatal(err)
	}
	for _, personal := range []string{"mina@", "plant.example", "Mina", "Okoro"} {
		if strings.Contains(args, personal) {
			t.Errorf("jobs hold personal data: %s", args)
		}
	}
}

func TestMailsThatAreAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register("mina@plant.example")
	outbox := w.runMails()
	if took := w.awaitMails(1); len(took) != 1 {
		t.Fatal("no welcome")
	}
	var key []byte
	if err := w.pool.QueryRow(t.Context(), `select login_key from auth.credentials`).Scan(&key); err != nil {
		t.Fatal(err)
	}
	w.mailer.mu.Lock()
	w.mailer.plan = []error{errors.New("try later"), nil, &mail.RefusedError{Err: errors.New("no such mailbox")}}
	w.mailer.mu.Unlock()
	ask := func(key string) {
		t.Helper()
		if err := outbox.Ask(t.Context(), auth.ResetPassword, key); err != nil {
			t.Fatal(err)
		}
	}
	ask(hex.EncodeToString([]byte("nobody has this address")))
	ask(hex.EncodeToString(key))
	if took := w.awaitMails(3); len(took) != 2 || !strings.Contains(took[1].Text, "#reset=") {
		t.Fatal(len(took))
	}
	ask(hex.EncodeToString(key)) // refused for good: it is not tried again
	if took := w.awaitMails(4); len(took) != 2 {
		t.Fatal(len(took))
	}
	var failed int
	if err := w.pool.QueryRow(t.Context(), `select count(*) from river.river_job where state <> 'completed'`).Scan(&failed); err != nil || failed != 0 {
		t.Fatal(failed, err)
	}
	page, err := w.store.Tenant(eventstore.PlatformTenant).Page(t.Context(), 0, 10)
	if err != nil || len(page.Events) != 1 {
		t.Fatal(fmt.Sprint(len(page.Events)), err)
	}
}

// TestAnInvitationIsMailedWheneverItIsAskedFor: one that was revoked before the mail went out is not mailed, and jobs hold no address.
func TestAnInvitationIsMailedWheneverItIsAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	by := func() commands.Caller {
		return commands.Caller{UserID: uuid.NewString(), Command: uuid.NewString(), At: time.Now()}
	}
	made, _, err := w.commands.CreateTenant(t.Context(), by(), "North Mill")
	if err != nil {
		t.Fatal(err)
	}
	invite := func(email string) commands.Invitation {
		t.Helper()
		i, _, err := w.commands.Invite(t.Context(), by(), made.ID, email, "user")
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	kept, revoked := invite("noor@plant.example"), invite("olga@plant.example")
	if _, err := w.commands.RevokeInvitation(t.Context(), by(), made.ID, revoked.ID); err != nil {
		t.Fatal(err)
	}
	w.runMails()
	took := w.awaitMails(1)
	if len(took) != 1 || took[0].To != "noor@plant.example" || !strings.HasPrefix(took[0].Link, "http://factum.example/account#invite=") || !strings.Contains(took[0].Text, took[0].Link) ||
		!strings.Contains(took[0].Text, `"North Mill" at Factum, in the role user`) || strings.Contains(took[0].Text, "%!") {
		t.Fatalf("%d mails: %+v", len(took), took)
	}
	if _, _, err := w.commands.ResendInvitation(t.Context(), by(), made.ID, kept.ID); err != nil {
		t.Fatal(err)
	}
	if took = w.awaitMails(2); len(took) != 2 || took[1].To != "noor@plant.example" || took[1].Link == took[0].Link {
		t.Fatalf("%d mails", len(took))
	}
	var args string
	if err := w.pool.QueryRow(t.Context(), `select coalesce(string_agg(args::text, ' '), '') from river.river_job`).Scan(&args); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(args, "noor") || strings.Contains(args, "plant.example") {
		t.Errorf("jobs hold personal data: %s", args)
	}
}
