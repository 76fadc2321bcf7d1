package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/factum-platform/factum/infra/devstack"
)

// killAtStep makes the test binary be factum itself, and names the step of a move or an import at which it is killed with -9.
const killAtStep = "FACTUM_TEST_KILL_AT"

// buildTimeout bounds the build of the program on a machine that has built nothing yet.
const buildTimeout = 15 * time.Minute

// program is the real program, built once. It is built without the race detector, with which it needs ten times as long to start and five times
// the processor time; what runs in it is tested with the detector package by package, and by cmd/factum/apitest.
var program = sync.OnceValues(func() (string, error) {
	exe := filepath.Join(programDir, "factum")
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", exe, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build factum: %w: %s", err, out)
	}
	return exe, nil
})

// programDir is made before the tests and removed after them.
var programDir string

func TestMain(m *testing.M) {
	if devstack.RunChild() {
		return
	}
	if step := os.Getenv(killAtStep); step != "" {
		moveStep = func(at string) {
			if at == step {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // nothing of ours runs after it
			}
		}
		os.Exit(run(os.Args[1:]))
	}
	var err error
	if programDir, err = os.MkdirTemp("", "factum-program-"); err != nil {
		fmt.Fprintln(os.Stderr, "make a folder for the program:", err)
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(programDir); err != nil {
		fmt.Fprintln(os.Stderr, "remove the program:", err)
		code = 1
	}
	if err := elsewhere.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the servers of the tests:", err)
		code = 1
	}
	os.Exit(code)
}
