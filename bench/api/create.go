package main

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/factum-platform/factum/bench/ratio"
	"github.com/factum-platform/factum/bench/site"
	"github.com/factum-platform/factum/commands"
)

const (
	// lookEvery is the time between two looks for a row.
	lookEvery = 250 * time.Microsecond
	// visibleTimeout bounds the wait for what was appended.
	visibleTimeout = 30 * time.Second
	// warmUploads go before the first round.
	warmUploads = 10
)

// parts are the times of uploads through HTTP and of what they consist of.
type parts struct{ whole, put, add, project []time.Duration }

// create sets the median time of an upload through HTTP against the sum of the medians of its parts. They take turns, upload by upload.
func (b *bench) create() ratio.Figure {
	return ratio.Figure{
		Name: "create", What: "upload of a small file, median, over S3 put + append + projection", Unit: "ms", Bar: 1.3, AtMost: true,
		Measure: func(ctx context.Context, rounds ratio.Rounds) (err error) {
			t, err := b.platform.NewTenant(ctx, "Uploads")
			if err != nil {
				return err
			}
			// A time-stamp is asked for after the answer, on the same processors.
			by := commands.Caller{UserID: b.platform.Person, Command: uuid.NewString(), Correlation: "bench", At: time.Now()}
			if _, err := b.platform.Commands.DisableTSA(ctx, by, t.ID); err != nil {
				return err
			}
			client := b.platform.NewClient(b.serving)
			defer client.Close()
			conn, err := pgx.Connect(ctx, b.site.DSN(t.Database))
			if err != nil {
				return err
			}
			defer conn.Close(context.WithoutCancel(ctx))
			if err := b.site.Checkpoint(ctx); err != nil {
				return err
			}
			var warm parts
			for range warmUploads {
				if err := b.upload(ctx, client, conn, t, &warm); err != nil {
					return err
				}
			}
			return rounds(func(ctx context.Context) (ours, theirs float64, err error) {
				var p parts
				for range b.uploads {
					if err := b.upload(ctx, client, conn, t, &p); err != nil {
						return 0, 0, err
					}
				}
				put, add, project := milliseconds(ratio.Median(p.put)), milliseconds(ratio.Median(p.add)), milliseconds(ratio.Median(p.project))
				b.say("create", "put %.2f ms, append %.2f ms, projection %.2f ms", put, add, project)
				return milliseconds(ratio.Median(p.whole)), put + add + project, nil
			})
		},
	}
}

// upload uploads new content through HTTP, and then does the parts of an equal upload one by one.
func (b *bench) upload(ctx context.Context, client *site.Client, conn *pgx.Conn, t site.Tenant, p *parts) error {
	content := "measurement " + uuid.NewString()
	begun := time.Now()
	_, answer, err := client.Upload(ctx, t, content)
	p.whole = append(p.whole, time.Since(begun))
	if err == nil && answer.Pending != "" {
		err = fmt.Errorf("an upload was answered before the read model had it: %s", answer.Pending)
	}
	if err != nil {
		return err
	}

	id := uuid.NewString()
	key := fmt.Sprintf("tenants/%s/files/%s/%s/%s", t.Database, id[0:2], id[2:4], id)
	begun = time.Now()
	if _, err := b.platform.Objects.Put(ctx, key, bytes.NewReader([]byte(content))); err != nil {
		return err
	}
	p.put = append(p.put, time.Since(begun))

	schema, err := site.LiveSchema(ctx, conn)
	if err != nil {
		return err
	}
	begun = time.Now()
	u, err := b.platform.Upload(ctx, t)
	if err != nil {
		return err
	}
	acknowledged := time.Now()
	p.add = append(p.add, acknowledged.Sub(begun))

	ctx, cancel := context.WithTimeout(ctx, visibleTimeout)
	defer cancel()
	for {
		var there bool
		if err := conn.QueryRow(ctx, `select exists (select from `+schema+`.documents where id = $1)`, u.Document).Scan(&there); err != nil {
			return fmt.Errorf("look for the row: %w", err)
		}
		if there {
			p.project = append(p.project, time.Since(acknowledged))
			return nil
		}
		if err := site.Pass(ctx, lookEvery); err != nil {
			return fmt.Errorf("the row does not come: %w", err)
		}
	}
}
