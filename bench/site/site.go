// Package site is a whole platform that a bench measures or tortures: a private PostgreSQL with fsync on, an S3 server and a time-stamping
// authority of its own, the real factum program in child processes, and in this process the packages that the program is made of, on the
// same databases.
package site

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sys/unix"

	"github.com/factum-platform/factum/bench/disk"
	"github.com/factum-platform/factum/bench/ratio"
	"github.com/factum-platform/factum/infra/devstack"
	"github.com/factum-platform/factum/infra/postgres"
	"github.com/factum-platform/factum/infra/postgres/cluster"
)

const (
	// platformDatabase is what factum serve names the control plane's database, and appLogin the role that serves it.
	platformDatabase = "factum"
	appLogin         = "factum_api"

	accessKey = "factum-bench"
	bucket    = "factum"
)

// settings differ from PostgreSQL's defaults so that no checkpoint falls into a round: one is made before each figure.
var settings = map[string]string{
	"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "512MB",
	"max_wal_size": "16GB", "min_wal_size": "2GB", "checkpoint_timeout": "1h",
}

// Config says how to make a site. The zero value is usable.
type Config struct {
	Dir     string // where the site's folder is made; it must lie on a disk; "" chooses one
	BinDir  string // PostgreSQL's binaries; "" looks for them
	Program string // the factum program; "" builds it, which needs the go command
}

// Flags declares the flags that set it.
func (c *Config) Flags(flags *flag.FlagSet) {
	flags.StringVar(&c.Dir, "dir", "", "where the servers' `folder` is made; it must lie on a disk (default: a temporary folder)")
	flags.StringVar(&c.BinDir, "pg-bin", "", "`folder` of PostgreSQL's binaries (default: look for them)")
	flags.StringVar(&c.Program, "factum", "", "the factum `program` (default: build it)")
}

// Site is the servers and the settings of a platform. It is safe for concurrent use.
type Site struct {
	folder  string
	program string
	cluster *cluster.Cluster
	s3      *devstack.S3
	tsa     *devstack.TSA
	admin   *pgxpool.Pool // to the database postgres
	secret  string        // of the S3 server
}

// Start starts the servers. Programs that call it must call devstack.RunChild first in main, and in TestMain.
func Start(ctx context.Context, c Config) (_ *Site, err error) {
	s := &Site{program: c.Program}
	parent, err := disk.Folder(c.Dir)
	if err != nil {
		return nil, err
	}
	if s.folder, err = os.MkdirTemp(parent, "factum-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if s.program == "" {
		s.program = filepath.Join(s.folder, "factum")
		err = Build(ctx, s.program)
	} else {
		s.program, err = filepath.Abs(s.program)
	}
	if err != nil {
		return nil, err
	}
	s.cluster, err = cluster.Start(ctx, cluster.Config{Dir: filepath.Join(s.folder, "postgres"), BinDir: c.BinDir, Settings: settings})
	if err != nil {
		return nil, err
	}
	if s.admin, err = postgres.Open(ctx, s.DSN("postgres"), 4); err != nil {
		return nil, err
	}
	var secret [18]byte
	rand.Read(secret[:]) // never fails (Go 1.24)
	s.secret = base64.RawURLEncoding.EncodeToString(secret[:])
	if s.s3, err = devstack.StartS3(ctx, devstack.S3Config{Dir: filepath.Join(s.folder, "s3"), AccessKey: accessKey, SecretKey: s.secret}); err != nil {
		return nil, err
	}
	s.tsa, err = devstack.StartTSA(ctx, devstack.TSAConfig{Dir: filepath.Join(s.folder, "tsa"), Listen: "127.0.0.1:0"})
	return s, err
}

// Build makes the program, with the race detector if this one has it.
func Build(ctx context.Context, program string) error {
	args := []string{"build", "-o", program}
	if raceDetector {
		args = append(args, "-race")
	}
	out, err := exec.CommandContext(ctx, "go", append(args, "github.com/factum-platform/factum/cmd/factum")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build factum: %w: %s", err, out)
	}
	return nil
}

