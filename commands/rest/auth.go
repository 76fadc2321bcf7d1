package rest

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/infra/httpapi"
)

func (r routes) auth(api huma.API) {
	route(api, httpapi.Op{
		ID: "register", Method: http.MethodPost, Path: "/api/auth/register", Summary: "Open an account", Tag: "auth",
		Status: http.StatusCreated, Accepts: true, Overloaded: r.overloaded, Errors: []int{http.StatusConflict, http.StatusServiceUnavailable},
	}, r.register)
	route(api, httpapi.Op{
		ID: "login", Method: http.MethodPost, Path: "/api/auth/login", Summary: "Begin a session", Tag: "auth",
		Accepts: true, Secret: true, Overloaded: r.overloaded,
		Errors: []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusServiceUnavailable},
	}, r.logIn)
	route(api, httpapi.Op{
		ID: "refresh", Method: http.MethodPost, Path: "/api/auth/refresh", Tag: "auth",
		Summary: "Exchange the refresh token for new tokens; presenting a used one ends the session", Secret: true,
		Errors: []int{http.StatusForbidden},
	}, r.refresh)
	route(api, httpapi.Op{
		ID: "logout", Method: http.MethodPost, Path: "/api/auth/logout", Summary: "End the session", Tag: "auth",
	}, r.logOut)
	route(api, httpapi.Op{
		ID: "logout-all", Method: http.MethodPost, Path: "/api/auth/logout-all", Summary: "End all sessions of the caller, this one too", Tag: "auth",
	}, r.logOutEverywhere)
	route(api, httpapi.Op{
		ID: "end-session", Method: http.MethodDelete, Path: "/api/auth/sessions/{session_id}", Tag: "auth",
		Summary: "End one session of the caller", Errors: []int{http.StatusNotFound},
	}, r.endSession)
}

// overloaded is for the routes that hash a password.
func (r routes) overloaded() error {
	if err := r.Commands.Busy(); err != nil {
		return answer(err)
	}
	return nil
}

type registration struct {
	httpapi.Repeatable
	Body struct {
		FirstName string `json:"first_name" minLength:"1" maxLength:"100" example:"Mina"`
		LastName  string `json:"last_name" minLength:"1" maxLength:"100" example:"Okoro"`
		Email     string `json:"email" maxLength:"255" example:"mina@plant.example"`
		Password  string `json:"password" minLength:"8" maxLength:"1024" doc:"At least 12 characters, not a common password and not easy to guess. With the setting for short passwords: at least 8, with a letter and a digit." example:"stator coil 7 humming"`
	}
}

// Resolve implements huma.Resolver.
func (in *registration) Resolve(hc huma.Context) []error {
	return httpapi.Wrong(in.command().Check(commandsOf(hc).PasswordRules()))
}

func (in *registration) command() commands.RegisterUser {
	return commands.RegisterUser{FirstName: in.Body.FirstName, LastName: in.Body.LastName, Email: in.Body.Email, Password: in.Body.Password}
}

type registered struct {
	httpapi.Settled
	Body struct {
		Message string          `json:"message"`
		User    httpapi.Account `json:"user"`
	}
}

func (r routes) register(ctx context.Context, in *registration) (*registered, error) {
	user, receipt, err := r.Commands.RegisterUser(ctx, r.caller(ctx, in.IdempotencyKey), in.command())
	if err != nil {
		return nil, err
	}
	out := &registered{Settled: r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Directory())}
	out.Body.Message, out.Body.User = "The account is open; a mail with a link asks whether the address is yours.", accountOf(user)
	return out, nil
}

type credentials struct {
	Body struct {
		Email    string `json:"email" minLength:"1" maxLength:"255" example:"mina@plant.example"`
		Password string `json:"password" minLength:"1" example:"stator coil 7 humming"`
	}
}

// Resolve implements huma.Resolver.
func (in *credentials) Resolve(huma.Context) []error {
	return httpapi.Wrong(commands.CheckEmail(in.Body.Email))
}

