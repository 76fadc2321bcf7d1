package readapi

import (
	"context"
	"fmt"

	"github.com/danielgtaylor/huma/v2"
	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/infra/httpapi"
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
	at, err := r.Server.ReadBatch(ctx, httpapi.Audit(in.TenantID), in.MinPosition, func(b *pgx.Batch, schema string) {
		b.Queue(fmt.Sprintf(`select count(*) from %s.entries`, schema)).QueryRow(func(row pgx.Row) error {
			var total int
			err := row.Scan(&total)
			out.Pagination = in.Of(total)
			return err
		})
		b.Queue(fmt.Sprintf(`select position, event_id::text, at, at, actor, type, kind || '-' || stream_id, version, summary
			from %s.entries order by position %s limit $1 offset $2`, schema, direction), in.PerPage, in.Offset()).Query(func(rows pgx.Rows) (err error) {
			out.Entries, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (auditEntry, error) {
				var e auditEntry
				err := row.Scan(&e.Position, &e.EventID, &e.At, &e.Time, &e.Actor, &e.Type, &e.Stream, &e.Version, &e.Summary)
				return e, err
			})
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("readapi: audit trail: %w", err)
	}
	return httpapi.Answered(at, "The audit trail.", out), nil
}
