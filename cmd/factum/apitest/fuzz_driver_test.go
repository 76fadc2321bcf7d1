package apitest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/factum-platform/factum/infra/httpapi"
)

// operation is a described route with its row of the policy.
type operation struct {
	id, method, path string
	spec             *openapi3.Operation
	rule             httpapi.Rule
	makes            string // the path parameter that a success of it gives a value to; "" for none
}

// operationsOf lists everything that is described, so that a new route is driven at once.
func operationsOf(d *description) []*operation {
	var out []*operation
	for _, template := range keys(d.Paths.Map()) {
		for _, method := range keys(d.Paths.Value(template).Operations()) {
			op := &operation{method: method, path: template, spec: d.Paths.Value(template).GetOperation(method)}
			op.id = op.spec.OperationID
			for _, rule := range httpapi.Policy {
				if rule.Method == method && rule.Path == template {
					op.rule = rule
				}
			}
			for _, other := range d.paths {
				if name, ok := strings.CutPrefix(other.template, template+"/{"); ok && method == "POST" && strings.HasSuffix(name, "}") && !strings.Contains(name, "/") {
					op.makes = strings.TrimSuffix(name, "}")
				}
			}
			out = append(out, op)
		}
	}
	return out
}

// finding is an answer that must not be.
type finding struct{ request, what string }

// tally counts the answers to one route's requests.
type tally struct {
	classes [6]int // by the status's first digit; 0 for none
	invalid int
	reached bool // with a success, and not only by OPTIONS
}

// driver sends requests of one random sequence, on one connection, to a tenant of its own. What it makes of its seed does not depend on the other
// drivers; only ids and times differ from run to run.
type driver struct {
	*generator
	w         *world
	number    int
	line      *line
	described *description
	ops       []*operation
	recipes   map[string]recipe
	people    map[string]*person // by role
	tokens    map[string]string  // by caller
	tenant    string             // the one that must stay
	spare     string             // the one that may be deleted
	left      string             // one whose admin is switched off
	stamped   string             // a file with a time-stamp
	event     struct{ stream, id string }
	secret    string // in names and contents of the tenant; strangers must not see it
	passes    map[string]string
	unique    int

	invitation string // of the candidate, as far as it is known to be open

	repairing bool // what is sent now undoes something, and is not undone itself

	mu       *sync.Mutex // of what the drivers share
	tallies  map[string]*tally
	statuses map[int]int
	findings *[]finding
	hashing  *sync.Mutex // one password at a time: more would be refused, as described, with 503
}

// callers are those whose tokens hold, by role; the others have tokens that do not.
var (
	callers  = []string{"admin", "user", "viewer", "candidate", "stranger", "operator", "machine"}
	nobodies = []string{"none", "expired", "forged", "garbage", "ended"}
)

// good is a caller whom the policy lets in.
func (op *operation) good() string {
	switch op.rule.Access {
	case httpapi.Anyone, httpapi.Refresh:
		return "none"
	case httpapi.PlatformAdmin:
		return "operator"
	default:
		return "admin"
	}
}

// weights make rare what is slow: a new database, a password's hash. All others weigh the more, the more can be wrong with them.
var weights = map[string]int{
	"create-tenant": 1, "register": 1, "login": 1, "change-password": 1, "reset-password": 1, "projections": 3,
}

func (d *driver) next() *operation {
	total := 0
	for _, op := range d.ops {
		total += weight(op)
	}
	n := d.IntN(total)
	for _, op := range d.ops {
		if n -= weight(op); n < 0 {
			return op
		}
	}
	panic("the weights have no sum")
}

func weight(op *operation) int {
	if w, ok := weights[op.id]; ok {
		return w
	}
	w := 4 + 2*len(op.spec.Parameters)
	if op.spec.RequestBody != nil {
		w += 8
	}
	return w
}

// step sends one request, valid or not.
func (d *driver) step() {
	op := d.next()
	proper := d.chance(30)
	r := d.draft(op, proper)
	if !proper {
		if d.chance(30) {
			d.as(r, one(d.generator, append(slices.Clone(callers), nobodies...)))
		}
		d.mutate(r)
	}
	d.deliver(r.finish())
}

