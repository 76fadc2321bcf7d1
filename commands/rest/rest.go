// Package rest holds the routes that change something. A handler reads its input, gives the command, waits a moment for the read
// models and answers; decisions are made below.
package rest

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/eventstore"
	"github.com/factum-platform/factum/infra/auth"
	"github.com/factum-platform/factum/infra/httpapi"
)

// Deps is what the routes need. For the OpenAPI document alone nothing is.
type Deps struct {
	Commands *commands.Commands
	Server   *httpapi.Server
	Operator Operator
	Now      func() time.Time // nil means time.Now
}

type routes struct{ Deps }

// Register registers all write routes.
func Register(api huma.API, d Deps) {
	if d.Now == nil {
		d.Now = time.Now
	}
	r := routes{d}
	judged := huma.NewGroup(api)
	judged.UseMiddleware(func(hc huma.Context, next func(huma.Context)) {
		next(huma.WithValue(hc, commandsKey{}, d.Commands))
	})
	api = judged
	r.auth(api)
	r.account(api)
	r.tenants(api)
	r.apiKeys(api)
	r.members(api)
	r.users(api)
	r.invitations(api)
	r.timestamping(api)
	r.documents(api)
	r.files(api)
	r.projections(api)
	r.kafkaDemo(api)
}

type commandsKey struct{}

// commandsOf is for an input's Resolve, which has nothing but the request.
func commandsOf(hc huma.Context) *commands.Commands {
	c, _ := hc.Context().Value(commandsKey{}).(*commands.Commands)
	return c
}

// route registers a handler whose errors are those of the commands.
func route[I, O any](api huma.API, op httpapi.Op, handler func(context.Context, *I) (*O, error)) {
	httpapi.Route(api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handler(ctx, in)
		if err != nil {
			return nil, answer(err)
		}
		return out, nil
	})
}

// caller says who gives the command; key is the Idempotency-Key, if any. The same key in two tenants is two commands, also where both are of
// the platform's log; no key has a blank.
func (r routes) caller(ctx context.Context, key string) commands.Caller {
	if key == "" {
		key = uuid.NewString()
	} else if tenant := httpapi.MembershipOf(ctx).ID; tenant != "" {
		key = tenant + " " + key
	}
	by := commands.Caller{UserID: httpapi.PrincipalOf(ctx).UserID, Command: key, Correlation: httpapi.RequestID(ctx), At: r.Now()}
	if versions := httpapi.IfMatchOf(ctx); versions != nil {
		by.IfMatch = make([]eventstore.Version, len(versions)) // not nil, also when it is empty
		for i, v := range versions {
			by.IfMatch[i] = eventstore.Version(v)
		}
	}
	return by
}

// refusals says how a refusal of the domain is answered; one that is missing here is answered 400 with its own code.
var refusals = map[string]struct {
	status int
	code   string
}{
	"user.email_taken":      {http.StatusConflict, "email_exists"},
	"user.unknown":          {http.StatusNotFound, ""},
	"tenant.unknown":        {http.StatusNotFound, ""},
	"tenant.deleted":        {http.StatusNotFound, ""},
	"tenant.gone":           {http.StatusConflict, ""},
	"membership.unknown":    {http.StatusNotFound, ""},
	"membership.has_admin":  {http.StatusConflict, ""},
	"user.inactive":         {http.StatusForbidden, "account_inactive"},
	"user.administrator":    {http.StatusConflict, ""},
	"invitation.unknown":    {http.StatusNotFound, ""},
	"invitation.exists":     {http.StatusConflict, ""},
	"invitation.unverified": {http.StatusForbidden, "EMAIL_UNVERIFIED"},
	"invitation.another":    {http.StatusForbidden, "OTHER_ADDRESS"},
	"invitation.link":       {http.StatusBadRequest, "INVALID_LINK"},
	"document.unknown":      {http.StatusNotFound, ""},
	"document.not_owner":    {http.StatusForbidden, ""},
	"file.unknown":          {http.StatusNotFound, ""},
	"session.unknown":       {http.StatusNotFound, ""},
	"apikey.unknown":        {http.StatusNotFound, ""},
	"apikey.too_many":       {http.StatusConflict, ""},
	"user.unverified":       {http.StatusForbidden, "email_unverified"},

	"projection.event_unknown": {http.StatusNotFound, ""},
}

// answer is the one switch from errors of the commands to what clients see. Everything else is a 500 without text.
func answer(err error) error {
	var (
		problem  *httpapi.Problem
		invalid  *commands.ValidationError
		refusal  *es.Refusal
		conflict *eventstore.ConflictError
		reused   *eventstore.ReusedKeyError
		closed   *eventstore.UnavailableError
		throttle *auth.ThrottledError
		stale    *commands.StaleError
	)
	switch {
	case errors.As(err, &problem):
		return problem
	case errors.As(err, &invalid):
		return httpapi.Invalid(invalid.Fields)
	case errors.As(err, &refusal):
		known, ok := refusals[refusal.Code]
		if !ok {
			return httpapi.NewProblem(http.StatusBadRequest, "", refusal.Detail)
		}
		return httpapi.NewProblem(known.status, known.code, refusal.Detail)
	case errors.As(err, &stale):
		return httpapi.Stale()
	case errors.As(err, &reused):
		return httpapi.ReusedKey()
	case errors.As(err, &conflict):
		return httpapi.NewProblem(http.StatusConflict, "", "Somebody else changed this at the same time. Try again.")
	case errors.As(err, &closed):
		return httpapi.Unavailable("The log cannot be written now. Try again with the same Idempotency-Key: nothing is done twice.", err)
	case errors.Is(err, commands.ErrTooLarge):
		return httpapi.NewProblem(http.StatusRequestEntityTooLarge, "", "A file has at most 100 MiB.")
	case errors.As(err, &throttle):
		return httpapi.TooMany("Too many attempts failed; no password is looked at for a while, be it right or wrong.", throttle.Seconds())
	case errors.Is(err, auth.ErrInvalidLink):
		return httpapi.NewProblem(http.StatusBadRequest, "invalid_link", "This link is not valid: it was used or has expired. Ask for another.")
	case errors.Is(err, auth.ErrInvalidCredentials):
		return httpapi.NewProblem(http.StatusUnauthorized, "invalid_credentials", "The e-mail address or the password is wrong.")
	case errors.Is(err, auth.ErrInactive):
		return httpapi.NewProblem(http.StatusForbidden, "account_inactive", "This account is switched off. Ask who runs this installation.")
	case errors.Is(err, auth.ErrBusy):
		return httpapi.Overloaded("Too many passwords are being checked. Try again in a moment.")
	default:
		return err
	}
}
