// Package seal encodes facts for the log with their personal fields sealed under the person's own key, and opens them
// again when they are read. Destroying a key erases the person while every hash of the log stays valid.
package seal

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/factum-platform/factum/eventstore"
)

// KeyBytes is the length of a person's key: 32 bytes, AES-256.
const KeyBytes = 32

// ErrErased is answered for a person whose key was destroyed.
var ErrErased = errors.New("seal: the person's key was destroyed")

// Keys holds one data key per person and tenant. Implementations are safe for concurrent use.
type Keys interface {
	// For returns the person's key; it is made at the first use. Error: [ErrErased].
	For(ctx context.Context, tenant, subject string) ([]byte, error)
	// Erase destroys the person's key for ever. Erasing twice is not an error.
	Erase(ctx context.Context, tenant, subject string) error
}

// Codec turns facts into bytes of the log and back. It is safe for concurrent use.
type Codec struct {
	Registry *eventstore.Registry
	Keys     Keys
}

// envelope is a sealed value: AES-256-GCM with a random 96-bit nonce. The additional data bind it to tenant, stream, event,
// field and schema, so that a ciphertext cannot be moved to another event. P and V keep the original path and schema when an
// upcaster renames the field.
type envelope struct {
	Subject string `json:"k"`
	Nonce   string `json:"n"`
	Cipher  string `json:"c"`
	Path    string `json:"p"`
	Schema  uint16 `json:"v"`
}

// Encode writes the fact as canonical JSON with its personal fields sealed. Errors: an unregistered type, a person's key
// that cannot be had ([ErrErased] included).
func (c *Codec) Encode(ctx context.Context, tenant eventstore.TenantID, stream eventstore.StreamID, id eventstore.EventID, fact any) (eventstore.Proposed, error) {
	t, err := c.Registry.TypeOf(fact)
	if err != nil {
		return eventstore.Proposed{}, err
	}
	p := eventstore.Proposed{ID: id, Type: t.Name, Schema: t.Schema()}
	plain, err := json.Marshal(fact)
	if err != nil {
		return p, fmt.Errorf("seal: encode %s: %w", t.Name, err)
	}
	if len(t.Personal) == 0 {
		p.Data, err = eventstore.Canonical(json.RawMessage(plain))
		return p, err
	}
	fields, err := object(plain)
	if err != nil {
		return p, fmt.Errorf("seal: encode %s: %w", t.Name, err)
	}
	for field, by := range t.Personal {
		var subject string
		if err := json.Unmarshal(fields[by], &subject); err != nil || subject == "" {
			return p, fmt.Errorf("seal: %s.%s: field %q does not name a person", t.Name, field, by)
		}
		key, err := c.Keys.For(ctx, string(tenant), subject)
		if err != nil {
			return p, fmt.Errorf("seal: key for %s.%s: %w", t.Name, field, err)
		}
		env := envelope{Subject: subject, Path: field, Schema: t.Schema()}
		if err := env.seal(key, binding(tenant, stream, id, env), fields[field]); err != nil {
			return p, fmt.Errorf("seal: %s.%s: %w", t.Name, field, err)
		}
		if fields[field], err = json.Marshal(env); err != nil {
			return p, fmt.Errorf("seal: %s.%s: %w", t.Name, field, err)
		}
	}
	p.Data, err = eventstore.Canonical(fields)
	return p, err
}

// Decode upcasts the event, opens its personal fields and returns the fact by value. A field of an erased person decodes
// as erased and is no error: folds and rebuilds go on.
func (c *Codec) Decode(ctx context.Context, rec eventstore.Recorded) (any, error) {
	t, raw, err := c.Registry.Current(rec)
	if err != nil {
		return nil, err
	}
	if len(t.Personal) == 0 {
		return t.Decode(raw)
	}
	fields, err := object(raw)
	if err != nil {
		return nil, fmt.Errorf("seal: decode %s: %w", t.Name, err)
	}
	for field := range t.Personal {
		var env envelope
		if err := json.Unmarshal(fields[field], &env); err != nil {
			return nil, fmt.Errorf("seal: %s.%s is not sealed: %w", t.Name, field, err)
		}
		key, err := c.Keys.For(ctx, string(rec.Tenant), env.Subject)
		if errors.Is(err, ErrErased) {
			fields[field] = json.RawMessage("null")
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("seal: key for %s.%s: %w", t.Name, field, err)
		}
		if fields[field], err = env.open(key, binding(rec.Tenant, rec.Stream, rec.ID, env)); err != nil {
			return nil, fmt.Errorf("seal: %s.%s of event %s: %w", t.Name, field, rec.ID, err)
		}
	}
	if raw, err = json.Marshal(fields); err != nil {
		return nil, fmt.Errorf("seal: decode %s: %w", t.Name, err)
	}
	return t.Decode(raw)
}

func object(raw []byte) (map[string]json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, fmt.Errorf("an event must be a JSON object: %w", err)
	}
	return fields, nil
}

// binding is the additional data: each part length-prefixed, so that no two bindings read alike.
func binding(t eventstore.TenantID, s eventstore.StreamID, id eventstore.EventID, env envelope) []byte {
	var out []byte
	for _, part := range []string{string(t), s.Kind, s.ID, id.String(), env.Path, strconv.Itoa(int(env.Schema)), env.Subject} {
		out = strconv.AppendInt(out, int64(len(part)), 10)
		out = append(append(out, ':'), part...)
	}
	return out
}

func (e *envelope) seal(key, binding, plain []byte) error {
	aead, err := newAEAD(key)
	if err != nil {
		return err
	}
	nonce := make([]byte, aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return fmt.Errorf("draw a nonce: %w", err)
	}
	e.Nonce = base64.StdEncoding.EncodeToString(nonce)
	e.Cipher = base64.StdEncoding.EncodeToString(aead.Seal(nil, nonce, plain, binding))
	return nil
}

func (e *envelope) open(key, binding []byte) ([]byte, error) {
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	nonce, err := base64.StdEncoding.DecodeString(e.Nonce)
	if err != nil || len(nonce) != aead.NonceSize() {
		return nil, errors.New("the sealed value has no valid nonce")
	}
	sealed, err := base64.StdEncoding.DecodeString(e.Cipher)
	if err != nil {
		return nil, errors.New("the sealed value is not base64")
	}
	plain, err := aead.Open(nil, nonce, sealed, binding)
	if err != nil {
		return nil, errors.New("the sealed value was changed or moved, or the key is not its key")
	}
	return plain, nil
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	if len(key) != KeyBytes {
		return nil, fmt.Errorf("a key of %d bytes; want %d", len(key), KeyBytes)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// MemoryKeys is a [Keys] for tests and models: it forgets everything with the process.
type MemoryKeys struct {
	mu     sync.Mutex
	keys   map[[2]string][]byte
	erased map[[2]string]bool
}

// For implements [Keys].
func (m *MemoryKeys) For(_ context.Context, tenant, subject string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := [2]string{tenant, subject}
	if m.erased[at] {
		return nil, ErrErased
	}
	if k, ok := m.keys[at]; ok {
		return k, nil
	}
	k := make([]byte, KeyBytes)
	if _, err := rand.Read(k); err != nil {
		return nil, err
	}
	if m.keys == nil {
		m.keys = map[[2]string][]byte{}
	}
	m.keys[at] = k
	return k, nil
}

// Erase implements [Keys].
func (m *MemoryKeys) Erase(_ context.Context, tenant, subject string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.erased == nil {
		m.erased = map[[2]string]bool{}
	}
	m.erased[[2]string{tenant, subject}] = true
	delete(m.keys, [2]string{tenant, subject})
	return nil
}
