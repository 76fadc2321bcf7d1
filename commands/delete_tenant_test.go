package commands_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/domain"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/user"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/memstore"
	"github.com/factum-platform/factum/eventstore/seal"
)

func TestATenantIsAdoptedDeletedAndRestored(t *testing.T) {
	types, err := eventstore.NewRegistry(domain.Catalog()...)
	if err != nil {
		t.Fatal(err)
	}
	store := memstore.New()
	defer store.Close()
	codec := &seal.Codec{Registry: types, Keys: &seal.MemoryKeys{}}
	x := commands.NewExecutor(store, codec)
	log := store.Tenant(eventstore.PlatformTenant)
	by := func(command string) commands.Caller {
		return commands.Caller{UserID: commands.System, Command: command, Correlation: "test", At: time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)}
	}
	refused := func(err error, code string) {
		t.Helper()
		var r *es.Refusal
		if !errors.As(err, &r) || r.Code != code {
			t.Errorf("%v; want %s", err, code)
		}
	}
	const id, owner = "01234567-89ab-4def-8123-456789abcdef", "11111111-1111-4111-8111-111111111111"
	adopted := commands.AdoptedTenant{ID: id, Name: "North Mill", DatabaseName: "tenant_north", Owner: owner}

	_, err = x.DeleteTenant(t.Context(), by("1"), id)
	refused(err, "tenant.unknown")
	_, err = x.RestoreTenant(t.Context(), by("2"), id)
	refused(err, "tenant.unknown")
	_, err = x.AdoptTenant(t.Context(), by("3"), adopted)
	refused(err, "user.unknown")

	p, err := codec.Encode(t.Context(), eventstore.PlatformTenant, eventstore.StreamID{Kind: user.Kind, ID: owner}, eventstore.NewEventID("platform", owner, "r", 0),
		user.Registered{UserID: owner, Email: es.Person("mina@plant.example"), FirstName: es.Person("Mina"), LastName: es.Person("Okoro"), At: by("").At})
	if err != nil {
		t.Fatal(err)
	}
	p.Meta = eventstore.Meta{Command: "r", Actor: owner, At: by("").At}
	if _, err := log.Append(t.Context(), eventstore.Write{Stream: eventstore.StreamID{Kind: user.Kind, ID: owner}, Expected: eventstore.NoStream(), Events: []eventstore.Proposed{p}}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // again: nothing more
		if _, err := x.AdoptTenant(t.Context(), by("4"), adopted); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := x.DeleteTenant(t.Context(), by("5"), id); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := x.TenantState(t.Context(), id); err != nil || !s.Deleted || s.Name != "North Mill" || s.CreatedBy != owner {
		t.Fatalf("%+v %v", s, err)
	}
	for range 2 {
		if _, err := x.RestoreTenant(t.Context(), by("6"), id); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := x.TenantState(t.Context(), id); err != nil || s.Deleted || !s.Provisioned {
		t.Fatalf("%+v %v", s, err)
	}
	var got []string
	page, err := log.Page(t.Context(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range page.Events {
		got = append(got, e.Type)
	}
	want := []string{"user.registered", "tenant.created", "tenant.provisioned", "membership.granted", "tenant.deleted", "tenant.restored"}
	if !slices.Equal(got, want) {
		t.Errorf("%v; want %v", got, want)
	}
}
