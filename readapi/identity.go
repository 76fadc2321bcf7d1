package readapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/httpapi"
)

// Accounts knows what lets people in.
type Accounts interface {
	JWKS(ctx context.Context) ([]auth.JWK, error)
	Sessions(ctx context.Context, userID string) ([]auth.Session, error)
	APIKeys(ctx context.Context, tenantID string) ([]auth.APIKey, error)
}

func (r routes) identity(api huma.API) {
	httpapi.Route(api, get("jwks", "/.well-known/jwks.json", "auth", "The public keys of access tokens (RFC 7517)", http.StatusServiceUnavailable), r.jwks)
	httpapi.Route(api, get("sessions", "/api/auth/sessions", "auth", "The caller's sessions that go on, the latest begun first"), r.sessions)
	httpapi.Route(api, get("api-keys", "/api/tenants/{tenant_id}/api-keys", "api-keys", "The tenant's API keys, the newest first"), r.apiKeys)
}

type jwks struct {
	CacheControl string `header:"Cache-Control"`
	Body         struct {
		Keys []auth.JWK `json:"keys" nullable:"false"`
	}
}

func (r routes) jwks(ctx context.Context, _ *struct{}) (*jwks, error) {
	keys, err := r.Accounts.JWKS(ctx)
	if err != nil {
		return nil, err
	}
	out := &jwks{CacheControl: "public, max-age=300"} // less than the usual lead of a rotation
	out.Body.Keys = keys
	return out, nil
}

type ownSession struct {
	ID          string       `json:"id" format:"uuid"`
	UserAgent   string       `json:"user_agent" doc:"What the client called itself at the log-in."`
	CreatedAt   httpapi.Time `json:"created_at"`
	RefreshedAt httpapi.Time `json:"refreshed_at"`
	ExpiresAt   httpapi.Time `json:"expires_at" doc:"Unless it is refreshed before."`
	Current     bool         `json:"current" doc:"It is the one that asks."`
}

type ownSessions struct {
	Body struct {
		Sessions []ownSession `json:"sessions" nullable:"false"`
	}
}

func (r routes) sessions(ctx context.Context, _ *struct{}) (*ownSessions, error) {
	by := httpapi.PrincipalOf(ctx)
	list, err := r.Accounts.Sessions(ctx, by.UserID)
	if err != nil {
		return nil, err
	}
	out := &ownSessions{}
	out.Body.Sessions = []ownSession{}
	for _, s := range list {
		out.Body.Sessions = append(out.Body.Sessions, ownSession{
			ID: s.ID, UserAgent: s.Agent, CreatedAt: httpapi.Time(s.CreatedAt), RefreshedAt: httpapi.Time(s.RefreshedAt),
			ExpiresAt: httpapi.Time(s.ExpiresAt), Current: s.ID == by.SessionID,
		})
	}
	return out, nil
}

func (r routes) apiKeys(ctx context.Context, _ *httpapi.InTenant) (*httpapi.Answer[[]httpapi.APIKey], error) {
	list, err := r.Accounts.APIKeys(ctx, httpapi.MembershipOf(ctx).ID)
	if err != nil {
		return nil, err
	}
	out := make([]httpapi.APIKey, len(list))
	for i, k := range list {
		out[i] = httpapi.APIKeyOf(k)
	}
	return httpapi.Answered(httpapi.Settled{}, "The tenant's API keys.", out), nil
}
