package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/readmodel"
)

// directoryPatience is how long a command waits for the directory.
const directoryPatience = 10 * time.Second

// AdminsCmd groups what is done with the platform's administrators. All of it works while the platform serves.
type AdminsCmd struct {
	Add    AdminsAddCmd    `cmd:"" help:"Let users administer the platform."`
	Remove AdminsRemoveCmd `cmd:"" help:"Let users administer the platform no longer. The last administrator stays."`
	List   AdminsListCmd   `cmd:"" help:"List the administrators."`
}

// AdminsAddCmd adds administrators.
type AdminsAddCmd struct {
	operated
	User []string `arg:"" help:"E-mail addresses or ids of users."`
}

// Help implements kong.HelpProvider.
func (AdminsAddCmd) Help() string {
	return `  factum admins add mina@example.com
  factum admins add --data .factum 7d2e0c1a-…

An administrator of the platform may call the routes below /api/platform. That says nothing about tenants: their admins are their members.`
}

// Run implements the subcommand.
func (c AdminsAddCmd) Run(ctx context.Context) error {
	return c.eachUser(ctx, c.User, "administers the platform", func(ctx context.Context, x *commands.Executor, by commands.Caller, id string) (commands.Receipt, error) {
		return x.GrantAdministrator(ctx, by, id)
	})
}

// AdminsRemoveCmd removes administrators.
type AdminsRemoveCmd struct {
	operated
	User []string `arg:"" help:"E-mail addresses or ids of users."`
}

// Help implements kong.HelpProvider.
func (AdminsRemoveCmd) Help() string { return `  factum admins remove mina@example.com` }

// Run implements the subcommand.
func (c AdminsRemoveCmd) Run(ctx context.Context) error {
	return c.eachUser(ctx, c.User, "does not administer the platform", func(ctx context.Context, x *commands.Executor, by commands.Caller, id string) (commands.Receipt, error) {
		return x.RevokeAdministrator(ctx, by, id)
	})
}

// eachUser does something about the users, all of whom are found before.
func (c operated) eachUser(ctx context.Context, users []string, done string,
	do func(ctx context.Context, x *commands.Executor, by commands.Caller, id string) (commands.Receipt, error),
) error {
	return c.with(ctx, func(ctx context.Context, o *operations) error {
		ids := make([]string, len(users))
		for i, u := range users {
			var err error
			if ids[i], err = o.findUser(ctx, u); err != nil {
				return err
			}
		}
		x := commands.NewExecutor(o.store, o.codec)
		for i, id := range ids {
			by := commands.Caller{UserID: operatorActor, Command: uuid.NewString(), Correlation: "factum admins", At: time.Now()}
			receipt, err := do(ctx, x, by, id)
			var refusal *es.Refusal
			if errors.As(err, &refusal) {
				return fmt.Errorf("%s: %s", users[i], refusal.Detail)
			}
			if err != nil {
				return err
			}
			already := ""
			if receipt.Position == 0 {
				already = ", as before"
			}
			fmt.Printf("%s (%s) %s%s\n", users[i], id, done, already)
		}
		return nil
	})
}

var userIDForm = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// findUser returns the id of the user whom the id or the e-mail address names.
func (o *operations) findUser(ctx context.Context, who string) (id string, err error) {
	if userIDForm.MatchString(who) {
		return strings.ToLower(who), nil // whether there is such a user, the log knows
	}
	if !strings.Contains(who, "@") {
		return "", fmt.Errorf("%q is neither an e-mail address nor the id of a user", who)
	}
	err = o.directory(ctx, func(tx readmodel.Tx, schema string) error {
		return tx.QueryRow(ctx, `select id::text from `+schema+`.users where email = $1 and is_active`, strings.ToLower(strings.TrimSpace(who))).Scan(&id)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("there is no user with the e-mail address %s; people register themselves, by POST /api/auth/register", who)
	}
	return id, err
}

// directory reads the directory once it has come to the end of the platform's log.
func (o *operations) directory(ctx context.Context, fn func(tx readmodel.Tx, schema string) error) error {
	head, err := o.store.Tenant(eventstore.PlatformTenant).Head(ctx)
	if err != nil {
		return err
	}
	patience, cancel := context.WithTimeout(ctx, directoryPatience)
	defer cancel()
	err = readmodel.NewWaiter(o.moves).Wait(patience, o.pool, "directory", string(eventstore.PlatformTenant), uint64(head))
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return errors.New("the directory has not come to the end of the platform's log; nothing was changed; see 'factum projections list directory', and whether a projector runs")
	}
	if err != nil {
		return err
	}
	_, err = readmodel.Read(ctx, o.pool, "directory", string(eventstore.PlatformTenant), uint64(head), fn)
	return err
}

// AdminsListCmd lists the administrators.
type AdminsListCmd struct {
	operated
	JSON bool `help:"As JSON, one array."`
}

// adminLine is an administrator.
type adminLine struct {
	UserID string    `json:"user_id"`
	Email  string    `json:"email"`
	Since  time.Time `json:"since"`
}

// Run implements the subcommand.
func (c AdminsListCmd) Run(ctx context.Context) error {
	return c.with(ctx, func(ctx context.Context, o *operations) error {
		list := []adminLine{}
		err := o.directory(ctx, func(tx readmodel.Tx, schema string) error {
			rows, err := tx.Query(ctx, `select a.user_id::text, coalesce(u.email, ''), a.since from `+schema+`.administrators a
				left join `+schema+`.users u on u.id = a.user_id order by a.since, a.user_id`)
			if err != nil {
				return err
			}
			found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[adminLine])
			list = append(list, found...)
			return err
		})
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(os.Stdout, list)
		}
		if len(list) == 0 {
			fmt.Println("Nobody administers the platform; see 'factum admins add'.")
			return nil
		}
		table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "USER\tE-MAIL\tSINCE")
		for _, a := range list {
			fmt.Fprintf(table, "%s\t%s\t%s\n", a.UserID, a.Email, a.Since.UTC().Format(time.RFC3339))
		}
		return table.Flush()
	})
}
