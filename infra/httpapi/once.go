package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humafiber"

	"github.com/factum-platform/factum/infra/idempotency"
)

const (
	idempotencyKey = "Idempotency-Key"
	// rememberWithin bounds how long an answer waits to be remembered.
	rememberWithin = 5 * time.Second
)

var (
	keyForm = regexp.MustCompile(`^[!-~]{1,200}$`)
	// remembered are the headers that a repeated answer has again; all others are about the request.
	remembered = []string{"Content-Type", "Factum-Position", "Etag"}
)

type claimKey struct{}

// repeatable tells whether a request with an Idempotency-Key is carried out once.
func (o Op) repeatable() bool { return o.Method != http.MethodGet && !o.Reads }

// once carries out a request with an Idempotency-Key, or gives the answer again that it was given before. Only successes are remembered: what
// was refused has changed nothing and is decided anew, and after a failure of ours the log recognises a command that was carried out.
func (s *Server) once(hc huma.Context, rule Rule, next func(huma.Context)) {
	op, _ := hc.Operation().Metadata[opKey].(Op)
	r := idempotency.Request{Key: hc.Header(idempotencyKey)}
	if s.c.Answers == nil || !op.repeatable() || r.Key == "" {
		next(hc)
		return
	}
	ctx := hc.Context()
	if !keyForm.MatchString(r.Key) {
		note(ctx, idempotencyKey, "Has 1 to 200 visible ASCII characters without blanks.")
		next(hc)
		return
	}
	claim, answer, err := s.begin(ctx, hc, op, r)
	switch {
	case err != nil:
		s.refuse(hc, rule, problemOf(ctx, refusedKey(err)))
	case answer != nil:
		s.again(hc, rule, op, answer)
	default:
		s.carryOut(hc, op, claim, next)
	}
}

func (s *Server) begin(ctx context.Context, hc huma.Context, op Op, r idempotency.Request) (*idempotency.Claim, *idempotency.Answer, error) {
	r.Owner = ownerOf(ctx)
	body, err := s.gathered(hc, op)
	if err != nil {
		return nil, nil, err
	}
	r.What = whatOf(hc, body)
	return s.c.Answers.Begin(ctx, r)
}

// whatOf is what makes a request another one.
func whatOf(hc huma.Context, body []byte) string {
	sum := sha256.Sum256(body)
	return hc.Operation().Method + " " + string(humafiber.Unwrap(hc).Request().RequestURI()) + " " + string(sum[:])
}

// ownerOf separates the keys of callers, and of what they call in different tenants. Who shows a refresh token is the token's owner; who shows
// none is known by the network address, and what came of a request is told to nobody who does not send the same one.
func ownerOf(ctx context.Context) string {
	tenant := " in " + MembershipOf(ctx).ID
	switch p := PrincipalOf(ctx); {
	case p.UserID != "":
		return "user " + p.UserID + tenant
	case RefreshTokenOf(ctx) != "":
		sum := sha256.Sum256([]byte(RefreshTokenOf(ctx)))
		return "token " + string(sum[:])
	default:
		return "address " + networkOf(ClientOf(ctx).Address)
	}
}

// gathered reads a JSON body, which the route then finds in memory.
func (s *Server) gathered(hc huma.Context, op Op) ([]byte, error) {
	c := humafiber.Unwrap(hc)
	if !op.Accepts || c.Request().BodyStream() == nil {
		return nil, nil
	}
	in, err := Inflow(hc, maxJSONBytes)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	c.Request().SetBodyStream(bytes.NewReader(body), len(body))
	return body, nil
}

// refusedKey says what is wrong with a key.
func refusedKey(err error) error {
	switch {
	case errors.Is(err, idempotency.ErrRunning):
		return NewProblem(http.StatusConflict, cased+"request_in_progress", "The same request is being carried out. Wait for its answer, or ask again as Retry-After says.").
			With("Retry-After", "1")
	case errors.Is(err, idempotency.ErrOther):
		return ReusedKey()
	default:
		return err
	}
}

