package eventstore

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	// markEvery is for how long a mark holds, as far as the process that made it is concerned.
	markEvery = 30 * time.Second
	// markTimeout bounds the making of one mark.
	markTimeout = 5 * time.Second
	// markedAppend bounds an append. With markEvery it bounds how old a mark is when what was appended under it shows: whoever removes marks
	// must let them grow older.
	markedAppend = 2 * time.Minute
)

// Mark returns the store with its tenants marked before they are appended to: mark is called before the first append to a log, and again
// after 30 s, and must have remembered the tenant durably when it returns nil. So whoever reads the marks finds every log that has grown, whatever
// becomes of this process and of the bell; see the runner's Marks. The platform's log is not marked. An append takes at most two minutes.
// When the mark cannot be made, Append answers *[UnavailableError] and nothing is written.
func Mark(s Store, mark func(ctx context.Context, t TenantID) error) Store {
	return &marked{Store: s, mark: mark, at: map[TenantID]time.Time{}}
}

type marked struct {
	Store
	mark func(ctx context.Context, t TenantID) error
	once singleflight.Group

	mu sync.Mutex
	at map[TenantID]time.Time // when the tenant was last marked by us
}

// Tenant implements [Store].
func (m *marked) Tenant(t TenantID) Log {
	if t == PlatformTenant {
		return m.Store.Tenant(t)
	}
	return markedLog{m.Store.Tenant(t), m, t}
}

type markedLog struct {
	Log
	store  *marked
	tenant TenantID
}

// Append implements [Log].
func (l markedLog) Append(ctx context.Context, writes ...Write) ([]Appended, error) {
	ctx, cancel := context.WithTimeout(ctx, markedAppend)
	defer cancel()
	if err := l.store.remember(ctx, l.tenant); err != nil {
		return nil, &UnavailableError{Tenant: l.tenant, Reason: "the platform's database does not take the note that this log is about to grow", Err: err}
	}
	return l.Log.Append(ctx, writes...)
}

// remember makes the mark unless it is fresh. Those who come at once wait for the same one.
func (m *marked) remember(ctx context.Context, t TenantID) error {
	m.mu.Lock()
	at, known := m.at[t]
	m.mu.Unlock()
	if known && time.Since(at) < markEvery {
		return nil
	}
	made := m.once.DoChan(string(t), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout) // the first caller's end is not the others'
		defer cancel()
		begun := time.Now()
		if err := m.mark(ctx, t); err != nil {
			return nil, err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.at[t] = begun
		return nil, nil
	})
	select {
	case r := <-made:
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}
