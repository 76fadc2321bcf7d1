package copylog_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/copylog"
	"github.com/factum-platform/factum/eventstore/memstore"
)

// trader appends to several streams at once, and passes names from one stream to another.
type trader struct {
	*writer
	random *rand.Rand
	names  map[string]string // by holder
}

func (b *trader) step(ctx context.Context) error {
	ids := b.random.Perm(12)[:1+b.random.IntN(3)]
	command, held := fmt.Sprint("command of ", b.n), maps.Clone(b.names)
	var writes []eventstore.Write
	for i, id := range ids {
		holder := fmt.Sprint("s", id)
		w := b.write(holder, 1+b.random.IntN(3))
		for j := range w.Events {
			w.Events[j].Meta.Command = command
		}
		if i > 0 && b.random.IntN(2) == 0 { // from the one before
			giver := fmt.Sprint("s", ids[i-1])
			if name := held[giver]; name != "" && b.names[giver] == name && b.names[holder] == "" {
				writes[i-1].Claims = append(writes[i-1].Claims, give(name))
				w.Claims = append(w.Claims, take(name))
				b.names[holder], b.names[giver] = name, ""
			}
		} else if name := fmt.Sprint("n", b.n); b.names[holder] == "" && b.random.IntN(3) == 0 {
			w.Claims = append(w.Claims, take(name))
			b.names[holder] = name
		}
		writes = append(writes, w)
	}
	b.random.Shuffle(len(writes), func(i, j int) { writes[i], writes[j] = writes[j], writes[i] })
	return b.append(ctx, writes...)
}

// counting counts the appends that a target takes.
type counting struct {
	eventstore.Log
	appends int
}

func (c *counting) Append(ctx context.Context, writes ...eventstore.Write) ([]eventstore.Appended, error) {
	c.appends++
	return c.Log.Append(ctx, writes...)
}

// TestACopierFollowsASourceThatIsWrittenTo copies while the source grows, starts anew now and then as after a kill, and in the end all is the
// same, positions and claims included.
func TestACopierFollowsASourceThatIsWrittenTo(t *testing.T) {
	for seed := range uint64(20) {
		source, target := memstore.New(), memstore.New()
		w := &trader{newWriter(source.Tenant(tenant)), rand.New(rand.NewPCG(seed, 1)), map[string]string{}}
		to := &counting{Log: target.Tenant(tenant)}
		var c *copylog.Copier
		for round := range 30 {
			for range w.random.IntN(40) {
				must(t, w.step(t.Context()))
			}
			if c == nil || w.random.IntN(5) == 0 {
				c = &copylog.Copier{Tenant: tenant, From: w.log, To: to, MultiStream: true, SamePositions: true}
			}
			before, err := to.Head(t.Context())
			must(t, err)
			out, err := c.Run(t.Context())
			if err != nil || out.Found != uint64(before) {
				t.Fatalf("seed %d, round %d: %+v %v; there were %d", seed, round, out, err, before)
			}
			head, err := to.Head(t.Context())
			if err != nil || head != out.Source {
				t.Fatalf("seed %d, round %d: the target is at %d, the source at %d: %v", seed, round, head, out.Source, err)
			}
			must(t, copylog.CompareEvents(t.Context(), tenant, w.log, to, 0, head, nil))
			must(t, copylog.CompareClaims(t.Context(), tenant, w.log, to))
		}
		wantSame(t, w.log, to)
		if head, err := to.Head(t.Context()); err != nil || to.appends > int(head)/2 {
			t.Errorf("seed %d: %d appends for %d events: %v", seed, to.appends, head, err)
		}
		must(t, errors.Join(source.Close(), target.Close()))
	}
}

func TestACopierNamesWhatDiffers(t *testing.T) {
	source, target := memstore.New(), memstore.New()
	defer source.Close()
	defer target.Close()
	here, there := newWriter(source.Tenant(tenant)), newWriter(target.Tenant(tenant))
	for _, w := range []*writer{here, there} {
		must(t, w.append(t.Context(), w.write("a", 2, take("n"))))
	}
	must(t, here.append(t.Context(), here.write("b", 1)))
	must(t, there.append(t.Context(), there.write("c", 1)))
	c := &copylog.Copier{Tenant: tenant, From: here.log, To: there.log, MultiStream: true}
	var different *copylog.DifferenceError
	if _, err := c.Run(t.Context()); !errors.As(err, &different) || different.Index != 3 || !strings.Contains(err.Error(), "stream and version") {
		t.Error(err)
	}
	if err := copylog.CompareEvents(t.Context(), tenant, here.log, there.log, 0, 3, nil); !errors.As(err, &different) || different.Index != 3 {
		t.Error(err)
	}
	if err := copylog.CompareEvents(t.Context(), tenant, here.log, there.log, 0, 2, nil); err != nil {
		t.Error("the beginning is the same:", err)
	}
	if n, err := copylog.CommonBeginning(t.Context(), tenant, here.log, there.log); !errors.As(err, &different) || n != 2 {
		t.Error(n, err)
	}
	longer := memstore.New()
	defer longer.Close()
	w := newWriter(longer.Tenant(tenant))
	must(t, w.append(t.Context(), w.write("a", 2)))
	must(t, w.append(t.Context(), w.write("b", 1)))
	must(t, w.append(t.Context(), w.write("b", 1)))
	for _, pair := range [][2]eventstore.Log{{here.log, w.log}, {w.log, here.log}, {here.log, here.log}} {
		if n, err := copylog.CommonBeginning(t.Context(), tenant, pair[0], pair[1]); err != nil || n != 3 {
			t.Error(n, err)
		}
	}
	must(t, there.append(t.Context(), there.write("a", 1, give("n"))))
	if err := copylog.CompareClaims(t.Context(), tenant, here.log, there.log); !errors.As(err, &different) || strings.Contains(err.Error(), `"n"`) {
		t.Error(err)
	}
}
