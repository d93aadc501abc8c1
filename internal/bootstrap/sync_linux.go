package bootstrap

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncTree brings everything below dir to the disk, in one call for its file system.
func syncTree(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}
