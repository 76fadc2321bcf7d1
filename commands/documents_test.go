package commands_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/factum-platform/factum/commands"
	"github.com/factum-platform/factum/domain/es"
)

func TestChangeDocument(t *testing.T) {
	w := newWorld(t)
	ctx, user := t.Context(), uuid.NewString()
	tenant := w.tenant(user)
	log := commands.LogOf(tenant.ID)
	up, _, err := w.upload(w.caller(user), tenant, strings.NewReader("content"))
	w.must(err)
	id := commands.DocumentID{TenantID: tenant.ID, ID: up.DocumentID}
	text := func(s string) *string { return &s }

	bad := commands.ChangeDocument{Filename: text("a/b"), MimeType: text("pdf"), Metadata: map[string]*string{"": text("x")}}
	_, _, err = w.ChangeDocument(ctx, w.caller(user), id, bad)
	var invalid *commands.ValidationError
	if !errors.As(err, &invalid) || len(invalid.Fields) != 3 {
		t.Fatal(err)
	}
	others := id
	others.Only = uuid.NewString()
	_, _, err = w.ChangeDocument(ctx, w.caller(others.Only), others, commands.ChangeDocument{Filename: text("x")})
	refused(t, err, "document.not_owner")
	_, _, err = w.DeleteDocument(ctx, w.caller(others.Only), others)
	refused(t, err, "document.not_owner")

	change := w.caller(user)
	for range 2 {
		d, _, err := w.ChangeDocument(ctx, change, id, commands.ChangeDocument{Filename: text(" secret plan.pdf "), Metadata: map[string]*string{"author": text("Mina Okoro")}})
		w.must(err)
		if d.Filename != "secret plan.pdf" || d.MimeType != "application/pdf" || d.Metadata["author"] != "Mina Okoro" || !d.UpdatedAt.Equal(w.now) {
			t.Fatalf("%+v", d)
		}
	}
	if got := w.types(log); !strings.HasSuffix(got, " document.uploaded document.renamed document.metadata_set") {
		t.Fatal(got)
	}
	page, err := w.store.Tenant(log).Page(ctx, 0, 100)
	w.must(err)
	for _, e := range page.Events {
		for _, personal := range []string{"secret plan", "Okoro", "author"} {
			if strings.Contains(string(e.Data), personal) {
				t.Errorf("%q lies open in the log: %s", personal, e.Data)
			}
		}
	}
	_, _, err = w.DeleteDocument(ctx, w.caller(user), id)
	w.must(err)
	_, _, err = w.ChangeDocument(ctx, w.caller(user), id, commands.ChangeDocument{Filename: text("x")})
	refused(t, err, "document.unknown")
	_, _, err = w.ChangeDocument(ctx, change, id, commands.ChangeDocument{Filename: text("secret plan.pdf")}) // a repetition, too late
	refused(t, err, "document.unknown")
}

// TestAFileIsNotDeletedUnderAnUpload lets one content be uploaded and its file be deleted again and again at the same time: a document
// always has its object.
func TestAFileIsNotDeletedUnderAnUpload(t *testing.T) {
	onEachEngine(t, func(t *testing.T, w *world) {
		ctx, user := t.Context(), uuid.NewString()
		tenant := w.tenant(user)
		first, _, err := w.upload(w.caller(user), tenant, strings.NewReader("content"))
		w.must(err)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 10 {
					up, _, err := w.upload(w.caller(user), tenant, strings.NewReader("content"))
					if err != nil {
						t.Error(err)
						return
					}
					w.objects.mu.Lock()
					kept := string(w.objects.kept[up.ObjectKey])
					w.objects.mu.Unlock()
					if kept != "content" {
						t.Errorf("the object of an acknowledged document is gone")
					}
					if _, _, err := w.DeleteDocument(ctx, w.caller(user), commands.DocumentID{TenantID: tenant.ID, ID: up.DocumentID}); err != nil {
						t.Error(err)
					}
				}
			})
			wg.Go(func() {
				for range 20 {
					_, _, err := w.DeleteFile(ctx, w.caller(user), tenant.ID, first.FileID)
					var refusal *es.Refusal
					if err != nil && !errors.As(err, &refusal) {
						t.Error(err)
					}
				}
			})
		}
		_, _, err = w.DeleteDocument(ctx, w.caller(user), commands.DocumentID{TenantID: tenant.ID, ID: first.DocumentID})
		w.must(err)
		wg.Wait()
		w.objectsOf(tenant.ID)
	})
}

