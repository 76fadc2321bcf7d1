package pgstore_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/pgtest"
)

// Two stores over the same databases stand for two processes.
func TestProcessesWakeEachOther(t *testing.T) {
	platform, err := postgres.Open(t.Context(), pgtest.Database(t), 8)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(platform.Close)
	d := newDatabases(t)
	writer, reader := d.open(platform), d.open(platform)
	heard := reader.Bell().Listen()
	defer heard.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	n := 0
	rings := func(tenant eventstore.TenantID) {
		t.Helper()
		for { // a listener may not be there yet, or not again
			n++
			if _, err := writer.Tenant(tenant).Append(ctx, one(fmt.Sprint(n), fmt.Sprint(n), eventstore.NoStream())); err != nil {
				t.Fatal(err)
			}
			brief, stop := context.WithTimeout(ctx, 200*time.Millisecond)
			got, err := heard.Next(brief)
			stop()
			if ctx.Err() != nil {
				t.Fatal("the bell never rang")
			}
			if err == nil && got == tenant {
				return
			}
		}
	}
	rings("alpha")
	rings("beta")
	must(t, platform, `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`)
	rings("alpha")
	must(t, platform, `select pg_notify('es', 'Not a tenant')`) // whatever comes over the channel does no harm
	rings("beta")
}

func TestNotificationsAreBounded(t *testing.T) {
	platform, err := postgres.Open(t.Context(), pgtest.Database(t), 8)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(platform.Close)
	conn, err := platform.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(t.Context(), "listen es"); err != nil {
		t.Fatal(err)
	}
	d := newDatabases(t)
	l := d.open(platform).Tenant("alpha")
	began := time.Now()
	appends := 0
	for time.Since(began) < 500*time.Millisecond {
		appends++
		if _, err := l.Append(t.Context(), one(fmt.Sprint(appends), fmt.Sprint(appends), eventstore.NoStream())); err != nil {
			t.Fatal(err)
		}
	}
	heard := 0
	for {
		quiet, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		notification, err := conn.Conn().WaitForNotification(quiet)
		cancel()
		if err != nil {
			break // it is quiet
		}
		heard++
		if notification.Payload != "alpha" {
			t.Errorf("payload %q; want alpha", notification.Payload)
		}
	}
	// One at once, one per 50 ms, one after the last append.
	if most := int(time.Since(began)/(50*time.Millisecond)) + 2; heard < 1 || heard > most {
		t.Errorf("%d notifications for %d appends; want 1 to %d", heard, appends, most)
	}
}
