// Package cluster runs a private PostgreSQL cluster in a folder: for factum dev, for tests and for benches.
//
// The server must not run as root, and the folder may lie below one that only root may enter. So the data folder is opened
// here and the server inherits it as file descriptor 3 and is told that its data are in /proc/self/fd/3: the kernel follows that
// link without walking the path. (The working directory would not do: PostgreSQL 15 leaves it to find its own binary.) It listens on 127.0.0.1 only, without a Unix socket, and wants a password (SCRAM).
package cluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
)

const (
	superuser = "factum_admin"
	// here is how the server names its data folder: the descriptor that it inherits.
	here         = "/proc/self/fd/3"
	startTimeout = 90 * time.Second // crash recovery included
)

// Config describes a cluster.
type Config struct {
	Dir      string            // holds the data, the password, the port and the server's log; made when absent
	BinDir   string            // PostgreSQL's binaries; "" looks for them, see [FindBinaries]
	Settings map[string]string // of postgresql.conf, beside the ones that this package fixes
	Outlive  bool              // the server stays when this process ends; for clusters that several processes share
}

// Cluster is a running server.
type Cluster struct {
	dir    string
	dsn    string
	pid    int
	exited chan struct{} // closed when the server has ended
}

// Start makes the cluster if it is new, ends what a killed process left behind, starts the server and returns when it
// answers. A crash while it is being made leaves nothing that the next Start does not clean up.
func Start(ctx context.Context, c Config) (*Cluster, error) {
	bin, err := FindBinaries(ctx, c.BinDir)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("cluster: folder %s: %w", c.Dir, err)
	}
	// 0711: the server, another user when we are root, reaches files here from its data folder below.
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("cluster: folder %s cannot be made: %w; choose another data folder", dir, err)
	}
	account, err := serverAccount()
	if err != nil {
		return nil, err
	}
	if err := StopOrphans(ctx, dir); err != nil {
		return nil, err
	}
	password, err := initialise(ctx, dir, bin, account)
	if err != nil {
		return nil, err
	}
	port, err := freePort(ctx, filepath.Join(dir, "port"))
	if err != nil {
		return nil, err
	}
	dsn := url.URL{
		Scheme: "postgres", User: url.UserPassword(superuser, password), Host: net.JoinHostPort("127.0.0.1", port),
		Path: "/postgres", RawQuery: "sslmode=disable",
	}
	cl := &Cluster{dir: dir, dsn: dsn.String(), exited: make(chan struct{})}
	if err := cl.launch(c, bin, port, account); err != nil {
		return nil, err
	}
	if err := cl.waitReady(ctx); err != nil {
		return nil, errors.Join(err, cl.Stop(context.WithoutCancel(ctx)))
	}
	return cl, nil
}

// DSN is the superuser's connection URL of the database postgres. It holds the password.
func (c *Cluster) DSN() string { return c.dsn }

// Exited is closed when the server has ended, whoever ended it; with Config.Outlive it is closed from the start.
func (c *Cluster) Exited() <-chan struct{} { return c.exited }

// Stop ends the server: running statements are cut off, nothing committed is lost.
func (c *Cluster) Stop(ctx context.Context) error { return StopOrphans(ctx, c.dir) }

// launch starts the server under a thread of its own, because the kernel ties the parent-death signal to the thread that
// started the child, not to the process.
func (c *Cluster) launch(cfg Config, bin, port string, account *account) error {
	logFile, err := os.OpenFile(filepath.Join(c.dir, "postgres.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	defer logFile.Close() // the child has its own copy
	args := []string{
		"-D", here, "-c", "listen_addresses=127.0.0.1", "-c", "port=" + port, "-c", "unix_socket_directories=",
		"-c", "max_connections=300", "-c", "timezone=UTC", "-c", "log_timezone=UTC", "-c", "jit=off",
	}
	for name, value := range cfg.Settings {
		args = append(args, "-c", name+"="+value)
	}
	parentDeath := syscall.SIGINT // fast shutdown, also after our kill -9
	if cfg.Outlive {
		parentDeath = 0
	}
	data, err := os.Open(filepath.Join(c.dir, "data"))
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	defer data.Close() // the child has its own copy
	cmd := serverCommand(data, account, parentDeath, filepath.Join(bin, "postgres"), args...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread lives as long as the server
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		c.pid = cmd.Process.Pid
		started <- nil
		if cfg.Outlive {
			// The server is not waited for: whoever is the last to use it stops it.
			close(c.exited)
			return
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
			fmt.Fprintln(os.Stderr, "cluster: wait for PostgreSQL:", err)
		}
		close(c.exited)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("cluster: start %s: %w", cmd.Path, err)
	}
	return nil
}

func (c *Cluster) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := Ping(ctx, c.dsn)
		if err == nil {
			return nil
		}
		if !alive(c.pid) {
			return fmt.Errorf("cluster: PostgreSQL ended at once; its log %s says: %s", filepath.Join(c.dir, "postgres.log"), lastLines(filepath.Join(c.dir, "postgres.log")))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("cluster: PostgreSQL does not answer after %v: %w; see %s", startTimeout, err, filepath.Join(c.dir, "postgres.log"))
		}
	}
}

