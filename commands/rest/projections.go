package rest

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/domain/projection"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/httpapi"
)

// Operator sees and steers the consumers of the logs; tenant is a tenant's id, or "platform" for the log of users and tenants. Its errors are
// those of the commands, or problems.
type Operator interface {
	// Consumers lists those of the projection and of the tenant's log; "" means all.
	Consumers(ctx context.Context, projection, tenant string) ([]Consumer, error)
	Pause(ctx context.Context, projection, tenant, by string) error
	Resume(ctx context.Context, projection, tenant string) error
	// Retry applies a parked stream again; "" lets a consumer that stands still look again.
	Retry(ctx context.Context, projection, tenant, stream string) error
	// Skip lets the projection pass over an event, and go on.
	Skip(ctx context.Context, by commands.Caller, in Skip) error
}

// Consumer is a projection of one tenant's log, in one of its generations.
type Consumer struct {
	Projection string         `json:"projection"`
	Tenant     string         `json:"tenant" doc:"Id of the log: the tenant's id without dashes, or platform."`
	Generation int            `json:"generation" doc:"0 when it is unbuilt or unknown."`
	Version    int            `json:"version" doc:"Of the projection's code that writes it."`
	State      string         `json:"state" enum:"running,waiting,paused,halted,unbuilt,unknown,building,retired"`
	Position   uint64         `json:"position" doc:"The log is applied up to here."`
	Head       uint64         `json:"head" doc:"The log's end."`
	LagEvents  int64          `json:"lag_events" doc:"How many events are not applied."`
	LagAtLeast bool           `json:"lag_at_least" doc:"There may be more of them."`
	LagSeconds float64        `json:"lag_seconds" doc:"Age of the oldest event that is not applied."`
	Error      string         `json:"error,omitempty" doc:"Why it stands still."`
	PausedBy   string         `json:"paused_by,omitempty"`
	PausedAt   *time.Time     `json:"paused_at,omitempty"`
	MovedAt    *time.Time     `json:"moved_at,omitempty" doc:"When it last applied something."`
	RetiredAt  *time.Time     `json:"retired_at,omitempty"`
	Parked     []ParkedStream `json:"parked" nullable:"false"`
}

// ParkedStream is a stream that is not applied from an event on.
type ParkedStream struct {
	Stream      string    `json:"stream" doc:"Its kind, a dash and its id."`
	FromVersion uint64    `json:"from_version"`
	Event       string    `json:"event" format:"uuid" doc:"The event that cannot be applied."`
	Error       string    `json:"error"`
	At          time.Time `json:"at" doc:"When it was last tried."`
	Attempts    int       `json:"attempts"`
}

// Skip names an event that a projection is to pass over.
type Skip struct{ Projection, Tenant, Stream, Event, Reason string }

func (r routes) projections(api huma.API) {
	const all = "/api/platform/projections"
	route(api, httpapi.Op{
		ID: "projections", Method: http.MethodGet, Path: all, Tag: "platform",
		Summary: "Every consumer: generation, position, lag, state, parked streams, last error", Errors: []int{http.StatusBadRequest, http.StatusNotFound},
	}, r.listConsumers)
	steer := func(what, summary string) httpapi.Op {
		return httpapi.Op{
			ID: what + "-projection", Method: http.MethodPost, Path: all + "/{projection}/" + what, Tag: "platform", Summary: summary, Accepts: true,
			Errors: []int{http.StatusNotFound, http.StatusConflict},
		}
	}
	route(api, steer("pause", "Stop a consumer until it is resumed; queries go on with what is there"), r.pauseConsumer)
	route(api, steer("resume", "Let a paused consumer go on"), r.resumeConsumer)
	route(api, steer("retry", "Apply a parked stream again, or let a consumer that stands still look again"), r.retryConsumer)
	route(api, steer("skip", "Pass over an event that cannot be applied; recorded in the tenant's log with the reason"), r.skipEvent)
}

type whichConsumers struct {
	Projection string `query:"projection" pattern:"^[a-z]{1,40}$" doc:"Only this projection."`
	Tenant     string `query:"tenant" pattern:"^(platform|[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$" doc:"Only the consumers of this tenant's log; platform is the log of users and tenants. Without it the databases of all tenants are asked."`
}

