package tsa_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/factum-platform/factum/infra/devstack"
	"github.com/factum-platform/factum/infra/tsa"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var digest = sha256.Sum256([]byte("content"))

// authority is a certification authority of the test's, which can be made to do wrong.
type authority struct {
	root  *x509.Certificate
	key   *ecdsa.PrivateKey
	roots *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{key: newKey(t), roots: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test root"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.root, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.roots.AddCert(a.root)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a signing certificate; change makes it wrong.
func (a *authority) issue(t testing.TB, key *ecdsa.PrivateKey, critical bool, change func(*x509.Certificate), usages ...asn1.ObjectIdentifier) *x509.Certificate {
	t.Helper()
	if usages == nil {
		usages = []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}}
	}
	value, err := asn1.Marshal(usages)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test signer"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: critical, Value: value}}, BasicConstraintsValid: true,
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.root, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// signs answers requests with tokens that change makes wrong before they are signed.
func signs(t testing.TB, cert *x509.Certificate, key crypto.Signer, change func(*timestamp.Timestamp)) func(query []byte) []byte {
	return func(query []byte) []byte {
		req, err := timestamp.ParseRequest(query)
		if err != nil {
			t.Error(err)
			return nil
		}
		if !req.Certificates || req.Nonce == nil || req.Nonce.BitLen() < 64 || req.HashAlgorithm != crypto.SHA256 {
			t.Errorf("the request is not what RFC 3161 and we want: %+v", req)
		}
		stamp := timestamp.Timestamp{
			HashAlgorithm: req.HashAlgorithm, HashedMessage: req.HashedMessage, Nonce: req.Nonce, Policy: asn1.ObjectIdentifier{1, 2, 3},
			Time: time.Now().UTC().Truncate(time.Second), AddTSACertificate: true,
		}
		if change != nil {
			change(&stamp)
		}
		out, err := stamp.CreateResponseWithOpts(cert, key, crypto.SHA256)
		if err != nil {
			t.Error(err)
		}
		return out
	}
}

// serve answers like an authority would over HTTP.
func serve(t testing.TB, answer func(query []byte) []byte) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/timestamp-reply")
		if _, err := w.Write(answer(query)); err != nil {
			return // the client gave up, as some of these tests want it to
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func client(t testing.TB, c tsa.Config) *tsa.Client {
	t.Helper()
	cl, err := tsa.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func TestStampsThatAreNotBelieved(t *testing.T) {
	a, key := newAuthority(t), newKey(t)
	good := a.issue(t, key, true, nil)
	stranger := newAuthority(t)
	rejected := func(f timestamp.FailureInfo) func([]byte) []byte {
		out, err := timestamp.CreateErrorResponse(timestamp.Rejection, f)
		if err != nil {
			t.Fatal(err)
		}
		return func([]byte) []byte { return out }
	}
	flip := func(part []byte) func([]byte) []byte {
		honest := signs(t, good, key, nil)
		return func(query []byte) []byte {
			out := honest(query)
			at := len(out) - 5 // within the signature, which comes last
			if part != nil {
				at = bytes.Index(out, part)
			}
			out[at] ^= 1
			return out
		}
	}
	for name, tc := range map[string]struct {
		answer    func([]byte) []byte
		reason    string
		permanent bool
	}{
		"another content":              {signs(t, good, key, func(s *timestamp.Timestamp) { s.HashedMessage = make([]byte, 32) }), "another content", false},
		"another nonce":                {signs(t, good, key, func(s *timestamp.Timestamp) { s.Nonce = big.NewInt(7) }), "nonce", false},
		"no nonce":                     {signs(t, good, key, func(s *timestamp.Timestamp) { s.Nonce = nil }), "nonce", false},
		"no certificate":               {signs(t, good, key, func(s *timestamp.Timestamp) { s.AddTSACertificate = false }), "does not hold the certificate", false},
		"an old genTime":               {signs(t, good, key, func(s *timestamp.Timestamp) { s.Time = s.Time.Add(-10 * time.Minute) }), "genTime", false},
		"a future genTime":             {signs(t, good, key, func(s *timestamp.Timestamp) { s.Time = s.Time.Add(10 * time.Minute) }), "genTime", false},
		"a changed signature":          {flip(nil), "signature does not verify", false},
		"a changed digest":             {flip(digest[:]), "another content", false},
		"another certificate, one key": {swapCertificate(t, a, key), "ESSCertIDv2", false},
		"usage not critical":           {signs(t, a.issue(t, key, false, nil), key, nil), "not critical", false},
		"two usages": {
			signs(t, a.issue(t, key, true, nil, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 3}), key, nil),
			"only extended key usage", false,
		},
		"code signing":         {signs(t, a.issue(t, key, true, nil, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 3}), key, nil), "only extended key usage", false},
		"a CA as signer":       {signs(t, a.issue(t, key, true, func(c *x509.Certificate) { c.IsCA = true }), key, nil), "is a CA's", false},
		"an unknown root":      {signs(t, stranger.issue(t, key, true, nil), key, nil), "does not chain", false},
		"expired at genTime":   {signs(t, a.issue(t, key, true, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), key, nil), "does not", false},
		"badAlg":               {rejected(timestamp.BadAlgorithm), "badAlg", true},
		"systemFailure":        {rejected(timestamp.SystemFailure), "systemFailure", false},
		"garbage":              {func([]byte) []byte { return []byte("<html>") }, "not a TimeStampResp", false},
		"nothing":              {func([]byte) []byte { return nil }, "not a TimeStampResp", false},
		"granted, no token":    {func([]byte) []byte { return []byte{0x30, 0x05, 0x30, 0x03, 0x02, 0x01, 0x00} }, "no token", false},
		"bytes behind the end": {func(q []byte) []byte { return append(signs(t, good, key, nil)(q), 0) }, "not a TimeStampResp", false},
		"a huge reply":         {func([]byte) []byte { return make([]byte, 300<<10) }, "longer than", false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := client(t, tsa.Config{URL: serve(t, tc.answer), Roots: a.roots}).Stamp(t.Context(), digest[:])
			var e *tsa.Error
			if !errors.As(err, &e) || !strings.Contains(e.Reason, tc.reason) || e.Permanent != tc.permanent {
				t.Fatalf("%v; want %q, permanent %v", err, tc.reason, tc.permanent)
			}
		})
	}
	t.Run("and the honest one is", func(t *testing.T) {
		stamp, err := client(t, tsa.Config{URL: serve(t, signs(t, good, key, nil)), Roots: a.roots}).Stamp(t.Context(), digest[:])
		if err != nil || stamp.Policy != "1.2.3" || stamp.Algorithm != "sha256" || stamp.Authority != "CN=test signer" || !strings.HasPrefix(stamp.Serial, "0x") {
			t.Fatalf("%+v %v", stamp, err)
		}
	})
}

