// Package steering lets the routes for administrators of the platform use the projections' operator, which the room commands does not know.
package steering

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/commands/rest"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/httpapi"
	"github.com/factum-platform/factum/infra/tenants"
	"github.com/factum-platform/factum/projections/runner"
)

// Operator is a [rest.Operator]. It is safe for concurrent use.
type Operator struct {
	Runner   *runner.Operator
	Commands *commands.Commands
}

// Consumers implements rest.Operator.
func (o Operator) Consumers(ctx context.Context, projection, tenant string) ([]rest.Consumer, error) {
	list, err := o.Runner.Status(ctx, runner.Filter{Projection: projection, Tenant: logOf(tenant)})
	if err != nil {
		return nil, problem(err)
	}
	out := make([]rest.Consumer, len(list))
	for i, s := range list {
		out[i] = Consumer(s)
	}
	return out, nil
}

// Pause implements rest.Operator.
func (o Operator) Pause(ctx context.Context, projection, tenant, by string) error {
	return problem(o.Runner.Pause(ctx, projection, logOf(tenant), by))
}

// Resume implements rest.Operator.
func (o Operator) Resume(ctx context.Context, projection, tenant string) error {
	return problem(o.Runner.Resume(ctx, projection, logOf(tenant)))
}

// Retry implements rest.Operator.
func (o Operator) Retry(ctx context.Context, projection, tenant, stream string) error {
	var s eventstore.StreamID
	if stream != "" {
		var err error
		if s, err = eventstore.ParseStreamID(stream); err != nil {
			return err
		}
	}
	return problem(o.Runner.Retry(ctx, projection, logOf(tenant), s))
}

// Skip implements rest.Operator. An event that is passed over already is no failure: what may not have followed then follows now.
func (o Operator) Skip(ctx context.Context, by commands.Caller, in rest.Skip) error {
	stream, err := eventstore.ParseStreamID(in.Stream)
	if err != nil {
		return err
	}
	event, err := eventstore.ParseEventID(in.Event)
	if err != nil {
		return err
	}
	t := logOf(in.Tenant)
	// Names that nobody has must not come into a log.
	list, err := o.Runner.Status(ctx, runner.Filter{Projection: in.Projection, Tenant: t})
	if err == nil && len(list) == 0 {
		err = &runner.NotConsumedError{Projection: in.Projection, Tenant: t}
	}
	if err != nil {
		return problem(err)
	}
	_, err = o.Commands.SkipEvent(ctx, by, t, commands.SkipEvent{Projection: in.Projection, Stream: stream, Event: event, Reason: in.Reason})
	var refusal *es.Refusal
	if errors.As(err, &refusal) && refusal.Code == "projection.event_skipped" {
		err = nil
	}
	if err != nil {
		return err
	}
	_, err = GoOn(ctx, o.Runner, in.Projection, t, stream)
	return problem(err)
}

// Gone is how a consumer went on after an event was skipped.
type Gone string

// What [GoOn] found.
const (
	Applied   Gone = "applied"   // the stream was parked, and is applied from there on
	LookedAt  Gone = "looked at" // the consumer stood still, and looks again
	NotNeeded Gone = ""          // neither
)

// GoOn lets a consumer that stood at a skipped event of the stream go on.
func GoOn(ctx context.Context, o *runner.Operator, projection string, t eventstore.TenantID, stream eventstore.StreamID) (Gone, error) {
	err := o.Retry(ctx, projection, t, stream)
	var not *runner.NotParkedError
	if err == nil {
		return Applied, nil
	}
	if !errors.As(err, &not) {
		return NotNeeded, err
	}
	list, err := o.Status(ctx, runner.Filter{Projection: projection, Tenant: t})
	if err != nil {
		return NotNeeded, err
	}
	for _, s := range list {
		if s.Activity == runner.ActivityHalted && s.State == "live" { // it was not parked: the whole consumer stands still
			return LookedAt, o.Resume(ctx, projection, t)
		}
	}
	return NotNeeded, nil
}

// Consumer shows a consumer as people and programs see it.
func Consumer(s runner.Status) rest.Consumer {
	state := s.State
	if s.State == "live" || s.State == "" {
		state = string(s.Activity)
	}
	out := rest.Consumer{
		Projection: s.Projection, Tenant: string(s.Tenant), Generation: s.Generation, Version: s.Version, State: state,
		Position: uint64(s.Position), Head: uint64(s.Head), LagEvents: s.LagEvents, LagAtLeast: s.LagAtLeast, LagSeconds: s.Lag.Seconds(), Error: s.Error,
		PausedBy: s.PausedBy, PausedAt: known(s.PausedAt), MovedAt: known(s.MovedAt), RetiredAt: known(s.RetiredAt), Parked: []rest.ParkedStream{},
	}
	for _, p := range s.Parked {
		out.Parked = append(out.Parked, rest.ParkedStream{
			Stream: p.Stream.String(), FromVersion: uint64(p.FromVersion), Event: p.Event.String(), Error: p.Error, At: p.At.UTC(), Attempts: p.Attempts,
		})
	}
	return out
}

// known is nil for a time that is none.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// logOf is the log of a tenant that people named, with or without dashes.
func logOf(tenant string) eventstore.TenantID {
	return commands.LogOf(strings.ToLower(tenant))
}

// problem says what administrators may know of an operator's error; of others nothing is shown.
func problem(err error) error {
	var (
		unknown *runner.UnknownProjectionError
		foreign *runner.NotConsumedError
		not     *runner.NotParkedError
		still   *runner.StillParkedError
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unknown):
		return httpapi.NewProblem(http.StatusNotFound, "", "There is no such projection; there are "+strings.Join(unknown.Known, ", ")+".")
	case errors.As(err, &foreign):
		return httpapi.NewProblem(http.StatusNotFound, "", "This projection does not consume that log.")
	case errors.Is(err, tenants.ErrUnknownTenant):
		return httpapi.NewProblem(http.StatusNotFound, "", "There is no such tenant.")
	case errors.As(err, &not):
		return httpapi.NewProblem(http.StatusConflict, "", "The projection has not parked this stream; nothing was changed.")
	case errors.As(err, &still):
		return httpapi.NewProblem(http.StatusConflict, "", "Event "+still.Event.String()+" still cannot be applied ("+still.Reason+"); the stream stays parked and its rows are as they were.")
	default:
		return err
	}
}
