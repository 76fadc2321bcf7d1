package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// running is a started factum.
type running struct {
	t      *testing.T
	args   string
	cmd    *exec.Cmd
	output *bytes.Buffer // may be read when done is closed
	done   chan struct{}

	mu      sync.Mutex
	waiting map[string]chan struct{} // by the word that a line is to hold
}

// startFactum starts the real program and returns when it prints a line that holds the words.
func startFactum(t *testing.T, until string, args ...string) *running {
	t.Helper()
	p := launchFactum(t, args...)
	p.await(p.told(until))
	return p
}

// launchFactum starts the real program and does not wait.
func launchFactum(t *testing.T, args ...string) *running {
	t.Helper()
	exe, err := program()
	must(t, err)
	return launch(t, exec.Command(exe, args...))
}

// launchFactumKilledAt is launchFactum with an end by kill -9 at a step of a move or an import.
func launchFactumKilledAt(t *testing.T, step string, args ...string) *running {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), killAtStep+"="+step)
	return launch(t, cmd)
}

func launch(t *testing.T, cmd *exec.Cmd) *running {
	t.Helper()
	p := &running{
		t: t, args: strings.Join(cmd.Args[1:], " "), cmd: cmd, output: &bytes.Buffer{}, done: make(chan struct{}), waiting: map[string]chan struct{}{},
	}
	pipe, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = p.cmd.Stdout
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		for lines := bufio.NewScanner(pipe); lines.Scan(); {
			p.heard(lines.Text())
		}
	}()
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			p.kill(syscall.SIGKILL)
		}
	})
	return p
}

func (p *running) heard(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(p.output, line)
	for words, told := range p.waiting {
		if strings.Contains(line, words) {
			close(told)
			delete(p.waiting, words)
		}
	}
}

// said is all that the program has printed so far.
func (p *running) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// told is closed when the program has printed, or prints, a line that holds the words.
func (p *running) told(words string) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	told := make(chan struct{})
	if strings.Contains(p.output.String(), words) {
		close(told)
	} else {
		p.waiting[words] = told
	}
	return told
}

// await fails the test when the program ends or takes too long.
func (p *running) await(told <-chan struct{}) {
	p.t.Helper()
	select {
	case <-told:
	case <-p.done:
		p.t.Fatalf("factum %s ended: %s", p.args, p.output)
	case <-time.After(2 * time.Minute):
		p.kill(syscall.SIGKILL)
		p.t.Fatalf("factum %s does not come to that: %s", p.args, p.output)
	}
}

// kill sends the signal, waits for the end and returns the exit code, -1 for a death by signal.
func (p *running) kill(s syscall.Signal) int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Error(err)
	}
	<-p.done
	var exit *exec.ExitError
	if err := p.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		p.t.Error(err)
	}
	return p.cmd.ProcessState.ExitCode()
}

func startDevOn(t *testing.T, data string, args ...string) (*running, devInfo) {
	t.Helper()
	p := startFactum(t, "ready ", append([]string{"dev", "--listen", "127.0.0.1:0", "--data", data}, args...)...)
	info, err := readDevInfo(data)
	if err != nil || info.BaseURL == "" {
		t.Fatal(info.BaseURL, err)
	}
	return p, info
}

