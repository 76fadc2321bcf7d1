package httpapi

import (
	"crypto/sha256"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	lru "github.com/hashicorp/golang-lru/v2"
)

const (
	// rememberFor bounds how late a query notices what another process has done: the end of a session, a membership or a role. Commands ask
	// the database each time.
	rememberFor = time.Second
	// maxAdmissions bounds how many are remembered; one takes about half a kilobyte.
	maxAdmissions = 10_000
)

// admissions remembers for a second which tokens were let into which tenants, so that a client with query after query costs one look-up a
// second. It remembers nobody who was refused, and nothing from before this process ended a session, a key or an account, or learnt that
// the directory has moved. It is safe for concurrent use.
type admissions struct {
	server *Server
	known  *lru.Cache[admissionKey, admission]
}

type admissionKey struct {
	token  [sha256.Size]byte
	tenant string
}

type admission struct {
	caller
	began   time.Time // the look-up
	changes changes   // that were known then
}

// changes counts what can make an admission untrue.
type changes struct{ ended, platform, tenant uint64 }

func newAdmissions(s *Server) *admissions {
	known, err := lru.New[admissionKey, admission](maxAdmissions)
	if err != nil {
		panic("httpapi: " + err.Error()) // a size below 1
	}
	return &admissions{s, known}
}

// serve tells whether the request may be admitted as one before it was: it is a query of members that does not show the membership itself, and
// does not demand to see what another process has just done.
func (a *admissions) serve(hc huma.Context, rule Rule) bool {
	op, _ := hc.Operation().Metadata[opKey].(Op)
	return rule.Access == ViewerUp && op.Method == http.MethodGet && !op.ShowsMembership && hc.Header("Factum-Min-Position") == ""
}

// recall is who was let in before, if that still counts. If not, the caller must be looked up, and may be kept as of what is returned.
func (a *admissions) recall(key admissionKey) (caller, admission, bool) {
	platform, tenant := Directory(), DirectoryOf(key.tenant)
	now := admission{began: time.Now(), changes: changes{
		a.server.c.Auth.Ended(),
		a.server.c.Waiter.Moved(platform.projection, platform.log), a.server.c.Waiter.Moved(tenant.projection, tenant.log),
	}}
	before, ok := a.known.Get(key)
	ok = ok && now.began.Sub(before.began) < rememberFor && before.changes == now.changes && before.by.Expires.After(a.server.c.Now())
	return before.caller, now, ok
}

// keep remembers who was let in by the look-up that began with recall.
func (a *admissions) keep(key admissionKey, as admission, c caller) {
	as.caller = c
	a.known.Add(key, as)
}
