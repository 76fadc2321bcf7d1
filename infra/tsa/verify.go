// Package tsa obtains and verifies time-stamps of RFC 3161. A reply is believed only after every check of [Verify] and of its
// nonce has passed; then the whole reply is the evidence, which plain openssl verifies years later.
package tsa

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"strings"
	"time"

	"github.com/digitorus/pkcs7"
	"github.com/digitorus/timestamp"
)

// Stamp is what a verified time-stamp says.
type Stamp struct {
	Response  []byte    // the whole TimeStampResp (RFC 3161 §2.4.2), DER
	GenTime   time.Time // UTC
	Serial    string    // "0x" and upper-case hex
	Policy    string    // policy OID, dotted
	Algorithm string    // of the message imprint: "sha256"
	Authority string    // subject of the signing certificate (RFC 2253 text)
}

// Report says which of the checks passed. A check that could not be made has not passed; Errors says why, one sentence each.
type Report struct {
	Imprint     bool      // the imprint is SHA-256 and equals the digest
	Signature   bool      // the signature is the certificate's, over this very content, and ESSCertIDv2 names that certificate (RFC 5816)
	Certificate bool      // an end-entity certificate whose one, critical, extended key usage is time-stamping (RFC 3161 §2.3)
	Chain       bool      // it chains to a configured root at genTime
	NotAfter    time.Time // of the signing certificate; zero when there is none
	Errors      []string
}

// Valid tells whether every check passed.
func (r Report) Valid() bool { return r.Imprint && r.Signature && r.Certificate && r.Chain }

func (r *Report) wrong(format string, args ...any) {
	r.Errors = append(r.Errors, fmt.Sprintf(format, args...))
}

var (
	oidTSTInfo       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
	oidContentType   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidSigningCertV2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}
	oidExtKeyUsage   = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidSHA384        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}
	oidSHA512        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}
)

// LoadRoots reads the trusted root certificates from a PEM file.
func LoadRoots(path string) (*x509.CertPool, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("tsa: read the roots: %w", err)
	}
	pool, found := x509.NewCertPool(), 0
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("tsa: certificate %d of %s: %w", found+1, path, err)
		}
		pool.AddCert(cert)
		found++
	}
	if found == 0 {
		return nil, fmt.Errorf("tsa: %s holds no certificate in PEM form", path)
	}
	return pool, nil
}

// Verify checks a stored reply against the SHA-256 digest of a content and the trusted roots, as of the token's genTime. The
// stamp is what the token says, believed or not; the report tells what to believe. The error is about a reply that is no granted
// time-stamp at all, an *[Error]. Revocation is not checked.
func Verify(response, sha256Digest []byte, roots *x509.CertPool) (Stamp, Report, error) {
	token, err := parseResponse(response)
	if err != nil {
		return Stamp{}, Report{}, err
	}
	stamp, report, _, err := verifyToken(response, token, sha256Digest, roots)
	return stamp, report, err
}

// statusInfo and reply are PKIStatusInfo and TimeStampResp of RFC 3161 §2.4.2.
type statusInfo struct {
	Status   int
	Text     []asn1.RawValue `asn1:"optional"`
	FailInfo asn1.BitString  `asn1:"optional"`
}

type reply struct {
	Status statusInfo
	Token  asn1.RawValue `asn1:"optional"`
}

// failures names the bits of PKIFailureInfo and says which mean that the request itself is refused.
var failures = []struct {
	bit       int
	name      string
	permanent bool
}{
	{0, "badAlg", true},
	{2, "badRequest", true},
	{5, "badDataFormat", true},
	{14, "timeNotAvailable", false},
	{15, "unacceptedPolicy", true},
	{16, "unacceptedExtension", true},
	{17, "addInfoNotAvailable", false},
	{25, "systemFailure", false},
}

// parseResponse returns the token of a reply that was granted (status 0) or granted with modifications (1).
func parseResponse(response []byte) ([]byte, error) {
	var r reply
	rest, err := asn1.Unmarshal(response, &r)
	if err != nil || len(rest) > 0 {
		return nil, &Error{Reason: "The authority's reply is not a TimeStampResp.", Err: err}
	}
	if r.Status.Status == 0 || r.Status.Status == 1 {
		if len(r.Token.FullBytes) == 0 {
			return nil, &Error{Reason: "The authority granted the request but sent no token."}
		}
		return r.Token.FullBytes, nil
	}
	e := &Error{Reason: fmt.Sprintf("The authority refused the request with status %d.", r.Status.Status)}
	for _, f := range failures {
		if r.Status.FailInfo.At(f.bit) == 1 {
			e.Reason = fmt.Sprintf("The authority refused the request: %s.", f.name)
			e.Permanent = f.permanent
			break
		}
	}
	return nil, e
}

