package apitest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/factum-platform/factum/infra/auth"
)

// recipe gives a request what its description cannot say: the id of something that may be deleted, a token that was mailed. It may send
// requests that prepare one that is proper.
type recipe func(d *driver, r *draft, proper bool)

// put sets a member of a JSON body.
func put(r *draft, key string, value any) {
	o, _ := r.tree.(object)
	o = slices.DeleteFunc(slices.Clone(o), func(m member) bool { return m.key == key })
	o = append(o, member{key, value})
	r.tree = o
}

func putAll(key string, value func(d *driver) any) recipe {
	return func(d *driver, r *draft, _ bool) { put(r, key, value(d)) }
}

func inPath(name string, value func(d *driver) string) recipe {
	return func(d *driver, r *draft, _ bool) { r.params[name] = value(d) }
}

// recipesOf are by operation; routes without one are described well enough.
func recipesOf() map[string]recipe {
	stamped := inPath("file_id", func(d *driver) string { return d.stamped })
	steer := func(d *driver, r *draft, _ bool) {
		r.params["projection"] = one(d.generator, []string{"documents", "audit", "directory"})
		put(r, "tenant", d.tenant)
	}
	return map[string]recipe{
		"register": func(d *driver, r *draft, _ bool) {
			d.unique++
			put(r, "email", fmt.Sprintf("fuzz-%d-%d@plant.example", d.number, d.unique))
			put(r, "password", password)
		},
		"login": func(d *driver, r *draft, _ bool) {
			put(r, "email", d.people["admin"].email)
			put(r, "password", d.passes["admin"])
		},
		"refresh": func(d *driver, r *draft, _ bool) { r.set("Authorization", "Bearer "+d.people["viewer"].refresh) },
		"change-password": func(d *driver, r *draft, _ bool) {
			d.as(r, "user")
			put(r, "current_password", d.passes["user"])
			put(r, "new_password", fmt.Sprintf("stator coil %d humming", d.IntN(1000)))
		},
		"forgot-password": putAll("email", func(d *driver) any { return d.people["viewer"].email }),
		"reset-password": func(d *driver, r *draft, proper bool) {
			put(r, "new_password", fmt.Sprintf("stator coil %d humming", d.IntN(1000)))
			if proper {
				put(r, "token", d.mailed(auth.ResetPassword, "viewer"))
			}
		},
		"verify-email": func(d *driver, r *draft, proper bool) {
			if proper {
				put(r, "token", d.mailed(auth.VerifyEmail, "viewer"))
			}
		},
		"end-session": func(d *driver, r *draft, _ bool) {
			d.as(r, "viewer")
			r.params["session_id"] = d.session("viewer")
		},
		"logout":              func(d *driver, r *draft, _ bool) { d.as(r, "viewer") },
		"logout-all":          func(d *driver, r *draft, _ bool) { d.as(r, "viewer") },
		"resend-verification": func(d *driver, r *draft, _ bool) { d.as(r, "user") },

		"delete-tenant":  inPath("tenant_id", func(d *driver) string { return d.spare }),
		"restore-tenant": inPath("tenant_id", func(d *driver) string { return d.spare }),
		"rename-tenant":  func(d *driver, r *draft, _ bool) { put(r, "name", d.secret) },
		"add-member":     putAll("user_id", func(d *driver) any { return d.people["candidate"].id }),
		"change-role":    inPath("user_id", func(d *driver) string { return d.people["viewer"].id }),
		"remove-member":  inPath("user_id", func(d *driver) string { return d.people["viewer"].id }),

		"delete-document": func(d *driver, r *draft, proper bool) {
			if proper {
				r.params["document_id"] = d.upload().document
			}
		},
		"change-document": func(d *driver, r *draft, proper bool) {
			if proper {
				r.params["document_id"] = d.upload().document
			}
			put(r, "mime_type", "application/pdf")
		},
		"get-document":      (*driver).anyDocument,
		"download-document": (*driver).anyDocument,
		"download-url":      (*driver).anyDocument,
		"delete-file": func(d *driver, r *draft, proper bool) {
			if proper {
				r.params["file_id"] = d.orphan()
			}
		},
		"get-file":           stamped,
		"get-timestamp":      stamped,
		"download-timestamp": stamped,
		"verify-timestamp":   stamped,

		"invite": func(d *driver, r *draft, _ bool) {
			d.unique++
			put(r, "email", fmt.Sprintf("guest-%d-%d@plant.example", d.number, d.unique))
		},
		"resend-invitation":  (*driver).anyInvitation,
		"revoke-invitation":  (*driver).anyInvitation,
		"my-invitations":     func(d *driver, r *draft, _ bool) { d.as(r, "candidate") },
		"accept-invitation":  (*driver).ownInvitation,
		"decline-invitation": (*driver).ownInvitation,
		"accept-invitation-by-link": func(d *driver, r *draft, proper bool) {
			d.as(r, "candidate")
			if proper {
				put(r, "token", d.invitedByMail(d.people["candidate"].email))
			}
		},
		"decline-invitation-by-link": func(d *driver, r *draft, proper bool) {
			if proper {
				put(r, "token", d.invitedByMail(d.people["candidate"].email))
			}
		},
		"deactivate-user": inPath("user_id", func(d *driver) string { return d.people["candidate"].id }),
		"activate-user":   inPath("user_id", func(d *driver) string { return d.people["candidate"].id }),

		"appoint-admin": func(d *driver, r *draft, _ bool) {
			r.params["tenant_id"] = d.left
			put(r, "user_id", d.people["stranger"].id)
		},

		"pause-projection":  steer,
		"resume-projection": steer,
		"retry-projection": func(d *driver, r *draft, proper bool) {
			steer(d, r, proper)
			if proper { // the consumer itself
				r.tree = object{{"tenant", d.tenant}}
			}
		},
		"skip-projection": func(d *driver, r *draft, _ bool) {
			r.params["projection"] = "documents"
			r.tree = object{{"tenant", d.tenant}, {"stream", d.event.stream}, {"event", d.event.id}, {"reason", d.nastyOr("a fuzz")}}
		},
	}
}

