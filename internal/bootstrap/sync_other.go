//go:build !linux

package bootstrap

import (
	"io/fs"
	"path/filepath"
)

// syncTree brings everything below dir to the disk.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() && !d.Type().IsRegular() {
			return err
		}
		return syncFile(path)
	})
}