// verifyToken makes every check that it can, so that a report names all that is wrong.
func verifyToken(response, token, digest []byte, roots *x509.CertPool) (Stamp, Report, *big.Int, error) {
	var report Report
	p7, err := pkcs7.Parse(token)
	if err != nil {
		return Stamp{}, report, nil, &Error{Reason: "The token is not a signed message.", Err: err}
	}
	var info tstInfo
	if rest, err := asn1.Unmarshal(p7.Content, &info); err != nil || len(rest) > 0 || info.Version != 1 {
		return Stamp{}, report, nil, &Error{Reason: "The token holds no TSTInfo.", Err: err}
	}
	stamp := Stamp{
		Response: response, GenTime: info.GenTime.UTC(), Serial: fmt.Sprintf("0x%X", info.Serial),
		Policy: info.Policy.String(), Algorithm: "sha256",
	}
	switch {
	case !info.Imprint.Algorithm.Algorithm.Equal(oidSHA256):
		report.wrong("The message imprint is not SHA-256.")
	case len(digest) != sha256.Size || subtle.ConstantTimeCompare(info.Imprint.Digest, digest) != 1:
		report.wrong("The message imprint is of another content.")
	default:
		report.Imprint = true
	}
	signer := p7.GetOnlySigner()
	if signer == nil {
		report.wrong("The token does not hold the certificate of its one signer.")
		return stamp, report, info.Nonce, nil
	}
	stamp.Authority, report.NotAfter = signer.Subject.String(), signer.NotAfter.UTC()
	if err := checkSignature(p7, signer); err != nil {
		report.wrong("%s", err)
	} else {
		report.Signature = true
	}
	if err := checkUsage(signer); err != nil {
		report.wrong("%s", err)
	} else {
		report.Certificate = true
	}
	if err := checkChain(p7, signer, roots, info.GenTime); err != nil {
		report.wrong("%s", err)
	} else {
		report.Chain = true
	}
	return stamp, report, info.Nonce, nil
}

// tstInfo is TSTInfo of RFC 3161 §2.4.2; what follows the nonce is not looked at.
type tstInfo struct {
	Version  int
	Policy   asn1.ObjectIdentifier
	Imprint  imprint
	Serial   *big.Int
	GenTime  time.Time       `asn1:"generalized"`
	Accuracy accuracy        `asn1:"optional"`
	Ordering bool            `asn1:"optional"`
	Nonce    *big.Int        `asn1:"optional"`
	TSA      asn1.RawValue   `asn1:"optional,tag:0"`
	Exts     []asn1.RawValue `asn1:"optional,tag:1"`
}

type accuracy struct {
	Seconds int `asn1:"optional"`
	Millis  int `asn1:"optional,tag:0"`
	Micros  int `asn1:"optional,tag:1"`
}

type imprint struct {
	Algorithm pkix.AlgorithmIdentifier
	Digest    []byte
}

// checkSignature checks the signature over the content and that the signed attributes name the content's type and the
// signing certificate itself, so that it cannot be swapped for another with the same key (RFC 5816, RFC 5035 §5.4).
func checkSignature(p7 *pkcs7.PKCS7, signer *x509.Certificate) error {
	if err := p7.Verify(); err != nil {
		return errors.New("the signature does not verify")
	}
	var contentType asn1.ObjectIdentifier
	if err := p7.UnmarshalSignedAttribute(oidContentType, &contentType); err != nil || !contentType.Equal(oidTSTInfo) {
		return errors.New("the signed content is not marked as TSTInfo")
	}
	var named struct {
		Certs    []essCertIDv2
		Policies asn1.RawValue `asn1:"optional"`
	}
	if err := p7.UnmarshalSignedAttribute(oidSigningCertV2, &named); err != nil || len(named.Certs) == 0 {
		return errors.New("the signed attributes do not name the signing certificate (ESSCertIDv2)")
	}
	hash, known := map[string]crypto.Hash{
		"": crypto.SHA256, oidSHA256.String(): crypto.SHA256, oidSHA384.String(): crypto.SHA384, oidSHA512.String(): crypto.SHA512,
	}[named.Certs[0].Algorithm.Algorithm.String()]
	if !known {
		return errors.New("ESSCertIDv2 uses an unknown hash algorithm")
	}
	h := hash.New()
	h.Write(signer.Raw)
	if !bytes.Equal(h.Sum(nil), named.Certs[0].Hash) {
		return errors.New("ESSCertIDv2 names another certificate than the signing one")
	}
	return nil
}

type essCertIDv2 struct {
	Algorithm    pkix.AlgorithmIdentifier `asn1:"optional"` // absent means SHA-256
	Hash         []byte
	IssuerSerial asn1.RawValue `asn1:"optional"`
}

// checkUsage holds the certificate to RFC 3161 §2.3.
func checkUsage(cert *x509.Certificate) error {
	if cert.IsCA {
		return errors.New("the signing certificate is a CA's")
	}
	if len(cert.ExtKeyUsage) != 1 || len(cert.UnknownExtKeyUsage) != 0 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageTimeStamping {
		return errors.New("time-stamping is not the signing certificate's only extended key usage")
	}
	for _, ext := range cert.Extensions {
		if ext.Id.Equal(oidExtKeyUsage) && ext.Critical {
			return nil
		}
	}
	return errors.New("the signing certificate's extended key usage is not critical")
}

// checkChain builds a chain to a root as of genTime, with the token's own certificates in between.
func checkChain(p7 *pkcs7.PKCS7, signer *x509.Certificate, roots *x509.CertPool, genTime time.Time) error {
	between := x509.NewCertPool()
	for _, cert := range p7.Certificates {
		between.AddCert(cert)
	}
	_, err := signer.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: genTime, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping},
	})
	if err != nil {
		return fmt.Errorf("the signing certificate does not chain to a configured root at genTime: %s", strings.TrimPrefix(err.Error(), "x509: "))
	}
	return nil
}

// hashOf is used by requests; the imprint of every request is SHA-256.
const hashOf = crypto.SHA256

// request builds a TimeStampReq (RFC 3161 §2.4.1) that asks for the certificates.
func request(digest []byte, nonce *big.Int) ([]byte, error) {
	r := timestamp.Request{HashAlgorithm: hashOf, HashedMessage: digest, Certificates: true, Nonce: nonce}
	return r.Marshal()
}
