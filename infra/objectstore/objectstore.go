// Package objectstore keeps file contents in a bucket that speaks the S3 protocol.
package objectstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// partBytes is what one upload holds in memory at most: contents up to this size are sent in one request, larger ones as a
// multipart upload in parts of this size. With S3's 10,000 parts it allows 80 GB.
const partBytes = 8 << 20

// ErrNotFound says that the bucket has no such object.
var ErrNotFound = errors.New("objectstore: no such object")

// Config says where the bucket is. All fields but TLS and the public ones are required.
type Config struct {
	Endpoint  string // host:port, no scheme
	AccessKey string
	SecretKey string
	Bucket    string
	Region    string
	TLS       bool
	// PublicEndpoint and PublicTLS say how clients outside reach the bucket, for URLs that are given to them; "" means as we do.
	PublicEndpoint string
	PublicTLS      bool
}

// Store is a bucket. It is safe for concurrent use.
type Store struct {
	client  *minio.Core
	public  *minio.Core // signs URLs; it sends nothing
	bucket  string
	buffers sync.Pool
}

// Open connects to the bucket and creates it when it is missing.
func Open(ctx context.Context, c Config) (*Store, error) {
	client, err := minio.NewCore(c.Endpoint, &minio.Options{
		Creds: credentials.NewStaticV4(c.AccessKey, c.SecretKey, ""), Secure: c.TLS, Region: c.Region,
	})
	if err != nil {
		return nil, fmt.Errorf("objectstore: endpoint %q: %w", c.Endpoint, err)
	}
	public := client
	if c.PublicEndpoint != "" {
		// With the region given, signing asks no server.
		public, err = minio.NewCore(c.PublicEndpoint, &minio.Options{
			Creds: credentials.NewStaticV4(c.AccessKey, c.SecretKey, ""), Secure: c.PublicTLS, Region: c.Region,
		})
		if err != nil {
			return nil, fmt.Errorf("objectstore: public endpoint %q: %w", c.PublicEndpoint, err)
		}
	}
	s := &Store{client: client, public: public, bucket: c.Bucket}
	s.buffers.New = func() any { b := make([]byte, partBytes); return &b }
	exists, err := client.BucketExists(ctx, c.Bucket)
	if err != nil {
		return nil, fmt.Errorf("objectstore: look for bucket %q at %s: %w; check the S3 endpoint and its keys", c.Bucket, c.Endpoint, err)
	}
	if exists {
		return s, nil
	}
	if err := client.MakeBucket(ctx, c.Bucket, minio.MakeBucketOptions{Region: c.Region}); err != nil {
		if again, lookErr := client.BucketExists(ctx, c.Bucket); lookErr == nil && again {
			return s, nil // another process was faster
		}
		return nil, fmt.Errorf("objectstore: create bucket %q at %s: %w", c.Bucket, c.Endpoint, err)
	}
	return s, nil
}

// Put streams body, of any length, into the object key and returns its size in bytes. It holds at most 8 MiB in memory. When
// body or the store fails, nothing becomes visible under the key; the error wraps body's own.
func (s *Store) Put(ctx context.Context, key string, body io.Reader) (int64, error) {
	buf := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(buf)
	n, err := io.ReadFull(body, *buf)
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		if err := s.putWhole(ctx, key, (*buf)[:n]); err != nil {
			return 0, err
		}
		return int64(n), nil
	case err != nil:
		return 0, fmt.Errorf("objectstore: read the content of %s: %w", key, err)
	}
	return s.putParts(ctx, key, *buf, body)
}

func (s *Store) putWhole(ctx context.Context, key string, content []byte) error {
	// With its hash in the signature the content goes as it is. Otherwise it would go in signed chunks, and some servers would keep that as the
	// object's Content-Encoding, which clients of signed URLs do not know.
	sum := sha256.Sum256(content)
	_, err := s.client.PutObject(ctx, s.bucket, key, bytes.NewReader(content), int64(len(content)), "", hex.EncodeToString(sum[:]),
		minio.PutObjectOptions{DisableContentSha256: true})
	if err != nil {
		return fmt.Errorf("objectstore: put %s: %w", key, err)
	}
	return nil
}

// putParts uploads buf, which is full, and then the rest of body through it.
func (s *Store) putParts(ctx context.Context, key string, buf []byte, body io.Reader) (size int64, err error) {
	upload, err := s.client.NewMultipartUpload(ctx, s.bucket, key, minio.PutObjectOptions{})
	if err != nil {
		return 0, fmt.Errorf("objectstore: begin %s: %w", key, err)
	}
	defer func() {
		if err == nil {
			return
		}
		// The caller's context may be what failed; the parts must go all the same.
		if abortErr := s.client.AbortMultipartUpload(context.WithoutCancel(ctx), s.bucket, key, upload); abortErr != nil {
			err = errors.Join(err, fmt.Errorf("objectstore: abort %s: %w", key, abortErr))
		}
	}()
	var parts []minio.CompletePart
	for n, last := len(buf), false; n > 0; {
		part, err := s.client.PutObjectPart(ctx, s.bucket, key, upload, len(parts)+1, bytes.NewReader(buf[:n]), int64(n), minio.PutObjectPartOptions{})
		if err != nil {
			return 0, fmt.Errorf("objectstore: put part %d of %s: %w", len(parts)+1, key, err)
		}
		parts = append(parts, minio.CompletePart{PartNumber: part.PartNumber, ETag: part.ETag})
		size += int64(n)
		if last {
			break
		}
		n, err = io.ReadFull(body, buf)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			last = true
		} else if err != nil {
			return 0, fmt.Errorf("objectstore: read the content of %s: %w", key, err)
		}
	}
	if _, err := s.client.CompleteMultipartUpload(ctx, s.bucket, key, upload, parts, minio.PutObjectOptions{}); err != nil {
		return 0, fmt.Errorf("objectstore: complete %s: %w", key, err)
	}
	return size, nil
}

// Get opens the object and returns its size in bytes. The caller closes the reader. Error: [ErrNotFound].
func (s *Store) Get(ctx context.Context, key string) (io.ReadCloser, int64, error) {
	body, info, _, err := s.client.GetObject(ctx, s.bucket, key, minio.GetObjectOptions{})
	if err != nil {
		if minio.ToErrorResponse(err).StatusCode == http.StatusNotFound {
			return nil, 0, fmt.Errorf("%w: %s", ErrNotFound, key)
		}
		return nil, 0, fmt.Errorf("objectstore: get %s: %w", key, err)
	}
	return body, info.Size, nil
}

// Presign returns a URL by which everybody may read the object until life is over, at most seven days. The answer has the given media type
// and Content-Disposition. It does not look whether the object is there.
func (s *Store) Presign(ctx context.Context, key string, life time.Duration, mimeType, disposition string) (string, error) {
	signed, err := s.public.PresignedGetObject(ctx, s.bucket, key, life, url.Values{
		"response-content-type": {mimeType}, "response-content-disposition": {disposition},
	})
	if err != nil {
		return "", fmt.Errorf("objectstore: sign a URL of %s: %w", key, err)
	}
	return signed.String(), nil
}

// Delete removes the object. An object that is not there is no error.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := s.client.RemoveObject(ctx, s.bucket, key, minio.RemoveObjectOptions{}); err != nil {
		return fmt.Errorf("objectstore: delete %s: %w", key, err)
	}
	return nil
}