// Stop ends the servers and removes their folder. Processes of the platform are their starter's to stop, before that.
func (s *Site) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	if s.tsa != nil {
		errs = append(errs, s.tsa.Stop(ctx))
	}
	if s.s3 != nil {
		errs = append(errs, s.s3.Stop(ctx))
	}
	if s.admin != nil {
		s.admin.Close()
	}
	if s.cluster != nil {
		errs = append(errs, s.cluster.Stop(ctx))
	}
	return errors.Join(append(errs, os.RemoveAll(s.folder))...)
}

// Folder holds what the site keeps; it lies on a disk and is removed with the site.
func (s *Site) Folder() string { return s.folder }

// Admin is the superuser's pool to the database postgres.
func (s *Site) Admin() *pgxpool.Pool { return s.admin }

// DSN is the superuser's connection URL of a database.
func (s *Site) DSN(database string) string {
	u, err := url.Parse(s.cluster.DSN())
	if err != nil {
		panic("site: the cluster's DSN is not a URL") // err would print its password
	}
	u.Path = "/" + database
	return u.String()
}

// Checkpoint writes down what came before, so that it does not fall into what comes next.
func (s *Site) Checkpoint(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.DSN("postgres")) // not the pool's, whose statements end after 30 s
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	unix.Sync() // at once what the checkpoint would sync file by file: a thousand databases have three hundred thousand
	if _, err := conn.Exec(ctx, "checkpoint"); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// Vacuum leaves a database vacuumed and analysed, so that autovacuum does not begin with it in the middle of what comes next.
func (s *Site) Vacuum(ctx context.Context, database string) error {
	conn, err := pgx.Connect(ctx, s.DSN(database))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "vacuum (analyze)"); err != nil {
		return fmt.Errorf("vacuum %s: %w", database, err)
	}
	return nil
}

func (s *Site) keyring() string { return filepath.Join(s.folder, "keyring.json") }

// environment are the settings of the program. They go there and not into arguments, which other users can read.
func (s *Site) environment() []string {
	return append(os.Environ(),
		"FACTUM_DATABASE_URL="+s.DSN("postgres"), "FACTUM_KEYRING="+s.keyring(), "FACTUM_LISTEN=127.0.0.1:0", "FACTUM_LOG_LEVEL=warn",
		"FACTUM_S3_ENDPOINT=http://"+s.s3.Endpoint(), "FACTUM_S3_ACCESS_KEY="+accessKey, "FACTUM_S3_SECRET_KEY="+s.secret, "FACTUM_S3_BUCKET="+bucket,
		"FACTUM_TSA_URL="+s.tsa.URL(), "FACTUM_TSA_ROOTS="+s.tsa.RootsPath(), "FACTUM_TSA_PROVIDER=bench",
		"FACTUM_LIMIT_ADDRESS=off", "FACTUM_LIMIT_USER=off", "FACTUM_LIMIT_TENANT=off") // all load comes from one client
}

// Facts are what the numbers depend on.
func (s *Site) Facts(ctx context.Context) ([]ratio.Fact, error) {
	var version string
	if err := s.admin.QueryRow(ctx, "select current_setting('server_version')").Scan(&version); err != nil {
		return nil, err
	}
	names := []string{"max_connections", "jit", "autovacuum_naptime", "autovacuum_max_workers"}
	for name := range settings {
		names = append(names, name)
	}
	slices.Sort(names)
	rows, err := s.admin.Query(ctx, `select name || '=' || current_setting(name) from unnest($1::text[]) name`, names)
	if err != nil {
		return nil, err
	}
	set, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	sync, err := disk.SyncTime(s.folder)
	if err != nil {
		return nil, err
	}
	return []ratio.Fact{
		{Name: "server", Value: "PostgreSQL " + version + ", private, of this run; checkpoints only between figures"},
		{Name: "settings", Value: strings.Join(set, " ")},
		{Name: "machine", Value: fmt.Sprintf("%d CPUs for servers, platform and clients together, %s", runtime.NumCPU(), runtime.Version())},
		{Name: "disk", Value: fmt.Sprintf("writing and syncing 8 KiB takes %d µs (median)", sync.Microseconds())},
	}, nil
}
