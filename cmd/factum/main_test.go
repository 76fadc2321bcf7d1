package main

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/factum-platform/factum/infra/devstack"
)

// runAsFactum makes the test binary be factum itself, so that tests meet the real program without building it again.
const runAsFactum = "FACTUM_TEST_RUN_AS_FACTUM"

// killAtStep names the step of a move at which the process is killed with -9.
const killAtStep = "FACTUM_TEST_KILL_AT"

func TestMain(m *testing.M) {
	if devstack.RunChild() {
		return
	}
	if os.Getenv(runAsFactum) != "" {
		if step := os.Getenv(killAtStep); step != "" {
			moveStep = func(at string) {
				if at == step {
					_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // nothing of ours runs after it
				}
			}
		}
		os.Exit(run(os.Args[1:]))
	}
	code := m.Run()
	if err := elsewhere.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the servers of the tests:", err)
		code = 1
	}
	os.Exit(code)
}
