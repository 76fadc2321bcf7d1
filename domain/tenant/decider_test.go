package tenant_test

import (
	"strings"
	"testing"
	"time"

	"github.com/factum-platform/factum/domain/es"
	. "github.com/factum-platform/factum/domain/tenant"
)

func TestTenant(t *testing.T) {
	at := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	create := Create{TenantID: "t", Name: " North Mill ", DatabaseName: "db", By: "u", At: at}
	created := Created{TenantID: "t", Name: "North Mill", DatabaseName: "db", CreatedBy: "u", At: at}
	ready := Provisioned{TenantID: "t", At: at}
	given(t).When(create).Then(created)
	given(t, created).When(create).Refused("tenant.exists")
	for _, name := range []string{"", "  ", strings.Repeat("x", 256)} {
		bad := create
		bad.Name = name
		given(t).When(bad).Refused("tenant.name")
	}
	given(t).When(Provision{At: at}).Refused("tenant.unknown")
	given(t, created).When(Provision{At: at}).Then(ready)
	given(t, created, ready).When(Provision{At: at}).Then()
}

func TestATenantIsAdopted(t *testing.T) {
	at := time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)
	adopt := Adopt{TenantID: "t", Name: "North Mill", DatabaseName: "db", By: "u", At: at}
	created, ready := Created{TenantID: "t", Name: "North Mill", DatabaseName: "db", CreatedBy: "u", At: at}, Provisioned{TenantID: "t", At: at}
	given(t).When(adopt).Then(created, ready)
	given(t, created, ready).When(adopt).Refused("tenant.exists")
	given(t).When(Adopt{TenantID: "t", Name: " ", By: "u", At: at}).Refused("tenant.name")
}

func TestATenantLeavesAndReturns(t *testing.T) {
	at := time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)
	created := Created{TenantID: "t", Name: "North Mill", DatabaseName: "db", CreatedBy: "u", At: at}
	ready := Provisioned{TenantID: "t", At: at}
	gone := Deleted{TenantID: "t", DeletedBy: "v", At: at}
	back := Restored{TenantID: "t", RestoredBy: "v", At: at}
	leave, restore := Delete{By: "v", At: at}, Restore{By: "v", At: at}
	given(t).When(leave).Refused("tenant.unknown")
	given(t).When(restore).Refused("tenant.unknown")
	given(t, created, ready).When(leave).Then(gone)
	given(t, created).When(leave).Then(gone) // half made
	given(t, created, ready, gone).When(leave).Then()
	given(t, created, gone).When(Provision{At: at}).Refused("tenant.deleted")
	given(t, created, ready, gone).When(Create{TenantID: "t", Name: "North Mill", DatabaseName: "db", By: "u", At: at}).Refused("tenant.exists")
	given(t, created, ready).When(restore).Then()
	given(t, created, ready, gone).When(restore).Then(back)
	given(t, created, ready, gone, back).When(restore).Then()
	given(t, created, ready, gone, back).When(leave).Then(gone)
	if s := Decider.Fold(Decider.Initial(), created, ready, gone, back); s.Deleted || !s.Provisioned || s.Name != "North Mill" {
		t.Errorf("%+v", s)
	}
}

func TestATenantIsChanged(t *testing.T) {
	at := time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)
	created := Created{TenantID: "t", Name: "North Mill", DatabaseName: "db", CreatedBy: "u", At: at}
	later := at.Add(time.Hour)
	to := func(name string) Change { return Change{Name: &name, By: "v", At: later} }
	rename := to(" South Mill ")
	renamed := Renamed{TenantID: "t", Name: "South Mill", RenamedBy: "v", At: later}
	given(t).When(rename).Refused("tenant.unknown")
	given(t, created).When(rename).Then(renamed)
	given(t, created, renamed).When(rename).Then()
	given(t, created, Deleted{TenantID: "t"}).When(rename).Refused("tenant.deleted")
	for _, name := range []string{"", " \t", strings.Repeat("x", 256)} {
		given(t, created).When(to(name)).Refused("tenant.name")
	}
	if s := Decider.Fold(Decider.Initial(), created, renamed); s.Name != "South Mill" || s.DatabaseName != "db" || !s.UpdatedAt.Equal(later) || !s.CreatedAt.Equal(at) {
		t.Errorf("%+v", s)
	}
}

func TestATenantDemandsPreconditions(t *testing.T) {
	at := time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)
	created := Created{TenantID: "t", Name: "North Mill", DatabaseName: "db", CreatedBy: "u", At: at}
	demand := func(on bool) Change { return Change{PreconditionsRequired: &on, By: "v", At: at} }
	set := func(on bool) PreconditionsSet {
		return PreconditionsSet{TenantID: "t", Required: on, SetBy: "v", At: at}
	}
	given(t).When(demand(true)).Refused("tenant.unknown")
	given(t, created, Deleted{TenantID: "t"}).When(demand(true)).Refused("tenant.deleted")
	given(t, created).When(demand(true)).Then(set(true))
	given(t, created).When(demand(false)).Then()
	given(t, created, set(true)).When(demand(true)).Then()
	given(t, created, set(true)).When(demand(false)).Then(set(false))
	given(t, created, set(true)).When(Change{By: "v", At: at}).Then()
	name, on := "South Mill", true
	given(t, created).When(Change{Name: &name, PreconditionsRequired: &on, By: "v", At: at}).
		Then(Renamed{TenantID: "t", Name: name, RenamedBy: "v", At: at}, set(true))
}

func given(t *testing.T, facts ...Event) es.Story[State, Command, Event] {
	t.Helper()
	return es.Given(t, Decider, facts...)
}
