package devstack

import (
	"fmt"
	"os"
)

// childRole is the environment variable that makes this binary play a server's role; see [RunChild].
const childRole = "FACTUM_CHILD"

// RunChild plays the role of a child process if this process was started as one, and then reports true: the caller must
// return at once. Call it first in main and in TestMain of packages that start an S3 server.
func RunChild() bool {
	switch os.Getenv(childRole) {
	case "":
		return false
	case "s3":
		if err := runS3Child(); err != nil {
			fmt.Fprintln(os.Stderr, "devstack: S3 server:", err)
			os.Exit(1)
		}
	default:
		fmt.Fprintf(os.Stderr, "devstack: unknown role %q in %s\n", os.Getenv(childRole), childRole)
		os.Exit(1)
	}
	return true
}
