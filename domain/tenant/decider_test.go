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

func given(t *testing.T, facts ...Event) es.Story[State, Command, Event] {
	t.Helper()
	return es.Given(t, Decider, facts...)
}
