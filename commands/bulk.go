package commands

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/eventstore"
)

// MaxBulk is how many things one bulk command changes at most.
const MaxBulk = 1000

// bulkAtOnce is how many of them are under way at a time: appends of a tenant go together in one statement.
const bulkAtOnce = 8

// Item is what became of one of the things that a bulk command was given.
type Item[R any] struct {
	ID     string
	Result R
	Err    error // nil; *[es.Refusal], *[eventstore.ConflictError] or *[eventstore.ReusedKeyError]
}

// DeleteDocuments is [Commands.DeleteDocument] for each of the documents by itself; Result says whether the file is now an orphan.
func (c *Commands) DeleteDocuments(ctx context.Context, by Caller, tenantID, only string, ids []string) ([]Item[bool], Receipt, error) {
	return bulk(ctx, by, ids, func(ctx context.Context, by Caller, id string) (bool, Receipt, error) {
		return c.DeleteDocument(ctx, by, DocumentID{tenantID, id, only})
	})
}

// ChangeDocuments is [Commands.ChangeDocument] for each of the documents by itself. Error: *[ValidationError], before any is changed.
func (c *Commands) ChangeDocuments(ctx context.Context, by Caller, tenantID, only string, ids []string, in ChangeDocument) ([]Item[Document], Receipt, error) {
	return bulk(ctx, by, ids, func(ctx context.Context, by Caller, id string) (Document, Receipt, error) {
		return c.ChangeDocument(ctx, by, DocumentID{tenantID, id, only}, in)
	})
}

// DeleteFiles is [Commands.DeleteFile] for each of the files by itself.
func (c *Commands) DeleteFiles(ctx context.Context, by Caller, tenantID string, ids []string) ([]Item[DeletedFile], Receipt, error) {
	return bulk(ctx, by, ids, func(ctx context.Context, by Caller, id string) (DeletedFile, Receipt, error) {
		return c.DeleteFile(ctx, by, tenantID, id)
	})
}

// bulk gives one command for each id, under an id of its own that derives from the whole command's, so that the whole may be repeated. What
// the domain refuses concerns one item. Any other failure ends it all: what was done by then is found done when it is repeated. The receipt
// has the last position that was written.
func bulk[R any](ctx context.Context, by Caller, ids []string, do func(context.Context, Caller, string) (R, Receipt, error)) ([]Item[R], Receipt, error) {
	out, receipts := make([]Item[R], len(ids)), make([]Receipt, len(ids))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(bulkAtOnce)
	for i, id := range ids {
		group.Go(func() error {
			one := by
			one.Command = es.Key("item", by.Command, id)
			result, receipt, err := do(ctx, one, id)
			if err != nil && !concernsOne(err) {
				return err
			}
			out[i], receipts[i] = Item[R]{id, result, err}, receipt
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, Receipt{}, err
	}
	var last Receipt
	for _, r := range receipts {
		if r.Position > last.Position {
			last = r
		}
	}
	return out, last, nil
}

func concernsOne(err error) bool {
	var unfinished *UnfinishedError
	if errors.As(err, &unfinished) {
		return false
	}
	return is[*es.Refusal](err) || is[*eventstore.ConflictError](err) || is[*eventstore.ReusedKeyError](err)
}
