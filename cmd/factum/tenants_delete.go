package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/term"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/pgstore"
	"github.com/factum-platform/factum/infra/readmodel"
	"github.com/factum-platform/factum/infra/tenants"
)

// TenantsDeleteCmd takes a tenant out of service.
type TenantsDeleteCmd struct {
	operated
	Tenant string `arg:"" help:"The tenant's id."`
	Yes    bool   `help:"Do not ask."`
	Now    bool   `help:"Drop the database at once instead of a day later. Without an export nothing brings the tenant back then."`
}

// Help says what is left.
func (TenantsDeleteCmd) Help() string {
	return "The API answers 404 for the tenant from then on, and its database is dropped a day later. Until then, and later too, 'factum tenants import' of " +
		"an export brings it back with the members that it had. What stays: that the tenant existed and who its members were, in the platform's log; its wrapped keys; " +
		"the contents of its files in the object store; and, on EventStoreDB, its events there."
}

// hiddenWithin bounds the wait for the directory to hide a deleted tenant.
const hiddenWithin = 5 * time.Second

// Run implements the subcommand.
func (c TenantsDeleteCmd) Run(ctx context.Context) error { return c.live(ctx, c.delete) }

func (c TenantsDeleteCmd) delete(ctx context.Context, l *live) error {
	id, log, err := tenantOf(c.Tenant)
	if err != nil {
		return err
	}
	state, err := l.executor.TenantState(ctx, id)
	if err != nil {
		return err
	}
	if !state.Exists {
		return fmt.Errorf("there is no tenant %s; 'factum tenants list' shows them", id)
	}
	if !c.Yes {
		if !term.IsTerminal(int(os.Stdin.Fd())) {
			return errors.New("nothing was deleted: there is nobody to ask, so --yes must say that it is meant")
		}
		if err := confirm(os.Stdin, os.Stderr, state.Name); err != nil {
			return err
		}
	}
	turn, err := l.dbs.Turn(ctx, string(log))
	if err != nil {
		return err
	}
	return errors.Join(c.take(ctx, l, turn, id, log), turn.End(ctx))
}

// confirm asks for the tenant's name.
func confirm(in io.Reader, out io.Writer, name string) error {
	fmt.Fprintf(out, "This takes the tenant %q out of service. Type its name to go on: ", name)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if strings.TrimSpace(line) != name {
		return errors.New("that is not its name: nothing was deleted")
	}
	return nil
}

// take does the steps; each may be repeated.
func (c TenantsDeleteCmd) take(ctx context.Context, l *live, turn *tenants.Turn, id string, log eventstore.TenantID) error {
	receipt, err := l.executor.DeleteTenant(ctx, operatorCaller("factum tenants delete"), id)
	if err != nil {
		return err
	}
	if receipt.Position > 0 {
		l.awaitDirectory(ctx, receipt.Position, "it is hidden")
	}
	if err := turn.GiveUpMove(ctx); err != nil {
		return err
	}
	p, err := l.dbs.Placement(ctx, string(log))
	if err == nil {
		err = l.retire(ctx, turn, p)
	}
	if err != nil && !errors.Is(err, tenants.ErrUnknownTenant) {
		return err
	}
	kept, err := l.dbs.Retired(ctx, string(log))
	if err != nil {
		return err
	}
	if len(kept) == 0 {
		fmt.Fprintf(l.out, "%s is deleted, and has no database any more.\n", id)
	}
	for _, r := range kept {
		if c.Now {
			if err := l.dbs.Drop(ctx, r.Place); err != nil {
				return err
			}
			fmt.Fprintf(l.out, "%s is deleted; its database %s was dropped.\n", id, r.Place)
			continue
		}
		if err := l.dbs.Shut(ctx, r.Place); err != nil {
			return err
		}
		fmt.Fprintf(l.out, "%s is deleted; its database %s is dropped after %s.\n", id, r.Place, r.DropAt.UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	return nil
}

// retire closes the log, so that nobody writes to it any more, and takes the database out of service.
func (l *live) retire(ctx context.Context, turn *tenants.Turn, p tenants.Placement) error {
	fence, err := turn.Fence(ctx)
	if err != nil {
		return err
	}
	err = withAdmin(ctx, l.dbs, p.Place(), func(admin *pgx.Conn) error {
		if l.engine.name == enginePostgres {
			if err := reclaim(ctx, l.dbs, turn, p, admin); err != nil {
				return err
			}
			if _, err := pgstore.Close(ctx, admin, fence); err != nil {
				return err
			}
		}
		err := turn.Retire(ctx, fence, p.Place())
		_, withdrawErr := turn.Withdraw(context.WithoutCancel(ctx), fence)
		return errors.Join(err, withdrawErr)
	})
	if err != nil {
		return fmt.Errorf("%w; the tenant is hidden, and the same command does the rest", err)
	}
	return nil
}

// awaitDirectory waits until the directory has applied the platform's log, and says so if it does not.
func (l *live) awaitDirectory(ctx context.Context, at eventstore.Position, until string) {
	patience, cancel := context.WithTimeout(ctx, hiddenWithin)
	defer cancel()
	if err := readmodel.NewWaiter(nil).Wait(patience, l.pool, "directory", tenants.Platform, uint64(at)); err != nil && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "The directory has not caught up (%v): %s once a process with the role projector runs.\n", err, until)
	}
}