// swapCertificate signs with one certificate and sends another one of the same name, serial number and key.
func swapCertificate(t *testing.T, a *authority, key *ecdsa.PrivateKey) func([]byte) []byte {
	serial := big.NewInt(99)
	first := a.issue(t, key, true, func(c *x509.Certificate) { c.SerialNumber = serial })
	var second *x509.Certificate
	for second == nil || len(second.Raw) != len(first.Raw) {
		second = a.issue(t, key, true, func(c *x509.Certificate) { c.SerialNumber = serial })
	}
	honest := signs(t, first, key, nil)
	return func(query []byte) []byte {
		return bytes.Replace(honest(query), first.Raw, second.Raw, 1)
	}
}

func TestHTTPFailures(t *testing.T) {
	a := newAuthority(t)
	release := make(chan struct{})
	for name, tc := range map[string]struct {
		handler http.HandlerFunc
		reason  string
	}{
		"status 500": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, "HTTP status 500"},
		"wrong type": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "text/html") }, "not of the type"},
		"no answer":  {func(http.ResponseWriter, *http.Request) { <-release }, "cannot be reached"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(tc.handler)
			c := client(t, tsa.Config{URL: server.URL, Roots: a.roots, Timeout: 200 * time.Millisecond})
			_, err := c.Stamp(t.Context(), digest[:])
			var e *tsa.Error
			if !errors.As(err, &e) || !strings.Contains(e.Reason, tc.reason) || e.Permanent {
				t.Fatal(err)
			}
			if name == "no answer" {
				close(release)
			}
			server.Close()
		})
	}
	if _, err := client(t, tsa.Config{URL: "http://127.0.0.1:1/", Roots: a.roots}).Stamp(t.Context(), digest[:]); err == nil {
		t.Fatal("stamped by nobody")
	}
	for _, bad := range []tsa.Config{{}, {URL: "ftp://x", Roots: a.roots}, {URL: "http://x"}} {
		if _, err := tsa.New(bad); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func startLocal(t *testing.T, dir string) (*devstack.TSA, *x509.CertPool) {
	t.Helper()
	local, err := devstack.StartTSA(t.Context(), devstack.TSAConfig{Dir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	roots, err := tsa.LoadRoots(local.RootsPath())
	if err != nil {
		t.Fatal(err)
	}
	return local, roots
}

// TestOpenSSLAgrees lets openssl judge what the local authority gave and we believed.
func TestOpenSSLAgrees(t *testing.T) {
	dir := t.TempDir()
	local, roots := startLocal(t, filepath.Join(dir, "tsa"))
	stamp, err := client(t, tsa.Config{URL: local.URL(), Roots: roots}).Stamp(t.Context(), digest[:])
	if err != nil {
		t.Fatal(err)
	}
	url := local.URL()
	if err := local.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	local, again := startLocal(t, filepath.Join(dir, "tsa"))
	defer func() {
		if err := local.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	if local.URL() != url || !again.Equal(roots) {
		t.Fatal("a restart changed the address or the root")
	}
	second, err := client(t, tsa.Config{URL: local.URL(), Roots: roots}).Stamp(t.Context(), digest[:])
	if err != nil || second.Serial == stamp.Serial {
		t.Fatal("a serial number was used twice", err)
	}
	file, tsr := filepath.Join(dir, "file"), filepath.Join(dir, "file.tsr")
	for name, content := range map[string][]byte{file: []byte("content"), tsr: stamp.Response} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	verify := func() (string, error) {
		out, err := exec.CommandContext(t.Context(), "openssl", "ts", "-verify", "-data", file, "-in", tsr, "-CAfile", local.RootsPath()).CombinedOutput()
		return string(out), err
	}
	if out, err := verify(); err != nil || !strings.Contains(out, "Verification: OK") {
		t.Fatal(out, err)
	}
	if err := os.WriteFile(file, []byte("Content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := verify(); err == nil {
		t.Fatal("openssl accepts a changed file:", out)
	}
}

func TestVerifyReportsWhatIsWrong(t *testing.T) {
	a, key := newAuthority(t), newKey(t)
	cert := a.issue(t, key, true, nil)
	response := honest(t, cert, key)
	stamp, report, err := tsa.Verify(response, digest[:], a.roots)
	if err != nil || !report.Valid() || len(report.Errors) != 0 || !report.NotAfter.Equal(cert.NotAfter) || stamp.Serial == "" {
		t.Fatalf("%+v %v", report, err)
	}
	_, report, err = tsa.Verify(response, make([]byte, 32), newAuthority(t).roots)
	if err != nil || report.Imprint || report.Chain || !report.Signature || !report.Certificate || len(report.Errors) != 2 {
		t.Fatalf("%+v %v", report, err)
	}
}

func honest(t testing.TB, cert *x509.Certificate, key crypto.Signer) []byte {
	query, err := timestamp.CreateRequest(strings.NewReader("content"), &timestamp.RequestOptions{Hash: crypto.SHA256, Certificates: true, Nonce: new(big.Int).Lsh(big.NewInt(1), 100)})
	if err != nil {
		t.Fatal(err)
	}
	return signs(t, cert, key, nil)(query)
}

// TestNoFlippedBitChangesWhatIsBelieved: whatever bit of a good reply changes, it is refused or says the same.
func TestNoFlippedBitChangesWhatIsBelieved(t *testing.T) {
	a, key := newAuthority(t), newKey(t)
	response := honest(t, a.issue(t, key, true, nil), key)
	said, _, err := tsa.Verify(response, digest[:], a.roots)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		changed := bytes.Clone(response)
		at := rapid.IntRange(0, len(changed)-1).Draw(t, "byte")
		changed[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		stamp, report, err := tsa.Verify(changed, digest[:], a.roots)
		if err != nil || !report.Valid() {
			return
		}
		stamp.Response, said.Response = nil, nil
		if stamp.GenTime != said.GenTime || stamp.Serial != said.Serial || stamp.Policy != said.Policy || stamp.Authority != said.Authority {
			t.Fatalf("byte %d: believed %+v, signed was %+v", at, stamp, said)
		}
	})
}
