package pid1

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// DirError is what Exec says of a working directory that is none.
type DirError struct {
	Text string
	Err  error // why, or nil
}

func (e *DirError) Error() string { return e.Text }

func (e *DirError) Unwrap() error { return e.Err }

// Look is for where a command is about to be executed: it checks the working directory, and returns the program's path, looked for on the
// environment's PATH when it has no slash.
func Look(path, dir string, env []string) (string, error) {
	if dir != "" {
		switch info, err := os.Stat(dir); {
		case !filepath.IsAbs(dir):
			return "", &DirError{fmt.Sprintf("the working directory '%s' is invalid, it needs to be an absolute path", dir), nil}
		case err != nil:
			return "", &DirError{"the working directory doesn't exist: " + dir, err}
		case !info.IsDir():
			return "", &DirError{"the working directory is not a directory: " + dir, syscall.ENOTDIR}
		}
	}
	if strings.Contains(path, "/") {
		return path, nil
	}
	search := ""
	for _, v := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(v, "PATH="); ok {
			search = value
			break
		}
	}
	for folder := range strings.SplitSeq(search, ":") {
		if !filepath.IsAbs(folder) {
			continue
		}
		full := filepath.Join(folder, path)
		if info, err := os.Stat(full); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return full, nil
		}
	}
	return "", &exec.Error{Name: path, Err: exec.ErrNotFound}
}
