package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/gofiber/fiber/v3"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/factum-platform/factum/infra/httpapi"
)

const (
	// bareDSN and bareSchema are the environment variables that make this binary serve the bare handler: the database, and the schema in
	// which the documents lie.
	bareDSN    = "FACTUM_BENCH_BARE_DSN"
	bareSchema = "FACTUM_BENCH_BARE_SCHEMA"
	// barePath is where it answers.
	barePath = "/documents"
	// perPage is how many documents a list has.
	perPage = 20
	// bareConns is how many connections it has, as many as factum has to the database of a tenant.
	bareConns = 4
)

// barePage is what the API answers, but for the cursor.
type barePage struct {
	Success bool   `json:"success"`
	Message string `json:"message"`
	Data    struct {
		Documents  []httpapi.Document `json:"documents"`
		Pagination httpapi.Pagination `json:"pagination"`
	} `json:"data"`
}

// runBare serves the bare handler if this process was started for that, and then reports true: the caller must return at once.
func runBare() bool {
	dsn := os.Getenv(bareDSN)
	if dsn == "" {
		return false
	}
	if err := serveBare(dsn, os.Getenv(bareSchema)); err != nil {
		fmt.Fprintln(os.Stderr, "bare handler:", err)
		os.Exit(1)
	}
	return true
}

// serveBare answers the first page of the documents as somebody would who writes nothing but that: no authentication, no membership, no
// position, no transaction; the statements of a list in one round trip, prepared by pgx. It ends with SIGTERM.
func serveBare(dsn, schema string) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return err // pgx redacts the password
	}
	c.MaxConns = bareConns
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return err
	}
	defer pool.Close()
	app := fiber.New()
	app.Get(barePath, func(c fiber.Ctx) error {
		page, err := firstPage(c, pool, schema)
		if err != nil {
			return err
		}
		return c.JSON(page)
	})
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("ready http://%s\n", listener.Addr())
	return app.Listener(listener, fiber.ListenConfig{DisableStartupMessage: true, GracefulContext: ctx})
}

func firstPage(ctx context.Context, pool *pgxpool.Pool, schema string) (page barePage, err error) {
	var both pgx.Batch
	both.Queue(`select count(*) from ` + schema + `.documents d where true`)
	both.Queue(fmt.Sprintf(`select d.id::text, d.filename, d.mime_type, d.file_id::text, d.user_id::text, d.created_at, d.updated_at, d.created_by::text, d.metadata
		from %s.documents d where true order by d.created_at desc, d.id desc limit %d offset 0`, schema, perPage+1))
	results := pool.SendBatch(ctx, &both)
	defer func() { err = errors.Join(err, results.Close()) }()
	var total int
	if err := results.QueryRow().Scan(&total); err != nil {
		return page, err
	}
	rows, err := results.Query()
	if err != nil {
		return page, err
	}
	documents, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d httpapi.Document, err error) {
		err = row.Scan(&d.ID, &d.Filename, &d.MimeType, &d.FileID, &d.UserID, &d.CreatedAt, &d.UpdatedAt, &d.CreatedBy, &d.Metadata)
		return d, err
	})
	if err != nil {
		return page, err
	}
	page.Success, page.Message = true, "The documents."
	page.Data.Documents = documents[:min(len(documents), perPage)]
	page.Data.Pagination = httpapi.Page{Page: 1, PerPage: perPage}.Of(total)
	return page, nil
}