// draft makes a request that should succeed if proper is true, and one that could if not.
func (d *driver) draft(op *operation, proper bool) *draft {
	r := &draft{request: &request{op: op, method: op.method, params: map[string]string{}}}
	d.as(r, op.good())
	var query []string
	for _, ref := range op.spec.Parameters {
		p := ref.Value
		switch p.In {
		case "path":
			r.params[p.Name] = fmt.Sprint(d.valid(p.Name, p.Schema.Value))
		case "query":
			if !proper && d.chance(40) || d.chance(10) {
				query = append(query, p.Name+"="+url.QueryEscape(queryText(d.valid(p.Name, p.Schema.Value))))
			}
		case "header":
			switch {
			case p.Name == "Idempotency-Key" && d.chance(40):
				r.set(p.Name, d.uuid())
			case p.Name == "Factum-Min-Position" && d.chance(20):
				r.set(p.Name, "1")
			}
		}
	}
	r.query = strings.Join(query, "&")
	if body := op.spec.RequestBody; body != nil {
		switch {
		case body.Value.Content["application/json"] != nil:
			r.set("Content-Type", "application/json")
			r.tree = d.valid("", body.Value.Content["application/json"].Schema.Value)
		case body.Value.Content["multipart/form-data"] != nil:
			r.set("Content-Type", "multipart/form-data; boundary="+boundary)
			d.unique++
			r.parts = []rawPart{{
				[]string{fmt.Sprintf(`Content-Disposition: form-data; name="file"; filename="%s %d.txt"`, d.secret, d.unique), "Content-Type: text/plain"},
				fmt.Sprintf("%s %d", d.secret, d.unique/2), // every other content is one that is there
			}}
		}
	}
	if prepare := d.recipes[op.id]; prepare != nil {
		prepare(d, r, proper)
	}
	return r
}

func queryText(v any) string {
	if list, ok := v.(array); ok && len(list) > 0 {
		v = list[0]
	}
	return fmt.Sprint(v)
}

// as gives the request a caller's token.
func (d *driver) as(r *draft, caller string) {
	r.drop("Authorization")
	r.caller = ""
	if token := d.tokens[caller]; token != "" {
		r.caller = caller
		r.set("Authorization", "Bearer "+token)
	}
}

// call sends a request that should succeed and is not one of the fuzz's own.
func (d *driver) call(id string, change func(*draft)) reply {
	for _, op := range d.ops {
		if op.id == id {
			r := d.draft(op, true)
			change(r)
			return d.deliver(r.finish())
		}
	}
	panic("no operation " + id)
}

// hashes tells whether the operation hashes a password.
func hashes(op *operation) bool {
	return op.spec.Tags[0] == "auth" && op.spec.RequestBody != nil
}

// meets is the route that a request really is for: what was made of it may lead elsewhere. false says that nobody serves it.
func (d *driver) meets(r *request) (*operation, bool) {
	path, spec := d.described.operation(r.method, r.onTheWay())
	for _, op := range d.ops {
		if op.path == path.template && op.method == r.method && spec != nil {
			return op, true
		}
	}
	return r.op, false
}

// deliver sends the request, judges the answer and keeps the world as it should be.
func (d *driver) deliver(r *request) reply {
	op, met := d.meets(r)
	if hashes(op) {
		d.hashing.Lock()
		defer d.hashing.Unlock()
	}
	a, err := d.line.send(r)
	var wrong []error
	if err != nil {
		wrong = append(wrong, err)
	} else {
		wrong = d.judge(r, a)
	}
	d.mu.Lock()
	t := d.tallies[op.id]
	if t == nil {
		t = &tally{}
		d.tallies[op.id] = t
	}
	t.classes[a.status/100]++
	t.reached = t.reached || met && a.status/100 == 2
	d.statuses[a.status]++
	if len(wrong) > 0 {
		t.invalid++
		*d.findings = append(*d.findings, finding{r.pasteable(), fmt.Sprintf("%d %.1500s\n  %v", a.status, a.body, errors.Join(wrong...))})
	}
	d.mu.Unlock()
	if r.header("Transfer-Encoding") != "" {
		d.line.close() // where the next request begins is a matter of opinion
	}
	if met {
		was := *r
		was.op, was.params = op, paramsOf(op, r.onTheWay())
		d.harvest(&was, a)
		d.repair(&was, a)
	}
	return a
}

// paramsOf are the values in a path.
func paramsOf(op *operation, escapedPath string) map[string]string {
	out, values := map[string]string{}, strings.Split(escapedPath, "/")
	for i, segment := range strings.Split(op.path, "/") {
		if name := strings.Trim(segment, "{}"); name != segment {
			out[name] = values[i]
		}
	}
	return out
}

