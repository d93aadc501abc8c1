package artifact

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncTree brings everything below path to the disk. One call for the file system
// is far cheaper than one for each of thousands of files.
func syncTree(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}
