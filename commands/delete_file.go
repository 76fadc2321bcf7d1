package commands

import (
	"context"
	"errors"

	"github.com/factum-platform/factum/domain/file"
)

// DeletedFile is a file that is kept no longer.
type DeletedFile struct {
	ID, MD5 string
	Size    int64 // bytes that became free
}

// DeleteFile ends the keeping of a content that no document refers to: first the fact, then the object goes. What a crash between the two
// leaves, or an object store that is away, only takes room; the same command given again removes it. Refusals: file.unknown,
// file.referenced.
func (c *Commands) DeleteFile(ctx context.Context, by Caller, tenantID, fileID string) (DeletedFile, Receipt, error) {
	if c.c.Objects == nil {
		return DeletedFile{}, Receipt{}, definite{errors.New("commands: this process has no object store and deletes no files")}
	}
	step := fileStep(fileID, file.Delete{By: by.UserID, At: stamp(by.At)}).onlyIf(by)
	receipt, err := c.x.Execute(ctx, LogOf(tenantID), by.meta(), step)
	if err != nil {
		return DeletedFile{}, Receipt{}, err
	}
	s := step.State
	if s.Deleted { // else the content came again since, as another object
		c.discard(ctx, s.ObjectKey)
	}
	return DeletedFile{ID: fileID, MD5: s.MD5, Size: s.Size}, receipt, nil
}
