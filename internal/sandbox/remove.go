//go:build unix

package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// namesPerRead bounds how many names of a directory are held at once.
const namesPerRead = 512

// RemoveTree removes dir and everything below it; a missing dir is no error.
// What it removes was written by functions, so it follows no symbolic link,
// needs two descriptors however deep the tree is (os.RemoveAll needs one a
// level), and opens up directories whose owner closed them. Every process that
// could write there must be gone. An immutable file stops it: setting that flag
// takes a capability that no sandbox has.
func RemoveTree(dir string) error {
	top, err := openDir(unix.AT_FDCWD, dir)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	defer top.Close()
	// Each pass empties the directories directly below top, moving theirs up
	// beside them, until nothing is left.
	lifted := 0
	for {
		progress, failed := 0, error(nil)
		err := eachName(top, func(name string) {
			if err := removeEntry(top, name, &lifted); err != nil {
				failed = errors.Join(failed, err)
				return
			}
			progress++
		})
		if err != nil {
			return fmt.Errorf("remove %s: %w", dir, err)
		}
		if progress > 0 {
			continue
		}
		if failed != nil {
			return fmt.Errorf("remove %s: %w", dir, failed)
		}
		break
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}

// removeEntry removes name in top: a file at once, a directory after its files
// were removed and its directories moved up into top.
func removeEntry(top *os.File, name string, lifted *int) error {
	at := int(top.Fd())
	if done, err := unlink(at, name); done {
		return err
	}
	dir, err := openDir(at, name)
	if err != nil {
		return err
	}
	defer dir.Close()
	var failed error
	err = eachName(dir, func(child string) {
		done, err := unlink(int(dir.Fd()), child)
		if !done {
			err = lift(dir, child, top, lifted)
		}
		failed = errors.Join(failed, err)
	})
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	return unix.Unlinkat(at, name, unix.AT_REMOVEDIR)
}

// unlink removes what is not a directory; done is false for a directory.
func unlink(at int, name string) (done bool, err error) {
	err = unix.Unlinkat(at, name, 0)
	switch {
	case err == nil || errors.Is(err, unix.ENOENT):
		return true, nil
	case errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM): // EPERM is POSIX's word for it
		return false, nil
	}
	return true, fmt.Errorf("unlink %q: %w", name, err)
}

// lift moves a directory up into top under an unused name.
func lift(from *os.File, child string, top *os.File, lifted *int) error {
	// Renaming a directory writes its "..": it must be writable for its owner.
	_ = unix.Fchmodat(int(from.Fd()), child, 0o700, 0)
	for {
		*lifted++
		err := unix.Renameat(int(from.Fd()), child, int(top.Fd()), fmt.Sprintf(".lifted-%d", *lifted))
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTDIR) {
			continue // a hostile tree has that name already
		}
		return err
	}
}

func openDir(at int, name string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(at, name, flags, 0)
	if errors.Is(err, unix.EACCES) {
		// Not a link: a link would have failed with ELOOP or ENOTDIR, and
		// nobody is left to exchange it.
		_ = unix.Fchmodat(at, name, 0o700, 0)
		fd, err = unix.Openat(at, name, flags, 0)
	}
	if err != nil {
		return nil, err
	}
	_ = unix.Fchmod(fd, 0o700)
	return os.NewFile(uintptr(fd), name), nil
}

// eachName calls f with the names in dir, read from its start.
func eachName(dir *os.File, f func(string)) error {
	if _, err := dir.Seek(0, io.SeekStart); err != nil {
		return err
	}
	for {
		names, err := dir.Readdirnames(namesPerRead)
		for _, n := range names {
			f(n)
		}
		if errors.Is(err, io.EOF) || err == nil && len(names) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// RemoveEmptyParents removes dir's parents up to, and without, top while they are empty.
func RemoveEmptyParents(dir, top string) {
	for p := filepath.Dir(dir); len(p) > len(top); p = filepath.Dir(p) {
		if unix.Rmdir(p) != nil {
			return
		}
	}
}
