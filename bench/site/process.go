package site

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	readyTimeout = 2 * time.Minute
	stopTimeout  = time.Minute
	keptLines    = 40 // of a process's output, for messages
)

// Process is a running factum, or another program beside it. It ends with this process, also after kill -9.
type Process struct {
	URL string // of the API, without a slash at the end
	PID int

	name  string // for messages
	cmd   *exec.Cmd
	ended chan struct{}
	exit  error // of Wait; may be read when ended is closed

	mu    sync.Mutex
	lines []string // the last ones of its output
	ready chan string
}

// Serve starts factum serve with these arguments and returns when it is ready.
func (s *Site) Serve(ctx context.Context, args ...string) (*Process, error) {
	return StartChild(ctx, s.program, s.environment(), append([]string{"serve"}, args...)...)
}

// StartChild starts a program that prints "ready" and its URL when it is ready, and returns then.
func StartChild(ctx context.Context, program string, environment []string, args ...string) (*Process, error) {
	p := &Process{ready: make(chan string, 1)}
	if err := p.start(program, environment, args, p.heard); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	select {
	case p.URL = <-p.ready:
		return p, nil
	case <-p.ended:
		return nil, fmt.Errorf("%s ended: %w: %s", p.name, orNil(p.exit), p.Output())
	case <-ctx.Done():
		p.Kill()
		return nil, fmt.Errorf("%s is not ready after %v: %s", p.name, readyTimeout, p.Output())
	}
}

// Run runs another subcommand to its end and calls each with every line that it prints. Its error holds the last lines.
func (s *Site) Run(ctx context.Context, each func(line string), args ...string) error {
	p := &Process{ready: make(chan string, 1)}
	err := p.start(s.program, s.environment(), args, func(line string) {
		p.keep(line)
		each(line)
	})
	if err != nil {
		return err
	}
	select {
	case <-p.ended:
	case <-ctx.Done():
		p.Kill()
		return ctx.Err()
	}
	if p.exit != nil {
		return fmt.Errorf("%s: %w: %s", p.name, p.exit, p.Output())
	}
	return nil
}

// start starts the program under a thread of its own, because the kernel ties the parent-death signal to the thread that starts a child.
func (p *Process) start(program string, environment, args []string, heard func(line string)) error {
	p.name = strings.Join(append([]string{filepath.Base(program)}, args...), " ")
	p.cmd, p.ended = exec.Command(program, args...), make(chan struct{})
	p.cmd.Env = environment
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL} // Ctrl-C must reach only us, who then stop it in order
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	p.cmd.Stdout, p.cmd.Stderr = in, in
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine, which lives as long as the child
		err := errors.Join(p.cmd.Start(), in.Close())
		started <- err
		if err != nil {
			return
		}
		var reading sync.WaitGroup
		reading.Go(func() { read(out, heard) })
		p.exit = p.cmd.Wait()
		reading.Wait()
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	p.PID = p.cmd.Process.Pid
	return nil
}

func read(out *os.File, heard func(line string)) {
	defer out.Close()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		heard(lines.Text())
	}
	_, _ = io.Copy(io.Discard, out) // after a line that is too long: a full pipe would stop the process
}

func (p *Process) heard(line string) {
	if rest, ok := strings.CutPrefix(line, "ready "); ok && len(strings.Fields(rest)) > 0 {
		select {
		case p.ready <- strings.Fields(rest)[0]:
		default:
		}
		return
	}
	p.keep(line)
}

func (p *Process) keep(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lines = append(p.lines, line); len(p.lines) > keptLines {
		p.lines = p.lines[1:]
	}
}

// Output is the end of what the process printed.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// Ended is closed when the process has ended, whoever ended it.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Kill ends the process with -9 and waits for it.
func (p *Process) Kill() {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		panic("site: a child cannot be killed: " + err.Error())
	}
	<-p.ended
}

// Stop ends the process in order. It is an error when it had ended before, or does not end well.
func (p *Process) Stop() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s had ended by itself: %w: %s", p.name, orNil(p.exit), p.Output())
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-p.ended:
	case <-timer.C:
		p.Kill()
		return fmt.Errorf("%s does not stop within %v: %s", p.name, stopTimeout, p.Output())
	}
	if p.exit != nil {
		return fmt.Errorf("stop %s: %w: %s", p.name, p.exit, p.Output())
	}
	return nil
}

func orNil(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}
