package process

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"

	"github.com/factum-platform/factum/domain/user"
	"github.com/factum-platform/factum/infra/auth"
)

const (
	welcomeKind = "mail.welcome"
	linkKind    = "mail.link"
)

// welcomeState is empty: one event, one mail.
type welcomeState struct{}

// welcoming mails every new account a link that verifies its address.
func welcoming() Process[welcomeState, user.Event] {
	return Process[welcomeState, user.Event]{
		Name:  "welcoming",
		Types: []string{"user.registered"},
		Correlate: func(e user.Event) (instance string, interested bool) {
			registered, ok := e.(user.Registered)
			return registered.UserID, ok
		},
		Initial: func() welcomeState { return welcomeState{} },
		Evolve:  func(s welcomeState, _ user.Event) welcomeState { return s },
		React: func(_ welcomeState, e user.Event) []Job {
			if registered, ok := e.(user.Registered); ok {
				return []Job{{welcomeKind, welcomeArgs{registered.UserID}, registered.At}}
			}
			return nil
		},
		Done: func(welcomeState) bool { return true },
	}
}

// welcomeArgs name the new account.
type welcomeArgs struct {
	User string `json:"user"`
}

// welcomeOrder is an [order] as its worker reads it.
type welcomeOrder struct {
	Key    string      `json:"key"`
	Tenant string      `json:"tenant"`
	Args   welcomeArgs `json:"args"`
}

// Kind implements river.JobArgs.
func (welcomeOrder) Kind() string { return welcomeKind }

type welcomeWorker struct {
	river.WorkerDefaults[welcomeOrder]
	lane *lane
	d    Deps
}

// Work implements river.Worker.
func (w *welcomeWorker) Work(ctx context.Context, job *river.Job[welcomeOrder]) error {
	return w.lane.carryOut(ctx, job.Args.Key, job.Args.Tenant, func(ctx context.Context) error {
		return w.d.Commands.WelcomeUser(ctx, job.Args.Args.User)
	})
}

// linkArgs ask for a mail. They name the account by the HMAC of its address, which need not have one.
type linkArgs struct {
	Purpose  auth.Purpose `json:"purpose"`
	LoginKey string       `json:"login_key"`
}

// Kind implements river.JobArgs.
func (linkArgs) Kind() string { return linkKind }

type linkWorker struct {
	river.WorkerDefaults[linkArgs]
	d Deps
}

// Work implements river.Worker.
func (w *linkWorker) Work(ctx context.Context, job *river.Job[linkArgs]) error {
	return w.d.Commands.SendAskedLink(ctx, job.Args.Purpose, job.Args.LoginKey)
}

// Outbox keeps requests for mails as jobs, which any worker of the platform carries out.
type Outbox struct {
	Pool  *pgxpool.Pool // the platform's database
	Queue Queue         // may be one that only inserts
}

// Ask implements commands.Outbox.
func (o *Outbox) Ask(ctx context.Context, purpose auth.Purpose, loginKey string) error {
	err := pgx.BeginFunc(ctx, o.Pool, func(tx pgx.Tx) error {
		return o.Queue.InsertTx(ctx, tx, []river.JobArgs{linkArgs{purpose, loginKey}})
	})
	if err != nil {
		return fmt.Errorf("process: ask for a mail: %w", err)
	}
	return nil
}
