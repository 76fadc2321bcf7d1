package tenants

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
)

// verifierRounds is how often the hash is repeated. PostgreSQL's usual 4096 rounds slow down the guessing of passwords that people choose.
// Ours have 192 random bits, which nobody guesses, and every new connection would pay a millisecond for the rounds.
const verifierRounds = 1

// verifier is what PostgreSQL keeps of a password (RFC 5803): with it the password itself is not sent, nor logged by the server.
func verifier(password string) string {
	var salt [16]byte
	rand.Read(salt[:]) // never fails (Go 1.24)
	salted, err := pbkdf2.Key(sha256.New, password, salt[:], verifierRounds, sha256.Size)
	if err != nil { // only for a length that no hash has
		panic("tenants: PBKDF2: " + err.Error())
	}
	mac := func(key []byte, text string) []byte {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(text))
		return m.Sum(nil)
	}
	stored := sha256.Sum256(mac(salted, "Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", verifierRounds, b64(salt[:]), b64(stored[:]), b64(mac(salted, "Server Key")))
}