// ReusedKey is the answer to an Idempotency-Key that stands for another request.
func ReusedKey() *Problem {
	return NewProblem(http.StatusUnprocessableEntity, cased+"idempotency_key_reused", "This Idempotency-Key was used before for another request. Draw a fresh one.")
}

// again gives an answer that was given before.
func (s *Server) again(hc huma.Context, rule Rule, op Op, a *idempotency.Answer) {
	if op.Digest != nil {
		digest, err := op.Digest(hc)
		same := false
		if err == nil {
			same, err = s.c.Answers.Same(hc.Context(), a, digest)
		}
		if err == nil && !same {
			err = ReusedKey()
		}
		if err != nil {
			s.refuse(hc, rule, problemOf(hc.Context(), err))
			return
		}
	}
	if !a.Kept {
		s.refuse(hc, rule, NewProblem(http.StatusConflict, cased+"answer_not_kept",
			"This was carried out before. Its answer held a secret and is nowhere kept; ask for another with a fresh Idempotency-Key."))
		return
	}
	for name, value := range a.Header {
		hc.SetHeader(name, value)
	}
	hc.SetHeader("Idempotency-Replayed", "true")
	hc.SetStatus(a.Status)
	humafiber.Unwrap(hc).Response().SetBody(a.Body)
}

// carryOut runs the route under the claim and remembers its success.
func (s *Server) carryOut(hc huma.Context, op Op, claim *idempotency.Claim, next func(huma.Context)) {
	ctx := hc.Context()
	settled := false
	remember := func(do func(context.Context) error) {
		settled = true
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rememberWithin) // also when the client has gone
		defer cancel()
		if err := do(ctx); err != nil {
			s.c.Logger.WarnContext(ctx, "an answer could not be remembered; a repetition is carried out anew and recognised by the log",
				"error", err.Error(), "request_id", RequestID(ctx))
		}
	}
	defer func() { // a panic goes on from here
		if !settled {
			remember(claim.Release)
		}
	}()
	next(huma.WithContext(hc, context.WithValue(ctx, claimKey{}, claim)))
	response := humafiber.Unwrap(hc).Response()
	status := response.StatusCode()
	if status < 200 || status > 299 {
		remember(claim.Release)
		return
	}
	a := idempotency.Answer{Status: status, Header: map[string]string{}, Kept: !op.Secret}
	for _, name := range remembered {
		if value := string(response.Header.Peek(name)); value != "" {
			a.Header[name] = value
		}
	}
	if a.Kept {
		a.Body = bytes.Clone(response.Body())
	}
	remember(func(ctx context.Context) error { return claim.Done(ctx, a) })
}

// Digested notes the digest of a body that a route has read as it arrived; it belongs to [Op.Digest].
func Digested(ctx context.Context, digest []byte) error {
	claim, _ := ctx.Value(claimKey{}).(*idempotency.Claim)
	if claim == nil {
		return nil
	}
	return claim.Read(ctx, digest)
}

// doneBefore answers a deletion that is repeated after it took away the caller's access; it is false when there was none.
func (s *Server) doneBefore(ctx context.Context, hc huma.Context, rule Rule) bool {
	op, _ := hc.Operation().Metadata[opKey].(Op)
	key := hc.Header(idempotencyKey)
	if s.c.Answers == nil || op.Method != http.MethodDelete || !keyForm.MatchString(key) || PrincipalOf(ctx).UserID == "" {
		return false
	}
	owner := "user " + PrincipalOf(ctx).UserID + " in " + strings.ToLower(hc.Param("tenant_id"))
	a, err := s.c.Answers.Find(ctx, idempotency.Request{Owner: owner, Key: key, What: whatOf(hc, nil)})
	if err != nil || a == nil {
		return false // the refusal stands
	}
	s.again(hc, rule, op, a)
	return true
}