// tenantClient registers a person, logs in and creates a tenant.
func tenantClient(t *testing.T, info devInfo) (*demoClient, string) {
	t.Helper()
	c := &demoClient{base: info.BaseURL}
	email := fmt.Sprintf("person-%d@example.com", time.Now().UnixNano())
	var out struct {
		AccessToken string `json:"access_token"`
		Data        struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	must(t, c.call(t.Context(), "POST", "/api/auth/register", map[string]string{"first_name": "Mina", "last_name": "Okoro", "email": email, "password": "stator coil 7"}, nil))
	must(t, c.call(t.Context(), "POST", "/api/auth/login", map[string]string{"email": email, "password": "stator coil 7"}, &out))
	c.token = out.AccessToken
	must(t, c.call(t.Context(), "POST", "/api/tenants", map[string]string{"name": "North Mill"}, &out))
	return c, out.Data.ID
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type acknowledged struct {
	document, file string
	content        []byte
}

func uploadOne(ctx context.Context, base, token, tenant string, n int) (acknowledged, error) {
	c := &demoClient{base: base, token: token}
	content := bytes.Repeat(fmt.Appendf(nil, "content %d\n", n), 200)
	var out struct {
		Data struct {
			ID     string `json:"id"`
			FileID string `json:"file_id"`
		} `json:"data"`
	}
	err := c.upload(ctx, "/api/tenants/"+tenant+"/documents", fmt.Sprintf("report %d.txt", n), content, &out)
	return acknowledged{out.Data.ID, out.Data.FileID, content}, err
}

type stampView struct {
	Data struct {
		Stamp struct {
			Status      string `json:"status"`
			NextAttempt string `json:"next_attempt"`
		} `json:"tsa_timestamp"`
	} `json:"data"`
}

func awaitStamped(t *testing.T, c *demoClient, tenant, file string) {
	t.Helper()
	deadline := time.After(90 * time.Second)
	for tick := time.Tick(100 * time.Millisecond); ; {
		var view stampView
		must(t, c.call(t.Context(), "GET", "/api/tenants/"+tenant+"/files/"+file+"/timestamp", nil, &view))
		if view.Data.Stamp.Status == "success" {
			return
		}
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("file %s is still %+v", file, view.Data.Stamp)
		}
	}
}

// TestNothingAcknowledgedIsLost kills the whole platform in the middle of 200 uploads, starts it again and asks for all of them;
// then it removes everything that can be computed again and asks once more.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	p, info := startDevOn(t, data)
	c, tenant := tenantClient(t, info)
	const total, killAt = 200, 90
	var (
		mu    sync.Mutex
		acked []acknowledged
		wg    sync.WaitGroup
		next  = make(chan int)
		dead  = make(chan struct{})
	)
	for range 8 {
		wg.Go(func() {
			for n := range next {
				up, err := uploadOne(t.Context(), info.BaseURL, c.token, tenant, n)
				if err != nil {
					continue // after the kill
				}
				mu.Lock()
				if acked = append(acked, up); len(acked) == killAt {
					close(dead)
				}
				mu.Unlock()
			}
		})
	}
	wg.Go(func() {
		<-dead
		p.kill(syscall.SIGKILL)
	})
	for n := range total {
		next <- n
	}
	close(next)
	wg.Wait()
	if len(acked) < killAt || len(acked) == total {
		t.Fatalf("%d uploads were acknowledged; the kill came too late or never", len(acked))
	}

	p, info = startDevOn(t, data)
	c.base = info.BaseURL
	checkAll := func() {
		t.Helper()
		listed := map[string]bool{}
		for page := 1; ; page++ {
			var out struct {
				Data struct {
					Documents []struct {
						ID string `json:"id"`
					} `json:"documents"`
					Pagination struct {
						Pages int `json:"pages"`
					} `json:"pagination"`
				} `json:"data"`
			}
			must(t, c.call(t.Context(), "GET", fmt.Sprintf("/api/tenants/%s/documents?per_page=100&page=%d", tenant, page), nil, &out))
			for _, d := range out.Data.Documents {
				listed[d.ID] = true
			}
			if page >= out.Data.Pagination.Pages {
				break
			}
		}
		for _, up := range acked {
			if !listed[up.document] {
				t.Fatalf("document %s was acknowledged and is not listed", up.document)
			}
			got, err := c.fetch(t.Context(), "/api/tenants/"+tenant+"/documents/"+up.document+"/download")
			if err != nil || !bytes.Equal(got, up.content) {
				t.Fatalf("document %s came back changed: %v", up.document, err)
			}
			awaitStamped(t, c, tenant, up.file)
		}
	}
	checkAll()
	awaitNoPending(t, c, tenant) // of uploads that were recorded and not acknowledged
	before := answers(t, c, tenant)

	if code := p.kill(syscall.SIGTERM); code != 0 {
		t.Fatalf("SIGTERM: exit code %d: %s", code, p.output)
	}
	p, info = startDevOn(t, data)
	c.base = info.BaseURL
	forgetReadModels(t, info.DatabaseURL)
	p.kill(syscall.SIGKILL) // so that nothing repairs them while it still runs
	p, info = startDevOn(t, data)
	c.base = info.BaseURL
	awaitAnswers(t, c, tenant, before)
	checkAll()
	if code := p.kill(syscall.SIGINT); code != 0 {
		t.Fatalf("SIGINT: exit code %d: %s", code, p.output)
	}
	if left := leftRunning(t, data); left != "" {
		t.Fatalf("still running: %s", left)
	}
}

