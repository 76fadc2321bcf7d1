package commands_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/domain/document"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/file"
	"github.com/factum-platform/factum/domain/membership"
	"github.com/factum-platform/factum/eventstore"
)

const someone = "8c5f1a52-6c0e-4d6e-9d8b-1b8f6d0a2f11"

// life is a story in which each command has a fixed id, so that two worlds get the same event ids.
type life struct {
	name  string
	setUp func(*world)
	act   func(*world) error // one command, given again after a crash
}

func (w *world) fixed(command string) commands.Caller {
	return commands.Caller{UserID: someone, Command: command, Correlation: "test", At: w.now}
}

func (w *world) fixedTenant() (commands.Tenant, error) {
	tenant, _, err := w.CreateTenant(w.t.Context(), w.fixed("create"), "North Mill")
	return tenant, err
}

// tenantOf is the tenant that setUp made.
func (w *world) tenantOf() commands.Tenant {
	w.t.Helper()
	tenant, err := w.fixedTenant() // a replay
	w.must(err)
	return tenant
}

func (w *world) fixedUpload() error {
	tenant := commands.Tenant{ID: es.Key("tenant", someone, "create"), DatabaseName: "tenant_x"}
	_, _, err := w.upload(w.fixed("upload"), tenant, strings.NewReader("content"))
	return err
}

func lives() []life {
	made := func(w *world) { w.tenantOf() }
	uploaded := func(w *world) {
		made(w)
		w.must(w.fixedUpload())
	}
	return []life{
		{"register", func(*world) {}, func(w *world) error {
			_, _, err := w.RegisterUser(w.t.Context(), w.fixed("register"), mina)
			return err
		}},
		{"create tenant", func(*world) {}, func(w *world) error { _, err := w.fixedTenant(); return err }},
		{"upload", made, (*world).fixedUpload},
		{"upload a known content", uploaded, func(w *world) error {
			tenant := commands.Tenant{ID: es.Key("tenant", someone, "create"), DatabaseName: "tenant_x"}
			_, _, err := w.upload(w.fixed("upload again"), tenant, strings.NewReader("content"))
			return err
		}},
		{"delete", uploaded, func(w *world) error {
			orphaned, _, err := w.DeleteDocument(w.t.Context(), w.fixed("delete"), fixedDocument(""))
			if err == nil && !orphaned {
				return errors.New("the file is not an orphan")
			}
			return err
		}},
		{"change", uploaded, func(w *world) error {
			name, mime, plant := "valve.pdf", "text/plain", "north"
			changed, _, err := w.ChangeDocument(w.t.Context(), w.fixed("change"), fixedDocument(""),
				commands.ChangeDocument{Filename: &name, MimeType: &mime, Metadata: map[string]*string{"plant": &plant}})
			if err == nil && (changed.Filename != name || changed.MimeType != mime || changed.Metadata["plant"] != plant || changed.UserID != someone) {
				return fmt.Errorf("%+v", changed)
			}
			return err
		}},
		{"delete file", func(w *world) {
			uploaded(w)
			_, _, err := w.DeleteDocument(w.t.Context(), w.fixed("delete"), fixedDocument(""))
			w.must(err)
		}, func(w *world) error {
			page, err := w.store.Tenant(commands.LogOf(fixedDocument("").TenantID)).Page(w.t.Context(), 0, 1000)
			w.must(err)
			for _, e := range page.Events {
				if e.Type == "file.stored" {
					_, _, err = w.DeleteFile(w.t.Context(), w.fixed("delete file"), fixedDocument("").TenantID, e.Stream.ID)
				}
			}
			if err == nil && w.objects.count() > 0 {
				return errors.New("the object is still there")
			}
			return err
		}},
	}
}

// fixedDocument is the document that setUp made.
func fixedDocument(only string) commands.DocumentID {
	id := es.Key("tenant", someone, "create")
	return commands.DocumentID{TenantID: id, ID: es.Key("document", string(commands.LogOf(id)), someone, "upload"), Only: only}
}

// history is all that both logs hold, without what is drawn at random in each world.
func (w *world) history() []string {
	w.t.Helper()
	var out []string
	for _, log := range []eventstore.TenantID{eventstore.PlatformTenant, commands.LogOf(es.Key("tenant", someone, "create"))} {
		page, err := w.store.Tenant(log).Page(w.t.Context(), 0, 1000)
		w.must(err)
		for _, e := range page.Events {
			out = append(out, fmt.Sprintf("%s %d %s %s v%d %s", log, e.Position, e.Type, e.ID, e.Version, e.Meta.Command))
		}
	}
	return out
}

