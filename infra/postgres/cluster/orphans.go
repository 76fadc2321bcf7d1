package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// StopOrphans ends every PostgreSQL process whose data lie in dir, whoever started it, and waits until they are gone: first in
// order (SIGINT, fast shutdown), after ten seconds at once (SIGQUIT), then by force. A folder without any is no error.
func StopOrphans(ctx context.Context, dir string) error {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	// The server's working directory is its data folder, which tells it from every other process; a pid file cannot, because
	// pids are used again.
	data := filepath.Join(abs, "data")
	if resolved, err := filepath.EvalSymlinks(data); err == nil {
		data = resolved
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	begun := time.Now()
	sent := map[int]syscall.Signal{}
	for {
		procs, err := processesIn(data)
		if err != nil {
			return err
		}
		if len(procs) == 0 {
			return nil
		}
		signal := syscall.SIGINT
		switch waited := time.Since(begun); {
		case waited > 15*time.Second:
			signal = syscall.SIGKILL
		case waited > 10*time.Second:
			signal = syscall.SIGQUIT
		}
		for _, p := range procs {
			// The postmaster ends its children. Without it they notice by themselves, but slowly.
			if (p.parentInside && signal != syscall.SIGKILL) || sent[p.pid] == signal {
				continue
			}
			send := signal
			if !p.postmaster && signal == syscall.SIGINT {
				send = syscall.SIGQUIT // a lone backend takes SIGINT as "cancel the query"
			}
			if err := syscall.Kill(p.pid, send); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("cluster: stop PostgreSQL process %d that was left in %s: %w", p.pid, data, err)
			}
			sent[p.pid] = signal
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("cluster: PostgreSQL in %s is still stopping: %w", data, ctx.Err())
		}
	}
}

type process struct {
	pid          int
	parentInside bool // its parent is one of the same cluster
	postmaster   bool
}

// processesIn lists the living PostgreSQL processes whose working directory is data.
func processesIn(data string) ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("cluster: list processes: %w", err)
	}
	parents := map[int]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cwd, err := os.Readlink(filepath.Join("/proc", e.Name(), "cwd"))
		if err != nil || cwd != data {
			continue // gone meanwhile, or another user's
		}
		name, parent, state := stat(pid)
		if strings.HasPrefix(name, "postgres") && state != "Z" {
			parents[pid] = parent
		}
	}
	postmaster := postmasterPID(data)
	out := make([]process, 0, len(parents))
	for pid, parent := range parents {
		_, inside := parents[parent]
		out = append(out, process{pid, inside, pid == postmaster})
	}
	return out, nil
}

// postmasterPID reads the first line of postmaster.pid, 0 when there is none.
func postmasterPID(data string) int {
	raw, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) || err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(raw), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return 0
	}
	return pid
}

// stat reads name, parent and state of a process (proc(5)); a process that is gone has none.
func stat(pid int) (name string, parent int, state string) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, ""
	}
	open, end := strings.IndexByte(string(raw), '('), strings.LastIndexByte(string(raw), ')')
	if open < 0 || end < open {
		return "", 0, ""
	}
	fields := strings.Fields(string(raw[end+1:]))
	if len(fields) < 2 {
		return "", 0, ""
	}
	parent, err = strconv.Atoi(fields[1])
	if err != nil {
		return "", 0, ""
	}
	return string(raw[open+1 : end]), parent, fields[0]
}

// alive tells whether the process exists and is not a zombie.
func alive(pid int) bool {
	_, _, state := stat(pid)
	return state != "" && state != "Z"
}
