package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/valyala/fasthttp"

	"github.com/factum-platform/factum/bench/ratio"
	"github.com/factum-platform/factum/bench/site"
	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/infra/readmodel"
	"github.com/factum-platform/factum/projections/runner"
)

const (
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
			up := &uploader{host: lean(ctx, b.serving.URL, 1), url: b.serving.URL + site.DocumentsPath(t), token: b.platform.Token}
			defer up.host.CloseIdleConnections()
			a, err := b.takeApart(ctx)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, a.stop()) }()
			if err := b.site.Checkpoint(ctx); err != nil {
				return err
			}
			both := func(p *parts) error {
				if err := up.whole(ctx, p); err != nil {
					return err
				}
				return a.upload(ctx, b.platform, p)
			}
			var warm parts
			for range warmUploads {
				if err := both(&warm); err != nil {
					return err
				}
			}
			return rounds(func(context.Context) (ours, theirs float64, err error) {
				var p parts
				for range b.uploads {
					if err := both(&p); err != nil {
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

// uploader uploads through HTTP.
type uploader struct {
	host  *fasthttp.HostClient
	url   string
	token func(context.Context) (string, error)
}

// whole uploads new content. The answer waits until the read model has it.
func (u *uploader) whole(ctx context.Context, p *parts) error {
	token, err := u.token(ctx)
	if err != nil {
		return err
	}
	req, res := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(req)
	defer fasthttp.ReleaseResponse(res)
	contentType, err := site.WriteUpload(req.BodyWriter(), "measurement "+uuid.NewString())
	if err != nil {
		return err
	}
	req.Header.SetMethod(http.MethodPost)
	req.SetRequestURI(u.url)
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.SetContentType(contentType)
	begun := time.Now()
	err = u.host.Do(req, res)
	p.whole = append(p.whole, time.Since(begun))
	switch {
	case err != nil:
		return fmt.Errorf("upload: %w", err)
	case res.StatusCode() != http.StatusCreated:
		return fmt.Errorf("upload: %d: %.300s", res.StatusCode(), res.Body())
	case len(res.Header.Peek("Factum-Pending")) > 0:
		return fmt.Errorf("an upload was answered before the read model had it: %s", res.Header.Peek("Factum-Pending"))
	}
	return nil
}

// takenApart is a tenant that only this process projects, in the way factum serve projects its own: what is appended in the process that
// projects is known there at once.
type takenApart struct {
	*site.Apart
	waiter  *readmodel.Waiter
	running context.CancelFunc
	ended   chan error
}

func (b *bench) takeApart(ctx context.Context) (*takenApart, error) {
	at, err := b.platform.NewApart(ctx, "parts")
	if err != nil {
		return nil, err
	}
	moves := &readmodel.Moves{}
	r, err := runner.New(runner.Config{
		Store: at.Store, Codec: b.platform.Codec, Pool: at.Pool, Moves: moves, Projections: site.ReadModels(), Tenants: at.Tenants,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, errors.Join(err, at.Close())
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	a := &takenApart{at, readmodel.NewWaiter(moves), cancel, make(chan error, 1)}
	go func() { a.ended <- r.Run(running) }()
	return a, nil
}

func (a *takenApart) stop() error {
	a.running()
	err := <-a.ended
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, a.Close())
}

// upload does the parts of an upload one by one: it puts an object of new content, appends the events, and waits until the read model of
// documents has them.
func (a *takenApart) upload(ctx context.Context, platform *site.Platform, p *parts) error {
	id := uuid.NewString()
	key := fmt.Sprintf("tenants/%s/files/%s/%s/%s", a.Tenant.Database, id[0:2], id[2:4], id)
	begun := time.Now()
	if _, err := platform.Objects.Put(ctx, key, bytes.NewReader([]byte("measurement "+uuid.NewString()))); err != nil {
		return err
	}
	p.put = append(p.put, time.Since(begun))

	begun = time.Now()
	u, err := a.Upload(ctx)
	if err != nil {
		return err
	}
	acknowledged := time.Now()
	p.add = append(p.add, acknowledged.Sub(begun))

	ctx, cancel := context.WithTimeout(ctx, visibleTimeout)
	defer cancel()
	pool, err := a.Pool(ctx, string(a.Tenant.Log))
	if err == nil {
		err = a.waiter.Wait(ctx, pool, "documents", string(a.Tenant.Log), uint64(u.Position))
	}
	if err != nil {
		return fmt.Errorf("the read model does not come to what was appended: %w", err)
	}
	p.project = append(p.project, time.Since(acknowledged))
	return nil
}