func (d *driver) nastyOr(text string) string {
	if d.chance(80) {
		return text
	}
	return d.nasty()
}

func (d *driver) anyDocument(r *draft, proper bool) {
	if proper {
		r.params["document_id"] = d.upload().document
	}
}

type uploaded struct{ document, file string }

// upload is a fresh document, whose content is a file of its own.
func (d *driver) upload() uploaded {
	a := d.call("upload-document", func(r *draft) {
		d.unique++
		r.parts[0].content = fmt.Sprintf("%s alone %d", d.secret, d.unique)
	})
	var body struct {
		Data struct {
			ID     string `json:"id"`
			FileID string `json:"file_id"`
		} `json:"data"`
	}
	if err := json.Unmarshal(a.body, &body); err != nil {
		return uploaded{d.uuid(), d.uuid()} // the finding is noted
	}
	return uploaded{body.Data.ID, body.Data.FileID}
}

// orphan is a file that no document refers to.
func (d *driver) orphan() string {
	up := d.upload()
	d.call("delete-document", func(r *draft) { r.params["document_id"] = up.document })
	return up.file
}

// invited is the id of a fresh invitation, in place of an older one of the same address.
func (d *driver) invited(email string) string {
	if d.invitation != "" {
		d.call("revoke-invitation", func(r *draft) { r.params["invitation_id"] = d.invitation })
	}
	a := d.call("invite", func(r *draft) { put(r, "email", email) })
	var body struct {
		Data struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if a.status == 201 {
		d.own(json.Unmarshal(a.body, &body))
	}
	d.invitation = body.Data.ID
	return body.Data.ID
}

// invitedByMail is the token of an invitation's mail; of one address that is mailed only so often, a wrong one.
func (d *driver) invitedByMail(email string) string {
	d.w.links.forget(email)
	id := d.invited(email)
	if id == "" {
		return d.nasty() // an earlier request has left another invitation open
	}
	d.own(d.w.commands.MailInvitation(context.Background(), id)) // as the job does
	return d.w.links.wait(email)
}

func (d *driver) anyInvitation(r *draft, proper bool) {
	if proper {
		d.unique++
		invitation := d.invitation
		d.invitation = ""
		r.params["invitation_id"] = d.invited(fmt.Sprintf("guest-%d-%d@plant.example", d.number, d.unique))
		d.invitation = invitation
	}
}

func (d *driver) ownInvitation(r *draft, proper bool) {
	d.as(r, "candidate")
	if proper {
		r.params["invitation_id"] = d.invited(d.people["candidate"].email)
	}
}

// mailed is the token of a link that was mailed; that mails are sent is tested elsewhere.
func (d *driver) mailed(purpose auth.Purpose, role string) string {
	ctx := context.Background()
	id := d.people[role].id
	_, err := d.w.platform.Exec(ctx, `delete from auth.links where user_id = $1`, id)
	token, linkErr := d.w.accounts.NewLink(ctx, purpose, id)
	d.own(errors.Join(err, linkErr))
	return token
}

// session is the one of a caller's token.
func (d *driver) session(caller string) string {
	var claims struct {
		Session string `json:"sid"`
	}
	_, rest, _ := strings.Cut(d.tokens[caller], ".")
	payload, _, _ := strings.Cut(rest, ".")
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	if err == nil {
		err = json.Unmarshal(raw, &claims)
	}
	d.own(err)
	return claims.Session
}

// repair undoes what would let later requests find nothing but a refusal.
func (d *driver) repair(r *request, a reply) {
	ctx := context.Background()
	if hashes(r.op) && d.chance(90) { // or failed attempts soon hold up all log-ins from our address
		_, err := d.w.platform.Exec(ctx, `delete from auth.attempts`)
		d.own(err)
	}
	if a.status/100 != 2 || d.repairing {
		return
	}
	d.repairing = true
	defer func() { d.repairing = false }()
	switch id := r.op.id; {
	case id == "delete-tenant":
		d.call("restore-tenant", func(back *draft) { back.params["tenant_id"] = r.params["tenant_id"] })
	case id == "pause-projection":
		d.call("resume-projection", func(back *draft) { back.params, back.body = r.params, r.body })
	case id == "deactivate-user":
		d.call("activate-user", func(back *draft) { back.params["user_id"] = r.params["user_id"] })
		d.own(d.begin(ctx))
	case id == "accept-invitation" || id == "accept-invitation-by-link":
		if r.caller == "candidate" {
			d.call("remove-member", func(back *draft) { back.params["user_id"] = d.people["candidate"].id })
		}
	case id == "remove-member" || id == "change-role" || id == "add-member":
		d.membersAgain(r)
	case slices.Contains([]string{"logout", "logout-all", "end-session", "change-password", "reset-password", "refresh"}, id):
		if id == "change-password" || id == "reset-password" {
			d.newPasswords(r)
		}
		d.own(d.begin(ctx))
	}
}

// newPasswords remembers what was set.
func (d *driver) newPasswords(r *request) {
	var body struct {
		New string `json:"new_password"`
	}
	d.own(json.Unmarshal(r.body, &body)) // it was accepted
	role := "viewer"
	if r.op.id == "change-password" {
		role = r.caller
	}
	d.passes[role] = body.New
}

// membersAgain gives everybody the role that the name says.
func (d *driver) membersAgain(r *request) {
	if r.params["tenant_id"] != d.tenant {
		return
	}
	switch r.op.id {
	case "add-member":
		d.call("remove-member", func(back *draft) { back.params["user_id"] = d.people["candidate"].id })
	case "change-role":
		for _, role := range []string{"viewer", "user"} {
			d.call("change-role", func(back *draft) {
				back.params["user_id"] = d.people[role].id
				put(back, "role", role)
			})
		}
	default:
		for _, role := range []string{"viewer", "user"} {
			if strings.EqualFold(r.params["user_id"], d.people[role].id) {
				d.call("add-member", func(back *draft) {
					put(back, "user_id", d.people[role].id)
					put(back, "role", role)
				})
			}
		}
	}
}