// Ping reports whether the server of the DSN answers a query.
func Ping(ctx context.Context, dsn string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// serverCommand runs a program of PostgreSQL that inherits the folder data, as account if that is given. The kernel sends it
// parentDeath when the thread that starts it ends.
func serverCommand(data *os.File, account *account, parentDeath syscall.Signal, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	if account != nil {
		// Changing the account clears the parent-death signal; setpriv sets it again after that.
		change := []string{"--reuid", account.uid, "--regid", account.gid, "--clear-groups"}
		if parentDeath != 0 {
			change = append(change, "--pdeathsig", unix.SignalName(parentDeath))
		}
		cmd = exec.Command("setpriv", append(append(change, "--", program), args...)...)
	}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{data}
	// A small environment: nothing of ours, PGDATA and the like, may change what the server does.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"}
	// A session of its own: Ctrl-C must reach only us, who then stop the server in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: parentDeath}
	return cmd
}

// initialise runs initdb in a folder that gets its name when it is complete, and returns the superuser's password.
func initialise(ctx context.Context, dir, bin string, account *account) (password string, err error) {
	data, passwordFile := filepath.Join(dir, "data"), filepath.Join(dir, "password")
	if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); err == nil {
		raw, err := os.ReadFile(passwordFile)
		if err != nil {
			return "", fmt.Errorf("cluster: the password of the cluster in %s is lost: %w", data, err)
		}
		return string(raw), sameMajor(ctx, data, bin)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("cluster: look into %s: %w", data, err)
	}
	fresh := filepath.Join(dir, "data.new")
	if err := os.RemoveAll(fresh); err != nil {
		return "", fmt.Errorf("cluster: remove what a crash left: %w", err)
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return "", fmt.Errorf("cluster: folder %s cannot be written: %w; choose another data folder", dir, err)
	}
	var secret [24]byte
	rand.Read(secret[:]) // never fails (Go 1.24)
	password = hex.EncodeToString(secret[:])
	if err := os.WriteFile(passwordFile, []byte(password), 0o600); err != nil {
		return "", fmt.Errorf("cluster: %w", err)
	}
	// initdb reads the password from a file of the server's own account.
	handOver := filepath.Join(dir, "password.initdb")
	if err := os.WriteFile(handOver, []byte(password), 0o600); err != nil {
		return "", fmt.Errorf("cluster: %w", err)
	}
	defer func() { err = errors.Join(err, os.Remove(handOver)) }()
	if account != nil {
		for _, path := range []string{fresh, handOver} {
			uid, uidErr := strconv.Atoi(account.uid)
			gid, gidErr := strconv.Atoi(account.gid)
			if err := errors.Join(uidErr, gidErr); err != nil {
				return "", fmt.Errorf("cluster: the server's account: %w", err)
			}
			if err := os.Chown(path, uid, gid); err != nil {
				return "", fmt.Errorf("cluster: hand %s to the server's account: %w", path, err)
			}
		}
	}
	freshDir, err := os.Open(fresh)
	if err != nil {
		return "", fmt.Errorf("cluster: %w", err)
	}
	defer freshDir.Close()
	cmd := serverCommand(freshDir, account, syscall.SIGKILL, filepath.Join(bin, "initdb"), "-D", here, "-U", superuser, "--auth=scram-sha-256",
		"--pwfile="+here+"/../password.initdb", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions")
	runtime.LockOSThread() // the parent-death signal is tied to this thread
	out, err := cmd.CombinedOutput()
	runtime.UnlockOSThread()
	if err != nil {
		return "", fmt.Errorf("cluster: initdb: %w: %s", err, strings.TrimSpace(string(out)))
	}
	if err := os.Rename(fresh, data); err != nil {
		return "", fmt.Errorf("cluster: %w", err)
	}
	return password, nil
}

// sameMajor refuses binaries of another major version than the one that made the cluster: PostgreSQL would, less clearly.
func sameMajor(ctx context.Context, data, bin string) error {
	raw, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	made := strings.TrimSpace(string(raw))
	major, err := majorVersion(ctx, bin)
	if err != nil {
		return err
	}
	if made != strconv.Itoa(major) {
		return fmt.Errorf("cluster: the data in %s were made by PostgreSQL %s, the binaries in %s are %d; give matching ones with --pg-bin, or begin anew with --reset", data, made, bin, major)
	}
	return nil
}

// account is a numeric user and group.
type account struct{ uid, gid string }

// serverAccount is who runs the server: nil for ourselves; when we are root, the user postgres, else nobody.
func serverAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	if _, err := exec.LookPath("setpriv"); err != nil {
		return nil, fmt.Errorf("cluster: PostgreSQL refuses to run as root, and setpriv (Debian: util-linux), which changes the account, is missing: %w", err)
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			return &account{u.Uid, u.Gid}, nil
		}
	}
	return nil, errors.New("cluster: PostgreSQL refuses to run as root and there is no user postgres or nobody to run it as; add one, or start as another user")
}

// freePort returns the port in file if it is free, else a free one, which it writes there.
func freePort(ctx context.Context, file string) (string, error) {
	var lc net.ListenConfig
	want := "0"
	if raw, err := os.ReadFile(file); err == nil {
		want = strings.TrimSpace(string(raw))
	}
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:"+want)
	if err != nil {
		if ln, err = lc.Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
			return "", fmt.Errorf("cluster: find a free port: %w", err)
		}
	}
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err := errors.Join(err, ln.Close()); err != nil {
		return "", fmt.Errorf("cluster: find a free port: %w", err)
	}
	if err := os.WriteFile(file, []byte(port), 0o600); err != nil {
		return "", fmt.Errorf("cluster: remember the port: %w", err)
	}
	return port, nil
}

func lastLines(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return strings.Join(lines[max(0, len(lines)-4):], " | ")
}
