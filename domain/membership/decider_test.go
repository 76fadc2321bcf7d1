package membership_test

import (
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/factum-platform/factum/domain/es"
	. "github.com/factum-platform/factum/domain/membership"
)

var at = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

func granted(user, role string) Granted {
	return Granted{TenantID: "t", UserID: user, Role: role, GrantedBy: "v", At: at}
}

func TestGrant(t *testing.T) {
	grant := func(role string) Grant { return Grant{TenantID: "t", UserID: "u", Role: role, By: "v", At: at} }
	for _, role := range []string{Admin, User, Viewer} {
		given(t).When(grant(role)).Then(granted("u", role))
		given(t, granted("w", Admin)).When(grant(role)).Then(granted("u", role))
	}
	for _, role := range []string{"Admin", "", "owner", "admin "} {
		given(t).When(grant(role)).Refused("membership.role")
	}
	given(t, granted("u", User)).When(grant(User)).Then()
	given(t, granted("u", User)).When(grant(Admin)).Refused("membership.exists")
	given(t, granted("w", Admin), granted("u", User), Removed{TenantID: "t", UserID: "u"}).When(grant(Viewer)).Then(granted("u", Viewer))
}

func TestAdd(t *testing.T) {
	add := func(role string) Add { return Add{TenantID: "t", UserID: "u", Role: role, By: "v", At: at} }
	given(t, granted("w", Admin)).When(add(User)).Then(granted("u", User))
	given(t, granted("w", Admin)).When(add("User")).Refused("membership.role")
	for _, role := range []string{Admin, User, Viewer} {
		given(t, granted("u", User)).When(add(role)).Refused("membership.exists")
	}
}

func TestChangeRole(t *testing.T) {
	change := func(role string) ChangeRole {
		return ChangeRole{TenantID: "t", UserID: "u", Role: role, By: "v", At: at}
	}
	changed := RoleChanged{TenantID: "t", UserID: "u", Role: Viewer, ChangedBy: "v", At: at}
	given(t, granted("w", Admin), granted("u", User)).When(change(Viewer)).Then(changed)
	given(t, granted("w", Admin), granted("u", Admin)).When(change(Viewer)).Then(changed)
	given(t, granted("w", Admin), granted("u", User), changed).When(change(Viewer)).Then()
	given(t, granted("u", Admin), granted("w", User)).When(change(Viewer)).Refused("membership.last_admin")
	given(t, granted("u", Admin)).When(change(Admin)).Then()
	given(t, granted("w", Admin)).When(change(User)).Refused("membership.unknown")
	given(t, granted("u", User)).When(change("root")).Refused("membership.role")
}

func TestRemove(t *testing.T) {
	remove := Remove{TenantID: "t", UserID: "u", By: "u", At: at}
	removed := Removed{TenantID: "t", UserID: "u", RemovedBy: "u", At: at}
	given(t, granted("w", Admin), granted("u", Admin)).When(remove).Then(removed)
	given(t, granted("w", Admin), granted("u", Viewer)).When(remove).Then(removed)
	given(t, granted("u", Admin), granted("w", User)).When(remove).Refused("membership.last_admin")
	given(t, granted("w", Admin), granted("u", Admin), RoleChanged{TenantID: "t", UserID: "w", Role: User}).When(remove).Refused("membership.last_admin")
	given(t, granted("w", Admin), granted("u", User), removed).When(remove).Refused("membership.unknown")
	given(t).When(remove).Refused("membership.unknown")
}

// TestWhoCannotLogInIsNoLastAdmin: an admin whose account is switched off keeps no tenant in good hands.
func TestWhoCannotLogInIsNoLastAdmin(t *testing.T) {
	off := []string{"w"}
	admins := []Event{granted("w", Admin), granted("u", Admin)}
	demote := ChangeRole{TenantID: "t", UserID: "u", Role: User, By: "v", Inactive: off, At: at}
	remove := Remove{TenantID: "t", UserID: "u", By: "v", Inactive: off, At: at}
	given(t, admins...).When(demote).Refused("membership.last_admin")
	given(t, admins...).When(remove).Refused("membership.last_admin")
	given(t, append(admins, granted("x", Admin))...).When(remove).Then(Removed{TenantID: "t", UserID: "u", RemovedBy: "v", At: at})
	given(t, admins...).When(Remove{TenantID: "t", UserID: "w", By: "u", Inactive: off, At: at}).Then(Removed{TenantID: "t", UserID: "w", RemovedBy: "u", At: at})
}

func TestAppoint(t *testing.T) {
	appoint := func(inactive ...string) Appoint {
		return Appoint{TenantID: "t", UserID: "u", By: "v", Inactive: inactive, At: at}
	}
	given(t, granted("w", Admin)).When(appoint("w")).Then(granted("u", Admin))
	given(t, granted("w", Admin), granted("u", User)).When(appoint("w")).Then(RoleChanged{TenantID: "t", UserID: "u", Role: Admin, ChangedBy: "v", At: at})
	given(t, granted("w", Admin), granted("u", Admin)).When(appoint()).Then()
	given(t, granted("w", Admin), granted("u", User)).When(appoint()).Refused("membership.has_admin")
	given(t, granted("w", Admin), granted("x", Admin)).When(appoint("w")).Refused("membership.has_admin")
}

// TestAnAdminStays draws any sequence of commands: once a tenant has an admin it always has one, a state that was handed out does not
// change, and members keep the time when they joined.
func TestAnAdminStays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		user := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		role := rapid.SampledFrom([]string{Admin, User, Viewer})
		command := rapid.OneOf(
			rapid.Custom(func(t *rapid.T) Command { return Grant{UserID: user.Draw(t, "user"), Role: role.Draw(t, "role")} }),
			rapid.Custom(func(t *rapid.T) Command { return Add{UserID: user.Draw(t, "user"), Role: role.Draw(t, "role")} }),
			rapid.Custom(func(t *rapid.T) Command { return ChangeRole{UserID: user.Draw(t, "user"), Role: role.Draw(t, "role")} }),
			rapid.Custom(func(t *rapid.T) Command { return Remove{UserID: user.Draw(t, "user")} }),
		)
		s := Decider.Fold(Decider.Initial(), Granted{UserID: "a", Role: Admin, At: at})
		for _, c := range rapid.SliceOf(command).Draw(t, "commands") {
			before := maps.Clone(s.Members)
			facts, err := Decider.Decide(s, c)
			next := Decider.Fold(s, facts...)
			if !maps.Equal(before, s.Members) {
				t.Fatalf("%#v changed the state that it was decided on", c)
			}
			if err != nil && len(facts) > 0 {
				t.Fatalf("%#v was refused and made %#v", c, facts)
			}
			admins := 0
			for id, m := range next.Members {
				if m.Role == Admin {
					admins++
				}
				if was, ok := before[id]; ok && was.JoinedAt != m.JoinedAt {
					t.Fatalf("%s joined at %v and then at %v", id, was.JoinedAt, m.JoinedAt)
				}
			}
			if admins == 0 {
				t.Fatalf("%#v left the tenant without an admin", c)
			}
			s = next
		}
	})
}

func given(t *testing.T, facts ...Event) es.Story[State, Command, Event] {
	t.Helper()
	return es.Given(t, Decider, facts...)
}
