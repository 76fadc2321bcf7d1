package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	devReadyTimeout = 5 * time.Minute // the first start may have to download PostgreSQL
	devStopTimeout  = time.Minute
)

// findOrStartDev answers where the 'factum dev' of the data folder is. If none runs there, one is started, and stop ends it.
func findOrStartDev(ctx context.Context, out io.Writer, data string) (info devInfo, stop func() error, err error) {
	data, err = filepath.Abs(data)
	if err != nil {
		return info, nil, fmt.Errorf("data folder: %w", err)
	}
	running, err := devRuns(data)
	if err != nil {
		return info, nil, err
	}
	if running {
		info, err = awaitHealthy(ctx, data)
		if err != nil {
			return info, nil, err
		}
		fmt.Fprintf(out, "Talking to the Factum that runs at %s (data in %s).\n", info.BaseURL, data)
		return info, func() error { return nil }, nil
	}
	fmt.Fprintf(out, "No Factum runs on %s; starting one for this demo …\n", data)
	stop, err = startDev(ctx, data)
	if err != nil {
		return info, nil, err
	}
	info, err = awaitHealthy(ctx, data)
	if err != nil {
		return info, nil, errors.Join(err, stop())
	}
	fmt.Fprintf(out, "It is ready at %s and will be stopped at the end; its data stays.\n", info.BaseURL)
	return info, stop, nil
}

// devRuns tells whether a process holds the lock that 'factum dev' holds while it runs. The lock is the kernel's, so a killed
// process does not leave it behind, as it leaves dev.json.
func devRuns(data string) (bool, error) {
	f, err := os.Open(filepath.Join(data, "lock"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("data folder %s: %w", data, err)
	}
	defer f.Close()
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("probe the lock of %s: %w", data, err)
	}
	return false, nil
}

// awaitHealthy waits until the API answers: a 'factum dev' that was started a moment ago has its lock before it has its port.
func awaitHealthy(ctx context.Context, data string) (devInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		info, err := readDevInfo(data)
		if err != nil {
			return info, err
		}
		reason := errors.New("dev.json is not written yet")
		if info.BaseURL != "" {
			client := &demoClient{base: info.BaseURL}
			if reason = client.call(ctx, http.MethodGet, "/health", nil, nil); reason == nil {
				return info, nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return info, fmt.Errorf("the 'factum dev' on %s runs but its API does not answer: %w", data, reason)
		}
	}
}

// startDev starts 'factum dev' as a child on a free port and returns once it says that it is ready. stop ends it as Ctrl-C would.
func startDev(ctx context.Context, data string) (stop func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start 'factum dev': %w", err)
	}
	childCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	child := exec.CommandContext(childCtx, self, "dev", "--data", data, "--listen", "127.0.0.1:0")
	child.Cancel = func() error { return child.Process.Signal(syscall.SIGTERM) }
	child.WaitDelay = devStopTimeout
	child.Stderr = os.Stderr
	stdout, err := child.StdoutPipe()
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start 'factum dev': %w", err)
	}
	if err := child.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("start 'factum dev': %w", err)
	}
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		for said := false; lines.Scan(); { // to the end, or the child would block on a full pipe
			if !said && strings.HasPrefix(lines.Text(), "ready ") {
				said = true
				close(ready)
			}
		}
		ended <- errors.Join(lines.Err(), child.Wait())
	}()
	stop = func() error {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			return fmt.Errorf("stop 'factum dev': %w", err)
		}
		return nil
	}
	select {
	case <-ready:
		return stop, nil
	case err := <-ended:
		cancel()
		return nil, fmt.Errorf("'factum dev' did not start, its own message says why: %w", err)
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), stop())
	case <-time.After(devReadyTimeout):
		return nil, errors.Join(fmt.Errorf("'factum dev' was not ready within %s", devReadyTimeout), stop())
	}
}
