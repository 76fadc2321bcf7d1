package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/factum-platform/factum/bench/ratio"
)

const (
	messageDB        = "@eventide/message-db"
	messageDBVersion = "1.3.1"
	fetchTimeout     = time.Minute
)

// writeScript writes one message per transaction. As with our writers each client has streams of its own, a stream gets ten messages,
// and each is written at its expected version. Ids are made by the server, because pgbench has no UUIDs.
const writeScript = `\set n :n + 1
\set stream (:n - 1) / 10
\set version (:n - 1) % 10 - 1
\set category :client_id % :categories
select message_store.write_message(gen_random_uuid()::varchar,
  ('file' || :category::text || '-' || :salt::text || :client_id::text || 'x' || :stream::text)::varchar,
  :type::varchar, :data::jsonb, :meta::jsonb, :version::bigint);
`

// besideMessageDB sets single-event appends against message-db's write_message, called by as many clients of pgbench as there are writers; a
// category there is what a tenant is here.
func (s *server) besideMessageDB(name string, tenants int, bar float64) ratio.Figure {
	return ratio.Figure{
		Name: name, What: fmt.Sprintf("%d writers on %s beside message-db's write_message", s.clients, plural(tenants, "tenant")),
		Unit: "appends/s", Bar: bar,
		Measure: func(ctx context.Context, rounds ratio.Rounds) (err error) {
			if err := s.installMessageDB(ctx, name); err != nil {
				return err
			}
			l, err := s.openLogs(ctx, tenants)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, l.close()) }()
			all, err := s.ready(ctx, l, s.clients)
			if err != nil {
				return err
			}
			return rounds(func(ctx context.Context) (ours, theirs float64, err error) {
				variables := eventVariables()
				variables["n"], variables["categories"] = "0", strconv.Itoa(tenants)
				variables["salt"] = all[0].id().String()[:28] // new streams in each round
				if theirs, err = s.pgbench(ctx, s.peer, writeScript, variables, "-c search_path=message_store,public"); err != nil {
					return 0, 0, err
				}
				ours, err = s.appendsPerSecond(ctx, all, nil)
				return ours, theirs, err
			})
		},
	}
}

// installMessageDB fetches message-db with npm and runs its own install script, once.
func (s *server) installMessageDB(ctx context.Context, figure string) error {
	if s.peer != "" || s.noPeer != nil {
		return s.noPeer
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return &ratio.NotMeasuredError{Why: "npm is missing"}
	}
	s.say(figure, "fetching %s %s with npm", messageDB, messageDBVersion)
	folder := filepath.Join(s.folder, "message-db")
	fetching, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	fetch := exec.CommandContext(fetching, npm, "install", "--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error",
		"--fetch-retries=1", messageDB+"@"+messageDBVersion)
	fetch.WaitDelay = time.Second // npm has children that keep the pipe
	if out, err := fetch.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.noPeer = &ratio.NotMeasuredError{Why: fmt.Sprintf("npm could not fetch %s: %v %s", messageDB, err, firstLine(out))}
		return s.noPeer
	}
	const database = "message_store"
	install := exec.CommandContext(ctx, "bash", filepath.Join(folder, "node_modules", messageDB, "database", "install.sh"))
	install.Env = append(s.environment(), "DATABASE_NAME="+database)
	if out, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("install message-db: %w: %s", err, out)
	}
	s.peer = database
	return nil
}

func firstLine(out []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}
