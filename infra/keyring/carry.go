package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/jackc/pgx/v5"
)

// Wrapped is a data key as it lies in the database: under the key-encryption key, and only that opens it. A destroyed key has no bytes.
type Wrapped struct {
	Purpose, Owner string
	Key            []byte
}

// exportPage is how many keys are read at a time.
const exportPage = 1000

// Export yields the tenant's keys, wrapped, in an order of their own.
func (k *Keyring) Export(ctx context.Context, tenant string) iter.Seq2[Wrapped, error] {
	return func(yield func(Wrapped, error) bool) {
		var last Wrapped
		for {
			rows, err := k.pool.Query(ctx, `select purpose, owner, wrapped from keyring.keys
				where tenant = $1 and (purpose, owner) > ($2, $3) order by purpose, owner limit $4`, tenant, last.Purpose, last.Owner, exportPage)
			var page []Wrapped
			if err == nil {
				page, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (w Wrapped, err error) {
					return w, row.Scan(&w.Purpose, &w.Owner, &w.Key)
				})
			}
			if err != nil {
				yield(Wrapped{}, fmt.Errorf("keyring: read the keys of tenant %s: %w", tenant, err))
				return
			}
			for _, w := range page {
				if !yield(w, nil) {
					return
				}
				last = w
			}
			if len(page) < exportPage {
				return
			}
		}
	}
}

// Opens tells whether the key-encryption key opens the tenant's wrapped key. A destroyed key needs no opening.
func (k *Keyring) Opens(tenant string, w Wrapped) error {
	if len(w.Key) == 0 {
		return nil
	}
	if _, err := k.kek.Decrypt(w.Key, owner{tenant, w.Purpose, w.Owner}.binding()); err != nil {
		return fmt.Errorf("keyring: a key of tenant %s was wrapped under another key-encryption key: %w", tenant, err)
	}
	return nil
}

// Import keeps a key that [Keyring.Export] yielded. A key that was destroyed, here or there, stays destroyed; importing one again changes
// nothing. It fails when the tenant has another key for the same owner, or when [Keyring.Opens] does.
func (k *Keyring) Import(ctx context.Context, tenant string, w Wrapped) error {
	if len(w.Key) == 0 {
		if w.Purpose == "subject" {
			return k.Erase(ctx, tenant, w.Owner)
		}
		return fmt.Errorf("keyring: a destroyed key of tenant %s is no person's", tenant)
	}
	if err := k.Opens(tenant, w); err != nil {
		return err
	}
	if _, err := k.pool.Exec(ctx, `insert into keyring.keys (tenant, purpose, owner, wrapped) values ($1, $2, $3, $4) on conflict do nothing`,
		tenant, w.Purpose, w.Owner, w.Key); err != nil {
		return fmt.Errorf("keyring: keep a key of tenant %s: %w", tenant, err)
	}
	o := owner{tenant, w.Purpose, w.Owner}
	there, err := k.load(ctx, o)
	if err != nil {
		return fmt.Errorf("keyring: keep a key of tenant %s: %w", tenant, err)
	}
	if there == nil || bytes.Equal(there, w.Key) {
		return nil
	}
	// Wrapped twice, one key has two forms.
	a, errA := k.kek.Decrypt(there, o.binding())
	b, errB := k.kek.Decrypt(w.Key, o.binding())
	if err := errors.Join(errA, errB); err != nil {
		return fmt.Errorf("keyring: compare the keys of tenant %s: %w", tenant, err)
	}
	if !bytes.Equal(a, b) {
		return fmt.Errorf("keyring: tenant %s has another key than the imported one for the same owner (%s); what is sealed under it could not be read", tenant, w.Purpose)
	}
	return nil
}
