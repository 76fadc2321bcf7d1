package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/factum-platform/factum/cmd/factum/steering"
	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/projections/runner"
)

// ProjectionsPauseCmd stops consumers.
type ProjectionsPauseCmd struct {
	operated
	choice
	Name string `arg:"" help:"The projection, such as documents."`
}

// Help implements kong.HelpProvider.
func (ProjectionsPauseCmd) Help() string {
	return `  factum projections pause documents --tenant 0f3c1a5e-…
  factum projections pause directory --tenant platform`
}

// Run implements the subcommand.
func (c ProjectionsPauseCmd) Run(ctx context.Context) error {
	return c.with(ctx, func(ctx context.Context, o *operations) error {
		return c.each(ctx, o, c.Name, "paused; go on with: factum projections resume "+c.Name, func(t eventstore.TenantID) error {
			return o.Pause(ctx, c.Name, t, operatorActor)
		})
	})
}

// ProjectionsResumeCmd lets paused consumers go on.
type ProjectionsResumeCmd struct {
	operated
	choice
	Name string `arg:"" help:"The projection, such as documents."`
}

// Help implements kong.HelpProvider.
func (ProjectionsResumeCmd) Help() string { return `  factum projections resume documents --all` }

// Run implements the subcommand.
func (c ProjectionsResumeCmd) Run(ctx context.Context) error {
	return c.with(ctx, func(ctx context.Context, o *operations) error {
		return c.each(ctx, o, c.Name, "goes on", func(t eventstore.TenantID) error { return o.Resume(ctx, c.Name, t) })
	})
}

// each does something to the chosen consumers. One failure does not stop the others.
func (c choice) each(ctx context.Context, o *operations, name, done string, do func(eventstore.TenantID) error) error {
	list, err := c.consumers(ctx, o, name)
	if err != nil {
		return err
	}
	failed := 0
	for _, t := range list {
		if err := do(t); err != nil {
			failed++
			fmt.Printf("%s of %s: %v\n", name, t, err)
			continue
		}
		fmt.Printf("%s of %s: %s\n", name, t, done)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d failed; see above", failed, len(list))
	}
	return nil
}

// ProjectionsRetryCmd applies parked streams again.
type ProjectionsRetryCmd struct {
	operated
	Name   string `arg:"" help:"The projection, such as documents."`
	Tenant string `required:"" placeholder:"ID" help:"The tenant whose streams are parked; 'platform' is the log of users and tenants."`
	Stream string `placeholder:"KIND-ID" help:"The parked stream, as list shows it."`
	All    bool   `help:"All streams that the projection has parked of this tenant."`
}

// Help implements kong.HelpProvider.
func (ProjectionsRetryCmd) Help() string {
	return `  factum projections retry documents --tenant 0f3c1a5e-… --stream file-7d2e…
  factum projections retry documents --tenant 0f3c1a5e-… --all

A stream is applied from the event on that could not be applied, in one transaction. If that fails again it stays parked, with the new reason.`
}

// Run implements the subcommand.
func (c ProjectionsRetryCmd) Run(ctx context.Context) error {
	if c.All == (c.Stream != "") {
		return errors.New("give either --stream KIND-ID or --all")
	}
	return c.with(ctx, func(ctx context.Context, o *operations) error {
		t, err := o.consumer(ctx, c.Name, c.Tenant)
		if err != nil {
			return err
		}
		var streams []eventstore.StreamID
		if c.All {
			streams, err = o.parked(ctx, c.Name, t)
		} else {
			var s eventstore.StreamID
			s, err = parseStream(c.Stream)
			streams = append(streams, s)
		}
		if err != nil {
			return err
		}
		if len(streams) == 0 {
			fmt.Printf("%s of %s has parked nothing; if it is halted it looks again now\n", c.Name, t)
			return o.Retry(ctx, c.Name, t, eventstore.StreamID{})
		}
		failed := 0
		for _, s := range streams {
			if err := o.Retry(ctx, c.Name, t, s); err != nil {
				failed++
				fmt.Printf("%s: %v\n", s, err)
				continue
			}
			fmt.Printf("%s: applied\n", s)
		}
		if failed > 0 {
			return fmt.Errorf("%d of %d streams could not be applied; see above", failed, len(streams))
		}
		return nil
	})
}

