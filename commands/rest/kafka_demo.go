package rest

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/factum-platform/factum/infra/httpapi"
)

const (
	// demoHeld is how many messages the demonstration holds.
	demoHeld = 10
	demoNote = "A demonstration without a broker: each API process holds the last 10 messages in memory, and shows people their own."
)

// demoRing is the demonstration's buffer. It is no fact and is gone with the process; that is what the original's is, except that this one
// shows nobody's messages to others. It is safe for concurrent use.
type demoRing struct {
	mu   sync.Mutex
	held []demoMessage
}

type demoMessage struct {
	EventID   string       `json:"event_id" format:"uuid"`
	Topic     string       `json:"topic"`
	Timestamp httpapi.Time `json:"timestamp"`
	UserID    string       `json:"user_id" format:"uuid"`
	Key       *string      `json:"key"`
	Payload   demoPayload  `json:"payload"`
}

// demoPayload is any JSON object.
type demoPayload map[string]any

// Schema implements huma.SchemaProvider. What huma makes of the type says nothing of null, which OpenAPI 3.0 then takes for forbidden.
func (demoPayload) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}
}

func (d *demoRing) put(m demoMessage) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.held) == demoHeld {
		d.held = append([]demoMessage(nil), d.held[1:]...)
	}
	d.held = append(d.held, m)
}

// of returns the user's latest messages, at most so many, the oldest first.
func (d *demoRing) of(user string, most int) []demoMessage {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := []demoMessage{}
	for _, m := range d.held {
		if m.UserID == user {
			out = append(out, m)
		}
	}
	return out[max(0, len(out)-most):]
}

func (d *demoRing) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.held)
}

func (r routes) kafkaDemo(api huma.API) {
	const area = "/api/demo/kafka"
	ring := &demoRing{}
	route(api, httpapi.Op{
		ID: "demo-produce", Method: http.MethodPost, Path: area + "/produce", Tag: "demo", Accepts: true, Status: http.StatusCreated,
		Summary: "Put a message into the demonstration's buffer; no broker is involved",
	}, func(ctx context.Context, in *demoProduce) (*httpapi.Answer[demoSent], error) {
		m := demoMessage{uuid.NewString(), in.Body.Topic, httpapi.Time(r.Now().UTC().Truncate(time.Microsecond)), httpapi.PrincipalOf(ctx).UserID, in.Body.Key, in.Body.Message}
		ring.put(m)
		return httpapi.Answered(httpapi.Settled{}, "The message is in the buffer.", demoSent{m.EventID, m.Topic, m.Timestamp, "sent", demoNote}), nil
	})
	route(api, httpapi.Op{
		ID: "demo-consume", Method: http.MethodGet, Path: area + "/consume", Tag: "demo",
		Summary: "The caller's messages in this process's buffer, the oldest first", Errors: []int{http.StatusBadRequest},
	}, func(ctx context.Context, in *demoConsume) (*httpapi.Answer[demoReceived], error) {
		messages := ring.of(httpapi.PrincipalOf(ctx).UserID, in.Limit)
		return httpapi.Answered(httpapi.Settled{}, "Your messages.", demoReceived{"running", len(messages), demoHeld, messages, demoNote}), nil
	})
	route(api, httpapi.Op{
		ID: "demo-health", Method: http.MethodGet, Path: area + "/health", Tag: "health", Summary: "Whether the demonstration answers",
	}, func(context.Context, *struct{}) (*demoHealth, error) {
		out := &demoHealth{}
		out.Body.Status, out.Body.Service, out.Body.BufferCount, out.Body.Note = "healthy", "kafka_demo", ring.count(), demoNote
		return out, nil
	})
}

type demoProduce struct {
	httpapi.Repeatable
	Body struct {
		Topic   string      `json:"topic" minLength:"1" maxLength:"249" example:"plant.events"`
		Message demoPayload `json:"message"`
		Key     *string     `json:"key,omitempty" maxLength:"1000"`
	}
}

type demoSent struct {
	EventID   string       `json:"event_id" format:"uuid"`
	Topic     string       `json:"topic"`
	Timestamp httpapi.Time `json:"timestamp"`
	Status    string       `json:"status" enum:"sent"`
	Note      string       `json:"note"`
}

type demoConsume struct {
	Limit int `query:"limit" default:"10" minimum:"1" maximum:"50" doc:"Never more than 10 are held."`
}

type demoReceived struct {
	Status       string        `json:"status" enum:"running"`
	MessageCount int           `json:"message_count"`
	BufferSize   int           `json:"buffer_size"`
	Messages     []demoMessage `json:"messages" nullable:"false"`
	Note         string        `json:"note"`
}

type demoHealth struct {
	Body struct {
		Status      string `json:"status" enum:"healthy"`
		Service     string `json:"service"`
		BufferCount int    `json:"buffer_count"`
		Note        string `json:"note"`
	}
}
