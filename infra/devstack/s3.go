// Package devstack starts, for development and tests, the servers that production has elsewhere: PostgreSQL, S3, a
// time-stamping authority and an OpenID provider. They speak the real protocols; they are only smaller.
package devstack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

// s3StartTimeout bounds the wait for a child that should be ready in well under a second.
const s3StartTimeout = 30 * time.Second

// s3HealthPath answers without credentials; no bucket may have this name.
const s3HealthPath = "/-factum-health"

// S3Config describes a local S3 server. Dir is made when absent; everything it keeps lies below it.
type S3Config struct {
	Dir       string
	AccessKey string
	SecretKey string
	Listen    string // host:port; "" picks a free port of 127.0.0.1 and remembers it in Dir
}

// S3 is a running server, a child process, because versitygw changes the working directory of its process. The
// kernel ends the child with this process, even after kill -9.
type S3 struct {
	endpoint string
	cmd      *exec.Cmd
	stdin    io.Closer
	exited   chan struct{}
	exitErr  error
	stderr   *tail
}

// s3ChildConfig goes to the child by standard input, so that the secret is in no process list or environment.
type s3ChildConfig struct{ Dir, AccessKey, SecretKey, Listen string }

// StartS3 starts the server and returns when it answers.
func StartS3(ctx context.Context, c S3Config) (*S3, error) {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("devstack: S3 folder %s: %w", c.Dir, err)
	}
	for _, sub := range []string{"objects", "attributes"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("devstack: S3 folder: %w", err)
		}
	}
	listen := c.Listen
	if listen == "" {
		if listen, err = rememberedPort(ctx, filepath.Join(dir, "port")); err != nil {
			return nil, err
		}
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("devstack: find this program to start it as the S3 server: %w", err)
	}
	s := &S3{endpoint: listen, cmd: exec.Command(exe), exited: make(chan struct{}), stderr: &tail{}}
	s.cmd.Env = append(os.Environ(), childRole+"=s3")
	s.cmd.Stderr = s.stderr
	s.cmd.WaitDelay = 5 * time.Second
	// A process group of its own: Ctrl-C must reach only us, who then stop the child in order.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := s.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("devstack: S3 server: %w", err)
	}
	s.stdin = stdin
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("devstack: start the S3 server: %w", err)
	}
	go func() {
		s.exitErr = s.cmd.Wait()
		close(s.exited)
	}()
	// The pipe stays open: its end tells the child that this process is gone, whatever ended it.
	if err := json.NewEncoder(stdin).Encode(s3ChildConfig{dir, c.AccessKey, c.SecretKey, listen}); err != nil {
		return nil, errors.Join(fmt.Errorf("devstack: hand the S3 server its settings: %w", err), s.Stop(ctx))
	}
	if err := s.waitReady(ctx); err != nil {
		return nil, errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// Endpoint is the server's host:port; it speaks plain HTTP.
func (s *S3) Endpoint() string { return s.endpoint }

// Exited is closed when the server has ended, whoever ended it.
func (s *S3) Exited() <-chan struct{} { return s.exited }

// Stop ends the server and waits for it.
func (s *S3) Stop(ctx context.Context) error {
	select {
	case <-s.exited:
		return fmt.Errorf("devstack: the S3 server had ended by itself: %w: %s", orNil(s.exitErr), s.stderr)
	default:
	}
	if err := s.stdin.Close(); err != nil {
		return fmt.Errorf("devstack: stop the S3 server: %w", err)
	}
	select {
	case <-s.exited:
		return nil
	case <-ctx.Done():
		if err := s.cmd.Process.Kill(); err != nil {
			return fmt.Errorf("devstack: kill the S3 server: %w", err)
		}
		<-s.exited
		return nil
	}
}

func (s *S3) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s3StartTimeout)
	defer cancel()
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.endpoint+s3HealthPath, nil)
		if err != nil {
			return fmt.Errorf("devstack: S3 endpoint %s: %w", s.endpoint, err)
		}
		if resp, err := client.Do(req); err == nil {
			status := resp.StatusCode
			if err := resp.Body.Close(); err != nil {
				return fmt.Errorf("devstack: S3 health: %w", err)
			}
			if status == http.StatusOK {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-s.exited:
			return fmt.Errorf("devstack: the S3 server ended at once: %s", s.stderr)
		case <-ctx.Done():
			return fmt.Errorf("devstack: the S3 server does not answer on %s: %w: %s", s.endpoint, ctx.Err(), s.stderr)
		}
	}
}

// runS3Child is the child's main: it serves until its standard input ends, which is when the parent stops it or dies.
func runS3Child() error {
	var c s3ChildConfig
	if err := json.NewDecoder(os.Stdin).Decode(&c); err != nil {
		return fmt.Errorf("read the settings: %w", err)
	}
	signal.Ignore(syscall.SIGINT) // Ctrl-C is the parent's to handle
	// Nothing of what the gateway prints is for the user.
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	os.Stdout = null
	attributes, err := meta.NewSideCar(filepath.Join(c.Dir, "attributes"))
	if err != nil {
		return fmt.Errorf("attributes: %w", err)
	}
	backend, err := posix.New(filepath.Join(c.Dir, "objects"), attributes, posix.PosixOpts{
		SideCarDir: filepath.Join(c.Dir, "attributes"), CopyObjectThreshold: 5 << 30,
	})
	if err != nil {
		return fmt.Errorf("objects: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		// Read until the end; an error means the same: there is no parent any more.
		if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, "devstack: the parent's pipe broke:", err)
		}
	}()
	return embedgw.RunVersityGW(ctx, backend, &embedgw.Config{
		RootUserAccess: c.AccessKey, RootUserSecret: c.SecretKey, Region: "us-east-1", Ports: []string{c.Listen},
		MaxConnections: 1024, MaxRequests: 1024, MultipartMaxParts: 10000, Quiet: true, KeepAlive: true, HealthPath: s3HealthPath,
	})
}

// rememberedPort returns 127.0.0.1 with the port in file if that is free, else with a free one, which it writes there.
func rememberedPort(ctx context.Context, file string) (string, error) {
	var lc net.ListenConfig
	if old, err := os.ReadFile(file); err == nil {
		addr := "127.0.0.1:" + strings.TrimSpace(string(old))
		if ln, err := lc.Listen(ctx, "tcp", addr); err == nil {
			return addr, ln.Close()
		}
	}
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("devstack: find a free port: %w", err)
	}
	addr := ln.Addr().String()
	if err := ln.Close(); err != nil {
		return "", fmt.Errorf("devstack: free the port again: %w", err)
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(file, []byte(port+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("devstack: remember the port: %w", err)
	}
	return addr, nil
}

// tail keeps the last 4 KiB that a child wrote, for error messages.
type tail struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - 4096; over > 0 {
		t.text = t.text[over:]
	}
	return len(p), nil
}

// String returns what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.text))
}

func orNil(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}