type ownTenant struct {
	ID           string `json:"id" format:"uuid"`
	Name         string `json:"name"`
	DatabaseName string `json:"database_name"`
	Role         string `json:"role" enum:"admin,user,viewer"`
}

type session struct {
	Body struct {
		Message      string          `json:"message"`
		AccessToken  string          `json:"access_token"`
		RefreshToken string          `json:"refresh_token"`
		User         httpapi.Account `json:"user"`
		Tenants      []ownTenant     `json:"tenants" nullable:"false"`
	}
}

func (r routes) logIn(ctx context.Context, in *credentials) (*session, error) {
	client := httpapi.ClientOf(ctx)
	s, err := r.Commands.LogIn(ctx, commands.LogIn{Email: in.Body.Email, Password: in.Body.Password, Address: client.Address, Agent: client.Agent})
	if err != nil {
		return nil, err
	}
	memberships, _, err := r.Server.Memberships(ctx, s.User.ID, true, 0)
	if err != nil {
		return nil, err
	}
	out := &session{}
	out.Body.Message, out.Body.User = "You are logged in.", accountOf(s.User)
	out.Body.AccessToken, out.Body.RefreshToken = s.Tokens.Access, s.Tokens.Refresh
	out.Body.Tenants = []ownTenant{}
	for _, m := range memberships {
		out.Body.Tenants = append(out.Body.Tenants, ownTenant{m.ID, m.Name, m.DatabaseName, m.Role})
	}
	return out, nil
}

type refreshed struct {
	Body struct {
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token" doc:"Replaces the presented one, which is good no longer."`
	}
}

func (r routes) refresh(ctx context.Context, _ *struct{}) (*refreshed, error) {
	tokens, err := r.Commands.RefreshSession(ctx, httpapi.RefreshTokenOf(ctx))
	if refused := httpapi.RefusedRefresh(err); refused != nil {
		return nil, refused
	}
	if err != nil {
		return nil, err
	}
	out := &refreshed{}
	out.Body.AccessToken, out.Body.RefreshToken = tokens.Access, tokens.Refresh
	return out, nil
}

// told is the answer of a flat route that has nothing but a sentence to say.
type told struct {
	Body struct {
		Message string `json:"message"`
	}
}

func tell(message string) *told {
	out := &told{}
	out.Body.Message = message
	return out
}

func (r routes) logOut(ctx context.Context, _ *struct{}) (*told, error) {
	if err := r.Commands.LogOut(ctx, httpapi.PrincipalOf(ctx)); err != nil {
		return nil, err
	}
	return tell("The session has ended."), nil
}

type loggedOutEverywhere struct {
	Body struct {
		Message string `json:"message"`
		Ended   int    `json:"ended" doc:"How many sessions there were, with this one."`
	}
}

func (r routes) logOutEverywhere(ctx context.Context, _ *struct{}) (*loggedOutEverywhere, error) {
	ended, err := r.Commands.LogOutEverywhere(ctx, httpapi.PrincipalOf(ctx))
	if err != nil {
		return nil, err
	}
	out := &loggedOutEverywhere{}
	out.Body.Message, out.Body.Ended = "All sessions have ended.", ended
	return out, nil
}

type oneSession struct {
	SessionID string `path:"session_id" format:"uuid"`
}

func (r routes) endSession(ctx context.Context, in *oneSession) (*told, error) {
	if err := r.Commands.EndSession(ctx, httpapi.PrincipalOf(ctx), in.SessionID); err != nil {
		return nil, err
	}
	return tell("The session has ended."), nil
}

func accountOf(u commands.User) httpapi.Account {
	return httpapi.Account{User: httpapi.User{
		ID: u.ID, FirstName: u.FirstName, LastName: u.LastName, Email: u.Email, IsActive: u.IsActive,
		CreatedAt: httpapi.Time(u.CreatedAt), UpdatedAt: httpapi.Time(u.UpdatedAt),
	}, EmailVerified: u.EmailVerified}
}
