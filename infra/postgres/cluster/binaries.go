package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// oldest is the lowest major version that the SQL of this project is tested with.
const oldest = 15

var versionForm = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// FindBinaries returns the folder of PostgreSQL's binaries, version 15 or newer: dir if given, else the one in PATH, else
// the newest below /usr/lib/postgresql, else a download from Maven Central, which is kept for the next time.
func FindBinaries(ctx context.Context, dir string) (string, error) {
	if dir != "" {
		major, err := majorVersion(ctx, dir)
		if err != nil {
			return "", err
		}
		if major < oldest {
			return "", fmt.Errorf("cluster: PostgreSQL in %s is version %d; %d or newer is needed", dir, major, oldest)
		}
		return dir, nil
	}
	candidates, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	if path, err := exec.LookPath("postgres"); err == nil {
		candidates = append(candidates, filepath.Dir(path))
	}
	best, bestMajor := "", 0
	for _, c := range candidates { // PATH is last and wins among equals
		if major, err := majorVersion(ctx, c); err == nil && major >= oldest && major >= bestMajor {
			best, bestMajor = c, major
		}
	}
	if best != "" {
		return best, nil
	}
	return download(ctx)
}

func majorVersion(ctx context.Context, dir string) (int, error) {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return 0, fmt.Errorf("cluster: no PostgreSQL server in %s: %w", dir, err)
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return 0, fmt.Errorf("cluster: run %s: %w", filepath.Join(dir, "postgres"), err)
	}
	m := versionForm.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("cluster: %s does not say its version: %q", filepath.Join(dir, "postgres"), out)
	}
	return strconv.Atoi(string(m[1]))
}

// download fetches PostgreSQL's binaries once. The library offers no download alone, so a server is started for a moment;
// as root that start fails, after the binaries have arrived.
func download(ctx context.Context) (string, error) {
	dir, err := downloadFolder()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "bin")
	if _, err := majorVersion(ctx, bin); err == nil {
		return bin, nil
	}
	scratch, err := os.MkdirTemp("", "factum-postgresql-")
	if err != nil {
		return "", fmt.Errorf("cluster: %w", err)
	}
	port, err := freePort(ctx, filepath.Join(scratch, "port"))
	if err != nil {
		return "", err
	}
	number, err := strconv.ParseUint(port, 10, 32)
	if err != nil {
		return "", fmt.Errorf("cluster: port %s: %w", port, err)
	}
	db := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().Version(embeddedpostgres.V17).BinariesPath(dir).
		RuntimePath(filepath.Join(scratch, "run")).DataPath(filepath.Join(scratch, "data")).Port(uint32(number)).Logger(io.Discard))
	startErr := db.Start()
	if startErr == nil {
		startErr = db.Stop()
	}
	if err := os.RemoveAll(scratch); err != nil {
		return "", fmt.Errorf("cluster: %w", err)
	}
	if _, err = majorVersion(ctx, bin); err != nil {
		return "", fmt.Errorf("cluster: no PostgreSQL %d or newer was found and none could be downloaded; install it (Debian: apt-get install postgresql) or name its folder with --pg-bin: %w",
			oldest, errors.Join(err, startErr))
	}
	return bin, nil
}

// downloadFolder is where the programs are kept: in a folder that nobody else can write to, and for root one that the server's
// account can enter.
func downloadFolder() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/cache/factum/postgresql", nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cluster: there is no folder to keep a downloaded PostgreSQL in: %w; set HOME or install PostgreSQL", err)
	}
	return filepath.Join(cache, "factum", "postgresql"), nil
}
