package commands

import (
	"context"
	"time"

	"github.com/factum-platform/factum/domain/file"
	"github.com/factum-platform/factum/eventstore"
)

// StampOutcome reports a time-stamp that was verified completely. Job is the id of the job that obtained it: the same job
// reporting again changes nothing.
type StampOutcome struct {
	TenantID, FileID, Job string
	Attempt               int
	Response              []byte // the whole TimeStampResp, DER
	GenTime               time.Time
	Serial, Policy        string
	Algorithm, Authority  string
}

// FailedAttempt reports an attempt that failed. Reason holds no personal data. Permanent: no further attempt can succeed.
type FailedAttempt struct {
	TenantID, FileID, Job string
	Attempt               int
	Reason                string
	Permanent             bool
}

// TimestampWanted looks again just before acting: whether the file still waits for a time-stamp, the hash to stamp, and the
// number of the attempt, from 1.
func (c *Commands) TimestampWanted(ctx context.Context, tenantID, fileID string) (sha256 string, attempt int, wanted bool, err error) {
	s, _, err := fold(ctx, c.c.Store.Tenant(LogOf(tenantID)), c.c.Codec, file.Decider, eventstore.StreamID{Kind: file.Kind, ID: fileID}, nil)
	return s.SHA256, s.Attempts + 1, s.Stamp == file.Pending, err
}

// RecordTimestamp records the time-stamp; a file that has one already keeps it.
func (c *Commands) RecordTimestamp(ctx context.Context, in StampOutcome) error {
	at := stamp(c.c.Now())
	_, err := c.x.Execute(ctx, LogOf(in.TenantID), jobMeta(in.Job, at), fileStep(in.FileID, file.RecordTimestamp{Stamp: file.Timestamped{
		Response: in.Response, GenTime: in.GenTime.UTC(), Serial: in.Serial, Policy: in.Policy,
		Algorithm: in.Algorithm, Authority: in.Authority, Attempt: in.Attempt, At: at,
	}}))
	return err
}

// RecordTimestampFailure records the failure with the time of the next attempt, or that the time-stamp is abandoned.
func (c *Commands) RecordTimestampFailure(ctx context.Context, in FailedAttempt) error {
	at := stamp(c.c.Now())
	_, err := c.x.Execute(ctx, LogOf(in.TenantID), jobMeta(in.Job, at), fileStep(in.FileID, file.RecordFailure{
		Attempt: in.Attempt, Reason: in.Reason, Permanent: in.Permanent, At: at,
	}))
	return err
}

func jobMeta(job string, at time.Time) eventstore.Meta {
	return eventstore.Meta{Command: job, Correlation: job, Causation: job, Actor: System, At: at}
}
