package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/factum-platform/factum/bench/ratio"
	"github.com/factum-platform/factum/bench/site"
	"github.com/factum-platform/factum/infra/readmodel"
)

// burstPoint is how far log and read model are at a time.
type burstPoint struct {
	Seconds  float64 `json:"seconds"`  // since the burst began
	Appended int     `json:"appended"` // events
	Applied  int     `json:"applied"`
	Age      float64 `json:"age"` // of the oldest event that is not applied, in seconds
}

// burstOfEvents sets how fast a burst of events comes into the read model, from its first event to the last row, against how fast it is
// appended. The lag meanwhile is plotted.
func (b *bench) burstOfEvents() ratio.Figure {
	return ratio.Figure{
		Name: "burst", What: fmt.Sprintf("%s events at once: applied, beside appended", ratio.Whole(b.burst)), Unit: "events/s",
		Measure: func(ctx context.Context, rounds ratio.Rounds) error {
			if err := b.rested(); err != nil {
				return err
			}
			var points []burstPoint
			err := rounds(func(ctx context.Context) (ours, theirs float64, err error) {
				if err := b.site.Checkpoint(ctx); err != nil {
					return 0, 0, err
				}
				points, ours, theirs, err = b.oneBurst(ctx)
				return ours, theirs, err
			})
			if err != nil {
				return err
			}
			return b.saveBurst(points)
		},
	}
}

// oneBurst appends to a new tenant and watches its documents.
func (b *bench) oneBurst(ctx context.Context) (points []burstPoint, applied, appended float64, err error) {
	t, err := b.platform.NewTenant(ctx, "Burst "+uuid.NewString())
	if err != nil {
		return nil, 0, 0, err
	}
	p, err := b.project(ctx, []site.Tenant{t})
	if err != nil {
		return nil, 0, 0, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	log := b.platform.Store.Tenant(t.Log)
	first, err := log.Head(ctx)
	if err != nil {
		return nil, 0, 0, err
	}
	var count atomic.Int64
	var finished atomic.Bool
	begun := time.Now()
	all, ctx := errgroup.WithContext(ctx)
	writing, writers := errgroup.WithContext(ctx)
	for range noisyWriters {
		writing.Go(func() error {
			for int(count.Load()) < b.burst {
				u, err := b.platform.Upload(writers, t)
				if err != nil {
					return err
				}
				count.Add(int64(u.Events))
			}
			return nil
		})
	}
	all.Go(func() error {
		err := writing.Wait()
		appended = float64(count.Load()) / time.Since(begun).Seconds()
		finished.Store(true)
		return err
	})
	all.Go(func() error {
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		for {
			last := finished.Load()
			pool, err := b.platform.Databases.Pool(ctx, string(t.Log))
			if err != nil {
				return err
			}
			n := int(count.Load())
			at, err := readmodel.Position(ctx, pool, "documents", string(t.Log))
			if err != nil {
				return err
			}
			point := burstPoint{Seconds: time.Since(begun).Seconds(), Appended: n, Applied: max(0, int(at)-int(first))}
			point.Age = age(points, point)
			points = append(points, point)
			if last && point.Applied >= n {
				applied = float64(n) / point.Seconds
				return nil
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	err = all.Wait()
	return points, applied, appended, err
}

// age is how long ago the first event was seen in the log that is not applied now; 0 when all are.
func age(earlier []burstPoint, now burstPoint) float64 {
	if now.Applied >= now.Appended {
		return 0
	}
	for _, p := range earlier {
		if p.Appended > now.Applied {
			return now.Seconds - p.Seconds
		}
	}
	return 0
}

// saveBurst writes burst.json and burst.svg.
func (b *bench) saveBurst(points []burstPoint) error {
	raw, err := json.MarshalIndent(points, "", "  ")
	if err == nil {
		err = os.MkdirAll(b.Out, 0o755)
	}
	if err == nil {
		base := filepath.Join(b.Out, "burst")
		err = errors.Join(os.WriteFile(base+".json", append(raw, '\n'), 0o644), os.WriteFile(base+".svg", burstPlot(points), 0o644))
	}
	if err != nil {
		return fmt.Errorf("save the plot of the burst: %w", err)
	}
	return nil
}

// The plot's measures in pixels.
const (
	burstWidth, burstHeight = 900, 420
	burstLeft, burstRight   = 80, 820
	burstTop, burstBottom   = 70, 360
)

// burstPlot draws the lag over time: events that are not applied, and the age of the oldest of them.
func burstPlot(points []burstPoint) []byte {
	var b bytes.Buffer
	var seconds, events, age float64 = 1e-9, 1, 1e-9
	for _, p := range points {
		seconds, events, age = max(seconds, p.Seconds), max(events, float64(p.Appended-p.Applied)), max(age, p.Age)
	}
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">`+"\n",
		burstWidth, burstHeight, burstWidth, burstHeight)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", burstWidth, burstHeight)
	fmt.Fprintf(&b, `<text x="20" y="30" font-size="18" font-weight="bold">Lag of the documents during a burst of %s events</text>`+"\n", ratio.Whole(points[len(points)-1].Appended))
	fmt.Fprintf(&b, `<text x="%d" y="56" fill="#2b6cb0">events behind (most: %s)</text>`+"\n", burstLeft, ratio.Whole(int(events)))
	fmt.Fprintf(&b, `<text x="%d" y="56" fill="#c05621" text-anchor="end">seconds behind (most: %.2f)</text>`+"\n", burstRight, age)
	fmt.Fprintf(&b, `<path d="M %d %d V %d H %d V %d" stroke="#999" fill="none"/>`+"\n", burstLeft, burstTop, burstBottom, burstRight, burstTop)
	line := func(colour string, most float64, of func(burstPoint) float64) {
		b.WriteString(`<polyline fill="none" stroke-width="2" stroke="` + colour + `" points="`)
		for _, p := range points {
			fmt.Fprintf(&b, "%.1f,%.1f ", burstLeft+(burstRight-burstLeft)*p.Seconds/seconds, burstBottom-(burstBottom-burstTop)*of(p)/most)
		}
		b.WriteString(`"/>` + "\n")
	}
	line("#2b6cb0", events, func(p burstPoint) float64 { return float64(p.Appended - p.Applied) })
	line("#c05621", age, func(p burstPoint) float64 { return p.Age })
	for i := range 5 {
		at := float64(i) / 4
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#555">%.1f s</text>`+"\n", burstLeft+(burstRight-burstLeft)*at, burstBottom+22, seconds*at)
		y := burstBottom - (burstBottom-burstTop)*at
		fmt.Fprintf(&b, `<text x="%d" y="%.1f" text-anchor="end" fill="#2b6cb0">%s</text>`+"\n", burstLeft-8, y+4, ratio.Whole(int(events*at)))
		fmt.Fprintf(&b, `<text x="%d" y="%.1f" fill="#c05621">%.2f</text>`+"\n", burstRight+8, y+4, age*at)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
