// Package keyring keeps data keys: one per person, so that destroying it erases the person, and one HMAC key per tenant and
// purpose. They lie wrapped (AES-256-GCM, by tink) under a key-encryption key that is not in the database.
package keyring

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/tink-crypto/tink-go/v2/tink"
)

const (
	// keyBytes is the length of every data key: 256 bits.
	keyBytes = 32
	// cacheFor bounds how long an unwrapped key stays in memory, and so how long an erasure by another process takes.
	cacheFor = 5 * time.Minute
	// cacheKeys bounds the number of unwrapped keys in memory.
	cacheKeys = 10_000
)

// ErrErased says that the person's key was destroyed.
var ErrErased = errors.New("keyring: the key was destroyed")

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the goose files of the schema keyring.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic("keyring: embedded migrations: " + err.Error())
	}
	return sub
}

// Keyring is safe for concurrent use, also by several processes.
type Keyring struct {
	pool *pgxpool.Pool
	kek  tink.AEAD

	mu    sync.Mutex
	cache map[owner]cached
}

type owner struct{ tenant, purpose, id string }

type cached struct {
	key   []byte
	until time.Time
}

// Open returns the keyring in the pool's database, whose keys are wrapped under kek.
func Open(pool *pgxpool.Pool, kek tink.AEAD) *Keyring {
	return &Keyring{pool: pool, kek: kek, cache: map[owner]cached{}}
}

// For returns the person's 32-byte key in the tenant; it is made at the first use. A key that another process destroyed is
// answered for up to five minutes more. Error: [ErrErased]. The caller must not change the bytes.
func (k *Keyring) For(ctx context.Context, tenant, subject string) ([]byte, error) {
	return k.get(ctx, owner{tenant, "subject", subject})
}

// Erase destroys the person's key for ever, also one that was never used. Erasing twice is no error.
func (k *Keyring) Erase(ctx context.Context, tenant, subject string) error {
	_, err := k.pool.Exec(ctx, `
		insert into keyring.keys (tenant, purpose, owner, wrapped, erased_at) values ($1, 'subject', $2, null, now())
		on conflict (tenant, purpose, owner) do update set wrapped = null, erased_at = now() where keys.erased_at is null`, tenant, subject)
	if err != nil {
		return fmt.Errorf("keyring: destroy a key of tenant %s: %w", tenant, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.cache, owner{tenant, "subject", subject})
	return nil
}

// MAC returns HMAC-SHA-256 of value under the tenant's key for the purpose, so that equal values meet and yet a stranger who
// guesses a value learns nothing.
func (k *Keyring) MAC(ctx context.Context, tenant, purpose, value string) ([]byte, error) {
	key, err := k.get(ctx, owner{tenant, "mac", purpose})
	if err != nil {
		return nil, err
	}
	h := hmac.New(sha256.New, key)
	h.Write([]byte(value))
	return h.Sum(nil), nil
}

// Seal encrypts a small secret, bound to its purpose, directly under the key-encryption key.
func (k *Keyring) Seal(_ context.Context, purpose string, plain []byte) ([]byte, error) {
	sealed, err := k.kek.Encrypt(plain, []byte("secret:"+purpose))
	if err != nil {
		return nil, fmt.Errorf("keyring: seal %s: %w", purpose, err)
	}
	return sealed, nil
}

// Open decrypts what [Keyring.Seal] returned for the same purpose.
func (k *Keyring) Open(_ context.Context, purpose string, sealed []byte) ([]byte, error) {
	plain, err := k.kek.Decrypt(sealed, []byte("secret:"+purpose))
	if err != nil {
		return nil, fmt.Errorf("keyring: open %s: the key-encryption key is not the one that sealed it, or the value was changed: %w", purpose, err)
	}
	return plain, nil
}

func (k *Keyring) get(ctx context.Context, o owner) ([]byte, error) {
	k.mu.Lock()
	c, ok := k.cache[o]
	k.mu.Unlock()
	if ok && time.Now().Before(c.until) {
		return c.key, nil
	}
	wrapped, err := k.load(ctx, o)
	if errors.Is(err, pgx.ErrNoRows) {
		wrapped, err = k.create(ctx, o)
	}
	if err != nil {
		return nil, fmt.Errorf("keyring: key of tenant %s: %w", o.tenant, err)
	}
	if wrapped == nil {
		return nil, ErrErased
	}
	key, err := k.kek.Decrypt(wrapped, o.binding())
	if err != nil {
		return nil, fmt.Errorf("keyring: key of tenant %s: the key-encryption key is not the one that wrapped it: %w", o.tenant, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.cache) >= cacheKeys {
		clear(k.cache) // a rebuild over many people; starting over is simpler than an eviction order
	}
	k.cache[o] = cached{key, time.Now().Add(cacheFor)}
	return key, nil
}

// load returns the wrapped key, nil for a destroyed one.
func (k *Keyring) load(ctx context.Context, o owner) (wrapped []byte, err error) {
	err = k.pool.QueryRow(ctx, `select wrapped from keyring.keys where tenant = $1 and purpose = $2 and owner = $3`,
		o.tenant, o.purpose, o.id).Scan(&wrapped)
	return wrapped, err
}

// create stores a new key unless another process was faster, and returns the one that is stored.
func (k *Keyring) create(ctx context.Context, o owner) ([]byte, error) {
	key := make([]byte, keyBytes)
	rand.Read(key) // never fails (Go 1.24)
	wrapped, err := k.kek.Encrypt(key, o.binding())
	if err != nil {
		return nil, err
	}
	if _, err := k.pool.Exec(ctx, `insert into keyring.keys (tenant, purpose, owner, wrapped) values ($1, $2, $3, $4) on conflict do nothing`,
		o.tenant, o.purpose, o.id, wrapped); err != nil {
		return nil, err
	}
	return k.load(ctx, o)
}

// binding ties a wrapped key to its row; the parts are length-prefixed.
func (o owner) binding() []byte {
	return fmt.Appendf(nil, "%d:%s%d:%s%d:%s", len(o.tenant), o.tenant, len(o.purpose), o.purpose, len(o.id), o.id)
}
