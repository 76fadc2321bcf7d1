// Package disk chooses and describes the disk on which a bench keeps its database.
package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/factum-platform/factum/bench/ratio"
)

// Folder returns the folder to make a server's in: dir, or one for temporary files when dir is "". A folder in memory is refused: fsync
// would cost nothing there, and every ratio would be about something else.
func Folder(dir string) (string, error) {
	candidates := []string{os.TempDir(), "/var/tmp"}
	if dir != "" {
		candidates = []string{dir}
	}
	for _, c := range candidates {
		var fs unix.Statfs_t
		if err := unix.Statfs(c, &fs); err == nil && !inMemory(fs.Type) {
			return c, nil
		}
	}
	return "", fmt.Errorf("%s: not there or in memory, where fsync costs nothing; give a folder on a disk with --dir", strings.Join(candidates, ", "))
}

// inMemory tells whether a file system of this type (statfs(2)) keeps its files in memory.
func inMemory[T ~int32 | ~int64 | ~uint32](fileSystem T) bool {
	return int64(fileSystem) == unix.TMPFS_MAGIC || int64(fileSystem) == unix.RAMFS_MAGIC
}

// SyncTime is the median time of an 8 KiB write with fdatasync in the folder.
func SyncTime(dir string) (_ time.Duration, err error) {
	file, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	block := make([]byte, 8192)
	times := make([]time.Duration, 200)
	for i := range times {
		begun := time.Now()
		if _, err := file.WriteAt(block, int64(i%16)*8192); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(file.Fd())); err != nil {
			return 0, err
		}
		times[i] = time.Since(begun)
	}
	return ratio.Median(times), nil
}
