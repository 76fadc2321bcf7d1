package esdbstore

import (
	"encoding/base64"
	"strings"

	"github.com/factum-platform/factum/eventstore"
)

// $by_category cuts a stream's name at the first '-'. A tenant id holds none, so $ce-<tenant> has all streams of one tenant. What
// begins with "<tenant>." is a category of its own and no part of the tenant's log.
const (
	categoryPrefix = "$ce-"
	claimCategory  = ".claim"
	// probeStream is outside every tenant: its category is no tenant id.
	probeStream   = "factum.probe-open"
	probeCategory = categoryPrefix + "factum.probe"
)

// doorbellStreams fits the streams of all tenants and their categories.
const doorbellStreams = `^\$ce-[a-z0-9]{1,32}$|^[a-z0-9]{1,32}-`

func streamName(t eventstore.TenantID, s eventstore.StreamID) string {
	return string(t) + "-" + s.Kind + "-" + s.ID
}

// parseStream undoes streamName. ok is false for the name of a stream that this package does not write.
func parseStream(t eventstore.TenantID, name string) (s eventstore.StreamID, ok bool) {
	rest, ok := strings.CutPrefix(name, string(t)+"-")
	if !ok {
		return s, false
	}
	if s.Kind, s.ID, ok = strings.Cut(rest, "-"); !ok || s.Validate() != nil {
		return eventstore.StreamID{}, false
	}
	return s, true
}

func categoryOf(t eventstore.TenantID) string { return categoryPrefix + string(t) }

func claimCategoryOf(t eventstore.TenantID) string { return categoryPrefix + string(t) + claimCategory }

// claimName is the stream of one claimed value. Scope and key may be any bytes.
func claimName(t eventstore.TenantID, v claimed) string {
	return string(t) + claimCategory + "-" + base64.RawURLEncoding.EncodeToString([]byte(v.scope)) + "." + base64.RawURLEncoding.EncodeToString([]byte(v.key))
}

// parseClaim undoes claimName.
func parseClaim(t eventstore.TenantID, name string) (v claimed, ok bool) {
	rest, ok := strings.CutPrefix(name, string(t)+claimCategory+"-")
	if !ok {
		return v, false
	}
	scope, key, ok := strings.Cut(rest, ".")
	if !ok {
		return v, false
	}
	s, err := base64.RawURLEncoding.DecodeString(scope)
	if err != nil {
		return v, false
	}
	k, err := base64.RawURLEncoding.DecodeString(key)
	if err != nil {
		return v, false
	}
	return claimed{string(s), string(k)}, true
}

// parseDoorbell tells of which tenant a stream is that fits doorbellStreams, and whether it is the tenant's category.
func parseDoorbell(name string) (t eventstore.TenantID, category bool) {
	if rest, ok := strings.CutPrefix(name, categoryPrefix); ok {
		return eventstore.TenantID(rest), true
	}
	tenant, _, _ := strings.Cut(name, "-")
	return eventstore.TenantID(tenant), false
}
