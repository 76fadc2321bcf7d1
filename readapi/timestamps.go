package readapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/factum-platform/factum/infra/httpapi"
	"github.com/factum-platform/factum/infra/objectstore"
	"github.com/factum-platform/factum/infra/tsa"
)

func (r routes) timestamps(api huma.API) {
	const path = "/api/tenants/{tenant_id}/files/{file_id}/timestamp"
	httpapi.Route(api, get("get-timestamp", path, "time-stamps", "The file's time-stamp, or what became of the attempts"), r.timestamp)
	httpapi.Route(api, binary(get("download-timestamp", path+"/download", "time-stamps",
		"The whole TimeStampResp, as openssl ts -verify takes it"), replyType), r.downloadTimestamp)
	verify := get("verify-timestamp", path+"/verify", "time-stamps", "Verify the time-stamp against the stored content, read again for it")
	verify.Method, verify.Reads = http.MethodPost, true
	httpapi.Route(api, verify, r.verify)
}

const replyType = "application/timestamp-reply"

type fileTimestamp struct {
	FileID    string     `json:"file_id" format:"uuid"`
	Timestamp *timestamp `json:"tsa_timestamp,omitempty" doc:"Absent when no time-stamp was asked for."`
}

func (r routes) timestamp(ctx context.Context, in *oneFile) (*httpapi.Answer[fileTimestamp], error) {
	f, at, err := r.readFile(ctx, in, nil)
	if err != nil {
		return nil, err
	}
	return httpapi.Answered(at, "The time-stamp.", fileTimestamp{f.basic.ID, f.more.Metadata.Timestamp}), nil
}

func (r routes) stampedFile(ctx context.Context, in *oneFile) (storedFile, httpapi.Settled, error) {
	f, at, err := r.readFile(ctx, in, nil)
	if err == nil && len(f.response) == 0 {
		err = httpapi.NewProblem(http.StatusBadRequest, "", "This file has no time-stamp (yet).")
	}
	return f, at, err
}

func (r routes) downloadTimestamp(ctx context.Context, in *oneFile) (*streamed, error) {
	f, at, err := r.stampedFile(ctx, in)
	if err != nil {
		return nil, err
	}
	return &streamed{at.Position, func(hc huma.Context) {
		httpapi.Stream(hc, map[string]string{
			"Content-Type":        replyType,
			"Content-Disposition": fmt.Sprintf(`attachment; filename="file_%s_timestamp.tsr"`, f.basic.ID),
			"Cache-Control":       "no-store, no-cache, must-revalidate, private",
		}, io.NopCloser(bytes.NewReader(f.response)), int64(len(f.response)))
	}}, nil
}

type verification struct {
	FileID        string        `json:"file_id" format:"uuid"`
	Valid         bool          `json:"valid" doc:"Every check passed."`
	GenTime       *httpapi.Time `json:"gen_time" nullable:"true" doc:"null, as certificate_expiry, when the stored reply cannot be read."`
	SerialNumber  string        `json:"serial_number"`
	PolicyOID     string        `json:"policy_oid"`
	TSAAuthority  string        `json:"tsa_authority"`
	Algorithm     string        `json:"algorithm"`
	HashAlgorithm string        `json:"hash_algorithm" doc:"As algorithm."`
	Imprint       bool          `json:"message_imprint_match" doc:"As in checks."`
	Certificate   bool          `json:"certificate_valid" doc:"As in checks."`
	Checks        struct {
		Imprint     bool `json:"message_imprint_match" doc:"The imprint is the SHA-256 of the content as it is stored now."`
		Signature   bool `json:"signature_valid"`
		Certificate bool `json:"certificate_valid" doc:"An end-entity certificate for time-stamping and nothing else."`
		Chain       bool `json:"certificate_chain_valid" doc:"It chains to a configured root at gen_time."`
	} `json:"checks"`
	Expiry     *httpapi.Time `json:"certificate_expiry" nullable:"true"`
	Errors     []string      `json:"errors" nullable:"false"`
	VerifiedAt httpapi.Time  `json:"verified_at"`
}

func (r routes) verify(ctx context.Context, in *oneFile) (*httpapi.Answer[verification], error) {
	f, at, err := r.stampedFile(ctx, in)
	if err != nil {
		return nil, err
	}
	digest, err := r.digest(ctx, f.basic.S3Path)
	if errors.Is(err, objectstore.ErrNotFound) {
		return nil, httpapi.NewProblem(http.StatusNotFound, "", "The file's content is missing in the object store.")
	}
	if err != nil {
		return nil, fmt.Errorf("readapi: verify: %w", err)
	}
	stamp, report, err := tsa.Verify(f.response, digest, r.Roots)
	out := verification{FileID: f.basic.ID, Errors: append([]string{}, report.Errors...), VerifiedAt: httpapi.Time(r.Now())}
	if err != nil && len(out.Errors) == 0 {
		out.Errors = append(out.Errors, "The stored reply is not a valid time-stamp.")
	}
	out.Checks.Imprint, out.Checks.Signature, out.Checks.Certificate, out.Checks.Chain = report.Imprint, report.Signature, report.Certificate, report.Chain
	out.Imprint, out.Certificate = report.Imprint, report.Certificate
	out.Valid = err == nil && report.Valid()
	out.SerialNumber, out.PolicyOID, out.TSAAuthority = stamp.Serial, stamp.Policy, stamp.Authority
	out.Algorithm, out.HashAlgorithm = stamp.Algorithm, stamp.Algorithm
	if !stamp.GenTime.IsZero() {
		out.GenTime = httpapi.TimeOf(&stamp.GenTime)
	}
	if !report.NotAfter.IsZero() {
		out.Expiry = httpapi.TimeOf(&report.NotAfter)
	}
	message := "The time-stamp is valid."
	if !out.Valid {
		message = "The time-stamp is not valid."
	}
	return httpapi.Answered(at, message, out), nil
}

// digest reads the content as it is stored now.
func (r routes) digest(ctx context.Context, key string) ([]byte, error) {
	body, _, err := r.Objects.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	_, err = io.Copy(sum, body)
	if err := errors.Join(err, body.Close()); err != nil {
		return nil, err
	}
	return sum.Sum(nil), nil
}
