package readapi

import (
	"context"
	"fmt"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/infra/httpapi"
	"github.com/factum-platform/factum/infra/readmodel"
)

func (r routes) audit(api huma.API) {
	httpapi.Route(api, get("audit-trail", "/api/tenants/{tenant_id}/audit", "audit", "Everything that happened in the tenant, in the log's order"), r.auditTrail)
}

type auditQuery struct {
	httpapi.InTenant
	httpapi.Fresh
	httpapi.Page
	Order string `query:"order" enum:"oldest,newest" default:"oldest" doc:"Which end of the log comes first."`
}

type auditEntry struct {
	Position int64        `json:"position"`
	EventID  string       `json:"event_id" format:"uuid"`
	At       httpapi.Time `json:"at" doc:"When the command was given."`
	Time     httpapi.Time `json:"time" doc:"As at."`
	Actor    string       `json:"actor" doc:"Id of the user, or system."`
	Type     string       `json:"type" example:"document.uploaded"`
	Stream   string       `json:"stream" doc:"Kind and id of what it happened to."`
	Version  int64        `json:"version" doc:"Number of the event in its stream, from 1."`
	Summary  string       `json:"summary"`
}

type auditPage struct {
	Entries    []auditEntry       `json:"entries" nullable:"false"`
	Pagination httpapi.Pagination `json:"pagination"`
}

func (r routes) auditTrail(ctx context.Context, in *auditQuery) (*httpapi.Answer[auditPage], error) {
	var out auditPage
	direction := "asc"
	if in.Order == "newest" {
		direction = "desc"
	}
	var total int
	at, err := r.Server.Ask(ctx, httpapi.Audit(in.TenantID), in.MinPosition, func(schema string) readmodel.Query {
		out.Entries = []auditEntry{}
		return readmodel.Query{
			Head: fmt.Sprintf(`select count(*) from %s.entries`, schema), Into: []any{&total},
			Columns: "position, event_id::text, at, at, actor, type, kind || '-' || stream_id, version, summary",
			From:    schema + ".entries", Order: "position " + direction, Limit: fmt.Sprintf("%d offset %d", in.PerPage, in.Offset()),
			Row: func(row pgx.CollectableRow) error {
				var e auditEntry
				err := row.Scan(&e.Position, &e.EventID, &e.At, &e.Time, &e.Actor, &e.Type, &e.Stream, &e.Version, &e.Summary)
				out.Entries = append(out.Entries, e)
				return err
			},
		}
	})
	if err != nil {
		return nil, fmt.Errorf("readapi: audit trail: %w", err)
	}
	out.Pagination = in.Of(total)
	return httpapi.Answered(at, "The audit trail.", out), nil
}
