package objectstore_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/factum-platform/factum/infra/devstack"
	"github.com/factum-platform/factum/infra/objectstore"
)

func TestMain(m *testing.M) {
	if devstack.RunChild() {
		return
	}
	os.Exit(m.Run())
}

// open starts the S3 server of factum dev and opens a bucket in it.
func open(t *testing.T) *objectstore.Store {
	t.Helper()
	s3, err := devstack.StartS3(t.Context(), devstack.S3Config{Dir: t.TempDir(), AccessKey: "test", SecretKey: "test-secret"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s3.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	c := objectstore.Config{Endpoint: s3.Endpoint(), AccessKey: "test", SecretKey: "test-secret", Bucket: "factum-test", Region: "us-east-1"}
	for range 2 { // the second finds the bucket
		if _, err := objectstore.Open(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	store, err := objectstore.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestObjects(t *testing.T) {
	store := open(t)
	const part = 8 << 20
	t.Run("bytes survive at every size around a part", func(t *testing.T) {
		for _, size := range []int64{0, 1, part - 1, part, part + 1, 2 * part, 20<<20 + 3} {
			want := sha256.New()
			body := io.TeeReader(io.LimitReader(rand.New(rand.NewSource(size)), size), want)
			n, err := store.Put(t.Context(), "tenants/a/files/x", body)
			if err != nil || n != size {
				t.Fatalf("Put of %d bytes: %d, %v", size, n, err)
			}
			r, n, err := store.Get(t.Context(), "tenants/a/files/x")
			if err != nil || n != size {
				t.Fatalf("Get of %d bytes: %d, %v", size, n, err)
			}
			got := sha256.New()
			if _, err := io.Copy(got, r); err != nil {
				t.Fatal(err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
				t.Fatalf("%d bytes came back changed", size)
			}
		}
	})
	t.Run("a body that breaks leaves nothing", func(t *testing.T) {
		broken := errors.New("client went away")
		for _, size := range []int64{10, part + 10} {
			body := io.MultiReader(io.LimitReader(rand.New(rand.NewSource(1)), size), failing{broken})
			if _, err := store.Put(t.Context(), "broken", body); !errors.Is(err, broken) {
				t.Fatalf("Put after %d bytes: %v", size, err)
			}
			if _, _, err := store.Get(t.Context(), "broken"); !errors.Is(err, objectstore.ErrNotFound) {
				t.Fatalf("Get after a broken Put: %v", err)
			}
		}
	})
	t.Run("delete is idempotent", func(t *testing.T) {
		if _, err := store.Put(t.Context(), "gone", bytes.NewReader([]byte("x"))); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := store.Delete(t.Context(), "gone"); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := store.Get(t.Context(), "gone"); !errors.Is(err, objectstore.ErrNotFound) {
			t.Fatal(err)
		}
	})
	t.Run("a signed URL needs no key, until it is over", func(t *testing.T) {
		if _, err := store.Put(t.Context(), "tenants/a/files/signed", bytes.NewReader([]byte("content"))); err != nil {
			t.Fatal(err)
		}
		const disposition = `attachment; filename="a_.pdf"; filename*=UTF-8''%C3%A4%20.pdf`
		signed, err := store.Presign(t.Context(), "tenants/a/files/signed", time.Hour, "application/pdf", disposition)
		if err != nil {
			t.Fatal(err)
		}
		status, header, body := fetch(t, signed)
		if status != http.StatusOK || body != "content" || header.Get("Content-Type") != "application/pdf" || header.Get("Content-Disposition") != disposition ||
			header.Get("Content-Encoding") != "" {
			t.Errorf("%d %v %q", status, header, body)
		}
		unsigned, _, _ := strings.Cut(signed, "?")
		for name, changed := range map[string]string{
			"another object": strings.Replace(signed, "signed?", "x?", 1),
			"no signature":   unsigned,
			"a longer life":  strings.Replace(signed, "X-Amz-Expires=3600", "X-Amz-Expires=7200", 1),
			"another type":   strings.Replace(signed, "pdf", "html", 1),
		} {
			if status, _, body := fetch(t, changed); changed == signed || status != http.StatusForbidden {
				t.Errorf("%s: %d %q", name, status, body)
			}
		}
		short, err := store.Presign(t.Context(), "tenants/a/files/signed", time.Second, "application/pdf", disposition)
		if err != nil {
			t.Fatal(err)
		}
		for over := time.Now().Add(20 * time.Second); ; <-time.After(100 * time.Millisecond) {
			if status, _, _ := fetch(t, short); status == http.StatusForbidden {
				break
			}
			if time.Now().After(over) {
				t.Fatal("the URL outlives its second")
			}
		}
		if _, err := store.Presign(t.Context(), "x", 8*24*time.Hour, "a/b", ""); err == nil {
			t.Error("eight days are signed")
		}
	})
	t.Run("a large body is not held in memory", func(t *testing.T) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		const size = 96 << 20
		if _, err := store.Put(t.Context(), "large", io.LimitReader(rand.New(rand.NewSource(2)), size)); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > size/2 {
			t.Fatalf("an upload of %d MiB allocated %d MiB", size>>20, grown>>20)
		}
	})
}

// fetch reads the URL without any key.
func fetch(t *testing.T, from string) (status int, header http.Header, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, from, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(raw)
}

func TestURLsForTheOutside(t *testing.T) {
	s3, err := devstack.StartS3(t.Context(), devstack.S3Config{Dir: t.TempDir(), AccessKey: "test", SecretKey: "test-secret"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s3.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	store, err := objectstore.Open(t.Context(), objectstore.Config{
		Endpoint: s3.Endpoint(), AccessKey: "test", SecretKey: "test-secret", Bucket: "factum-test", Region: "us-east-1", PublicEndpoint: "files.example", PublicTLS: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := store.Presign(t.Context(), "tenants/a", time.Minute, "a/b", "attachment")
	if err != nil || !strings.HasPrefix(signed, "https://files.example/factum-test/tenants/a?") || strings.Contains(signed, "test-secret") {
		t.Errorf("%s %v", signed, err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