// leaks are texts that no answer may have: they come from inside.
var leaks = [][]byte{[]byte("SQLSTATE"), []byte("goroutine "), []byte("pgx"), []byte("infra/"), []byte("panic:")}

func (d *driver) judge(r *request, a reply) (wrong []error) {
	if a.status >= 500 {
		wrong = append(wrong, fmt.Errorf("%d", a.status))
	}
	if err := conforms(r.method, r.onTheWay(), a.status, a.header, a.body); err != nil {
		wrong = append(wrong, err)
	}
	if a.status >= 400 {
		for _, leak := range leaks {
			if bytes.Contains(a.body, leak) {
				wrong = append(wrong, fmt.Errorf("the answer tells of our inside: %s", leak))
			}
		}
	}
	if r.op.rule.Access == httpapi.Anyone || r.op.rule.Access == httpapi.Refresh {
		return wrong // who logs in is told what is theirs
	}
	if r.caller == "" || r.caller == "stranger" || slices.Contains(nobodies, r.caller) {
		if !bytes.Contains(r.body, []byte(d.secret)) && !strings.Contains(r.target(), d.secret) && bytes.Contains(a.body, []byte(d.secret)) {
			wrong = append(wrong, errors.New("a stranger sees what is in the tenant"))
		}
	}
	return wrong
}

// harvest keeps the ids of what was made, and forgets those of what is gone.
func (d *driver) harvest(r *request, a reply) {
	if a.status/100 != 2 {
		return
	}
	last := r.op.path[strings.LastIndex(r.op.path, "/")+1:]
	if name := strings.Trim(last, "{}"); r.method == "DELETE" && name != last {
		if name != "tenant_id" && name != "user_id" { // those come back
			d.forget(name, r.params[name])
		}
		return
	}
	var body struct {
		Data json.RawMessage `json:"data"`
	}
	made := map[string]any{}
	if json.Unmarshal(a.body, &body) != nil || json.Unmarshal(body.Data, &made) != nil {
		return // of another form; there is nothing in it that we need
	}
	if r.op.makes == "" || r.params["tenant_id"] == d.spare {
		return
	}
	for _, key := range []string{"id", r.op.makes} {
		if id, ok := made[key].(string); ok && r.op.makes != "tenant_id" && r.op.makes != "user_id" {
			d.keep(r.op.makes, id)
		}
	}
	if id, ok := made["file_id"].(string); ok {
		d.keep("file_id", id)
	}
}

// begin gives everybody a session that goes on.
func (d *driver) begin(ctx context.Context) error {
	var failed error
	for role, p := range d.people {
		tokens, err := d.w.accounts.BeginSession(ctx, p.id, "fuzz")
		d.tokens[role], p.refresh = tokens.Access, tokens.Refresh
		failed = errors.Join(failed, err)
	}
	return failed
}

// own notes a failure of the fuzz itself.
func (d *driver) own(err error) {
	if err == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	*d.findings = append(*d.findings, finding{"none: the fuzz itself failed", err.Error()})
}

// report is the table of what was driven, and what was found.
func report(ops []*operation, tallies map[string]*tally, statuses map[int]int) string {
	var b strings.Builder
	var sum tally
	fmt.Fprintf(&b, "%-66s %7s %7s %7s %7s %7s %7s\n", "route", "all", "2xx", "3xx", "4xx", "5xx", "invalid")
	row := func(name string, t *tally) {
		all := 0
		for _, n := range t.classes {
			all += n
		}
		fmt.Fprintf(&b, "%-66s %7d %7d %7d %7d %7d %7d\n", name, all, t.classes[2], t.classes[3], t.classes[4], t.classes[5], t.invalid)
	}
	for _, op := range ops {
		t := tallies[op.id]
		if t == nil {
			t = &tally{}
		}
		row(op.method+" "+op.path, t)
		for i, n := range t.classes {
			sum.classes[i] += n
		}
		sum.invalid += t.invalid
	}
	row(fmt.Sprintf("%d routes", len(ops)), &sum)
	fmt.Fprint(&b, "by status:")
	for _, status := range slices.Sorted(maps.Keys(statuses)) {
		fmt.Fprintf(&b, "  %d: %d", status, statuses[status])
	}
	fmt.Fprintf(&b, "\n5xx %d, without an answer %d, not as described %d", sum.classes[5], sum.classes[0], sum.invalid)
	return b.String()
}

func newGenerator(seed, stream uint64) *generator {
	return &generator{Rand: rand.New(rand.NewPCG(seed, stream)), ids: map[string][]string{}}
}
