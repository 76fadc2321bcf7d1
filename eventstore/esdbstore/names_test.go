package esdbstore_test

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/eventstore/esdbstore"
)

func TestNames(t *testing.T) {
	tenants := rapid.StringMatching(`[a-z0-9]{1,32}`)
	text := rapid.StringOfN(rapid.Rune(), 1, 64, 256).Filter(func(s string) bool { return !strings.ContainsRune(s, 0) })
	doorbell := regexp.MustCompile(esdbstore.DoorbellStreams)
	rapid.Check(t, func(t *rapid.T) {
		tenant := eventstore.TenantID(tenants.Draw(t, "tenant"))
		stream := eventstore.StreamID{Kind: rapid.StringMatching(`[a-z]{1,64}`).Draw(t, "kind"), ID: text.Draw(t, "id")}
		name := esdbstore.StreamName(tenant, stream)
		if got, ok := esdbstore.ParseStream(tenant, name); !ok || got != stream {
			t.Fatalf("%q reads as %+v, %v; want %+v", name, got, ok, stream)
		}
		if category, _, _ := strings.Cut(name, "-"); category != string(tenant) {
			t.Fatalf("%q is in category %q", name, category)
		}
		if got, category := esdbstore.ParseDoorbell(name); got != tenant || category || !doorbell.MatchString(name) {
			t.Fatalf("the doorbell hears %q as %q, %v", name, got, category)
		}
		if got, category := esdbstore.ParseDoorbell("$ce-" + string(tenant)); got != tenant || !category || !doorbell.MatchString("$ce-"+string(tenant)) {
			t.Fatalf("the doorbell hears the category as %q, %v", got, category)
		}
		other := eventstore.TenantID(tenants.Draw(t, "other"))
		if _, ok := esdbstore.ParseStream(other, name); ok && other != tenant {
			t.Fatalf("%q is also a stream of %s", name, other)
		}
		value := esdbstore.NewClaimed(text.Draw(t, "scope"), string(rapid.SliceOfN(rapid.Byte(), 1, 256).Draw(t, "key")))
		claim := esdbstore.ClaimName(tenant, value)
		if got, ok := esdbstore.ParseClaim(tenant, claim); !ok || got != value {
			t.Fatalf("%q reads as %+v, %v; want %+v", claim, got, ok, value)
		}
		if _, ok := esdbstore.ParseStream(tenant, claim); ok || doorbell.MatchString(claim) {
			t.Fatalf("%q is in the tenant's log", claim)
		}
		if category, _, _ := strings.Cut(claim, "-"); category != string(tenant)+".claim" {
			t.Fatalf("%q is in category %q", claim, category)
		}
	})
}
