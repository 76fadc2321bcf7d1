package eventstore_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/memstore"
)

func TestALogIsMarkedBeforeItGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := memstore.New()
		var mu sync.Mutex
		var marks []eventstore.TenantID
		var fails error
		s := eventstore.Mark(inner, func(_ context.Context, tenant eventstore.TenantID) error {
			mu.Lock()
			defer mu.Unlock()
			if fails != nil {
				return fails
			}
			if head, err := inner.Tenant(tenant).Head(context.Background()); err != nil || len(marks) == 0 && head != 0 {
				t.Errorf("the log stands at %d, %v, before it is marked", head, err)
			}
			marks = append(marks, tenant)
			return nil
		})
		n := 0
		add := func(tenant eventstore.TenantID) error {
			n++
			_, err := s.Tenant(tenant).Append(t.Context(), eventstore.Write{
				Stream: eventstore.StreamID{Kind: "test", ID: string(rune('a' + n))}, Expected: eventstore.NoStream(),
				Events: []eventstore.Proposed{{ID: eventstore.NewEventID(tenant, "a", "c", n), Type: "t", Schema: 1, Data: []byte(`{}`)}},
			})
			return err
		}
		expect := func(when string, err error, want int) {
			t.Helper()
			if err != nil || len(marks) != want {
				t.Fatalf("%s: %v, %v; want %d marks", when, marks, err, want)
			}
		}
		expect("the first append", add("t1"), 1)
		expect("soon after", add("t1"), 1)
		expect("the platform", add(eventstore.PlatformTenant), 1)
		expect("another tenant", add("t2"), 2)
		time.Sleep(30 * time.Second) // of the bubble's clock
		expect("after half a minute", add("t1"), 3)

		fails = errors.New("away")
		expect("while the mark holds", add("t1"), 3)
		var unavailable *eventstore.UnavailableError
		if err := add("t3"); !errors.As(err, &unavailable) || unavailable.Maybe || !errors.Is(err, fails) {
			t.Error(err)
		}
		if head, err := s.Tenant("t3").Head(t.Context()); err != nil || head != 0 {
			t.Error("a log grew without a mark", head, err)
		}
	})
}

func TestThoseWhoAppendAtOnceShareAMark(t *testing.T) {
	inner := memstore.New()
	marks, enter, leave := 0, make(chan struct{}), make(chan struct{})
	s := eventstore.Mark(inner, func(context.Context, eventstore.TenantID) error {
		marks++
		close(enter)
		<-leave
		return nil
	})
	var all sync.WaitGroup
	append1 := func(id string) {
		all.Go(func() {
			_, err := s.Tenant("t1").Append(context.Background(), eventstore.Write{
				Stream: eventstore.StreamID{Kind: "test", ID: id}, Expected: eventstore.NoStream(),
				Events: []eventstore.Proposed{{ID: eventstore.NewEventID("t1", "a", id, 0), Type: "t", Schema: 1, Data: []byte(`{}`)}},
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	append1("a")
	<-enter
	append1("b")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Tenant("t1").Append(ctx, eventstore.Write{})
	if !errors.Is(err, context.Canceled) {
		t.Error("who gave up waited for the mark:", err)
	}
	close(leave)
	all.Wait()
	if head, err := s.Tenant("t1").Head(t.Context()); marks != 1 || head != 2 || err != nil {
		t.Error(marks, head, err)
	}
}
