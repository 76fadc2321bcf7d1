package readapi

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"github.com/factum-platform/factum/infra/httpapi"
)

type authHealth struct {
	Body struct {
		Status    string `json:"status" enum:"healthy"`
		Service   string `json:"service"`
		Endpoints struct {
			Register string `json:"register"`
			Login    string `json:"login"`
			Refresh  string `json:"refresh"`
			Logout   string `json:"logout"`
		} `json:"endpoints"`
	}
}

type areaStatus struct {
	Status    string `json:"status" enum:"healthy"`
	Blueprint string `json:"blueprint"`
	TenantID  string `json:"tenant_id,omitempty" doc:"As it stands in the path."`
}

// anyTenant is not checked, as in the original: a probe may name whatever it likes.
type anyTenant struct {
	TenantID string `path:"tenant_id"`
}

// health registers the areas' own health routes; they say that the process answers and check nothing.
func (r routes) health(api huma.API) {
	httpapi.Route(api, get("auth-health", "/api/auth/health", "health", "Whether the area answers"), func(context.Context, *struct{}) (*authHealth, error) {
		var out authHealth
		out.Body.Status, out.Body.Service = "healthy", "authentication"
		e := &out.Body.Endpoints
		e.Register, e.Login, e.Refresh, e.Logout = "/api/auth/register", "/api/auth/login", "/api/auth/refresh", "/api/auth/logout"
		return &out, nil
	})
	for _, area := range []string{"users", "tenants"} {
		httpapi.Route(api, get(area+"-health", "/api/"+area+"/health", "health", "Whether the area answers"), func(context.Context, *struct{}) (*httpapi.Answer[areaStatus], error) {
			return httpapi.Answered(httpapi.Settled{}, "The area answers.", areaStatus{Status: "healthy", Blueprint: area}), nil
		})
	}
	httpapi.Route(api, get("documents-health", "/api/tenants/{tenant_id}/documents/health", "health", "Whether the area answers; looks at no tenant"),
		func(_ context.Context, in *anyTenant) (*httpapi.Answer[areaStatus], error) {
			return httpapi.Answered(httpapi.Settled{}, "The area answers.", areaStatus{"healthy", "documents", in.TenantID}), nil
		})
}