// linked checks what holds at every position of a tenant's log: a file knows of each document that is not deleted.
func (w *world) linked() {
	w.t.Helper()
	page, err := w.store.Tenant(commands.LogOf(es.Key("tenant", someone, "create"))).Page(w.t.Context(), 0, 1000)
	w.must(err)
	links, shown := map[string]bool{}, map[string]bool{}
	for i, e := range page.Events {
		fact, err := w.codec.Decode(w.t.Context(), e)
		w.must(err)
		switch f := fact.(type) {
		case file.Linked:
			links[f.DocumentID] = true
		case file.Unlinked:
			delete(links, f.DocumentID)
		case document.Uploaded:
			shown[f.DocumentID] = true
		case document.Deleted:
			delete(shown, f.DocumentID)
		}
		// One append is one moment: within it the order does not matter.
		if last := i+1 == len(page.Events) || page.Events[i+1].Meta.Command != e.Meta.Command; !last && w.store.caps.MultiStream {
			continue
		}
		for id := range shown {
			if !links[id] {
				w.t.Fatalf("after %s the document %s has no link from its file", e.Type, id)
			}
		}
	}
}

// TestACommandIsFinishedAfterACrash lets the process die before and after each append of each use case, gives the same command
// again, and finds the log of an undisturbed run.
func TestACommandIsFinishedAfterACrash(t *testing.T) {
	for _, l := range lives() {
		t.Run(l.name, func(t *testing.T) {
			onEachEngine(t, func(t *testing.T, calm *world) {
				l.setUp(calm)
				calm.store.appends = 0
				calm.must(l.act(calm))
				appends := calm.store.appends
				want := calm.history()
				calm.linked()
				for n := 1; n <= appends; n++ {
					for _, late := range []bool{false, true} {
						w := newWorldOn(t, calm.store.caps)
						l.setUp(w)
						w.store.die(n, late)
						err := l.act(w)
						// The answer of the last append may be lost and found again by the second look.
						if err == nil && (!late || n < appends) {
							t.Fatalf("append %d of %d: acknowledged although the process died", n, appends)
						}
						if err != nil && !commands.MayHaveHappened(err) {
							t.Fatalf("append %d of %d: %v is taken for definite", n, appends, err)
						}
						w.linked()
						w.store.revive()
						for range 2 {
							w.must(l.act(w))
						}
						w.linked()
						if got := w.history(); !slices.Equal(got, want) {
							t.Fatalf("append %d of %d, late %v:\n%s\nwant\n%s", n, appends, late, strings.Join(got, "\n"), strings.Join(want, "\n"))
						}
						w.objectsFit()
					}
				}
			})
		})
	}
}

// objectsFit checks that every file that is kept has its object.
func (w *world) objectsFit() {
	w.t.Helper()
	w.objectsOf(es.Key("tenant", someone, "create"))
}

func (w *world) objectsOf(tenant string) {
	w.t.Helper()
	page, err := w.store.Tenant(commands.LogOf(tenant)).Page(w.t.Context(), 0, 1000)
	w.must(err)
	wanted := map[string]bool{}
	for _, e := range page.Events {
		fact, err := w.codec.Decode(w.t.Context(), e)
		w.must(err)
		switch f := fact.(type) {
		case file.Stored:
			wanted[f.ObjectKey] = true
		case file.Deleted:
			delete(wanted, f.ObjectKey)
		}
	}
	for key := range wanted {
		if w.objects.kept[key] == nil {
			w.t.Fatalf("the object %s of a stored file is gone", key)
		}
	}
}

