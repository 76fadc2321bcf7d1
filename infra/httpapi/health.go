package httpapi

import "context"

func (s *Server) health(context.Context, *struct{}) (*health, error) {
	var out health
	out.Body.Status, out.Body.Service, out.Body.Version = "healthy", "factum", s.c.Version
	return &out, nil
}

func (s *Server) root(context.Context, *struct{}) (*root, error) {
	var out root
	out.Body.Service, out.Body.Version, out.Body.Status, out.Body.Documentation = "factum", s.c.Version, "running", "/api/docs"
	out.Body.Endpoints = map[string]string{
		"health": "/health", "auth": "/api/auth", "users": "/api/users", "tenants": "/api/tenants",
		"documents": "/api/tenants/{tenant_id}/documents", "files": "/api/files/{tenant_id}/files",
		"kafka_demo": "/api/demo/kafka",
	}
	return &out, nil
}
