package apitest

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/devstack"
	"github.com/factum-platform/factum/infra/objectstore"
)

const (
	fuzzRequests = 10_000
	fuzzSeed     = 6
	fuzzDrivers  = 4
	shownAtMost  = 20 // findings
)

// setting reads a number of the environment.
func setting(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s is %q; it must be a number", name, text)
	}
	return n
}

// TestFuzzTheAPI drives every described route with requests that are valid, and with what attackers and broken clients make of them. No answer
// may be a 5xx, and each must be as the documents say. FACTUM_FUZZ_SEED repeats a run: what is sent is the same but for ids and times.
func TestFuzzTheAPI(t *testing.T) {
	seed, requests := setting(t, "FACTUM_FUZZ_SEED", fuzzSeed), setting(t, "FACTUM_FUZZ_REQUESTS", fuzzRequests)
	t.Logf("%d requests of the seed %d; to repeat them: FACTUM_FUZZ_SEED=%d FACTUM_FUZZ_REQUESTS=%d make fuzz-api", requests, seed, seed, requests)
	s3, err := devstack.StartS3(t.Context(), devstack.S3Config{Dir: t.TempDir(), AccessKey: "fuzz", SecretKey: "fuzz-secret"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s3.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	objects, err := objectstore.Open(t.Context(), objectstore.Config{Endpoint: s3.Endpoint(), AccessKey: "fuzz", SecretKey: "fuzz-secret", Bucket: "fuzz", Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorldOn(t, objects)
	w.readMails(t)

	var (
		mu, hashing sync.Mutex
		findings    []finding
		tallies     = map[string]*tally{}
		statuses    = map[int]int{}
		drivers     = make([]*driver, fuzzDrivers)
		described   = described(t)
		ops         = operationsOf(described)
	)
	for i := range drivers {
		drivers[i] = &driver{
			generator: newGenerator(seed, uint64(i)), w: w, number: i, line: &line{addr: w.url[len("http://"):]}, described: described, ops: ops,
			recipes: recipesOf(), mu: &mu, tallies: tallies, statuses: statuses, findings: &findings, hashing: &hashing,
		}
		drivers[i].settleIn(t)
	}
	began := time.Now()
	sent := func() (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, count := range statuses {
			n += count
		}
		return n
	}
	var running sync.WaitGroup
	for _, d := range drivers {
		running.Go(func() {
			defer d.line.close()
			for i, op := range ops {
				if i%fuzzDrivers == d.number { // every route once, as it should be used, however few requests follow
					d.deliver(d.draft(op, true).finish())
				}
			}
			for n := sent(); n < int(requests); n = sent() {
				d.step()
				mu.Lock()
				tooMany := len(findings) >= shownAtMost
				mu.Unlock()
				if tooMany {
					return
				}
			}
		})
	}
	running.Wait()
	for _, f := range findings {
		t.Errorf("%s\n  %s", f.request, f.what)
	}
	for _, op := range ops {
		if tallies[op.id] == nil || !tallies[op.id].reached {
			t.Errorf("%s %s was never reached with a success: the fuzz needs a recipe for it (fuzz_recipes_test.go)", op.method, op.path)
		}
	}
	t.Logf("seed %d, %d requests in %.1f s\n%s", seed, sent(), time.Since(began).Seconds(), report(ops, tallies, statuses))
}

// letters are the links that were mailed last, by address.
type letters struct {
	sync.Mutex
	of map[string]string
}

func (l *letters) forget(address string) {
	l.Lock()
	defer l.Unlock()
	delete(l.of, address)
}

// wait is the token of the link that was mailed to the address a moment ago; "" when there was none.
func (l *letters) wait(address string) (token string) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(100 * time.Millisecond); time.Now().Before(deadline); <-tick.C {
		l.Lock()
		link, ok := l.of[address]
		l.Unlock()
		if ok {
			_, token, _ = strings.Cut(link, "=")
			return token
		}
	}
	return ""
}

// readMails reads what is mailed, so that nobody waits for a reader.
func (w *world) readMails(t *testing.T) {
	w.links = &letters{of: map[string]string{}}
	ended, read := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(read)
		for {
			select {
			case m := <-w.mails:
				w.links.Lock()
				w.links.of[m.To] = m.Link
				w.links.Unlock()
			case <-ended:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(ended)
		<-read
	})
}

// settleIn makes the driver's people, its tenants and what is in them.
func (d *driver) settleIn(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	w := d.w
	d.secret = fmt.Sprintf("Geheimnis-%d-Ω", d.number)
	d.people, d.tokens, d.passes = map[string]*person{}, map[string]string{}, map[string]string{}
	for _, role := range []string{"admin", "user", "viewer", "candidate", "stranger", "operator"} {
		email := fmt.Sprintf("%s-%d@plant.example", role, d.number)
		a := w.want(w.call("POST", "/api/auth/register", "", map[string]any{"first_name": role, "last_name": "Okoro", "email": email, "password": password}), 201)
		d.people[role], d.passes[role] = &person{id: a.text("user.id"), email: email}, password
		if role != "operator" { // who must be able to let in again whom another request shut out
			d.keep("user_id", a.text("user.id"))
		}
	}
	if err := d.begin(ctx); err != nil {
		t.Fatal(err)
	}
	w.want(w.call("POST", "/api/auth/verify-email", "", map[string]any{"token": d.mailed(auth.VerifyEmail, "candidate")}), 200)
	admin := person{id: d.people["admin"].id, token: d.tokens["admin"]}
	w.administers(*d.people["operator"])
	d.tenant, d.spare = w.tenant(admin, d.secret), w.tenant(admin, d.secret+" spare")
	foreign := w.tenant(person{token: d.tokens["stranger"]}, "foreign")
	gone := w.person(fmt.Sprintf("Gone-%d", d.number))
	d.left = w.tenant(gone, "left")
	w.want(w.call("POST", "/api/platform/users/"+gone.id+"/deactivate", d.tokens["operator"], nil), 200)
	for _, role := range []string{"user", "viewer"} {
		w.grant(d.tenant, *d.people[role], role)
	}
	_, key, err := w.accounts.NewAPIKey(ctx, auth.APIKey{TenantID: d.tenant, Name: "fuzz", Role: "admin", CreatedBy: admin.id, ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	d.tokens["machine"], d.tokens["garbage"], d.tokens["forged"] = key, "garbage", admin.token[:len(admin.token)-8]+"AAAAAAAA"
	w.shift.Store(-int64(time.Hour))
	old, err := w.accounts.BeginSession(ctx, admin.id, "fuzz")
	w.shift.Store(0)
	if err != nil {
		t.Fatal(err)
	}
	d.tokens["expired"] = old.Access
	ended, err := w.accounts.BeginSession(ctx, admin.id, "fuzz")
	if err != nil {
		t.Fatal(err)
	}
	d.tokens["ended"] = ended.Access
	if err := w.accounts.EndSession(ctx, d.session("ended")); err != nil {
		t.Fatal(err)
	}

	up := w.want(w.upload(d.tenant, admin, part{"file", d.secret + ".txt", "text/plain", d.secret}), 201)
	d.stamped = up.text("data.file_id")
	w.stamp(d.tenant, d.stamped)
	trail := w.want(w.call("GET", "/api/tenants/"+d.tenant+"/audit?order=newest", admin.token, nil), 200)
	d.event.stream, d.event.id = trail.text("data.entries.0.stream"), trail.text("data.entries.0.event_id")
	d.keep("tenant_id", d.tenant)
	d.keep("tenant", d.tenant)
	d.keep("document_id", up.text("data.id"))
	d.keep("file_id", d.stamped)
	elsewhere := w.want(w.upload(foreign, person{token: d.tokens["stranger"]}, part{"file", "a.txt", "", "a"}), 201)
	for _, id := range []string{foreign, elsewhere.text("data.id"), elsewhere.text("data.file_id"), d.people["stranger"].id} {
		d.keep("foreign", id)
	}
}