func TestDeleteFile(t *testing.T) {
	w := newWorld(t)
	ctx, user := t.Context(), uuid.NewString()
	tenant := w.tenant(user)
	up, _, err := w.upload(w.caller(user), tenant, strings.NewReader("content"))
	w.must(err)
	_, _, err = w.DeleteFile(ctx, w.caller(user), tenant.ID, up.FileID)
	refused(t, err, "file.referenced")
	_, _, err = w.DeleteFile(ctx, w.caller(user), tenant.ID, uuid.NewString())
	refused(t, err, "file.unknown")
	_, _, err = w.DeleteDocument(ctx, w.caller(user), commands.DocumentID{TenantID: tenant.ID, ID: up.DocumentID})
	w.must(err)

	// The object store is away: the file is deleted, and the same command removes the object later.
	w.objects.stay = errors.New("the bucket is away")
	deletion := w.caller(user)
	gone, _, err := w.DeleteFile(ctx, deletion, tenant.ID, up.FileID)
	w.must(err)
	if gone.Size != 7 || gone.MD5 != up.MD5 || w.objects.count() != 1 || !strings.Contains(w.said.String(), up.ObjectKey) {
		t.Fatalf("%+v %d %s", gone, w.objects.count(), w.said.String())
	}
	w.objects.stay = nil
	_, again, err := w.DeleteFile(ctx, deletion, tenant.ID, up.FileID)
	w.must(err)
	if !again.Replayed || w.objects.count() != 0 {
		t.Fatalf("%+v %d", again, w.objects.count())
	}
	if _, _, wanted, err := w.TimestampWanted(ctx, tenant.ID, up.FileID); wanted || err != nil {
		t.Fatal("a time-stamp is wanted of what is gone", err)
	}
	w.must(w.RecordTimestampFailure(ctx, commands.FailedAttempt{TenantID: tenant.ID, FileID: up.FileID, Job: "j", Attempt: 1, Reason: "down"}))
}

func TestBulk(t *testing.T) {
	onEachEngine(t, func(t *testing.T, w *world) {
		ctx, user, other := t.Context(), uuid.NewString(), uuid.NewString()
		tenant := w.tenant(user)
		var ids []string
		for i := range 20 {
			by := user
			if i%5 == 0 {
				by = other
			}
			up, _, err := w.upload(w.caller(by), tenant, strings.NewReader(fmt.Sprint(i%3)))
			w.must(err)
			ids = append(ids, up.DocumentID)
		}
		ids = append(ids, uuid.NewString())
		all := w.caller(user)
		var before []commands.Item[bool]
		for n := range 2 {
			items, receipt, err := w.DeleteDocuments(ctx, all, tenant.ID, user, ids)
			w.must(err)
			for i, item := range items {
				switch {
				case item.ID != ids[i]:
					t.Fatalf("item %d is %s", i, item.ID)
				case i == 20:
					refused(t, item.Err, "document.unknown")
				case i%5 == 0:
					refused(t, item.Err, "document.not_owner")
				case item.Err != nil:
					t.Fatal(item.Err)
				}
				if n == 1 && (item.Err == nil) != (before[i].Err == nil) {
					t.Fatalf("item %d: %v, and repeated %v", i, before[i].Err, item.Err)
				}
			}
			if receipt.Position == 0 || receipt.Replayed != (n == 1) {
				t.Fatalf("%+v", receipt)
			}
			before = items
		}

		// A log that cannot be written ends it all; given again, the rest is done.
		w.store.die(2, false)
		rest := w.caller(other)
		if items, _, err := w.DeleteDocuments(ctx, rest, tenant.ID, "", ids[:20]); err == nil {
			t.Fatalf("acknowledged although the process died: %v", items)
		}
		w.store.revive()
		items, _, err := w.DeleteDocuments(ctx, rest, tenant.ID, "", ids[:20])
		w.must(err)
		for i, item := range items {
			if (item.Err == nil) != (i%5 == 0) {
				t.Errorf("item %d: %v", i, item.Err)
			}
		}
	})
}