// plain is a success that concerns no position of a log.
type plain[T any] struct{ Body httpapi.Envelope[T] }

func (r routes) listConsumers(ctx context.Context, in *whichConsumers) (*plain[[]Consumer], error) {
	list, err := r.Operator.Consumers(ctx, in.Projection, in.Tenant)
	if err != nil {
		return nil, err
	}
	return &plain[[]Consumer]{httpapi.Envelope[[]Consumer]{Success: true, Message: "The consumers.", Data: list}}, nil
}

// OfProjection is the path of what steers a consumer.
type OfProjection struct {
	Projection string `path:"projection" pattern:"^[a-z]{1,40}$" example:"documents"`
}

// OfTenant is the body's part that says whose consumer is meant.
type OfTenant struct {
	Tenant string `json:"tenant" pattern:"^(platform|[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$" doc:"The tenant's id, or platform for the log of users and tenants."`
}

type oneConsumer struct {
	OfProjection
	Body OfTenant
}

// steered says what was done.
type steered struct {
	Projection string `json:"projection"`
	Tenant     string `json:"tenant"`
}

// done answers for the consumer.
func done(err error, message, projection, tenant string) (*plain[steered], error) {
	if err != nil {
		return nil, err
	}
	return &plain[steered]{httpapi.Envelope[steered]{Success: true, Message: message, Data: steered{projection, tenant}}}, nil
}

func (r routes) pauseConsumer(ctx context.Context, in *oneConsumer) (*plain[steered], error) {
	err := r.Operator.Pause(ctx, in.Projection, in.Body.Tenant, httpapi.PrincipalOf(ctx).UserID)
	return done(err, "The consumer is paused.", in.Projection, in.Body.Tenant)
}

func (r routes) resumeConsumer(ctx context.Context, in *oneConsumer) (*plain[steered], error) {
	err := r.Operator.Resume(ctx, in.Projection, in.Body.Tenant)
	return done(err, "The consumer goes on.", in.Projection, in.Body.Tenant)
}

type oneStream struct {
	OfProjection
	Body struct {
		OfTenant
		Stream string `json:"stream,omitempty" pattern:"^[a-z]+-.+$" maxLength:"500" doc:"The parked stream: its kind, a dash and its id. Absent: the consumer itself, which stands still."`
	}
}

// Resolve implements huma.Resolver.
func (in *oneStream) Resolve(huma.Context) []error {
	if in.Body.Stream == "" {
		return nil
	}
	return httpapi.Wrong(checkStream(in.Body.Stream))
}

func checkStream(text string) map[string][]string {
	if _, err := eventstore.ParseStreamID(text); err != nil {
		return map[string][]string{"stream": {"Must be the kind of a stream, a dash and its id."}}
	}
	return map[string][]string{}
}

func (r routes) retryConsumer(ctx context.Context, in *oneStream) (*plain[steered], error) {
	err := r.Operator.Retry(ctx, in.Projection, in.Body.Tenant, in.Body.Stream)
	return done(err, "It was tried again.", in.Projection, in.Body.Tenant)
}

type oneEvent struct {
	httpapi.Repeatable
	OfProjection
	Body struct {
		OfTenant
		Stream string `json:"stream" pattern:"^[a-z]+-.+$" maxLength:"500" doc:"The event's stream: its kind, a dash and its id."`
		Event  string `json:"event" format:"uuid"`
		Reason string `json:"reason" minLength:"1" maxLength:"500" doc:"For auditors; without personal data."`
	}
}

// Resolve implements huma.Resolver.
func (in *oneEvent) Resolve(huma.Context) []error {
	wrong := checkStream(in.Body.Stream)
	if message := projection.CheckReason(in.Body.Reason); message != "" {
		wrong["reason"] = []string{message}
	}
	return httpapi.Wrong(wrong)
}

func (r routes) skipEvent(ctx context.Context, in *oneEvent) (*plain[steered], error) {
	err := r.Operator.Skip(ctx, r.caller(ctx, in.IdempotencyKey), Skip{in.Projection, in.Body.Tenant, in.Body.Stream, in.Body.Event, in.Body.Reason})
	return done(err, "The projection passes over the event.", in.Projection, in.Body.Tenant)
}
