package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// insertScript inserts one row of an event's columns in a transaction of its own.
const insertScript = `insert into one (kind, id, version, event_id, type, schema, data, meta)
values (:kind, :id, :version, :event_id, :type, :schema, :data, :meta);
`

var (
	progressForm = regexp.MustCompile(`(?m)^progress: [0-9.]+ s, ([0-9.]+) tps`)
	tpsForm      = regexp.MustCompile(`(?m)^tps = ([0-9.]+) \(without initial connection time\)`)
)

// eventVariables are the values of an event for a script.
func eventVariables() map[string]string {
	e := sampleEvent()
	return map[string]string{
		"kind": kind, "id": e.ID.String(), "version": "1", "event_id": e.ID.String(), "type": e.Type, "schema": "1",
		"data": string(e.Data), "meta": string(metaOf(e.Meta)),
	}
}

// pgbench runs the script on all its clients, prepared, and returns transactions per second. The first second, in which so many new
// backends fill their caches, does not count when there are more.
func (s *server) pgbench(ctx context.Context, database, script string, variables map[string]string, options string) (float64, error) {
	program := filepath.Join(s.binDir, "pgbench")
	if _, err := os.Stat(program); err != nil {
		if program, err = exec.LookPath("pgbench"); err != nil {
			return 0, fmt.Errorf("pgbench is neither in %s nor in PATH; on Debian it comes with the package postgresql", s.binDir)
		}
	}
	args := []string{"-n", "-M", "prepared", "-c", strconv.Itoa(s.clients), "-j", "2", "-f", "/dev/stdin"}
	args = append(args, s.options.pgbench...)
	for name, value := range variables {
		args = append(args, "-D", name+"="+value)
	}
	cmd := exec.CommandContext(ctx, program, append(args, database)...)
	cmd.Env = append(s.environment(), "PGOPTIONS="+options)
	cmd.Stdin = strings.NewReader(script)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("run %s: %w: %s", program, err, complaint.String())
	}
	if rates := progressForm.FindAllStringSubmatch(complaint.String(), -1); len(rates) > 1 {
		sum := 0.0
		for _, m := range rates[1:] {
			rate, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				return 0, fmt.Errorf("%s printed the rate %q: %w", program, m[1], err)
			}
			sum += rate
		}
		return sum / float64(len(rates)-1), nil
	}
	m := tpsForm.FindStringSubmatch(out.String())
	if m == nil {
		return 0, fmt.Errorf("%s printed no rate: %s", program, out.String())
	}
	return strconv.ParseFloat(m[1], 64)
}

// environment is what PostgreSQL's programs need to connect as superuser.
func (s *server) environment() []string {
	u := s.url()
	password, _ := u.User.Password()
	return []string{
		"PATH=" + s.binDir + ":" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "PGHOST=" + u.Hostname(), "PGPORT=" + u.Port(),
		"PGUSER=" + u.User.Username(), "PGPASSWORD=" + password, "PGSSLMODE=disable",
	}
}
