package site

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of the times in /proc, USER_HZ: 10 ms on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// CPU is the processor time that a process has used, its threads together; that of its children does not count.
func CPU(pid int) (time.Duration, error) {
	st, err := readStat(fmt.Sprintf("/proc/%d/stat", pid))
	return st.own, err
}

// PostgresCPU is the processor time that the server has used, all its processes together, also those that have ended.
func (s *Site) PostgresCPU() (time.Duration, error) {
	raw, err := os.ReadFile(filepath.Join(s.folder, "postgres", "data", "postmaster.pid"))
	if err != nil {
		return 0, fmt.Errorf("find PostgreSQL's process: %w", err)
	}
	first, _, _ := strings.Cut(string(raw), "\n")
	postmaster, err := strconv.Atoi(first)
	if err != nil {
		return 0, fmt.Errorf("find PostgreSQL's process: %w", err)
	}
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	st, err := readStat(fmt.Sprintf("/proc/%d/stat", postmaster))
	if err != nil {
		return 0, err
	}
	total := st.own + st.children
	for _, path := range all {
		st, err := readStat(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errGone) {
			continue // it has ended since the list was read
		}
		if err != nil {
			return 0, err
		}
		if st.parent == postmaster {
			total += st.own
		}
	}
	return total, nil
}

var errGone = errors.New("the process has ended")

// stat is what proc(5) says of a process.
type stat struct {
	parent   int
	own      time.Duration
	children time.Duration // that have ended and were waited for
}

func readStat(path string) (st stat, err error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		if strings.Contains(err.Error(), "no such process") {
			return st, errGone
		}
		return st, err
	}
	text := string(raw)
	fields := strings.Fields(text[strings.LastIndex(text, ")")+1:]) // the name, in parentheses, may hold anything
	if len(fields) < 15 {
		return st, fmt.Errorf("%s is not as proc(5) describes it", path)
	}
	// Fields 4 and 14 to 17: ppid, utime, stime, cutime, cstime; the first two are cut off.
	var numbers [5]int
	for i, field := range []int{1, 11, 12, 13, 14} {
		if numbers[i], err = strconv.Atoi(fields[field]); err != nil {
			return st, fmt.Errorf("%s: %w", path, err)
		}
	}
	return stat{numbers[0], clockTick * time.Duration(numbers[1]+numbers[2]), clockTick * time.Duration(numbers[3]+numbers[4])}, nil
}