func awaitNoPending(t *testing.T, c *demoClient, tenant string) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	for tick := time.Tick(100 * time.Millisecond); ; {
		var status struct {
			Data struct {
				Pending int `json:"pending_timestamps"`
			} `json:"data"`
		}
		must(t, c.call(t.Context(), "GET", "/api/tenants/"+tenant+"/tsa/status", nil, &status))
		if status.Data.Pending == 0 {
			return
		}
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("%d time-stamps are still pending", status.Data.Pending)
		}
	}
}

// answers asks every kind of query.
func answers(t *testing.T, c *demoClient, tenant string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, path := range queries(tenant) {
		raw, err := c.fetch(t.Context(), path)
		must(t, err)
		out[path] = string(raw)
	}
	return out
}

func queries(tenant string) []string {
	return []string{
		"/api/users/me", "/api/users/me/tenants", "/api/tenants", "/api/tenants/" + tenant,
		"/api/tenants/" + tenant + "/documents?per_page=100", "/api/tenants/" + tenant + "/documents?per_page=7&page=3",
		"/api/tenants/" + tenant + "/tsa/status", "/api/tenants/" + tenant + "/audit?per_page=100", "/api/tenants/" + tenant + "/audit?per_page=100&page=4",
		"/api/files/" + tenant + "/files?include_stats=true&per_page=100",
	}
}

// awaitAnswers waits until the rebuilt read models give the very answers that the old ones gave.
func awaitAnswers(t *testing.T, c *demoClient, tenant string, want map[string]string) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	for tick := time.Tick(200 * time.Millisecond); ; {
		different := ""
		for _, path := range queries(tenant) {
			raw, err := c.fetch(t.Context(), path)
			if err != nil || string(raw) != want[path] {
				different = fmt.Sprintf("%s\nnow  %s %v\nonce %s", path, raw, err, want[path])
				break
			}
		}
		if different == "" {
			return
		}
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("a rebuilt read model gives another answer: %.2000s", different)
		}
	}
}

// forgetReadModels deletes all rows of all read models and all checkpoints, in every database.
func forgetReadModels(t *testing.T, dsn string) {
	t.Helper()
	names := queryNames(t, dsn, `select datname from pg_database where datname = 'factum' or (datname like 'tenant\_%')`)
	if len(names) < 2 {
		t.Fatalf("databases: %v", names)
	}
	for _, name := range names {
		u, err := url.Parse(dsn)
		must(t, err)
		u.Path = "/" + name
		tables := queryNames(t, u.String(), `select format('%I.%I', schemaname, tablename) from pg_tables where schemaname ~ '_g[0-9]+$' or schemaname = 'proj'`)
		if len(tables) < 4 {
			t.Fatalf("read models of %s: %v", name, tables)
		}
		conn, err := pgx.Connect(t.Context(), u.String())
		must(t, err)
		_, err = conn.Exec(t.Context(), "truncate "+strings.Join(tables, ", "))
		must(t, err)
		must(t, conn.Close(t.Context()))
	}
}

func queryNames(t *testing.T, dsn, sql string) []string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	must(t, err)
	defer conn.Close(context.Background())
	rows, err := conn.Query(t.Context(), sql)
	must(t, err)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(t, err)
	return names
}

// leftRunning names processes whose working directory lies in the data folder.
func leftRunning(t *testing.T, data string) string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	must(t, err)
	for _, link := range links {
		if at, err := os.Readlink(link); err == nil && strings.HasPrefix(at, data) {
			return link + " in " + at
		}
	}
	return ""
}

