package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/bench/ratio"
	"github.com/factum-platform/factum/bench/site"
)

// listClients list at once, each as fast as it is answered.
const listClients = 8

// list sets lists of documents per second against those of a bare handler in a process of its own, on the same rows.
func (b *bench) list() ratio.Figure {
	return ratio.Figure{
		Name: "list", What: "list-documents, over a bare Fiber handler with the same SQL", Unit: "requests/s", Bar: 0.7,
		Measure: func(ctx context.Context, rounds ratio.Rounds) (err error) {
			t, err := b.filled(ctx)
			if err != nil {
				return err
			}
			bare, err := b.bare(ctx, t)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, bare.Stop()) }()
			token, err := b.platform.Token(ctx)
			if err != nil {
				return err
			}
			path := fmt.Sprintf("%s?per_page=%d", site.DocumentsPath(t), perPage)
			if err := b.sameDocuments(ctx, path, bare.URL); err != nil {
				return err
			}
			ours := load{base: b.serving.URL, clients: listClients, window: b.lists, calls: []call{{method: http.MethodGet, path: path, token: token}}}
			theirs := load{base: bare.URL, clients: listClients, window: b.lists, calls: []call{{method: http.MethodGet, path: barePath}}}
			if err := b.site.Checkpoint(ctx); err != nil {
				return err
			}
			return rounds(func(ctx context.Context) (float64, float64, error) {
				a, err := ours.run(ctx)
				if err != nil {
					return 0, 0, err
				}
				c, err := theirs.run(ctx)
				if err != nil {
					return 0, 0, err
				}
				b.say("list", "median of a request %.2f ms, of the bare handler %.2f ms", milliseconds(ratio.Median(a.times)), milliseconds(ratio.Median(c.times)))
				return a.perSecond, c.perSecond, nil
			})
		},
	}
}

// filled is a tenant with documents that factum serve shows.
func (b *bench) filled(ctx context.Context) (site.Tenant, error) {
	b.say("list", "filling a log with %d events", b.events)
	t, err := b.platform.NewTenant(ctx, "Lists")
	if err != nil {
		return t, err
	}
	if _, err := b.platform.Fill(ctx, t, b.events, nil, nil); err != nil {
		return t, err
	}
	head, err := b.platform.Store.Tenant(t.Log).Head(ctx)
	if err != nil {
		return t, err
	}
	if err := b.shown(ctx, uint64(head), site.DocumentsPath(t), "/api/tenants/"+t.ID+"/audit"); err != nil {
		return t, err
	}
	return t, b.site.Vacuum(ctx, t.Database)
}

// shown waits until factum serve answers the paths as of the position.
func (b *bench) shown(ctx context.Context, position uint64, paths ...string) error {
	ctx, cancel := context.WithTimeout(ctx, visibleTimeout)
	defer cancel()
	c := b.platform.NewClient(b.serving)
	defer c.Close()
	for _, path := range paths {
		for {
			_, err := c.Get(ctx, path, position)
			if err == nil {
				break
			}
			var status *site.StatusError
			if ctx.Err() != nil || !errors.As(err, &status) {
				return err
			}
		}
	}
	return nil
}

// bare starts this program as the bare handler on the tenant's documents.
func (b *bench) bare(ctx context.Context, t site.Tenant) (*site.Process, error) {
	dsn := b.site.DSN(t.Database)
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return nil, err
	}
	schema, err := site.LiveSchema(ctx, conn)
	if err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return site.StartChild(ctx, self, append(os.Environ(), bareDSN+"="+dsn, bareSchema+"="+schema))
}

// sameDocuments is an error unless both sides answer the same rows and count.
func (b *bench) sameDocuments(ctx context.Context, path, bare string) error {
	ours, theirs := b.platform.NewClient(b.serving), site.ClientOf(bare, "")
	defer ours.Close()
	defer theirs.Close()
	a, err := ours.Get(ctx, path, 0)
	if err != nil {
		return err
	}
	c, err := theirs.Get(ctx, barePath, 0)
	if err != nil {
		return err
	}
	var rows [2]struct {
		Data struct {
			Documents  json.RawMessage `json:"documents"`
			Pagination struct {
				Total int `json:"total"`
			} `json:"pagination"`
		} `json:"data"`
	}
	if err := errors.Join(json.Unmarshal(a.Body, &rows[0]), json.Unmarshal(c.Body, &rows[1])); err != nil {
		return err
	}
	if !bytes.Equal(rows[0].Data.Documents, rows[1].Data.Documents) || rows[0].Data.Pagination != rows[1].Data.Pagination {
		return fmt.Errorf("the bare handler answers other documents: %.300s; factum: %.300s", c.Body, a.Body)
	}
	b.facts = append(b.facts, ratio.Fact{Name: "list", Value: fmt.Sprintf("%d of %d documents, %d clients; an answer has %d bytes, of the bare handler %d",
		perPage, rows[0].Data.Pagination.Total, listClients, len(a.Body), len(c.Body))})
	return nil
}
