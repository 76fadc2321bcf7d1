package copylog

import (
	"cmp"
	"context"
	"fmt"
	"iter"

	"github.com/factum-platform/factum/eventstore"
)

// debts are the claims that the target must take or give to come to the source's. A claim changes only in an append of the stream
// concerned, so each is attached to the first append of that stream that comes; a stream that takes over a value waits until the
// stream that held it has given it.
type debts struct {
	gives map[eventstore.StreamID][]eventstore.Held
	takes map[eventstore.StreamID][]eventstore.Held
	// held are the values that must be given by another stream before they can be taken.
	held map[value]bool
}

type value struct{ scope, key string }

// outstanding compares the claims of both logs. It holds those that differ in memory: all of the source's for an empty target.
func outstanding(ctx context.Context, tenant eventstore.TenantID, from, to eventstore.Log) (*debts, error) {
	d := &debts{map[eventstore.StreamID][]eventstore.Held{}, map[eventstore.StreamID][]eventstore.Held{}, map[value]bool{}}
	err := pairs(ctx, tenant, from, to, func(here, there *eventstore.Held) {
		if here != nil && there != nil && *here == *there {
			return
		}
		if there != nil {
			d.gives[there.Stream] = append(d.gives[there.Stream], *there)
			d.held[value{there.Scope, there.Key}] = true
		}
		if here != nil {
			d.takes[here.Stream] = append(d.takes[here.Stream], *here)
		}
	})
	return d, err
}

// settle returns what the next append, to these streams, is to give and take.
func (d *debts) settle(streams []eventstore.StreamID) [][]eventstore.Claim {
	out := make([][]eventstore.Claim, len(streams))
	for i, s := range streams {
		for _, h := range d.gives[s] {
			out[i] = append(out[i], eventstore.Claim{Scope: h.Scope, Key: h.Key, Give: true})
			delete(d.held, value{h.Scope, h.Key})
		}
		delete(d.gives, s)
	}
	for i, s := range streams {
		var later []eventstore.Held
		for _, h := range d.takes[s] {
			if d.held[value{h.Scope, h.Key}] {
				later = append(later, h)
				continue
			}
			out[i] = append(out[i], eventstore.Claim{Scope: h.Scope, Key: h.Key})
		}
		if len(later) > 0 {
			d.takes[s] = later
		} else {
			delete(d.takes, s)
		}
	}
	return out
}

// pairs walks the claims of both logs, which are ordered, side by side: fn gets both holders of a value, or nil for a log in which nobody
// holds it.
func pairs(ctx context.Context, tenant eventstore.TenantID, from, to eventstore.Log, fn func(here, there *eventstore.Held)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	source, stopSource := pull(from.Claims(ctx))
	defer stopSource()
	target, stopTarget := pull(to.Claims(ctx))
	defer stopTarget()
	here, err := source()
	if err != nil {
		return fmt.Errorf("copylog: the claims of the source of %s: %w", tenant, err)
	}
	there, err := target()
	if err != nil {
		return fmt.Errorf("copylog: the claims of the target of %s: %w", tenant, err)
	}
	for here != nil || there != nil {
		a, b := here, there
		switch order := compare(here, there); {
		case order < 0:
			b = nil
		case order > 0:
			a = nil
		}
		fn(a, b)
		if a != nil {
			if here, err = source(); err != nil {
				return fmt.Errorf("copylog: the claims of the source of %s: %w", tenant, err)
			}
		}
		if b != nil {
			if there, err = target(); err != nil {
				return fmt.Errorf("copylog: the claims of the target of %s: %w", tenant, err)
			}
		}
	}
	return nil
}

// pull turns a sequence of claims into a function that answers nil at its end.
func pull(seq iter.Seq2[eventstore.Held, error]) (next func() (*eventstore.Held, error), stop func()) {
	pulled, stop := iter.Pull2(seq)
	return func() (*eventstore.Held, error) {
		h, err, ok := pulled()
		if !ok || err != nil {
			return nil, err
		}
		return &h, nil
	}, stop
}

// compare orders by the bytes of scope and key; nil, the end, comes last.
func compare(a, b *eventstore.Held) int {
	switch {
	case a == nil:
		return 1
	case b == nil:
		return -1
	default:
		return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Key, b.Key))
	}
}
