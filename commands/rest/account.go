package rest

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/infra/httpapi"
)

func (r routes) account(api huma.API) {
	route(api, httpapi.Op{
		ID: "change-profile", Method: http.MethodPut, Versioned: httpapi.TagUser, Path: "/api/users/me", Tag: "users",
		Summary: "Change the caller's names", Accepts: true, Errors: []int{http.StatusConflict, http.StatusNotFound},
	}, r.changeProfile)
	route(api, httpapi.Op{
		ID: "change-password", Method: http.MethodPost, Path: "/api/auth/password/change", Tag: "auth",
		Summary: "Change the caller's password; all other sessions of the caller end", Accepts: true, Errors: []int{http.StatusTooManyRequests},
	}, r.changePassword)
	route(api, httpapi.Op{
		ID: "forgot-password", Method: http.MethodPost, Path: "/api/auth/password/forgot", Tag: "auth", Status: http.StatusAccepted,
		Summary: "Have a link mailed that sets a new password, if the address has an account", Accepts: true, Errors: []int{http.StatusTooManyRequests},
	}, r.forgotPassword)
	route(api, httpapi.Op{
		ID: "reset-password", Method: http.MethodPost, Path: "/api/auth/password/reset", Tag: "auth",
		Summary: "Set a new password by a mailed link; all sessions end", Accepts: true,
		Errors: []int{http.StatusConflict, http.StatusServiceUnavailable},
	}, r.resetPassword)
	route(api, httpapi.Op{
		ID: "verify-email", Method: http.MethodPost, Path: "/api/auth/verify-email", Tag: "auth",
		Summary: "Verify an e-mail address by a mailed link", Accepts: true, Errors: []int{http.StatusConflict, http.StatusServiceUnavailable},
	}, r.verifyEmail)
	route(api, httpapi.Op{
		ID: "resend-verification", Method: http.MethodPost, Path: "/api/auth/verify-email/resend", Tag: "auth", Status: http.StatusAccepted,
		Summary: "Have the link that verifies the caller's address mailed again",
	}, r.resendVerification)
}

type profile struct {
	httpapi.Repeatable
	Body struct {
		FirstName text `json:"first_name,omitzero" minLength:"1" maxLength:"100" example:"Mina"`
		LastName  text `json:"last_name,omitzero" minLength:"1" maxLength:"100" example:"Okoro"`
	}
}

// Resolve implements huma.Resolver.
func (in *profile) Resolve(huma.Context) []error {
	wrong := in.command().Check()
	for field, t := range map[string]text{"first_name": in.Body.FirstName, "last_name": in.Body.LastName} {
		if t.null {
			delete(wrong, "_schema") // that no field is named
			wrong[field] = []string{notNull}
		}
	}
	return httpapi.Wrong(wrong)
}

func (in *profile) command() commands.ChangeProfile {
	return commands.ChangeProfile{FirstName: in.Body.FirstName.value, LastName: in.Body.LastName.value}
}

func (r routes) changeProfile(ctx context.Context, in *profile) (*httpapi.Answer[httpapi.Account], error) {
	u, receipt, err := r.Commands.ChangeProfile(ctx, r.caller(ctx, in.IdempotencyKey), in.command())
	if err != nil {
		return nil, err
	}
	httpapi.Tag(ctx, httpapi.TagUser, uint64(receipt.Version))
	return httpapi.Answered(r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Directory()), "Your profile is changed.", accountOf(u)), nil
}

type passwordChange struct {
	Body struct {
		CurrentPassword string `json:"current_password" minLength:"1"`
		NewPassword     string `json:"new_password" minLength:"8" maxLength:"1024" doc:"As at registration." example:"stator coil 7 humming"`
	}
}

// Resolve implements huma.Resolver.
func (in *passwordChange) Resolve(hc huma.Context) []error {
	return httpapi.Wrong(commandsOf(hc).CheckNewPassword(in.Body.NewPassword))
}

func (r routes) changePassword(ctx context.Context, in *passwordChange) (*told, error) {
	err := r.Commands.ChangePassword(ctx, httpapi.PrincipalOf(ctx), commands.ChangePassword{
		Current: in.Body.CurrentPassword, New: in.Body.NewPassword, Address: httpapi.ClientOf(ctx).Address,
	})
	if err != nil {
		return nil, err
	}
	return tell("The password is changed, and your other sessions have ended."), nil
}

type forgotten struct {
	Body struct {
		Email string `json:"email" minLength:"1" maxLength:"255" example:"mina@plant.example"`
	}
}

// Resolve implements huma.Resolver.
func (in *forgotten) Resolve(huma.Context) []error {
	return httpapi.Wrong(commands.CheckEmail(in.Body.Email))
}

func (r routes) forgotPassword(ctx context.Context, in *forgotten) (*told, error) {
	if err := r.Commands.AskToReset(ctx, in.Body.Email, httpapi.ClientOf(ctx).Address); err != nil {
		return nil, err
	}
	return tell("If this address has an account, a mail is on its way."), nil
}

type passwordReset struct {
	Body struct {
		Token       string `json:"token" minLength:"1" maxLength:"200" doc:"What follows #reset= in the mailed link."`
		NewPassword string `json:"new_password" minLength:"8" maxLength:"1024" doc:"As at registration." example:"stator coil 7 humming"`
	}
}

// Resolve implements huma.Resolver.
func (in *passwordReset) Resolve(hc huma.Context) []error {
	return httpapi.Wrong(commandsOf(hc).CheckNewPassword(in.Body.NewPassword))
}

func (r routes) resetPassword(ctx context.Context, in *passwordReset) (*settledTold, error) {
	receipt, err := r.Commands.ResetPassword(ctx, r.caller(ctx, ""), in.Body.Token, in.Body.NewPassword)
	if err != nil {
		return nil, err
	}
	return r.settledTell(ctx, receipt, "The password is set, and all sessions have ended. Log in."), nil
}

type followedLink struct {
	Body struct {
		Token string `json:"token" minLength:"1" maxLength:"200" doc:"What follows #verify= in the mailed link."`
	}
}

func (r routes) verifyEmail(ctx context.Context, in *followedLink) (*settledTold, error) {
	receipt, err := r.Commands.VerifyEmail(ctx, r.caller(ctx, ""), in.Body.Token)
	if err != nil {
		return nil, err
	}
	return r.settledTell(ctx, receipt, "The address is verified."), nil
}

func (r routes) resendVerification(ctx context.Context, _ *struct{}) (*told, error) {
	if err := r.Commands.AskToVerify(ctx, httpapi.PrincipalOf(ctx).UserID); err != nil {
		return nil, err
	}
	return tell("If your address is not verified yet, a mail is on its way."), nil
}

// settledTold is a [told] of a write.
type settledTold struct {
	httpapi.Settled
	Body struct {
		Message string `json:"message"`
	}
}

func (r routes) settledTell(ctx context.Context, receipt commands.Receipt, message string) *settledTold {
	out := &settledTold{Settled: r.Server.Settle(ctx, uint64(receipt.Position), httpapi.Directory())}
	out.Body.Message = message
	return out
}
