package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/factum-platform/factum/infra/devstack"
)

// runAsFactum makes the test binary be factum itself, so that tests meet the real program without building it again.
const runAsFactum = "FACTUM_TEST_RUN_AS_FACTUM"

func TestMain(m *testing.M) {
	if devstack.RunChild() {
		return
	}
	if os.Getenv(runAsFactum) != "" {
		os.Exit(run(os.Args[1:]))
	}
	code := m.Run()
	if err := elsewhere.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the servers of the tests:", err)
		code = 1
	}
	os.Exit(code)
}
