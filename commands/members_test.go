package commands_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/membership"
	"github.com/factum-platform/factum/eventstore"
)

// rosters folds the tenant's members version by version.
func (w *world) rosters(tenant string) []membership.State {
	w.t.Helper()
	out := []membership.State{membership.Decider.Initial()}
	for rec, err := range w.store.Tenant(eventstore.PlatformTenant).ReadStream(w.t.Context(), eventstore.StreamID{Kind: membership.Kind, ID: tenant}, 1) {
		w.must(err)
		fact, err := w.codec.Decode(w.t.Context(), rec)
		w.must(err)
		out = append(out, membership.Decider.Evolve(out[len(out)-1], fact.(membership.Event)))
	}
	return out
}

func TestMembers(t *testing.T) {
	onEachEngine(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		tenant := w.tenant(someone)
		_, _, err := w.AddMember(ctx, w.caller(someone), tenant.ID, uuid.NewString(), membership.User)
		refused(t, err, "user.unknown")
		account, _, err := w.RegisterUser(ctx, w.caller(""), mina)
		w.must(err)
		add := w.caller(someone)
		first, receipt, err := w.AddMember(ctx, add, tenant.ID, account.ID, membership.User)
		w.must(err)
		again, replay, err := w.AddMember(ctx, add, tenant.ID, account.ID, membership.User)
		w.must(err)
		if first != again || !replay.Replayed || replay.Position != receipt.Position || first.Role != membership.User || !first.JoinedAt.Equal(w.now) {
			t.Fatalf("%+v %+v, then %+v %+v", first, receipt, again, replay)
		}
		_, _, err = w.AddMember(ctx, w.caller(someone), tenant.ID, account.ID, membership.User)
		refused(t, err, "membership.exists")
		changed, _, err := w.ChangeRole(ctx, w.caller(someone), tenant.ID, account.ID, membership.Admin)
		w.must(err)
		if changed.Role != membership.Admin || changed.JoinedAt != first.JoinedAt {
			t.Fatalf("%+v", changed)
		}
		_, err = w.RemoveMember(ctx, w.caller(someone), tenant.ID, someone)
		w.must(err)
		_, err = w.RemoveMember(ctx, w.caller(account.ID), tenant.ID, account.ID)
		refused(t, err, "membership.last_admin")
		_, _, err = w.ChangeRole(ctx, w.caller(account.ID), tenant.ID, someone, membership.User)
		refused(t, err, "membership.unknown")
		want := "tenant.created membership.granted tenant.provisioned user.registered membership.granted membership.role_changed membership.removed"
		if got := w.types(eventstore.PlatformTenant); got != want {
			t.Fatal(got)
		}
	})
}

// TestATenantKeepsAnAdminWhoeverActsAtOnce draws commands that run at the same time in two processes: at every version of the tenant's
// members there is an admin.
func TestATenantKeepsAnAdminWhoeverActsAtOnce(t *testing.T) {
	onEachEngine(t, func(t *testing.T, w *world) {
		other := commands.NewExecutor(w.store.Store, w.codec) // takes no turns with the first
		users := []string{someone}
		for i := range 3 {
			in := mina
			in.Email = fmt.Sprintf("p%d@plant.example", i)
			account, _, err := w.RegisterUser(t.Context(), w.caller(""), in)
			w.must(err)
			users = append(users, account.ID)
		}
		rapid.Check(t, func(rt *rapid.T) {
			tenant := w.tenant(someone).ID
			for _, u := range users[1:] {
				_, _, err := w.AddMember(t.Context(), w.caller(someone), tenant, u, membership.Admin)
				w.must(err)
			}
			role := rapid.SampledFrom([]string{membership.Admin, membership.User, membership.Viewer})
			var wg sync.WaitGroup
			for range rapid.IntRange(2, 10).Draw(rt, "commands") {
				u, r, kind := rapid.SampledFrom(users).Draw(rt, "user"), role.Draw(rt, "role"), rapid.IntRange(0, 3).Draw(rt, "kind")
				by := w.caller(u)
				wg.Go(func() {
					var err error
					switch kind {
					case 0:
						_, err = w.RemoveMember(t.Context(), by, tenant, u)
					case 1:
						_, _, err = w.ChangeRole(t.Context(), by, tenant, u, r)
					case 2:
						_, _, err = w.AddMember(t.Context(), by, tenant, u, r)
					case 3:
						_, err = other.Execute(t.Context(), eventstore.PlatformTenant, eventstore.Meta{Command: by.Command, Actor: u, At: by.At},
							&commands.Decision[membership.State, membership.Command, membership.Event]{
								Decider: membership.Decider, Stream: eventstore.StreamID{Kind: membership.Kind, ID: tenant},
								Command: membership.Remove{TenantID: tenant, UserID: u, By: u, At: by.At},
							})
					}
					var refusal *es.Refusal
					if err != nil && !errors.As(err, &refusal) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			for version, s := range w.rosters(tenant)[1:] {
				admins := 0
				for _, m := range s.Members {
					if m.Role == membership.Admin {
						admins++
					}
				}
				if admins == 0 {
					rt.Fatalf("no admin is left at version %d", version+1)
				}
			}
		})
	})
}
