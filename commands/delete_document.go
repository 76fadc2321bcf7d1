package commands

import (
	"context"

	"github.com/factum-platform/factum/domain/document"
	"github.com/factum-platform/factum/domain/es"
	"github.com/factum-platform/factum/domain/file"
	"github.com/factum-platform/factum/eventstore"
)

// DeleteDocument removes the document and tells whether its file is now an orphan; the file and its time-stamp stay. Refusals:
// document.unknown, document.not_owner.
func (c *Commands) DeleteDocument(ctx context.Context, by Caller, d DocumentID) (orphaned bool, _ Receipt, _ error) {
	tenant := LogOf(d.TenantID)
	stream := eventstore.StreamID{Kind: document.Kind, ID: d.ID}
	state, version, err := fold(ctx, c.c.Store.Tenant(tenant), c.c.Codec, document.Decider, stream, nil)
	if err != nil {
		return false, Receipt{}, err
	}
	if version == 0 {
		return false, Receipt{}, es.Refuse("document.unknown", "There is no such document.")
	}
	at := stamp(by.At)
	unlink := fileStep(state.FileID, file.Unlink{DocumentID: d.ID, At: at})
	// The document goes first: between the two, a file may have a link too many, and never a document that it does not know of.
	receipt, err := c.x.Execute(ctx, tenant, by.meta(), documentStep(d.ID, document.Delete{By: by.UserID, Only: d.Only, At: at}).onlyIf(by), unlink)
	if err != nil {
		return false, Receipt{}, err
	}
	return len(unlink.State.Documents) == 0, receipt, nil
}