// consumer checks the names of a projection and of one tenant.
func (o *operations) consumer(ctx context.Context, name, tenant string) (eventstore.TenantID, error) {
	list, err := choice{Tenant: []string{tenant}}.consumers(ctx, o, name)
	if err != nil {
		return "", err
	}
	return list[0], nil
}

// parked are the streams that the live generation has parked.
func (o *operations) parked(ctx context.Context, name string, t eventstore.TenantID) ([]eventstore.StreamID, error) {
	list, err := o.Status(ctx, runner.Filter{Projection: name, Tenant: t})
	var streams []eventstore.StreamID
	for _, s := range list {
		if s.State != "live" {
			continue
		}
		for _, p := range s.Parked {
			streams = append(streams, p.Stream)
		}
	}
	return streams, err
}

// parseStream reads KIND-ID; the id may hold further dashes.
func parseStream(text string) (eventstore.StreamID, error) {
	s, err := eventstore.ParseStreamID(text)
	if err != nil {
		return s, fmt.Errorf("--stream %q is not a stream: give its kind, a dash and its id, as 'factum projections list' shows it", text)
	}
	return s, nil
}

// ProjectionsSkipCmd passes over an event.
type ProjectionsSkipCmd struct {
	operated
	Name   string `arg:"" help:"The projection, such as documents."`
	Tenant string `required:"" placeholder:"ID" help:"The tenant whose event it is; 'platform' is the log of users and tenants."`
	Stream string `required:"" placeholder:"KIND-ID" help:"The event's stream, as list shows it."`
	Event  string `required:"" placeholder:"ID" help:"The event's id, as list shows it."`
	Reason string `required:"" help:"Why, in up to 500 characters and without personal data. It is kept in the tenant's log."`
}

// Help implements kong.HelpProvider.
func (ProjectionsSkipCmd) Help() string {
	return `The event stays in the log. The projection passes over it in every generation, and applies what follows it in its stream.

  factum projections skip documents --tenant 0f3c1a5e-… --stream file-7d2e… --event 3b5c… --reason "written by a faulty importer, ticket 4711"`
}

// Run implements the subcommand.
func (c ProjectionsSkipCmd) Run(ctx context.Context) error {
	stream, err := parseStream(c.Stream)
	if err != nil {
		return err
	}
	event, err := eventstore.ParseEventID(c.Event)
	if err != nil {
		return fmt.Errorf("--event %q is not the id of an event; 'factum projections list' shows it", c.Event)
	}
	return c.with(ctx, func(ctx context.Context, o *operations) error {
		t, err := o.consumer(ctx, c.Name, c.Tenant)
		if err != nil {
			return err
		}
		by := commands.Caller{UserID: operatorActor, Command: es.Key("skip", c.Name, event.String()), Correlation: "factum projections skip", At: time.Now()}
		_, err = commands.NewExecutor(o.store, o.codec).SkipEvent(ctx, by, t, commands.SkipEvent{Projection: c.Name, Stream: stream, Event: event, Reason: c.Reason})
		var refusal *es.Refusal
		switch {
		case errors.As(err, &refusal) && refusal.Code == "projection.event_skipped": // on with what may not have followed
		case errors.As(err, &refusal):
			return errors.New(refusal.Detail)
		case err != nil:
			return err
		}
		fmt.Printf("%s of %s passes over event %s of %s; the log keeps the reason\n", c.Name, t, event, stream)
		gone, err := steering.GoOn(ctx, o.Operator, c.Name, t, stream)
		switch {
		case err != nil:
			return err
		case gone == steering.Applied:
			fmt.Printf("%s: applied from there on\n", stream)
		case gone == steering.LookedAt:
			fmt.Println("the consumer stood still and looks again")
		}
		return nil
	})
}