// TestTSADown: the upload succeeds, the next attempt can be seen, and the stamp comes through when the authority is back.
func TestTSADown(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	p, info := startDevOn(t, data)
	roots := info.TSARoots
	c, tenant := tenantClient(t, info)
	p.kill(syscall.SIGTERM)

	p, info = startDevOn(t, data, "--tsa-url", "http://127.0.0.1:1/", "--tsa-roots", roots)
	c.base = info.BaseURL
	up, err := uploadOne(t.Context(), info.BaseURL, c.token, tenant, 1)
	must(t, err)
	deadline := time.After(30 * time.Second)
	for tick := time.Tick(50 * time.Millisecond); ; {
		var view stampView
		must(t, c.call(t.Context(), "GET", "/api/tenants/"+tenant+"/files/"+up.file+"/timestamp", nil, &view))
		raw, err := c.fetch(t.Context(), "/api/tenants/"+tenant+"/audit?per_page=100")
		must(t, err)
		if view.Data.Stamp.Status == "pending" && view.Data.Stamp.NextAttempt != "" && bytes.Contains(raw, []byte("file.timestamp_failed")) {
			break
		}
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("%+v %s", view.Data.Stamp, raw)
		}
	}
	p.kill(syscall.SIGTERM)
	p, info = startDevOn(t, data)
	c.base = info.BaseURL
	awaitStamped(t, c, tenant, up.file)

	t.Run("a second start on the same folder says so", func(t *testing.T) {
		out := refusedStart(t, "dev", "--listen", "127.0.0.1:0", "--data", data)
		if !strings.Contains(out, "already running") || !strings.Contains(out, info.BaseURL) {
			t.Fatal(out)
		}
	})
	t.Run("dev.json is complete and private", func(t *testing.T) {
		path := filepath.Join(data, "dev.json")
		stat, err := os.Stat(path)
		if err != nil || stat.Mode().Perm() != 0o600 {
			t.Fatal(stat.Mode(), err)
		}
		raw, err := os.ReadFile(path)
		must(t, err)
		var fields map[string]string
		must(t, json.Unmarshal(raw, &fields))
		for _, name := range []string{"base_url", "admin_email", "admin_password", "database_url", "s3_endpoint", "s3_access_key", "s3_secret_key", "s3_bucket", "tsa_url", "tsa_roots", "oidc_issuer"} {
			if fields[name] == "" {
				t.Errorf("%s is missing", name)
			}
		}
		must(t, c.call(t.Context(), "POST", "/api/auth/login", map[string]string{"email": info.AdminEmail, "password": info.AdminPassword}, nil))
	})
	outer := t // owns the processes that outlive a subtest
	t.Run("without its database it ends, and says so", func(t *testing.T) {
		pid, err := os.ReadFile(filepath.Join(data, "postgres", "data", "postmaster.pid"))
		must(t, err)
		var postmaster int
		_, err = fmt.Sscan(string(pid), &postmaster)
		must(t, err)
		must(t, syscall.Kill(postmaster, syscall.SIGKILL))
		<-p.done
		if code := p.kill(syscall.SIGTERM); code != 1 || !strings.Contains(p.output.String(), "PostgreSQL ended by itself") {
			t.Fatal(code, p.output)
		}
		p, info = startDevOn(outer, data)
		c.base = info.BaseURL
		awaitStamped(t, c, tenant, up.file)
	})
	t.Run("--reset begins anew", func(t *testing.T) {
		p.kill(syscall.SIGKILL)
		_, again := startDevOn(t, data, "--reset")
		if again.AdminPassword == info.AdminPassword {
			t.Fatal("the old password is still there")
		}
		c := &demoClient{base: again.BaseURL}
		if err := c.call(t.Context(), "POST", "/api/auth/login", map[string]string{"email": info.AdminEmail, "password": info.AdminPassword}, nil); err == nil {
			t.Fatal("the old account is still there")
		}
	})
}

// refusedStart runs factum to its end, which must be a failure, and returns its one sentence.
func refusedStart(t *testing.T, args ...string) string {
	t.Helper()
	exe, err := program()
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, exe, args...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	if lines := strings.Count(strings.TrimSpace(string(out)), "\n"); lines != 0 || regexp.MustCompile(`goroutine \d+`).Match(out) {
		t.Fatalf("not one sentence: %s", out)
	}
	return string(out)
}

func TestStartSaysWhatToDo(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer func() { must(t, ln.Close()) }()
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	empty := t.TempDir()
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"port taken":         {[]string{"dev", "--data", filepath.Join(empty, "a"), "--listen", ln.Addr().String()}, "--listen"},
		"address impossible": {[]string{"dev", "--data", filepath.Join(empty, "b"), "--listen", "192.0.2.1:1"}, "--listen"},
		"folder is a file":   {[]string{"dev", "--data", filepath.Join(file, "x")}, "--data"},
		"no PostgreSQL":      {[]string{"dev", "--data", filepath.Join(empty, "c"), "--listen", "127.0.0.1:0", "--pg-bin", empty}, "no PostgreSQL server in"},
		"half a TSA":         {[]string{"dev", "--data", filepath.Join(empty, "d"), "--tsa-url", "http://x"}, "--tsa-roots"},
	} {
		t.Run(name, func(t *testing.T) {
			if out := refusedStart(t, tc.args...); !strings.Contains(out, tc.want) {
				t.Fatal(out)
			}
		})
	}
}
