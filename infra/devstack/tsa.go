package devstack

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/digitorus/timestamp"
)

const (
	tsaLife       = 10 * 365 * 24 * time.Hour
	maxTSAQuery   = 16 << 10
	tsaRootsFile  = "roots.pem"
	tsaSignerFile = "signer.pem"
)

// tsaPolicy is the policy OID of the local authority; 1.3.6.1.4.1.99999 is nobody's, and so is the promise it makes.
var tsaPolicy = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1, 1}

// TSAConfig describes a local authority. Dir keeps its root, its key and its port.
type TSAConfig struct {
	Dir    string
	Listen string // host:port; port 0 picks a free one and remembers it in Dir
}

// TSA is a running time-stamping authority (RFC 3161 over HTTP). It speaks the real protocol, and openssl verifies its tokens;
// what it cannot show is an authority: its root is its own and its clock is this machine's.
type TSA struct {
	url    string
	roots  string
	server *http.Server
	served chan error
}

// StartTSA starts the authority. Its root and its signing certificate are made at the first start and are good for ten years.
func StartTSA(ctx context.Context, c TSAConfig) (*TSA, error) {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("devstack: TSA folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("devstack: TSA folder: %w", err)
	}
	cert, key, err := loadOrCreateSigner(dir)
	if err != nil {
		return nil, err
	}
	ln, err := listenRemembered(ctx, c.Listen, filepath.Join(dir, "port"))
	if err != nil {
		return nil, err
	}
	t := &TSA{url: "http://" + ln.Addr().String() + "/", roots: filepath.Join(dir, tsaRootsFile), served: make(chan error, 1)}
	t.server = &http.Server{
		Handler: stampHandler(cert, key), ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 30 * time.Second,
	}
	go func() { t.served <- t.server.Serve(ln) }()
	return t, nil
}

// URL is where requests are posted.
func (t *TSA) URL() string { return t.url }

// RootsPath is the PEM file with the authority's root.
func (t *TSA) RootsPath() string { return t.roots }

// Stop ends the server after the running requests.
func (t *TSA) Stop(ctx context.Context) error {
	return stopHTTP(ctx, t.server, t.served, "the time-stamping authority")
}

// stampHandler answers requests (RFC 3161 §3.4).
func stampHandler(cert *x509.Certificate, key crypto.Signer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/timestamp-query" {
			http.Error(w, "post an application/timestamp-query (RFC 3161)", http.StatusBadRequest)
			return
		}
		query, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxTSAQuery))
		if err != nil {
			http.Error(w, "the request is too long or broke off", http.StatusBadRequest)
			return
		}
		answer, err := stampReply(query, cert, key)
		if err != nil {
			http.Error(w, "the authority failed", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/timestamp-reply")
		if _, err := w.Write(answer); err != nil {
			return // the client has gone; there is nobody to tell
		}
	})
}

func stampReply(query []byte, cert *x509.Certificate, key crypto.Signer) ([]byte, error) {
	req, err := timestamp.ParseRequest(query)
	if err != nil {
		return timestamp.CreateErrorResponse(timestamp.Rejection, timestamp.BadDataFormat)
	}
	switch {
	case req.HashAlgorithm != crypto.SHA256 && req.HashAlgorithm != crypto.SHA384 && req.HashAlgorithm != crypto.SHA512:
		return timestamp.CreateErrorResponse(timestamp.Rejection, timestamp.BadAlgorithm)
	case len(req.HashedMessage) != req.HashAlgorithm.Size():
		return timestamp.CreateErrorResponse(timestamp.Rejection, timestamp.BadDataFormat)
	case req.TSAPolicyOID != nil && !req.TSAPolicyOID.Equal(tsaPolicy):
		return timestamp.CreateErrorResponse(timestamp.Rejection, timestamp.UnacceptedPolicy)
	case len(req.Extensions) > 0:
		return timestamp.CreateErrorResponse(timestamp.Rejection, timestamp.UnacceptedExtension)
	}
	t := timestamp.Timestamp{
		HashAlgorithm: req.HashAlgorithm, HashedMessage: req.HashedMessage, Nonce: req.Nonce, Policy: tsaPolicy,
		Time: time.Now().UTC().Truncate(time.Second), Accuracy: time.Second, AddTSACertificate: req.Certificates,
	}
	return t.CreateResponseWithOpts(cert, key, crypto.SHA256) // draws a random 160-bit serial number
}

// loadOrCreateSigner reads the signing certificate and key; at the first start it makes them and their root, whose key is then
// thrown away. The signer's file is written last: without it everything is made anew.
func loadOrCreateSigner(dir string) (*x509.Certificate, crypto.Signer, error) {
	file := filepath.Join(dir, tsaSignerFile)
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if raw, err = createSigner(dir); err == nil {
			err = os.WriteFile(file, raw, 0o600)
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("devstack: the authority's key: %w", err)
	}
	certBlock, rest := pem.Decode(raw)
	keyBlock, _ := pem.Decode(rest)
	if certBlock == nil || keyBlock == nil {
		return nil, nil, fmt.Errorf("devstack: %s is damaged; remove it to make a new authority", file)
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("devstack: %s: %w", file, err)
	}
	key, err := x509.ParseECPrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("devstack: %s: %w", file, err)
	}
	return cert, key, nil
}

func createSigner(dir string) ([]byte, error) {
	now := time.Now().Add(-time.Hour)
	template := func(name string) *x509.Certificate {
		var serial [16]byte
		rand.Read(serial[:]) // never fails (Go 1.24)
		serial[0] &= 0x7f
		return &x509.Certificate{
			SerialNumber: new(big.Int).SetBytes(serial[:]), NotBefore: now, NotAfter: now.Add(tsaLife),
			Subject: pkix.Name{CommonName: name, Organization: []string{"Factum development"}}, BasicConstraintsValid: true,
		}
	}
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	root := template("Factum development root")
	root.IsCA, root.KeyUsage, root.MaxPathLenZero = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, true
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		return nil, err
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf := template("Factum development time-stamping authority")
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	// RFC 3161 §2.3: the one extended key usage, critical. x509 would write it as not critical.
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	if err != nil {
		return nil, err
	}
	leaf.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage}}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, leafKey.Public(), rootKey)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalECPrivateKey(leafKey)
	if err != nil {
		return nil, err
	}
	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER})
	if err := os.WriteFile(filepath.Join(dir, tsaRootsFile), roots, 0o644); err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafDER}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})...), nil
}

// listenRemembered listens on addr; for port 0 on the port that file remembers if it is free, else on a free one.
func listenRemembered(ctx context.Context, addr, file string) (net.Listener, error) {
	if host, port, err := net.SplitHostPort(addr); err == nil && port == "0" && host == "127.0.0.1" {
		if addr, err = rememberedPort(ctx, file); err != nil {
			return nil, err
		}
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("devstack: listen on %s: %w", addr, err)
	}
	return ln, nil
}

// stopHTTP ends a server after its running requests.
func stopHTTP(ctx context.Context, server *http.Server, served <-chan error, name string) error {
	if err := server.Shutdown(ctx); err != nil {
		return fmt.Errorf("devstack: stop %s: %w", name, errors.Join(err, server.Close()))
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("devstack: %s had ended by itself: %w", name, err)
	}
	return nil
}