// TestTheStartFinishesATenant: nobody gives the command again, and the next start completes the tenant with its admin.
func TestTheStartFinishesATenant(t *testing.T) {
	onEachEngine(t, func(t *testing.T, calm *world) {
		calm.store.appends = 0
		_, err := calm.fixedTenant()
		calm.must(err)
		appends, want := calm.store.appends, calm.history()
		for n := 2; n <= appends; n++ {
			w := newWorldOn(t, calm.store.caps)
			w.store.die(n, false)
			if _, err := w.fixedTenant(); err == nil {
				t.Fatal("acknowledged although the process died")
			}
			w.store.revive()
			for range 2 {
				w.must(w.ProvisionTenant(t.Context(), es.Key("tenant", someone, "create")))
			}
			if got := w.history(); !slices.Equal(got, want) {
				t.Fatalf("append %d:\n%s\nwant\n%s", n, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
	})
}

// TestALaterStepMeetsSomebodyElse: between the two appends another process writes to the second stream.
func TestALaterStepMeetsSomebodyElse(t *testing.T) {
	for role, code := range map[string]string{membership.Admin: "", membership.Viewer: "membership.exists"} {
		w := newWorldOn(t, engines["one stream at a time"])
		id := es.Key("tenant", someone, "create")
		other := commands.NewExecutor(w.store.Store, w.codec)
		w.store.before = func(n int) {
			if n != 2 {
				return
			}
			_, err := other.Execute(t.Context(), eventstore.PlatformTenant, eventstore.Meta{Command: "other", Actor: "other", At: w.now},
				&commands.Decision[membership.State, membership.Command, membership.Event]{
					Decider: membership.Decider, Stream: eventstore.StreamID{Kind: membership.Kind, ID: id},
					Command: membership.Grant{TenantID: id, UserID: someone, Role: role, By: "other", At: w.now},
				})
			w.must(err)
		}
		_, err := w.fixedTenant()
		want := "tenant.created membership.granted tenant.provisioned"
		if code == "" {
			w.must(err)
		} else {
			refused(t, err, code)
			var unfinished *commands.UnfinishedError
			if !errors.As(err, &unfinished) || !commands.MayHaveHappened(err) {
				t.Fatalf("%v does not say that a part is written", err)
			}
			want = "tenant.created membership.granted"
		}
		if got := w.types(eventstore.PlatformTenant); got != want {
			t.Fatalf("%s, want %s", got, want)
		}
	}
}

// TestWhatWasLoadedAheadIsUsedOnce: a stream that was loaded ahead is not loaded again, unless somebody of this process has had a turn at it
// since; what another process has appended is found by the conflict. Either way the decision is made on the facts.
func TestWhatWasLoadedAheadIsUsedOnce(t *testing.T) {
	const reads, appends = 1, 1 // of our command, when nobody comes between
	for name, c := range map[string]struct {
		between        func(w *world, x *commands.Executor) error
		reads, appends int
		code           string
	}{
		"nobody": {func(*world, *commands.Executor) error { return nil }, reads, appends, ""},
		"this process": {func(w *world, x *commands.Executor) error {
			return grant(w, x, "other")
		}, reads + 1, appends - 1, "membership.exists"},
		"another process": {func(w *world, _ *commands.Executor) error {
			return grant(w, commands.NewExecutor(w.store.Store, w.codec), "other")
		}, reads + 1, appends, "membership.exists"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorldOn(t, engines["many streams at once"])
			x := commands.NewExecutor(w.store, w.codec)
			step := grantStep(w, "us", membership.Admin)
			forget, err := x.Ahead(t.Context(), eventstore.PlatformTenant, grantMeta(w, "us"), step)
			w.must(err)
			defer forget()
			ours, ourAppends := w.store.reads, w.store.appends
			w.must(c.between(w, x))
			theirs, theirAppends := w.store.reads-ours, w.store.appends-ourAppends
			_, err = x.Execute(t.Context(), eventstore.PlatformTenant, grantMeta(w, "us"), step)
			if c.code == "" {
				w.must(err)
			} else {
				refused(t, err, c.code)
			}
			if got := w.store.reads - theirs; got != c.reads {
				t.Errorf("%d reads, want %d", got, c.reads)
			}
			if got := w.store.appends - theirAppends; got != c.appends {
				t.Errorf("%d attempts to append, want %d", got, c.appends)
			}
		})
	}
}

func grantMeta(w *world, command string) eventstore.Meta {
	return eventstore.Meta{Command: command, Actor: command, At: w.now}
}

func grantStep(w *world, by, role string) *commands.Decision[membership.State, membership.Command, membership.Event] {
	id := es.Key("membership", "ahead")
	return &commands.Decision[membership.State, membership.Command, membership.Event]{
		Decider: membership.Decider, Stream: eventstore.StreamID{Kind: membership.Kind, ID: id},
		Command: membership.Grant{TenantID: id, UserID: someone, Role: role, By: by, At: w.now},
	}
}

func grant(w *world, x *commands.Executor, by string) error {
	_, err := x.Execute(w.t.Context(), eventstore.PlatformTenant, grantMeta(w, by), grantStep(w, by, membership.Viewer))
	return err
}
