package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/term"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/eventstore"
)

// live is the platform as a command sees it that changes where tenants lie, beside the processes that serve.
type live struct {
	*operations
	executor *commands.Executor
	out      io.Writer
	meter    *meter
}

// live calls fn with the open platform, and stops everything afterwards. What was interrupted is a failure, unlike the end of a server.
func (c operated) live(ctx context.Context, fn func(ctx context.Context, l *live) error) error {
	return c.with(ctx, func(ctx context.Context, o *operations) error {
		err := fn(ctx, &live{o, commands.NewExecutor(o.store, o.codec), os.Stdout, terminalMeter()})
		if err != nil && errors.Is(context.Cause(ctx), context.Canceled) {
			return errors.New("stopped before the end; the same command goes on where this one ended")
		}
		return err
	})
}

// terminalMeter shows progress on standard error.
func terminalMeter() *meter {
	return &meter{out: os.Stderr, terminal: term.IsTerminal(int(os.Stderr.Fd()))}
}

// operatorCaller is who gives the commands of an operator.
func operatorCaller(what string) commands.Caller {
	return commands.Caller{UserID: operatorActor, Command: uuid.NewString(), Correlation: what, At: time.Now()}
}

var tenantText = regexp.MustCompile(`^[0-9a-f]{32}$`)

// tenantOf reads a tenant's id, in the API's form or the log's.
func tenantOf(text string) (id string, log eventstore.TenantID, err error) {
	plain := strings.ReplaceAll(strings.ToLower(strings.TrimSpace(text)), "-", "")
	if !tenantText.MatchString(plain) {
		return "", "", fmt.Errorf("%q is not a tenant's id, such as 3f0c9a52-8f0e-4a55-9a0f-5be3c3a0d6a1; 'factum tenants list' shows them", text)
	}
	return uuidText(plain), eventstore.TenantID(plain), nil
}

// uuidText is the API's form of a log's id.
func uuidText(log string) string {
	if len(log) != 32 {
		return log
	}
	return log[:8] + "-" + log[8:12] + "-" + log[12:16] + "-" + log[16:20] + "-" + log[20:]
}
